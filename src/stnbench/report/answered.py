"""Which trial got which image right, and which cells can be compared image by image."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stnbench.report.scored import Cell, Run

ReadPredictions = Callable[[Sequence[str]], pd.DataFrame]
"""The predictions of these trials on the split at hand (``frames_columns.PREDICTION_COLUMNS``)."""

_TRIALS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pairing:
    """Two cells on their common seeds and the same images, all arrays in one order.

    Attributes:
        cell: (seeds, images) whether it is right.
        base: likewise, of what it is compared with.
        tracks: (images,) from 0 on without gaps; every image its own where they are not known.
        is_tracked: whether they are known.
    """

    cell: NDArray[np.bool_]
    base: NDArray[np.bool_]
    tracks: NDArray[np.int64]
    is_tracked: bool


class Answers:
    """The answers of some cells. What the store does not know of them is not there: see ``pairing``."""

    def __init__(self, images: pd.DataFrame, cells: Iterable[Cell], read: ReadPredictions) -> None:
        """Read them.

        Args:
            images: the sets that trials were scored on (``frames_columns.IMAGE_COLUMNS``), of the split at hand alone.
            cells: whose answers are read.
            read: from the store.
        """
        sets = images.groupby("image_set", observed=True)["track"]
        self._tracks = {str(digest): _tracks(own) for digest, own in sets}
        self._right: dict[str, NDArray[np.bool_]] = {}
        known = [run.trial_id for cell in cells for run in cell.runs if run.image_set in self._tracks]
        for start in range(0, len(known), _TRIALS_AT_ONCE):
            found = read(known[start : start + _TRIALS_AT_ONCE])
            right = found["correct"].to_numpy(dtype=bool, na_value=False)
            for trial_id, places in found.groupby("trial_id", observed=True).indices.items():
                self._right[str(trial_id)] = right[places]

    def pairing(self, cell: Cell, base: Cell) -> Pairing | None:
        """The two on the seeds of both; None where one was scored on other images, or the store cannot tell."""
        runs, bases = _by_seed(cell), _by_seed(base)
        pairs = [(runs[seed], bases[seed]) for seed in sorted(runs.keys() & bases.keys())]
        sets = {run.image_set for pair in pairs for run in pair}
        if len(sets) != 1 or any(run.trial_id not in self._right for pair in pairs for run in pair):
            return None
        tracks, is_tracked = self._tracks[str(sets.pop())]
        return Pairing(
            cell=np.array([self._right[run.trial_id] for run, _ in pairs]),
            base=np.array([self._right[run.trial_id] for _, run in pairs]),
            tracks=tracks,
            is_tracked=is_tracked,
        )


def _by_seed(cell: Cell) -> Mapping[int, Run]:
    return {run.seed: run for run in cell.runs if run.correct is not None}


def _tracks(tracks: "pd.Series[Any]") -> tuple[NDArray[np.int64], bool]:
    """The tracks of a set's images, numbered without gaps, and whether they are known."""
    if tracks.isna().any():
        return np.arange(len(tracks)), False
    return np.unique(tracks.to_numpy(dtype=np.int64), return_inverse=True)[1].astype(np.int64), True
