"""Checkpoints: the whole state of a training run after an epoch, in one file that is complete or absent."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor, nn
from torch.optim import SGD

from stnbench.core.errors import CheckpointError, SpecError
from stnbench.core.files import write_atomic
from stnbench.data.preprocessing.preprocess import GlobalStatistics
from stnbench.spec.codec import from_json, to_json
from stnbench.spec.result import EpochRecord
from stnbench.training.average import WeightAverage
from stnbench.training.optim import load_optimizer_state

_FORMAT: Final = 2
"""Raised when the keys of the file change."""

_KEYS: Final = frozenset({"format", "trial_id", "classes", "statistics", "records", "network", "optimizer", "average"})

_REMEDY: Final = "remove the file to train from the start"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a training run has come: one record a finished epoch, from the first."""

    records: tuple[EpochRecord, ...] = ()

    @property
    def epochs(self) -> int:
        """Epochs finished."""
        return len(self.records)

    @property
    def step(self) -> int:
        """Optimiser steps taken."""
        return self.records[-1].step if self.records else 0

    def then(self, record: EpochRecord) -> "Progress":
        """One epoch further."""
        return Progress(records=(*self.records, record))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Checkpoint:
    """The state of a run after an epoch. No generator is in it: seeds derive from the epoch.

    Attributes:
        trial_id: whose it is; of a trial with views, that of the trial without them, which has the same weights.
        classes: how many logits the network has.
        statistics: of the images it was trained on, needed to score other images.
        progress: the epochs so far.
        network: weights by name.
        optimizer: the optimiser's state, as ``optim.optimizer_state`` gives it.
        average: the weights' averages by name, which are scored in their place; empty where there are none.
    """

    trial_id: str
    classes: int
    statistics: GlobalStatistics
    progress: Progress
    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Tensor] = field(default_factory=dict)

    def restore(self, network: nn.Module, optimizer: SGD, average: WeightAverage | None) -> None:
        """Put the state of training into its parts, on their devices, so that it can go on.

        Raises: CheckpointError where they do not fit.
        """
        with self._fitting():
            network.load_state_dict(self.network)
            load_optimizer_state(optimizer, self.optimizer)
            if average is not None:
                average.load(self.average)

    def restore_scored(self, network: nn.Module) -> None:
        """Put the weights that count into the network: the averages where there are any.

        Raises: CheckpointError where they do not fit.
        """
        with self._fitting():
            network.load_state_dict({**self.network, **self.average})

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            problem = f"the checkpoint of the trial {self.trial_id} does not fit its network ({error})"
            raise CheckpointError(problem, remedy=_REMEDY) from error


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file; the one before stands until the new one is whole. Raises: OSError, as when the disk is full."""
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
    }
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def read_checkpoint(path: Path, *, trial_id: str) -> Checkpoint:
    """Read the file; nothing in it is executed, and tensors come to the CPU.

    Raises: CheckpointError where the file is missing, cannot be read, or is of another trial.
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
    if not isinstance(content, dict) or content.keys() != _KEYS or content["format"] != _FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of this version of stnbench", remedy=_REMEDY)
    return content


def _check_sums(data: io.BytesIO) -> None:
    """Compare every part with its CRC-32, which torch writes and does not read.

    Raises: BadZipFile.
    """
    with ZipFile(data) as parts:
        broken = parts.testzip()
    if broken is not None:
        raise BadZipFile(f"its part {broken} has changed since it was written")
    data.seek(0)
