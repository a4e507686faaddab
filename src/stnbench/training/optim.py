"""Optimisers, schedules of the learning rate, and averages of weights."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from typing_extensions import override

from stnbench.core.errors import SpecError
from stnbench.spec.optimizer import (
    OPTIMIZERS,
    OUTPUTS_APART,
    SCHEDULES,
    AdamSpec,
    AdamWSpec,
    ConstantScheduleSpec,
    CosineScheduleSpec,
    OneCycleScheduleSpec,
    OptimizerSpec,
    PlateauScheduleSpec,
    RmspropSpec,
    ScheduleSpec,
    SgdSpec,
    StepScheduleSpec,
)
from stnbench.spec.result import EpochRecord

# Exponential moving average of a network's weights, which is scored in their place.


class WeightAverage:
    """Exponential moving average of all floating-point weights and running statistics of a network over its steps.

    Polyak & Juditsky 1992, in the exponential form. Counters of batch normalisation are those of the network itself.

    Args:
        network: the network on its device, as it is before the first step.
        decay: the share of the average that a step leaves; after k steps it is at most (1 + k) / (10 + k).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._decay = decay
        self._weights = [tensor.detach() for tensor in _averaged(network).values()]
        self._averages = {name: tensor.detach().clone() for name, tensor in _averaged(network).items()}

    def share(self, step: int) -> float:
        """Return the share, in [0, 1], of the new weights in the average after a step, counted from 1."""
        return 1 - min(self._decay, (1 + step) / (10 + step))

    def update(self, share: float | Tensor) -> None:
        """Update the average with a share of the weights, a number or a tensor of one element on their device."""
        averages = list(self._averages.values())
        if not isinstance(share, Tensor):
            torch._foreach_lerp_(averages, self._weights, share)
            return
        differences = torch._foreach_sub(self._weights, averages)  # noqa: SLF001 - as those with an underscore behind
        torch._foreach_mul_(differences, share.reshape(()))
        torch._foreach_add_(averages, differences)

    def state(self) -> dict[str, Tensor]:
        """Return the averages by name, for a checkpoint."""
        return self._averages

    def load(self, state: dict[str, Tensor]) -> None:
        """Load the averages of a checkpoint.

        Raises:
            KeyError: where an average is missing.
            RuntimeError: where the shapes do not fit.
        """
        with torch.no_grad():
            for name, average in self._averages.items():
                average.copy_(state[name])

    def install(self) -> None:
        """Copy the averages into the network permanently."""
        self._copy(self._averages)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the network's weights by the averages within the context, and restore them afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in _averaged(self._network).items()}
        self._copy(self._averages)
        try:
            yield
        finally:
            self._copy(own)

    def _copy(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in _averaged(self._network).items():
                tensor.copy_(values[name])


def _averaged(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


# Schedules of the learning rate: pure functions of the step and of the losses of the epochs before.
#
# They keep no state between steps, so a training that goes on from a checkpoint has the rates that it would have had
# without the break.


_ONE_CYCLE_START: Final = 1 / 25


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Time of a step, and the records known then.

    Attributes:
        step: the number of the step in the whole training, from 0.
        steps_per_epoch: the optimiser steps in an epoch.
        epochs: the epochs of the whole training.
        records: the records of the finished epochs, the first one first.
    """

    step: int
    steps_per_epoch: int
    epochs: int
    records: Sequence[EpochRecord] = ()

    @property
    def steps(self) -> int:
        """Return the number of optimiser steps of the whole training."""
        return self.steps_per_epoch * self.epochs

    @property
    def epoch(self) -> int:
        """Return the epoch of the step, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def progress(self) -> float:
        """Return the share of all steps that is over, at least 0 and below 1."""
        return self.step / self.steps


class Schedule(ABC):
    """Learning rate over a training, as multiples of that of the optimiser; built from its specification."""

    @abstractmethod
    def factor(self, time: StepTime) -> float:
        """Return the multiple of the optimiser's learning rate for a step, from 0 to 1."""


class Constant(Schedule):
    """Constant learning rate."""

    def __init__(self, spec: ConstantScheduleSpec) -> None:
        del spec

    @override
    def factor(self, time: StepTime) -> float:
        return 1.0


class OneCycle(Schedule):
    """Half a cosine from 1/25 up to 1 over the warm-up, then half a cosine down; zero would follow the last step.

    Smith 2018, arXiv 1803.09820; the cosines and the start at 1/25 are common practice.
    """

    def __init__(self, spec: OneCycleScheduleSpec) -> None:
        self._share = spec.warmup_share

    @override
    def factor(self, time: StepTime) -> float:
        progress, share = time.progress, self._share
        if progress < share:
            return _ONE_CYCLE_START + (1 - _ONE_CYCLE_START) * _rise(progress / share)
        return 1 - _rise((progress - share) / (1 - share))


class Cosine(Schedule):
    """Half a cosine from 1 down to the final share, which would follow the last step (Loshchilov & Hutter 2017)."""

    def __init__(self, spec: CosineScheduleSpec) -> None:
        self._final = spec.final_share

    @override
    def factor(self, time: StepTime) -> float:
        return self._final + (1 - self._final) * (1 - _rise(time.progress))


class Step(Schedule):
    """Learning rate that is multiplied by a factor after every ``every_epochs`` epochs."""

    def __init__(self, spec: StepScheduleSpec) -> None:
        self._spec = spec

    @override
    def factor(self, time: StepTime) -> float:
        drops: int = time.epoch // self._spec.every_epochs
        return float(self._spec.factor**drops)


class Plateau(Schedule):
    """Learning rate that is multiplied by a factor where a loss no longer improves.

    It counts as ``torch.optim.lr_scheduler.ReduceLROnPlateau`` does.
    """

    def __init__(self, spec: PlateauScheduleSpec) -> None:
        self._spec = spec

    @override
    def factor(self, time: StepTime) -> float:
        spec, best, bad, drops = self._spec, math.inf, 0, 0
        if len(time.records) < time.epoch:
            raise ValueError(f"{len(time.records)} epochs are recorded before epoch {time.epoch + 1}")
        for record in time.records[: time.epoch]:
            loss = record.validation_loss if spec.watch == "validation" else record.train_loss
            improves = loss < best * (1 - spec.threshold)
            best, bad = (loss, 0) if improves else (best, bad + 1)
            if bad > spec.patience_epochs:
                drops, bad = drops + 1, 0
        return float(spec.factor**drops)


def build_schedule(spec: ScheduleSpec) -> Schedule:
    """Return the schedule of a specification, without its warm-up.

    Raises:
        UnknownNameError: for a schedule that is not registered.
    """
    built: Schedule = SCHEDULES.implementation(spec.kind)(spec)
    return built


def learning_rate_at(spec: ScheduleSpec, *, peak: float, time: StepTime) -> float:
    """Return the learning rate of one optimiser step.

    Args:
        spec: the specification of the schedule.
        peak: the optimiser's learning rate, the largest that occurs.
        time: the time of the step.

    Raises:
        UnknownNameError: for a schedule that is not registered.
        SpecError: where a third-party schedule returns a factor that is not a finite number of at least 0.
    """
    factor = build_schedule(spec).factor(time)
    if not (math.isfinite(factor) and factor >= 0):
        problem = f"the schedule {spec.kind} gives the factor {factor} at step {time.step + 1}"
        raise SpecError(problem, remedy="it must be a finite number of at least 0")
    warmup_steps = spec.warmup_epochs * time.steps_per_epoch
    if time.step + 1 < warmup_steps:
        factor *= (time.step + 1) / warmup_steps
    return peak * factor


def _rise(share: float) -> float:
    """Return half a cosine that rises from 0 at 0 to 1 at 1."""
    return (1 - math.cos(math.pi * share)) / 2


# Optimisers with a separate learning rate for localisation networks.


FACTOR: Final = "learning_rate_factor"
"""Key of a parameter group that holds its multiple of the learning rate."""

OUTPUT: Final = "is_output"
"""Key of a parameter group that says whether it holds last layers: logits, and parameters of transformations.

Groups of optimisers with the trait ``OUTPUTS_APART`` have it.
"""

WAYS: Final = ("fused", "foreach", "capturable")
"""Keys of a parameter group that say in which way a device computes an update, without changing the update."""

Groups = Sequence[dict[str, Any]]
"""Parameters (``params``) with their multiple of the learning rate (``FACTOR``), as torch's optimisers take them."""


def build_optimizer(
    spec: OptimizerSpec,
    *,
    classifier: Iterable[nn.Parameter],
    localization: Iterable[nn.Parameter],
    outputs: Iterable[nn.Parameter] = (),
) -> Optimizer:
    """Return the optimiser over the parameters of the classifier and those of all localisation networks.

    ``set_learning_rate`` sets the rates before each step. On a GPU one kernel updates all weights where the optimiser
    has such a kernel, and can read its learning rate there (``use_tensor_rates``).

    Args:
        spec: the specification of the optimiser.
        classifier: the parameters of the classifier.
        localization: the parameters of all localisation networks.
        outputs: those of either that belong to last layers: separate groups for optimisers that require it.

    Raises:
        UnknownNameError: for an optimiser that is not registered.
        InfeasibleError: for an optimiser that this version of torch does not have.
        SpecError: for a third-party optimiser that does not extend torch's, or drops keys of its groups.
    """
    factors = ((list(classifier), 1.0), (list(localization), spec.locnet_learning_rate_factor))
    groups: list[dict[str, Any]] = [{"params": parameters, FACTOR: factor} for parameters, factor in factors]
    if OPTIMIZERS.has_trait(spec.kind, OUTPUTS_APART):
        last = {id(parameter) for parameter in outputs}
        groups = [part for group in groups for part in _apart(group, last)]
    optimizer = OPTIMIZERS.implementation(spec.kind)([group for group in groups if group["params"]], spec)
    if not isinstance(optimizer, Optimizer):
        problem = f"the optimizer {spec.kind} is {type(optimizer).__name__}"
        raise SpecError(problem, remedy="register a class that extends torch.optim.Optimizer")
    for group in optimizer.param_groups:
        if not {FACTOR, "lr"} <= group.keys():
            remedy = "hand the groups to torch.optim.Optimizer as they come, and lr among the defaults"
            raise SpecError(f"a parameter group of the optimizer {spec.kind} has no {FACTOR} or no lr", remedy=remedy)
    return optimizer


def sgd(groups: Groups, spec: SgdSpec) -> Optimizer:
    """Return torch's SGD."""
    return SGD(
        groups,
        lr=spec.learning_rate,
        momentum=spec.momentum,
        dampening=spec.dampening,
        weight_decay=spec.weight_decay,
        nesterov=spec.nesterov,
        fused=_fused(groups),
    )


def adam(groups: Groups, spec: AdamSpec) -> Optimizer:
    """Return torch's Adam."""
    return _adam(Adam, groups, spec)


def adamw(groups: Groups, spec: AdamWSpec) -> Optimizer:
    """Return torch's AdamW."""
    return _adam(AdamW, groups, spec)


def rmsprop(groups: Groups, spec: RmspropSpec) -> Optimizer:
    """Return torch's RMSprop."""
    return RMSprop(
        groups,
        lr=spec.learning_rate,
        alpha=spec.alpha,
        eps=spec.epsilon,
        weight_decay=spec.weight_decay,
        momentum=spec.momentum,
        centered=spec.centered,
        capturable=bool(_fused(groups)),  # there is no fused one; this one reads tensor rates as well
    )


def _adam(optimizer: type[Adam], groups: Groups, spec: AdamSpec | AdamWSpec) -> Optimizer:
    """Return Adam in one of its forms, which share their keys."""
    return optimizer(
        groups,
        lr=spec.learning_rate,
        betas=(spec.beta1, spec.beta2),
        eps=spec.epsilon,
        weight_decay=spec.weight_decay,
        amsgrad=spec.amsgrad,
        fused=_fused(groups),
        capturable=bool(_fused(groups)),  # else torch refuses to capture a step, also of the fused kernel
    )


def _apart(group: dict[str, Any], last: set[int]) -> Groups:
    """Return a group as two: hidden layers, and last layers."""
    parameters = group["params"]
    return [
        {**group, "params": [item for item in parameters if id(item) not in last], OUTPUT: False},
        {**group, "params": [item for item in parameters if id(item) in last], OUTPUT: True},
    ]


def _fused(groups: Groups) -> bool | None:
    """Return True where one kernel can update all weights, on a GPU; None leaves the choice to torch."""
    return True if any(parameter.is_cuda for group in groups for parameter in group["params"]) else None


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Set the learning rate of every group to its multiple of the rate."""
    for group, rate in zip(optimizer.param_groups, group_rates(optimizer, learning_rate), strict=True):
        group["lr"] = rate


def group_rates(optimizer: Optimizer, learning_rate: float) -> list[float]:
    """Return the learning rate of every group: its multiple of the rate."""
    return [learning_rate * group[FACTOR] for group in optimizer.param_groups]


def reads_tensor_rates(optimizer: Optimizer) -> bool:
    """Return whether the optimiser reads its learning rates from the device: a fused or capturable one does."""
    return all(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)


def use_tensor_rates(optimizer: Optimizer) -> list[Tensor]:
    """Make an optimiser read its learning rates from tensors on the device, one for each group, and return them.

    Writing to them sets the rate of the next step, also of one that a CUDA graph replays. The list is empty where the
    optimiser would read the rates on the host.
    """
    if not reads_tensor_rates(optimizer):
        return []
    rates = []
    for group in optimizer.param_groups:
        group["lr"] = torch.full((), float(group["lr"]), dtype=torch.float32, device=group["params"][0].device)
        rates.append(group["lr"])
    return rates


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """Return the optimiser's state as torch has it, with learning rates as numbers, for a run on any device."""
    state: dict[str, Any] = optimizer.state_dict()
    groups = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def load_optimizer_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load a state from a run on any device; the way in which this device computes an update stays.

    Tensors are laid out in memory as the weights are here: kernels that update all weights at once refuse a momentum in
    another order, which a run with ``channels_last`` or on a CPU leaves behind.

    Raises:
        ValueError: where the groups do not fit.
        KeyError: where a key is missing.
    """
    groups = [
        {**stored, **{way: own[way] for way in WAYS if way in own}}
        for stored, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for parameter, kept in optimizer.state.items():
        for key, value in kept.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                kept[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)
