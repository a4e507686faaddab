"""The training loop: epochs of steps, each epoch scored on the validation split, saved and reported."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD

from stnbench.core.errors import DivergedError
from stnbench.core.seeds import derive_seed
from stnbench.data.augmentation.augment import Augmentations, draw_augmentations
from stnbench.data.resident import DeviceImages, epoch_order, steps_per_epoch
from stnbench.diagnostics.gradients import GradientMeter
from stnbench.models.scored_network import Model
from stnbench.nn.layers import seed_dropout
from stnbench.spec.result import EpochRecord
from stnbench.spec.trial import TrialSpec
from stnbench.training.average import WeightAverage
from stnbench.training.checkpoint import Progress
from stnbench.training.diagnosis import diagnose
from stnbench.training.evaluate import Evaluation, evaluate
from stnbench.training.optim import learning_rate_at, set_learning_rate

CHECK_EVERY_STEPS: Final = 50
"""Steps between looks at the loss; each look makes the host wait for the device."""

FIRST_EPOCH_SNAPSHOTS: Final = 10
"""Of the first epoch, evenly spread from before its first step; most of what a transformer learns it learns there."""

_DIVERGED_REMEDY: Final = "lower the learning rate, or that of the localisation networks"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingRun:
    """What is trained on what.

    Attributes:
        spec: the trial; its optimiser, schedule, training and seed matter here.
        model: on its device.
        optimizer: over the model's network.
        images: on the same device.
        train: int64 (n,), rows of the images to train on, on the same device.
        validation: int64 (m,), rows of the images held out.
        average: of the network's weights, which is scored in their place; None where the last weights are.
        micro_batches: in how many parts each batch is computed, where memory is short; their gradients are added up.
    """

    spec: TrialSpec
    model: Model
    optimizer: SGD
    images: DeviceImages
    train: Tensor
    validation: Tensor
    average: WeightAverage | None = None
    micro_batches: int = 1

    @property
    def steps(self) -> int:
        """Optimiser steps in one epoch. Raises: SpecError where there is not one whole batch."""
        training = self.spec.training
        return steps_per_epoch(len(self.train), training.batch_size, training.drop_last)

    def scored(self) -> AbstractContextManager[None]:
        """While it lasts, the network has the weights that count: their average where there is one."""
        return nullcontext() if self.average is None else self.average.applied()


@dataclass(frozen=True, kw_only=True, slots=True)
class Hooks:
    """What the loop calls: ``save`` and then ``report`` after every epoch, ``should_stop`` before every step.

    ``snapshot`` is called with the number of steps taken, at ten steps of the first epoch, the first of them before any
    training, and after every epoch before ``save``.
    """

    save: Callable[[Progress], None]
    report: Callable[[EpochRecord], None]
    should_stop: Callable[[], bool]
    snapshot: Callable[[int], None] = lambda _step: None
    clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOutcome:
    """How the loop ended: ``validation`` is of the last epoch's network, None where it was stopped before its end."""

    progress: Progress
    validation: Evaluation | None


def train(run: TrainingRun, hooks: Hooks, progress: Progress) -> TrainingOutcome:
    """Train from the progress given (empty, or a checkpoint's) to the last epoch.

    Every random choice derives from the trial's seed and the epoch, so a run that goes on from a checkpoint takes the
    steps that it would have taken without the break. At the end of training the network has the weights that count.
    Raises: DivergedError when a loss or a weight is no longer a finite number; SpecError where there is not one whole
    batch to train on.
    """
    validation = None
    while progress.epochs < run.spec.training.epochs:
        started_s = hooks.clock()
        gradients = GradientMeter(run.model.network)
        with gradients.watching(run.optimizer):
            losses = _train_epoch(run, progress, hooks)
        if losses is None:
            return TrainingOutcome(progress=progress, validation=None)
        trained_s = hooks.clock()
        step = progress.step + run.steps
        with run.scored():
            validation = evaluate(run.model, run.images, run.validation)
            _require_finite_network(run, validation, step)
            hooks.snapshot(step)
            is_last = progress.epochs + 1 == run.spec.training.epochs
            ratios = gradients.ratios()
            health = diagnose(run.model, run.images, run.validation, validation, ratios, is_last=is_last)
        record = EpochRecord(
            epoch=progress.epochs + 1,
            step=step,
            train_loss=float(losses.double().mean()),
            validation_loss=validation.loss,
            validation_accuracy=validation.accuracy,
            learning_rate=_learning_rate(run, step - 1),
            train_duration_s=trained_s - started_s,
            evaluate_duration_s=hooks.clock() - trained_s,
            health=health,
        )
        progress = progress.then(record)
        hooks.save(progress)
        hooks.report(record)
    if run.average is not None:
        run.average.install()
    return TrainingOutcome(progress=progress, validation=validation or evaluate(run.model, run.images, run.validation))


def _train_epoch(run: TrainingRun, progress: Progress, hooks: Hooks) -> Tensor | None:
    """The loss of every step of one epoch, or None where it was stopped."""
    batch_size = run.spec.training.batch_size
    order = epoch_order(run.train, seed=run.spec.seed, epoch=progress.epochs)
    batches = order[: run.steps * batch_size].view(run.steps, batch_size)
    losses = torch.zeros(run.steps, device=order.device)
    augmentations = _draw_augmentations(run, epoch=progress.epochs)
    run.model.network.train()
    seed_dropout(run.model.network, derive_seed(run.spec.seed, "dropout", progress.epochs))
    snapshots = (
        () if progress.epochs else {run.steps * part // FIRST_EPOCH_SNAPSHOTS for part in range(FIRST_EPOCH_SNAPSHOTS)}
    )
    for index, batch in enumerate(batches):
        if hooks.should_stop():
            return None
        if index in snapshots:
            hooks.snapshot(index)
        set_learning_rate(run.optimizer, _learning_rate(run, progress.step + index))
        rows = slice(index * batch_size, (index + 1) * batch_size)
        losses[index] = _step(run, batch, None if augmentations is None else augmentations.rows(rows))
        if run.average is not None:
            run.average.update(progress.step + index + 1)
        if (index + 1) % CHECK_EVERY_STEPS == 0:
            _require_finite_losses(losses[: index + 1], progress.step)
    _require_finite_losses(losses, progress.step)
    return losses


def _draw_augmentations(run: TrainingRun, *, epoch: int) -> Augmentations | None:
    """What is done to every image of an epoch, in the order of its batches; None without augmentation."""
    spec = run.spec
    if spec.augment is None:
        return None
    count = run.steps * spec.training.batch_size
    return draw_augmentations(spec.augment, seed=spec.seed, epoch=epoch, count=count).to(run.images.images.device)


def _step(run: TrainingRun, batch: Tensor, augmentations: Augmentations | None) -> Tensor:
    """One step of the optimiser; the cross-entropy before it, without the transformers' penalties."""
    prepared = run.images.prepared if augmentations is None else None
    images = run.images.images[batch] if prepared is None else prepared.rows(batch)
    boxes = run.images.boxes[batch]
    if augmentations is not None:
        images, boxes = augmentations.apply(images, boxes)
    labels = run.images.labels[batch]
    run.optimizer.zero_grad()
    total = torch.zeros((), device=labels.device)
    explain = run.model.explain if prepared is None else run.model.explain_prepared
    parts = (tensor.chunk(run.micro_batches) for tensor in (images, boxes, labels))
    for part_images, part_boxes, part_labels in zip(*parts, strict=True):
        share = len(part_labels) / len(labels)
        explained = explain(part_images, part_boxes)
        loss = functional.cross_entropy(
            explained.logits, part_labels, label_smoothing=run.spec.training.label_smoothing
        )
        penalty = explained.penalty
        (share * (loss if penalty is None else loss + penalty)).backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        total += share * loss.detach()
    run.optimizer.step()
    return total


def _learning_rate(run: TrainingRun, step: int) -> float:
    spec = run.spec
    steps = spec.training.epochs * run.steps
    return learning_rate_at(spec.schedule, peak=spec.optimizer.learning_rate, step=step, steps=steps)


def _require_finite_losses(losses: Tensor, steps_before: int) -> None:
    finite = torch.isfinite(losses)
    if not bool(finite.all()):
        index = int((~finite).int().argmax())
        problem = f"the loss is {float(losses[index])} at step {steps_before + index + 1}"
        raise DivergedError(problem, remedy=_DIVERGED_REMEDY)


def _require_finite_network(run: TrainingRun, validation: Evaluation, step: int) -> None:
    """The last update shows in no training loss, and a sampler may read zeros where theta is not a number."""
    for name, parameter in run.model.network.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise DivergedError(f"the weight {name} is not finite after step {step}", remedy=_DIVERGED_REMEDY)
    if not math.isfinite(validation.loss):
        problem = f"the validation loss is {validation.loss} after step {step}"
        raise DivergedError(problem, remedy=_DIVERGED_REMEDY)
