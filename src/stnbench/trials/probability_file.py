"""The files that a finished trial keeps its class probabilities in, as numpy arrays: to read them takes no torch.

One file a split in the folder of an attempt, ``probabilities_<split>.npy``: float16 (images, classes), in the order of
the predictions of that split's score. They are written before the result: where a result is, they are. Behind the
array, where numpy does not look, stands a digest of it; files of older versions have none.
"""

import hashlib
import io
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.core.errors import FolderError
from stnbench.core.files import ARRAY_ERRORS, write_atomic
from stnbench.core.paths import AttemptLayout
from stnbench.spec.data import Split

Probabilities = NDArray[np.float16]

_SUM_TOLERANCE: Final = 1e-3
"""Rounding to float16 moves a sum of 1 by 2**-11 at most, and by 2**-25 more for every class."""


_MARK: Final = b"\nstnbench sha256 "
_TRAILER_BYTES: Final = len(_MARK) + 64


def write_probabilities(folder: Path, split: Split, probabilities: Probabilities) -> None:
    """Write float16 (images, classes), whole or not at all. Raises: OSError, for example when the disk is full."""
    buffer = io.BytesIO()
    np.save(buffer, probabilities, allow_pickle=False)
    data = buffer.getvalue()
    write_atomic(AttemptLayout(folder).probabilities(split), data + _trailer(data, split))


def read_probabilities(folder: Path, split: Split, *, images: int) -> Probabilities:
    """The probabilities float16 (images, classes) in the folder of an attempt.

    Raises: FolderError, naming the file, where it is missing or cannot be read, or is not one of probabilities of so
    many images.
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
    if not (off <= _SUM_TOLERANCE).all() or (probabilities < 0).any():  # a sum that is no number is not small either
        raise _unusable(path, "hold numbers that are no probabilities")
    return probabilities


def _trailer(data: bytes, split: Split) -> bytes:
    return _MARK + hashlib.sha256(split.encode() + b"\0" + data).hexdigest().encode()


def _require_whole(path: Path, split: Split, data: bytes, *, array_bytes: int) -> None:
    """Raise FolderError where what follows the array is not its digest; nothing follows it in older files."""
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
