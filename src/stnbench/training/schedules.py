"""Schedules of the learning rate: pure functions of the step and of the losses of the epochs before.

Nothing is remembered between steps, so a training that goes on from a checkpoint has the rates that it would have had.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from stnbench.core.errors import SpecError
from stnbench.spec.optimizer import (
    SCHEDULES,
    ConstantScheduleSpec,
    CosineScheduleSpec,
    OneCycleScheduleSpec,
    PlateauScheduleSpec,
    ScheduleSpec,
    StepScheduleSpec,
)
from stnbench.spec.result import EpochRecord

_ONE_CYCLE_START: Final = 1 / 25


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """When a step is taken, and what is known then.

    Attributes:
        step: of the whole training, from 0.
        steps_per_epoch: optimiser steps in an epoch.
        epochs: of the whole training.
        records: of the epochs that are over, the first one first.
    """

    step: int
    steps_per_epoch: int
    epochs: int
    records: Sequence[EpochRecord] = ()

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.steps_per_epoch * self.epochs

    @property
    def epoch(self) -> int:
        """The epoch of the step, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def progress(self) -> float:
        """The share of all steps that is over, at least 0 and below 1."""
        return self.step / self.steps


class Schedule(ABC):
    """The learning rate over a training, as multiples of the optimiser's; built from its specification."""

    @abstractmethod
    def factor(self, time: StepTime) -> float:
        """Return the multiple of the optimiser's learning rate for a step, from 0 to 1."""


class Constant(Schedule):
    """The same rate at all times."""

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
    """Lower by a factor after every so many epochs."""

    def __init__(self, spec: StepScheduleSpec) -> None:
        self._spec = spec

    @override
    def factor(self, time: StepTime) -> float:
        drops: int = time.epoch // self._spec.every_epochs
        return float(self._spec.factor**drops)


class Plateau(Schedule):
    """Lower by a factor where a loss no longer improves, as ``torch.optim.lr_scheduler.ReduceLROnPlateau`` counts."""

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

    Raises: UnknownNameError for a schedule that is not registered.
    """
    built: Schedule = SCHEDULES.implementation(spec.kind)(spec)
    return built


def learning_rate_at(spec: ScheduleSpec, *, peak: float, time: StepTime) -> float:
    """Return the learning rate of one optimiser step.

    Args:
        spec: of the schedule.
        peak: the optimiser's learning rate, the largest that occurs.
        time: of the step.

    Raises:
        UnknownNameError: for a schedule that is not registered.
        SpecError: where a schedule from outside gives a factor that is no finite number of at least 0.
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
    """From 0 at 0 to 1 at 1 along half a cosine."""
    return (1 - math.cos(math.pi * share)) / 2
