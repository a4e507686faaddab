"""Snapshots of what the transformers do while a network learns: eight images, watched from before the first step on.

They are one file in the folder of an attempt (``snapshot_file``). A record of it holds where in the image each
transformer reads a lattice of its output (``training/sampled.py``), 5 kB, from which the picture is made when somebody
asks for it. Nothing else is needed then but the specification: neither data nor checkpoint.
"""

import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stnbench.core.files import ARRAY_ERRORS, write_atomic
from stnbench.core.paths import AttemptLayout
from stnbench.core.seeds import derive_seed
from stnbench.diagnostics.sampled import LATTICE_SIDE, lattice, look, sampled_regions, zero_colour
from stnbench.training.step import TrainingRun
from stnbench.trials.snapshot_file import load_arrays

PROBES: Final = 8
"""Images that are watched."""


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

    def take(self, step: int, loss: float = math.nan) -> None:
        """Take a snapshot after so many optimiser steps with such a training loss; nothing without a transformer."""
        if self._is_watching:
            regions = sampled_regions(look(self._model, self._images, self._boxes).transformers, self._points)
            record = np.zeros(1, _record_type(len(regions), len(self._images)))
            record["step"], record["loss"] = step, loss
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


def _records_until(path: Path, step: int) -> list[NDArray[np.void]]:
    """The records of an earlier attempt up to a step; none where they cannot be read, for pictures hold nobody up."""
    try:
        records: Iterable[NDArray[np.void]] = load_arrays(path)[1]
        return [_with_loss(record) for record in records if record["step"] <= step]
    except (*ARRAY_ERRORS, KeyError, IndexError):
        return []


def _with_loss(record: NDArray[np.void]) -> NDArray[np.void]:
    """Return a record of a version that kept no loss as one of today's; any other as it is."""
    known = record.dtype.names or ()
    if "loss" in known:
        return record
    transformers, probes = record["points"].shape[:2]
    made = np.zeros((), _record_type(transformers, probes))
    for name in known:
        made[name] = record[name]
    made["loss"] = math.nan
    whole: NDArray[np.void] = made[()]
    return whole


def _record_type(transformers: int, probes: int) -> np.dtype[np.void]:
    shape = (transformers, probes, LATTICE_SIDE**2, 2)
    numbers: list[tuple[str, str]] = [("step", "<i8"), ("epoch", "<i8"), ("fill", "<f4"), ("loss", "<f4")]
    return np.dtype([*numbers, ("places", "<i8", (transformers, 2)), ("points", "<f4", shape)])
