"""The files of an attempt that are read without torch: probabilities, snapshots, specification and result."""

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from stnbench.core.errors import FolderError, SpecError
from stnbench.core.files import ARRAY_ERRORS, AttemptLayout, write_atomic
from stnbench.spec.codec import from_stored, to_json
from stnbench.spec.data import Split
from stnbench.spec.result import TrialResult
from stnbench.spec.trial import TrialSpec

# The files with the class probabilities of a finished trial, as numpy arrays, which are read without torch.
#
# There is one file per split in the folder of an attempt, ``probabilities_<split>.npy``: float16 (images, classes), in
# the order of the predictions of that split's score. They are written before the result, so they exist if it does. The
# array is followed by its digest, which numpy ignores; files of older versions have none.


Probabilities = NDArray[np.float16]

_SUM_TOLERANCE: Final = 1e-3
"""Tolerance of sums: rounding to float16 changes a sum of 1 by at most 2**-11, plus 2**-25 for every class."""


_MARK: Final = b"\nstnbench sha256 "
_TRAILER_BYTES: Final = len(_MARK) + 64
_SNAPSHOTS: Final = "snapshots"


def write_probabilities(folder: Path, split: Split, probabilities: Probabilities) -> None:
    """Write probabilities, float16 (images, classes), atomically.

    Raises:
        OSError: for example if the disk is full.
    """
    buffer = io.BytesIO()
    np.save(buffer, probabilities, allow_pickle=False)
    data = buffer.getvalue()
    write_atomic(AttemptLayout(folder).probabilities(split), data + _trailer(data, split))


def read_probabilities(folder: Path, split: Split, *, images: int) -> Probabilities:
    """Read the probabilities, float16 (images, classes), in the folder of an attempt.

    Raises:
        FolderError: if the file is missing or cannot be read, or does not hold probabilities of ``images`` images; the
            message names the file.
    """
    path = AttemptLayout(folder).probabilities(split)
    try:
        file = io.BytesIO(path.read_bytes())
        found = np.load(file, allow_pickle=False)
    except ARRAY_ERRORS as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else str(error)
        raise _unusable(path, f"cannot be read ({reason})") from error
    if not isinstance(found, np.ndarray) or found.dtype != np.float16 or found.ndim != 2 or found.shape[0] != images:
        held = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "an archive"
        raise _unusable(path, f"are {held}, and not float16 ({images}, classes)")
    _require_whole(path, split, file.getvalue(), array_bytes=file.tell())
    probabilities: Probabilities = found
    off = np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1)
    if not (off <= _SUM_TOLERANCE).all() or (probabilities < 0).any():  # a sum of NaN fails the comparison too
        raise _unusable(path, "hold numbers that are no probabilities")
    return probabilities


def _trailer(data: bytes, content: str) -> bytes:
    return _MARK + hashlib.sha256(content.encode() + b"\0" + data).hexdigest().encode()


def _require_whole(path: Path, split: Split, data: bytes, *, array_bytes: int) -> None:
    """Raise FolderError if the array is followed by anything but its digest; older files have no digest."""
    array, trailer = data[:array_bytes], data[array_bytes:]
    if not trailer:
        return
    if len(trailer) != _TRAILER_BYTES or not trailer.startswith(_MARK):
        raise _unusable(path, f"end with {len(trailer)} bytes that are not a digest")
    if trailer != _trailer(array, split):
        raise _unusable(path, "have changed since they were written (their digest differs)")


def _unusable(path: Path, problem: str) -> FolderError:
    remedy = "trials have kept them since this version; the checkpoint beside them gives them anew"
    return FolderError(f"the probabilities {path} {problem}", remedy=remedy)


# The file with the snapshots of a training, as numpy arrays, which are read without torch.
#
# There is one file in the folder of an attempt, ``snapshots.npy``: the images, then one record per snapshot, as two
# consecutive arrays in numpy's format, and their digest; files of older versions have none.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Snapshots:
    """Snapshots of the transformers' effect on the probe images of a network, at several steps of its training.

    Attributes:
        images: uint8 (probes, channels, height, width).
        steps: int64 (snapshots,), optimiser steps taken, ascending.
        epochs: int64 (snapshots,), the epoch, from 1; 0 before the first step.
        losses: float32 (snapshots,), the mean training loss of the last steps; NaN if it is not known.
        fill: the colour in [0, 255] that preprocessing maps to 0.
        places: int64 (transformers, 2), place and branch of each, from 1.
        points: float32 (snapshots, transformers, probes, lattice points, 2), the positions of the output's lattice in
            the image, -1 and 1 at its outer edges.
    """

    images: NDArray[np.uint8]
    steps: NDArray[np.int64]
    epochs: NDArray[np.int64]
    losses: NDArray[np.float32]
    fill: float
    places: NDArray[np.int64]
    points: NDArray[np.float32]


def read_snapshots(folder: Path) -> Snapshots:
    """Read the snapshots in the folder of an attempt.

    Raises:
        FolderError: if the folder has no snapshots, or they cannot be read.
    """
    path = AttemptLayout(folder).snapshots
    try:
        images, records = load_arrays(path)  # which compares their digest
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
    """Return the losses of records; NaN for records of versions that stored none."""
    if "loss" in (records.dtype.names or ()):
        kept: NDArray[np.float32] = records["loss"]
        return kept
    return np.full(len(records), np.nan, np.float32)


def load_arrays(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.void]]:
    """Read the images and the records of a snapshot file.

    Raises:
        ARRAY_ERRORS: if they cannot be read, or have changed since they were written.
    """
    file = io.BytesIO(path.read_bytes())
    images, records = np.load(file, allow_pickle=False), np.load(file, allow_pickle=False)
    data, end = file.getvalue(), file.tell()
    if data[end:] not in {b"", _trailer(data[:end], _SNAPSHOTS)}:
        raise ValueError("its digest differs")
    return images, records


def write_snapshots(folder: Path, images: NDArray[np.uint8], records: NDArray[np.void]) -> None:
    """Write the images and the records of snapshots atomically, with their digest behind them.

    Raises:
        OSError: if a file cannot be read or written.
    """
    buffer = io.BytesIO()
    for array in (images, records):
        np.save(buffer, array, allow_pickle=False)
    data = buffer.getvalue()
    write_atomic(AttemptLayout(folder).snapshots, data + _trailer(data, _SNAPSHOTS))


# The files ``spec.json`` and ``result.json`` of an attempt. Without torch, since the orchestrator reads them as well.
#
# The last key of each is ``sha256``, the digest of the text without it; files of older versions have none.


_SEAL: Final = re.compile(rb',"sha256":"([0-9a-f]{64})"\}\s*$')
_SEAL_BYTES_MAX: Final = 100
"""Length of the end of a file in which its digest is looked for: 77 bytes, and white space of an editor."""

T = TypeVar("T")


def write_spec(folder: Path, spec: TrialSpec) -> None:
    """Write the specification of an attempt.

    Raises:
        OSError: if a file cannot be read or written.
    """
    write_atomic(AttemptLayout(folder).spec, _sealed(to_json(spec).encode()))


def load_spec(folder: Path) -> TrialSpec:
    """Read the specification of an attempt. Raises: as ``load_result``."""
    return _load(TrialSpec, AttemptLayout(folder).spec)


def write_result(folder: Path, result: TrialResult) -> None:
    """Write the result of an attempt atomically.

    Raises:
        OSError: for example if the disk is full.
        SpecError: if a number is not finite.
    """
    write_atomic(AttemptLayout(folder).result, _sealed(to_json(result).encode()))


def load_result(path: Path) -> TrialResult:
    """Read the result in a ``result.json``.

    Raises:
        FolderError: if the file cannot be read.
        SpecError: if the file is truncated, has changed since it was written, or is not a result of this version of
            stnbench; the message names the file and the key.
    """
    return _load(TrialResult, path)


def _load(kind: type[T], path: Path) -> T:
    try:
        text = path.read_bytes()
    except OSError as error:
        problem = f"the file {path} cannot be read ({error.strerror or error})"
        raise FolderError(problem, remedy="name the folder of an attempt that has it") from error
    seal = _SEAL.search(text, max(0, len(text) - _SEAL_BYTES_MAX))
    if seal is None:
        return from_stored(kind, text, where=str(path))
    body = text[: seal.start()] + b"}"
    if hashlib.sha256(body).hexdigest().encode() != seal[1]:
        problem = f"the file {path} has changed since it was written (its digest differs)"
        raise SpecError(problem, remedy="put back the file as it was, or train the trial again")
    return from_stored(kind, body, where=str(path))


def _sealed(text: bytes) -> bytes:
    """Return the text of a JSON object with its digest as a further key."""
    return text[:-1] + b',"sha256":"' + hashlib.sha256(text).hexdigest().encode() + b'"}'
