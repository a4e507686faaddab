"""Snapshots of what the transformers do while a network learns: eight images, watched from before the first step on.

They are one file in the folder of an attempt, ``snapshots.npy``: the images, then one record a snapshot, as two arrays
of numpy's own format one behind the other. A record holds where in the image each transformer reads a lattice of its
output (``training/sampled.py``), 5 kB, from which the picture is made when somebody asks for it. Nothing else is needed
then but the specification: neither data nor checkpoint.
"""

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stnbench.core.errors import FolderError
from stnbench.core.files import write_atomic
from stnbench.core.paths import AttemptLayout
from stnbench.core.seeds import derive_seed
from stnbench.training.loop import TrainingRun
from stnbench.training.sampled import LATTICE_SIDE, lattice, look, sampled_regions, zero_colour

PROBES: Final = 8
"""Images that are watched."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Snapshots:
    """What the transformers of a network did to its probes, at several steps of its training.

    Attributes:
        images: uint8 (probes, channels, height, width).
        steps: int64 (snapshots,), optimiser steps taken, ascending.
        epochs: int64 (snapshots,), the epoch that it was, from 1; 0 before the first step.
        fill: the colour in [0, 255] that preprocessing makes 0.
        places: int64 (transformers, 2), place and branch of each, from 1.
        points: float32 (snapshots, transformers, probes, lattice points, 2), where the output's lattice lies in the
            image, -1 and 1 at its outer edges.
    """

    images: NDArray[np.uint8]
    steps: NDArray[np.int64]
    epochs: NDArray[np.int64]
    fill: float
    places: NDArray[np.int64]
    points: NDArray[np.float32]


class SnapshotRecorder:
    """Takes snapshots of one run, and keeps them in the folder of its attempt.

    A run that goes on from a checkpoint keeps the snapshots up to it, and takes the later ones anew.

    Args:
        run: what is trained; nothing about it is changed.
        folder: of the attempt.
        earlier: the folder of the attempt that the run goes on from, or None.
        step: optimiser steps already taken.
    """

    def __init__(self, run: TrainingRun, folder: Path, *, earlier: Path | None, step: int) -> None:
        self._model = run.model
        self._path = AttemptLayout(folder).snapshots
        rows = probe_rows(run.images.labels, run.validation, seed=run.spec.seed)
        self._images, self._boxes = run.images.images[rows], run.images.boxes[rows]
        self._steps_per_epoch = run.steps
        self._points = lattice().to(rows.device)
        self._records: list[NDArray[np.void]] = []
        if earlier is not None and run.spec.transformers:
            self._records = _records_until(AttemptLayout(earlier).snapshots, step)
        self._is_watching = bool(run.spec.transformers)

    def take(self, step: int) -> None:
        """Take a snapshot after so many optimiser steps; nothing without a transformer."""
        if self._is_watching:
            regions = sampled_regions(look(self._model, self._images, self._boxes).transformers, self._points)
            record = np.zeros(1, _record_type(len(regions), len(self._images)))
            record["step"] = step
            record["epoch"] = math.ceil(step / self._steps_per_epoch)
            record["fill"] = zero_colour(self._model)
            record["places"] = [(region.place, region.branch) for region in regions]
            record["points"] = torch.stack([region.points for region in regions]).float().cpu().numpy()
            self._records = [kept for kept in self._records if kept["step"] < step] + list(record)

    def save(self) -> None:
        """Write all snapshots so far, whole or not at all. Raises: OSError."""
        if self._records:
            buffer = io.BytesIO()
            for array in (self._images.cpu().numpy(), np.array(self._records)):
                np.save(buffer, array, allow_pickle=False)
            write_atomic(self._path, buffer.getvalue())


def probe_rows(labels: Tensor, validation: Tensor, *, seed: int, count: int = PROBES) -> Tensor:
    """The rows (count,) that are watched: held out, drawn by the seed, of as many classes as can be; all if fewer.

    All cells of a seed watch the same images.
    """
    order = np.random.default_rng(derive_seed(seed, "probes")).permutation(len(validation))
    drawn = validation[torch.from_numpy(order).to(validation.device)]
    _, first = np.unique(labels[drawn].cpu().numpy(), return_index=True)
    others = np.setdiff1d(np.arange(len(drawn)), first)
    chosen = np.concatenate([np.sort(first), others])[:count]
    return drawn[torch.from_numpy(chosen).to(drawn.device)]


def read_snapshots(folder: Path) -> Snapshots:
    """The snapshots in the folder of an attempt.

    Raises: FolderError where there are none, or they cannot be read.
    """
    path = AttemptLayout(folder).snapshots
    try:
        images, records = _load(path)
        return Snapshots(
            images=images,
            steps=records["step"],
            epochs=records["epoch"],
            fill=float(records["fill"][0]),
            places=records["places"][0].astype(np.int64),
            points=records["points"],
        )
    except (OSError, ValueError, EOFError, IndexError, KeyError) as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else str(error)
        remedy = "snapshots are taken while a network with a spatial transformer is trained"
        raise FolderError(f"the snapshots {path} cannot be read ({reason})", remedy=remedy) from error


def _load(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.void]]:
    with path.open("rb") as file:
        return np.load(file, allow_pickle=False), np.load(file, allow_pickle=False)


def _records_until(path: Path, step: int) -> list[NDArray[np.void]]:
    """The records of an earlier attempt up to a step; none where they cannot be read, for pictures hold nobody up."""
    try:
        records: Iterable[NDArray[np.void]] = _load(path)[1]
        return [record for record in records if record["step"] <= step]
    except (OSError, ValueError, EOFError, KeyError, IndexError):
        return []


def _record_type(transformers: int, probes: int) -> np.dtype[np.void]:
    shape = (transformers, probes, LATTICE_SIDE**2, 2)
    numbers: list[tuple[str, str]] = [("step", "<i8"), ("epoch", "<i8"), ("fill", "<f4")]
    return np.dtype([*numbers, ("places", "<i8", (transformers, 2)), ("points", "<f4", shape)])
