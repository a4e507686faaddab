"""Checkpoints: the whole state of a training run after an epoch, in one file that is complete or absent."""

import io
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

from stnbench.core.errors import CheckpointError, SpecError
from stnbench.core.files import write_atomic
from stnbench.data.preprocessing import GlobalStatistics
from stnbench.spec.codec import from_json, to_json
from stnbench.spec.result import EpochRecord
from stnbench.training.optim import WeightAverage, load_optimizer_state

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
        data = io.BytesIO(path.read_bytes())
        _check_sums(data)
        content = torch.load(data, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}", remedy="train the trial first") from error
    except Exception as error:  # a damaged file makes zipfile and torch fail in any way
        raise CheckpointError(f"the checkpoint {path} cannot be read ({error})", remedy=_REMEDY) from error
    if not isinstance(content, dict) or content.keys() - {"images"} != _KEYS or content["format"] != _FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of this version of stnbench", remedy=_REMEDY)
    return content


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
