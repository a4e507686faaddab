"""Specifications of optimisers and of learning rate schedules.

Each is a part in a registry: those of stnbench are declared here with the place of their implementation, external ones
are registered with :func:`stnbench.register`.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from stnbench.core.errors import require
from stnbench.spec.codec import Strict
from stnbench.spec.registry import Registry

OUTPUTS_APART: Final = "outputs_apart"
"""Trait of an optimiser that needs the parameters of last layers in separate groups."""

TENSOR_RATES: Final = "tensor_rates"
"""Trait of an optimiser that reads its learning rates on a GPU, so that a step can be captured as a CUDA graph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerSpec(Strict):
    """Base specification of optimisers.

    ``learning_rate`` is the largest of the training: schedules multiply it by at most 1.
    ``locnet_learning_rate_factor`` multiplies the learning rate of localisation networks.
    """

    learning_rate: float = 0.01
    locnet_learning_rate_factor: float = 1.0

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        factor = self.locnet_learning_rate_factor
        require(factor >= 0, "locnet_learning_rate_factor", factor, "at least 0")

    @property
    def kind(self) -> str:
        """Return the name of the optimiser; each specification has a field of this name."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class SgdSpec(OptimizerSpec):
    """Stochastic gradient descent as ``torch.optim.SGD`` defines it, which agrees with torch7's ``optim.sgd``.

    The gradients g of the steps are accumulated in v: v = g at the first step, then v = ``momentum`` v +
    (1 - ``dampening``) g. A step subtracts ``learning_rate`` v. By default, torch7 uses dampening = momentum, as the
    code of 2015 does: after the first steps, its momentum of 0.9 moves weights a tenth as far as undampened momentum at
    the same learning rate.
    """

    kind: Literal["sgd"] = "sgd"
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        OptimizerSpec.__post_init__(self)
        _require_share("momentum", self.momentum)
        require(0 <= self.dampening <= 1, "dampening", self.dampening, "from 0 to 1")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        require(not self.nesterov or self.momentum > 0, "nesterov", self.nesterov, "needs a momentum above 0")
        if self.momentum == 0:
            object.__setattr__(self, "dampening", 0.0)
        require(not self.nesterov or self.dampening == 0, "nesterov", self.nesterov, "needs a dampening of 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamSpec(OptimizerSpec):
    """Adam (Kingma & Ba 2015, arXiv 1412.6980) as ``torch.optim.Adam`` defines it.

    ``beta1`` and ``beta2`` are the decay factors per step of the running means of the gradient and of its square.
    ``weight_decay`` times the weights is added to the gradient, as an L2 penalty does; that of ``adamw`` is not scaled
    by the gradient's size.
    """

    kind: Literal["adam"] = "adam"
    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        _check_adam(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamWSpec(OptimizerSpec):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101), as ``torch.optim.AdamW``.

    The keys are those of ``adam``; a step multiplies the weights by 1 - ``learning_rate`` x ``weight_decay``.
    """

    kind: Literal["adamw"] = "adamw"
    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    amsgrad: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        _check_adam(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class RmspropSpec(OptimizerSpec):
    """RMSprop (Tieleman & Hinton 2012) as ``torch.optim.RMSprop``, which agrees with torch7's ``optim.rmsprop``.

    ``alpha`` is the decay factor per step of the running mean of the squared gradient; ``centered`` divides by the
    gradient's standard deviation instead of its root mean square (Graves 2013).
    """

    kind: Literal["rmsprop"] = "rmsprop"
    alpha: float = 0.99
    epsilon: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0
    centered: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        OptimizerSpec.__post_init__(self)
        _require_share("alpha", self.alpha)
        _require_share("momentum", self.momentum)
        require(self.epsilon > 0, "epsilon", self.epsilon, "above 0")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class MuonSpec(OptimizerSpec):
    """Muon (Jordan et al. 2024) for matrices, as ``torch.optim.Muon``, and AdamW for all other parameters.

    The momentum of a weight is orthogonalised by ``newton_schulz_steps`` steps before it is applied. A convolution's
    weight counts as a matrix with one row per output channel. The last layers of the classifier and of localisation
    networks, biases and the weights of normalisation layers are optimised by AdamW. Muon's steps are scaled to AdamW's
    size (Liu et al. 2025, arXiv 2502.16982), so that one learning rate and one weight decay suit both.
    """

    kind: Literal["muon"] = "muon"
    learning_rate: float = 0.001
    momentum: float = 0.95
    nesterov: bool = True
    newton_schulz_steps: int = 5
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        """Check the values."""
        _check_adam(self)
        _require_share("momentum", self.momentum)
        steps = self.newton_schulz_steps
        require(1 <= steps <= 50, "newton_schulz_steps", steps, "from 1 to 50")


OPTIMIZERS: Final = Registry("optimizer", OptimizerSpec, section="optimizer")
OPTIMIZERS.declare_each(
    {
        SgdSpec: "stnbench.training.optim:sgd",
        AdamSpec: "stnbench.training.optim:adam",
        AdamWSpec: "stnbench.training.optim:adamw",
        RmspropSpec: "stnbench.training.optim:rmsprop",
        MuonSpec: "stnbench.training.muon:muon",
    },
    traits={
        MuonSpec: [OUTPUTS_APART],
        **{spec: [TENSOR_RATES] for spec in (SgdSpec, AdamSpec, AdamWSpec, RmspropSpec)},
    },
)

AnyOptimizer = Annotated[OptimizerSpec, OPTIMIZERS]
"""Specification of any optimiser, discriminated by ``kind``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleSpec(Strict):
    """Base specification of schedules, with a linear warm-up over the first ``warmup_epochs``.

    With k steps in these epochs, the i-th step is taken at i / k of the schedule's learning rate.
    """

    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "at least 0")

    @property
    def kind(self) -> str:
        """Return the name of the schedule; each specification has a field of this name."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class ConstantScheduleSpec(ScheduleSpec):
    """Constant learning rate, as in 2015."""

    kind: Literal["constant"] = "constant"


@dataclass(frozen=True, kw_only=True, slots=True)
class OneCycleScheduleSpec(ScheduleSpec):
    """Cosine rise over ``warmup_share`` of all steps to the learning rate, then cosine decay to zero (Smith 2018)."""

    kind: Literal["one_cycle"] = "one_cycle"
    warmup_share: float = 0.3

    def __post_init__(self) -> None:
        """Check the values."""
        ScheduleSpec.__post_init__(self)
        require(0 < self.warmup_share < 1, "warmup_share", self.warmup_share, "between 0 and 1")
        none = self.warmup_epochs == 0
        require(none, "warmup_epochs", self.warmup_epochs, "this schedule warms up itself: set warmup_share")


@dataclass(frozen=True, kw_only=True, slots=True)
class CosineScheduleSpec(ScheduleSpec):
    """Cosine decay over all steps to ``final_share`` of the learning rate (Loshchilov & Hutter 2017)."""

    kind: Literal["cosine"] = "cosine"
    final_share: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        ScheduleSpec.__post_init__(self)
        require(0 <= self.final_share <= 1, "final_share", self.final_share, "from 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepScheduleSpec(ScheduleSpec):
    """Step decay: multiplication by ``factor`` after every ``every_epochs`` epochs."""

    kind: Literal["step"] = "step"
    every_epochs: int = 5
    factor: float = 0.1

    def __post_init__(self) -> None:
        """Check the values."""
        ScheduleSpec.__post_init__(self)
        require(self.every_epochs >= 1, "every_epochs", self.every_epochs, "at least 1")
        require(0 < self.factor <= 1, "factor", self.factor, "above 0, at most 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlateauScheduleSpec(ScheduleSpec):
    """Decay by ``factor`` whenever a loss has not improved for more than ``patience_epochs`` epochs.

    Defined as ``torch.optim.lr_scheduler.ReduceLROnPlateau``: an epoch improves if its loss is below 1 - ``threshold``
    times the best so far. ``watch`` selects the loss: that of the validation images, which then influence the weights
    (never test images), or that of training.
    """

    kind: Literal["plateau"] = "plateau"
    factor: float = 0.1
    patience_epochs: int = 10
    threshold: float = 1e-4
    watch: Literal["validation", "training"] = "validation"

    def __post_init__(self) -> None:
        """Check the values."""
        ScheduleSpec.__post_init__(self)
        require(0 < self.factor < 1, "factor", self.factor, "between 0 and 1")
        require(self.patience_epochs >= 0, "patience_epochs", self.patience_epochs, "at least 0")
        _require_share("threshold", self.threshold)


SCHEDULES: Final = Registry("schedule", ScheduleSpec, section="schedule")
SCHEDULES.declare_each(
    {
        ConstantScheduleSpec: "stnbench.training.optim:Constant",
        OneCycleScheduleSpec: "stnbench.training.optim:OneCycle",
        CosineScheduleSpec: "stnbench.training.optim:Cosine",
        StepScheduleSpec: "stnbench.training.optim:Step",
        PlateauScheduleSpec: "stnbench.training.optim:Plateau",
    }
)

AnySchedule = Annotated[ScheduleSpec, SCHEDULES]
"""Specification of any schedule, discriminated by ``kind``."""


def _check_adam(spec: AdamSpec | AdamWSpec | MuonSpec) -> None:
    OptimizerSpec.__post_init__(spec)
    _require_share("beta1", spec.beta1)
    _require_share("beta2", spec.beta2)
    require(spec.epsilon > 0, "epsilon", spec.epsilon, "above 0")
    require(spec.weight_decay >= 0, "weight_decay", spec.weight_decay, "at least 0")


def _require_share(key: str, share: float) -> None:
    require(0 <= share < 1, key, share, "at least 0 and below 1")
