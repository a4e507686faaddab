"""Training loop: epochs of steps, each epoch scored on the validation split, saved and reported."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from stnbench.core.errors import DivergedError
from stnbench.diagnostics.health import GradientMeter
from stnbench.spec.metrics import measure
from stnbench.spec.result import EpochRecord
from stnbench.training.checkpoint import Progress
from stnbench.training.evaluate import Evaluation, build_pass, diagnose, evaluate
from stnbench.training.step import StaticStep, TrainingRun, build_step

CHECK_EVERY_STEPS: Final = 50
"""Steps between checks of the loss; each check makes the host wait for the device."""

FIRST_EPOCH_SNAPSHOTS: Final = 10
"""Number of snapshots in the first epoch, evenly spread from before its first step; a transformer learns most there."""

LATER_SNAPSHOTS: Final = 24
"""Number of snapshots in each later epoch, times the number of epochs: a training of three epochs has eight in each."""

LOSS_STEPS: Final = 50
"""Largest number of steps of an epoch over which the loss beside a snapshot is averaged."""

_DIVERGED_REMEDY: Final = "lower the learning rate, or that of the localisation networks"


@dataclass(frozen=True, kw_only=True, slots=True)
class Hooks:
    """Callbacks of the training loop.

    Attributes:
        save: called with the progress after every epoch.
        report: called with the epoch's record after ``save``.
        should_stop: called before every step; True stops the training.
        snapshot: called with the number of steps taken and the mean training loss of the last of them (NaN before the
            first), at ten steps of the first epoch, the first of them before any training, at a few steps of later
            epochs where they are few (``LATER_SNAPSHOTS``), and after every epoch before ``save``.
        clock: returns seconds from any origin.
    """

    save: Callable[[Progress], None]
    report: Callable[[EpochRecord], None]
    should_stop: Callable[[], bool]
    snapshot: Callable[[int, float], None] = lambda _step, _loss: None
    clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOutcome:
    """Result of the training loop.

    Attributes:
        progress: the finished epochs.
        validation: the evaluation of the network after the last epoch; None where training was stopped before its end.
    """

    progress: Progress
    validation: Evaluation | None


def train(run: TrainingRun, hooks: Hooks, progress: Progress) -> TrainingOutcome:
    """Train from the given progress (empty, or that of a checkpoint) to the last epoch.

    Every random choice derives from the trial's seed and the epoch, so a run that goes on from a checkpoint takes the
    steps that it would have taken without the break. At the end of training the network has the weights that are
    scored.

    Raises:
        DivergedError: when a loss or a weight is no longer a finite number.
        SpecError: where the training split has less than one whole batch.
    """
    step = build_step(run)
    try:
        return _train(step, hooks, progress)
    finally:
        step.close()


def _train(step: StaticStep, hooks: Hooks, progress: Progress) -> TrainingOutcome:
    run, validation = step.run, None
    forward = build_pass(run.model, run.images.labels.device)
    labels = run.images.labels[run.validation].cpu().numpy()
    while progress.epochs < run.spec.training.epochs:
        started_s = hooks.clock()
        gradients = GradientMeter(run.model.network)
        losses = _train_epoch(step, gradients, progress, hooks)
        if losses is None:
            return TrainingOutcome(progress=progress, validation=None)
        trained_s = hooks.clock()
        steps = progress.step + run.steps
        with run.scored():
            validation = evaluate(run.model, run.images, run.validation, forward=forward)
            _require_finite_network(run, validation, steps)
            hooks.snapshot(steps, _recent_loss(losses))
            is_last = progress.epochs + 1 == run.spec.training.epochs
            ratios = gradients.ratios()
            health = diagnose(run.model, run.images, run.validation, validation, ratios, is_last=is_last)
        record = EpochRecord(
            epoch=progress.epochs + 1,
            step=steps,
            train_loss=float(losses.double().mean()),
            validation_loss=validation.loss,
            validation_accuracy=validation.accuracy,
            learning_rate=run.learning_rate(steps - 1, progress.records),
            train_duration_s=trained_s - started_s,
            evaluate_duration_s=hooks.clock() - trained_s,
            health=health,
            # A metric that fails is told once, with the result.
            metrics=measure(validation.probabilities, labels, warn=lambda _: None),
        )
        progress = progress.then(record)
        hooks.save(progress)
        hooks.report(record)
    if run.average is not None:
        run.average.install()
    return TrainingOutcome(progress=progress, validation=validation or evaluate(run.model, run.images, run.validation))


def _train_epoch(step: StaticStep, gradients: GradientMeter, progress: Progress, hooks: Hooks) -> Tensor | None:
    """Return the loss of every step of one epoch, or None where it was stopped."""
    steps = step.run.steps
    step.begin_epoch(progress.epochs, progress.step, progress.records)
    step.run.model.network.train()
    parts = max(1, LATER_SNAPSHOTS // step.run.spec.training.epochs) if progress.epochs else FIRST_EPOCH_SNAPSHOTS
    snapshots = {steps * part // parts for part in range(parts)}
    if progress.epochs:  # it begins where the previous epoch ended, which has a snapshot
        snapshots.discard(0)
    for index in range(steps):
        if hooks.should_stop():
            return None
        if index in snapshots:
            hooks.snapshot(progress.step + index, _recent_loss(step.losses))
        step.take()
        gradients.look()
        if (index + 1) % CHECK_EVERY_STEPS == 0:
            _require_finite_losses(step.losses, progress.step)
    _require_finite_losses(step.losses, progress.step)
    return step.losses


def _recent_loss(losses: Tensor) -> float:
    """Return the mean of the last losses of an epoch; NaN before its first step."""
    return float(losses[-LOSS_STEPS:].double().mean()) if len(losses) else math.nan


def _require_finite_losses(losses: Tensor, steps_before: int) -> None:
    finite = torch.isfinite(losses)
    if not bool(finite.all()):
        index = int((~finite).int().argmax())
        problem = f"the loss is {float(losses[index])} at step {steps_before + index + 1}"
        raise DivergedError(problem, remedy=_DIVERGED_REMEDY)


def _require_finite_network(run: TrainingRun, validation: Evaluation, step: int) -> None:
    """Raise DivergedError where a weight or the validation loss is not finite.

    The last update shows in no training loss, and a sampler may read zeros where theta is not a number.
    """
    for name, parameter in run.model.network.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise DivergedError(f"the weight {name} is not finite after step {step}", remedy=_DIVERGED_REMEDY)
    if not math.isfinite(validation.loss):
        problem = f"the validation loss is {validation.loss} after step {step}"
        raise DivergedError(problem, remedy=_DIVERGED_REMEDY)
