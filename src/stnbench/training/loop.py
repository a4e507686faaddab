"""Training loop: epochs of steps, each epoch scored on the validation split, saved and reported."""

import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stnbench.core.errors import CheckpointError, DivergedError, SpecError
from stnbench.core.files import write_atomic
from stnbench.data.preprocessing import GlobalStatistics
from stnbench.diagnostics.health import GradientMeter
from stnbench.spec.codec import from_json, to_json
from stnbench.spec.metrics import measure
from stnbench.spec.result import EpochRecord
from stnbench.training.evaluate import Evaluation, build_pass, diagnose, evaluate
from stnbench.training.optim import WeightAverage, load_optimizer_state
from stnbench.training.step import StaticStep, TrainingRun, build_step

# Checkpoints: the whole state of a training run after an epoch, in one file that is complete or absent.


_FORMAT: Final = 2
"""Version of the file, raised when its keys change."""

PERIOD_S: Final = 30.0
"""Seconds of work that a killed run may lose, where checkpoints are expensive."""

WRITE_SHARE: Final = 0.05
"""Share of a run's time that may go into checkpoints beyond one every ``PERIOD_S``.

Those of 2015's networks have 19 to 56 MB, and on a GPU an epoch may take less time than to write one.
"""

_KEYS: Final = frozenset({"format", "trial_id", "classes", "statistics", "records", "network", "optimizer", "average"})

_REMEDY: Final = "remove the file to train from the start"
_ZIP_BEGIN: Final = b"PK\3\4"
"""First bytes of a checkpoint, which torch writes as a ZIP archive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Progress of a training run: one record for each finished epoch, from the first."""

    records: tuple[EpochRecord, ...] = ()

    @property
    def epochs(self) -> int:
        """Return the number of finished epochs."""
        return len(self.records)

    @property
    def step(self) -> int:
        """Return the number of optimiser steps taken."""
        return self.records[-1].step if self.records else 0

    def then(self, record: EpochRecord) -> "Progress":
        """Return the progress with the record of one more epoch."""
        return Progress(records=(*self.records, record))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Checkpoint:
    """State of a run after an epoch, without random generators: seeds derive from the epoch.

    Attributes:
        trial_id: the trial; for a trial with views, that of the trial without them, which has the same weights.
        classes: the number of logits of the network.
        statistics: those of the training images, needed to score other images.
        progress: the epochs so far.
        network: the weights by name.
        optimizer: the optimiser's state, as ``optim.optimizer_state`` returns it.
        average: the averages of the weights by name, which are scored in place of the weights; empty where there are
            none.
        images: the digest of the training half; empty in checkpoints of older versions.
    """

    trial_id: str
    classes: int
    statistics: GlobalStatistics
    progress: Progress
    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Tensor] = field(default_factory=dict)
    images: str = ""

    def restore(self, network: nn.Module, optimizer: Optimizer, average: WeightAverage | None) -> None:
        """Load the state into the parts of a training run, on their devices, so that it can go on.

        Raises:
            CheckpointError: where they do not fit.
        """
        with self._fitting():
            network.load_state_dict(self.network)
            load_optimizer_state(optimizer, self.optimizer)
            if average is not None:
                average.load(self.average)

    def restore_scored(self, network: nn.Module) -> None:
        """Load the weights that are scored into the network: the averages where there are any.

        Raises:
            CheckpointError: where they do not fit.
        """
        with self._fitting():
            network.load_state_dict({**self.network, **self.average})

    def copied(self) -> "Checkpoint":
        """Return a copy that shares no memory with the original, whose tensors training changes."""
        return replace(
            self, network=_copied(self.network), optimizer=_copied(self.optimizer), average=_copied(self.average)
        )

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            problem = f"the checkpoint of the trial {self.trial_id} does not fit its network ({error})"
            raise CheckpointError(problem, remedy=_REMEDY) from error


class CheckpointKeeper:
    """Writer of a run's checkpoints, often enough to lose little work and seldom enough to cost little time.

    The first is written at once. A later one is written where that takes at most ``WRITE_SHARE`` of the time since the
    one before, or ``PERIOD_S`` have passed; the latest of the others is held in memory for ``flush``.

    Args:
        write: writes a checkpoint.
        clock: returns seconds from any origin.
    """

    def __init__(self, write: Callable[[Checkpoint], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._written_s: float | None = None
        self._cost_s = 0.0
        self._held: Checkpoint | None = None

    def keep(self, checkpoint: Checkpoint, *, at_once: bool = False) -> None:
        """Write the checkpoint if it is due or ``at_once`` is True, hold it in memory otherwise.

        Raises:
            OSError: where it cannot be written.
        """
        now_s = self._clock()
        since_s = float("inf") if self._written_s is None else now_s - self._written_s
        if at_once or since_s >= PERIOD_S or self._cost_s <= WRITE_SHARE * since_s:
            self._held = None
            self._write(checkpoint)
            self._written_s = self._clock()
            self._cost_s = self._written_s - now_s
        else:
            self._held = checkpoint.copied()

    def flush(self) -> None:
        """Write the checkpoint that is held, if there is one.

        Raises:
            OSError: where it cannot be written.
        """
        held, self._held = self._held, None
        if held is not None:
            self._write(held)


def _copied(value: Any) -> Any:  # noqa: ANN401 - a tree of dicts, lists and tensors, as torch makes it
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to a file; an existing file stays until the new one is complete.

    Raises:
        OSError: where it cannot be written, for example when the disk is full.
    """
    buffer = io.BytesIO()
    content = {
        "format": _FORMAT,
        "trial_id": checkpoint.trial_id,
        "classes": checkpoint.classes,
        "statistics": to_json(checkpoint.statistics),
        "records": [to_json(record) for record in checkpoint.progress.records],
        "network": checkpoint.network,
        "optimizer": checkpoint.optimizer,
        "average": checkpoint.average,
        "images": checkpoint.images,
    }
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def read_checkpoint(path: Path, *, trial_id: str) -> Checkpoint:
    """Read a checkpoint from a file, without executing any code in it, to tensors on the CPU.

    Raises:
        CheckpointError: where the file is missing, cannot be read, or belongs to another trial.
    """
    content = _read(path)
    if content["trial_id"] != trial_id:
        problem = f"the checkpoint {path} is of the trial {content['trial_id']}, not of {trial_id}"
        raise CheckpointError(problem, remedy="name the folder of an attempt of this trial")
    try:
        return Checkpoint(
            trial_id=trial_id,
            classes=content["classes"],
            statistics=from_json(GlobalStatistics, content["statistics"], where=str(path)),
            progress=Progress(
                records=tuple(from_json(EpochRecord, text, where=str(path)) for text in content["records"])
            ),
            network=content["network"],
            optimizer=content["optimizer"],
            average=content["average"],
            images=content.get("images", ""),
        )
    except SpecError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read ({error})", remedy=_REMEDY) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        data = io.BytesIO(_read_archive(path))
        _check_sums(data)
        content = torch.load(data, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}", remedy="train the trial first") from error
    except Exception as error:  # a damaged file makes zipfile and torch fail in any way
        raise CheckpointError(f"the checkpoint {path} cannot be read ({error})", remedy=_REMEDY) from error
    if not isinstance(content, dict) or content.keys() - {"images"} != _KEYS or content["format"] != _FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of this version of stnbench", remedy=_REMEDY)
    return content


def _read_archive(path: Path) -> bytes:
    """Read a ZIP archive; of another kind of file nothing is read, since it may be endless or block.

    Raises:
        BadZipFile: if the file is not a ZIP archive.
        OSError: if it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise BadZipFile("it is not a regular file")
    with path.open("rb") as file:
        begin = file.read(len(_ZIP_BEGIN))
        if begin != _ZIP_BEGIN:
            raise BadZipFile("File is not a zip file")
        return begin + file.read()


def _check_sums(data: io.BytesIO) -> None:
    """Compare every part with its CRC-32, which torch writes and does not read.

    Raises:
        BadZipFile: where a part has changed.
    """
    with ZipFile(data) as parts:
        broken = parts.testzip()
    if broken is not None:
        raise BadZipFile(f"its part {broken} has changed since it was written")
    data.seek(0)


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
        measured: returns what meters have measured since the previous epoch, as further metrics of an epoch.
    """

    save: Callable[[Progress], None]
    report: Callable[[EpochRecord], None]
    should_stop: Callable[[], bool]
    snapshot: Callable[[int, float], None] = lambda _step, _loss: None
    clock: Callable[[], float] = time.perf_counter
    measured: Callable[[], dict[str, float]] = dict


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
            metrics=measure(validation.probabilities, labels, warn=lambda _: None) | hooks.measured(),
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
