"""Specifications of optimisers and of learning rate schedules.

Each is a part in a registry: those of stnbench are declared here with the place of their implementation, external ones
are registered with :func:`stnbench.register`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from stnbench.core.errors import require
from stnbench.spec.codec import PartSpec, Strict
from stnbench.spec.registry import Registry

OUTPUTS_APART: Final = "outputs_apart"
"""Trait of an optimiser that needs the parameters of last layers in separate groups."""

TENSOR_RATES: Final = "tensor_rates"
"""Trait of an optimiser that reads its learning rates on a GPU, so that a step can be captured as a CUDA graph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerSpec(PartSpec):
    """Base specification of optimisers.

    ``learning_rate`` is the largest of the training: schedules multiply it by at most 1.
    ``locnet_learning_rate_factor`` multiplies the learning rate of localisation networks.
    """

    learning_rate: float = 0.01
    locnet_learning_rate_factor: float = 1.0

    def __post_init__(self) -> None:
        self.settle()
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        factor = self.locnet_learning_rate_factor
        require(factor >= 0, "locnet_learning_rate_factor", factor, "at least 0")


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
class ScheduleSpec(PartSpec):
    """Base specification of schedules, with a linear warm-up over the first ``warmup_epochs``.

    With k steps in these epochs, the i-th step is taken at i / k of the schedule's learning rate.
    """

    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        self.settle()
        require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "at least 0")


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
        ScheduleSpec.__post_init__(self)
        require(0 <= self.final_share <= 1, "final_share", self.final_share, "from 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepScheduleSpec(ScheduleSpec):
    """Step decay: multiplication by ``factor`` after every ``every_epochs`` epochs."""

    kind: Literal["step"] = "step"
    every_epochs: int = 5
    factor: float = 0.1

    def __post_init__(self) -> None:
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


# Specifications of data augmentation in training and of views in scoring.
#
# Augmentations are parts in a registry: that of stnbench is declared here with the place of its implementation,
# external ones are registered with :func:`stnbench.register`.


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentationSpec(PartSpec):
    """Base specification of augmentations, which vary the training images anew in every epoch."""

    def __post_init__(self) -> None:
        self.settle()

    @property
    def changes_anything(self) -> bool:
        """Return whether it can change an image; a trial drops an augmentation that changes nothing."""
        return True


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentSpec(AugmentationSpec):
    """Largest random variation of each kind; 0 disables it, and with all at 0 images are unchanged.

    Every number is drawn uniformly between minus and plus its key, anew for every image and epoch. The kinds are
    applied in the order in which they are listed here, all geometric ones in a single resampling. Points outside the
    image repeat its border, since black wedges would reveal the augmentation. There are no flips: the mirror image of a
    sign is another sign or none.

    Geometry, as the content of the image moves:
        perspective: each of the four corners moves by up to this share of the side, along x and along y.
        scale: the content is scaled by 1 + this.
        aspect: the ratio of width to height is multiplied by 1 + this at constant area.
        shear_deg: vertical lines are tilted by up to this number of degrees.
        rotation_deg: the content rotates about the centre by up to this number of degrees.
        translation: the content moves by up to this share of the side, along x and along y.
    Colour:
        gamma: levels, as shares of the brightest, are raised to the power 2 ** this, which darkens or brightens shadows
            and keeps black and white.
        brightness: all levels are multiplied by 1 + this.
        contrast: the distance of all levels from the image's mean lightness is multiplied by 1 + this.
        saturation: the distance of every pixel from its grey value is multiplied by 1 + this; for RGB images only.
        hue_deg: colours rotate about the grey axis at constant luma, in degrees; for RGB images only.
    Occlusion, applied last:
        blur: every pixel moves towards a gaussian mean of its neighbourhood by this share (sigma 1.25 pixels); a
            negative number moves it away, which sharpens.
        erase: a rectangle with sides of up to this share of the image's is filled with the image's mean colour (random
            erasing, Zhong et al. 2020; cutout, DeVries & Taylor 2017); its sides are drawn from 0 on.
    """

    kind: Literal["random"] = "random"
    perspective: float = 0.0
    scale: float = 0.0
    aspect: float = 0.0
    shear_deg: float = 0.0
    rotation_deg: float = 0.0
    translation: float = 0.0
    gamma: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue_deg: float = 0.0
    blur: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        self.settle()
        # From a quarter of the side on, the four corners may form no convex quadrilateral, which folds the image.
        require(0 <= self.perspective < 0.25, "perspective", self.perspective, "at least 0 and below 0.25")
        require(0 <= self.translation <= 1, "translation", self.translation, "from 0 to 1, a share of the side")
        require(0 <= self.shear_deg <= 60, "shear_deg", self.shear_deg, "from 0 to 60 degrees")
        for key, factor in (("scale", self.scale), ("aspect", self.aspect)):
            require(0 <= factor < 1, key, factor, "at least 0 and below 1, so that nothing shrinks to a point")
        for key, angle in (("rotation_deg", self.rotation_deg), ("hue_deg", self.hue_deg)):
            require(0 <= angle <= 180, key, angle, "from 0 to 180 degrees")
        require(0 <= self.gamma <= 4, "gamma", self.gamma, "from 0 to 4 octaves: an exponent of 16 is all black")
        colour = (("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation))
        for key, factor in colour:
            require(0 <= factor <= 1, key, factor, "from 0 to 1, so that no factor is negative")
        for key, share in (("blur", self.blur), ("erase", self.erase)):
            require(0 <= share <= 1, key, share, "from 0 to 1")

    @property
    def is_geometric(self) -> bool:
        """Return whether images are resampled."""
        return self._any("perspective", "scale", "aspect", "shear_deg", "rotation_deg", "translation")

    @property
    def is_colour(self) -> bool:
        """Return whether colours or levels are changed, apart from gamma."""
        return self._any("brightness", "contrast") or self.needs_rgb

    @property
    def needs_rgb(self) -> bool:
        """Return whether a variation is enabled that needs RGB images."""
        return self._any("saturation", "hue_deg")

    @property
    def changes_anything(self) -> bool:
        """Return whether any variation is enabled."""
        return self.is_geometric or self.is_colour or self._any("gamma", "blur", "erase")

    def _any(self, *keys: str) -> bool:
        return any(getattr(self, key) > 0 for key in keys)


AUGMENTATIONS: Final = Registry("augmentation", AugmentationSpec, section="augment")
AUGMENTATIONS.declare_each({AugmentSpec: "stnbench.data.augmentation:RandomAugmentation"})

AnyAugmentation = Annotated[AugmentationSpec, AUGMENTATIONS]
"""Specification of any augmentation, discriminated by ``kind``."""


# Views: in scoring, a network may see every image several times, each time moved slightly.


@dataclass(frozen=True, kw_only=True, slots=True)
class TtaSpec(Strict):
    """Views of an image over which class probabilities are averaged in scoring; they are never used in training.

    Every combination of a shift, a zoom and a rotation of the content is a view. The shifts are -``shift``, 0 and
    ``shift``, as shares of the side, along x and along y (0: no shift, one view); ``zooms`` are the factors of scale,
    ``rotations_deg`` the clockwise rotations about the centre in degrees. The order of views has no effect, so zooms
    and rotations are kept sorted.
    """

    kind: Literal["grid"] = "grid"
    shift: float = 0.0
    zooms: tuple[float, ...] = (1.0,)
    rotations_deg: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        self.settle()
        require(0 <= self.shift <= 0.5, "shift", self.shift, "from 0 to 0.5, a share of the side")
        fits = all(0.25 <= zoom <= 4 for zoom in self.zooms)
        require(bool(self.zooms) and fits, "zooms", list(self.zooms), "at least one, from 0.25 to 4")
        fits = all(abs(angle) <= 180 for angle in self.rotations_deg)
        require(bool(self.rotations_deg) and fits, "rotations_deg", list(self.rotations_deg), "at least one, to 180")
        require(self.count <= 200, "tta", self.count, "at most 200 of them")
        object.__setattr__(self, "zooms", _once_if_alike(sorted(self.zooms)))
        half_turns = (180.0 if angle == -180 else angle for angle in self.rotations_deg)
        object.__setattr__(self, "rotations_deg", _once_if_alike(sorted(half_turns)))

    @property
    def count(self) -> int:
        """Return the number of views."""
        return (9 if self.shift > 0 else 1) * len(self.zooms) * len(self.rotations_deg)

    @property
    def moves_anything(self) -> bool:
        """Return whether any view differs from the unchanged image."""
        return self.shift > 0 or self.zooms != (1.0,) or self.rotations_deg != (0.0,)


def _once_if_alike(values: Sequence[float]) -> tuple[float, ...]:
    """Return the values, or a single one if all are equal, since their mean is the same."""
    return tuple(values[:1] if len(set(values)) == 1 else values)
