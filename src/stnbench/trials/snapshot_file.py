"""The file that snapshots of a training are kept in, as numpy arrays: who only reads them needs no torch.

One file in the folder of an attempt, ``snapshots.npy``: the images, then one record a snapshot, as two arrays of
numpy's own format one behind the other.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stnbench.core.errors import FolderError
from stnbench.core.files import ARRAY_ERRORS
from stnbench.core.paths import AttemptLayout


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Snapshots:
    """What the transformers of a network did to its probes, at several steps of its training.

    Attributes:
        images: uint8 (probes, channels, height, width).
        steps: int64 (snapshots,), optimiser steps taken, ascending.
        epochs: int64 (snapshots,), the epoch that it was, from 1; 0 before the first step.
        losses: float32 (snapshots,), the mean training loss of the last steps; not a number where it is not known.
        fill: the colour in [0, 255] that preprocessing makes 0.
        places: int64 (transformers, 2), place and branch of each, from 1.
        points: float32 (snapshots, transformers, probes, lattice points, 2), where the output's lattice lies in the
            image, -1 and 1 at its outer edges.
    """

    images: NDArray[np.uint8]
    steps: NDArray[np.int64]
    epochs: NDArray[np.int64]
    losses: NDArray[np.float32]
    fill: float
    places: NDArray[np.int64]
    points: NDArray[np.float32]


def read_snapshots(folder: Path) -> Snapshots:
    """The snapshots in the folder of an attempt.

    Raises: FolderError where there are none, or they cannot be read.
    """
    path = AttemptLayout(folder).snapshots
    try:
        images, records = load_arrays(path)
        return Snapshots(
            images=images,
            steps=records["step"],
            epochs=records["epoch"],
            losses=_losses(records),
            fill=float(records["fill"][0]),
            places=records["places"][0].astype(np.int64),
            points=records["points"],
        )
    except (*ARRAY_ERRORS, IndexError, KeyError) as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else str(error)
        remedy = "snapshots are taken while a network with a spatial transformer is trained"
        raise FolderError(f"the snapshots {path} cannot be read ({reason})", remedy=remedy) from error


def _losses(records: NDArray[np.void]) -> NDArray[np.float32]:
    """Return the losses of records; not a number for those of versions that kept none."""
    if "loss" in (records.dtype.names or ()):
        kept: NDArray[np.float32] = records["loss"]
        return kept
    return np.full(len(records), np.nan, np.float32)


def load_arrays(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.void]]:
    """The images, and the records as they were written.

    Raises: one of ``ARRAY_ERRORS`` where they cannot be read.
    """
    with path.open("rb") as file:
        return np.load(file, allow_pickle=False), np.load(file, allow_pickle=False)
