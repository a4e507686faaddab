"""Official archives as used in 2015: their download, and the resizing of their images."""

import functools
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
from numpy.typing import NDArray

from stnbench.core.errors import DataCorruptError, DataMissingError, FolderError
from stnbench.core.files import sync_folder, writable_folder
from stnbench.data.gtsrb.archive import ARCHIVES, BASE_URL, Archive

# Download of the official archives over HTTP: resumed after interruptions, checked by MD5, never extracted.
#
# MD5 is the checksum that is published for these files. It detects broken downloads; HTTPS protects from replaced
# files.


_CHUNK = 1 << 20
_RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """The settings of the connection to the server.

    Attributes:
        base_url: URL of the folder of archives, with a slash at the end.
        timeout_s: the longest time without data from the server, in seconds.
        attempts: the number of connections without any progress after which an archive is given up.
        pause_s: pause before connecting again, in seconds.
        sleep: the function that waits for a number of seconds.
    """

    base_url: str = BASE_URL
    timeout_s: float = 60.0
    attempts: int = 5
    pause_s: float = 2.0
    sleep: Callable[[float], None] = time.sleep


def download_archives(
    folder: Path,
    *,
    say: Callable[[str], None],
    archives: Sequence[Archive] = ARCHIVES,
    connection: Connection | None = None,
) -> None:
    """Download the archives that ``folder`` does not hold yet; interrupted ones resume from their ``.part`` file.

    Args:
        folder: the folder of the archives.
        say: called with one line per archive, and one per reconnection.
        archives: the archives to download.
        connection: the settings of the connection; the defaults if it is None.

    Raises:
        DataMissingError: if the server cannot be reached or does not have an archive.
        DataCorruptError: if a file that was downloaded, or was there already, has another MD5.
        FolderError: if the folder cannot be written.
    """
    connection = connection or Connection()
    writable_folder(folder, "the archives", remedy="name another with --root or STNBENCH_DATA")
    for archive in archives:
        with filelock.FileLock(folder / f".{archive.name}.lock"):
            _download_one(folder / archive.name, archive, connection, say)


def _download_one(target: Path, archive: Archive, connection: Connection, say: Callable[[str], None]) -> None:
    if target.exists():
        _check_md5(target, archive, remedy=f"delete {target} and run the command again")
        say(f"{archive.name}: there already, MD5 as expected")
        return
    part = target.with_name(f"{target.name}.part")
    try:
        _fetch_all(part, connection.base_url + archive.name, connection, say)
        try:
            _check_md5(part, archive, remedy="run the command again; it starts this archive anew")
        except DataCorruptError:
            part.unlink()
            raise
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(target)
    except OSError as error:
        problem = f"{target} cannot be written ({error.strerror or error})"
        raise FolderError(problem, remedy="free some space, or name another folder with --root") from error
    sync_folder(target.parent)
    say(f"{archive.name}: {target.stat().st_size / 1e6:.0f} MB, MD5 as expected")


def _fetch_all(part: Path, url: str, connection: Connection, say: Callable[[str], None]) -> None:
    """Connect until the file is complete.

    Raises:
        DataMissingError: if the server answers with a client error, or ``connection.attempts`` connections in a row
            bring no data.
    """
    fruitless = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _fetch_some(part, url, connection.timeout_s):
                return
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500:
                remedy = "look at the address, or fetch the archive by hand"
                raise DataMissingError(f"{url} answers {error.code} {error.reason}", remedy=remedy) from error
            reason = f"the server answers {error.code}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
        progress = (part.stat().st_size if part.exists() else 0) > before
        fruitless = 0 if progress else fruitless + 1
        if fruitless >= connection.attempts:
            remedy = "run the command again; it goes on where it stopped"
            raise DataMissingError(f"{url} cannot be fetched ({reason})", remedy=remedy)
        say(f"{url}: {reason}, connecting again")
        connection.sleep(connection.pause_s)


def _fetch_some(part: Path, url: str, timeout_s: float) -> bool:
    """Append the data of one connection to the file, and return whether the file is complete."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310 - http(s)
    try:
        response = urllib.request.urlopen(request, timeout=timeout_s)  # noqa: S310 - our own constant, or a test's
    except urllib.error.HTTPError as error:
        if error.code != _RANGE_NOT_SATISFIABLE:
            raise
        error.close()  # nothing is left to send: the file is whole, or wrong, which its MD5 tells
        return True
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        expected = (start if resumed else 0) + int(response.headers.get("Content-Length", -1))
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
    return part.stat().st_size >= expected


def _check_md5(path: Path, archive: Archive, *, remedy: str) -> None:
    md5 = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            md5.update(chunk)
    if md5.hexdigest() != archive.md5:
        raise DataCorruptError(f"{path} has MD5 {md5.hexdigest()} instead of {archive.md5}", remedy=remedy)


# Resizing as in torch's image package of 2015: area averages when shrinking, linear interpolation when enlarging.
#
# All arithmetic uses integers over a common denominator, so the sums are exact: the pixels, and with them the digest
# of a data set, are the same on every machine. Each target pixel costs two source rows (of a running sum when
# shrinking), which is faster than multiplying by weight matrices: with such small matrices BLAS busy-waits on all
# cores.


RESIZE_VERSION = 1
"""Increased when resizing changes its results, so that caches are made again."""

Whole = NDArray[np.int64]


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize an image to a square, halves rounded up.

    Shrinking averages the interval of source / target pixels that a target pixel covers, with fractions at both ends.
    Enlarging is linear between pixel centres with the corners aligned: target pixel i lies at
    i (source - 1) / (target - 1). Rows and columns are resized separately. Source: torch/image, ``scale`` in bilinear
    mode.

    Args:
        image: uint8 (height, width, channels).
        size: side of the result in pixels.

    Returns:
        The resized image, uint8 (channels, size, size).
    """
    rows, rows_denominator = _resample(image.astype(np.int64), size)
    both, columns_denominator = _resample(rows.transpose(1, 0, 2), size)  # (column, row, channel)
    denominator = rows_denominator * columns_denominator
    pixels = (2 * both + denominator) // (2 * denominator)
    return pixels.astype(np.uint8).transpose(2, 1, 0)


def _resample(lines: Whole, target: int) -> tuple[Whole, int]:
    """Resample the first axis to another length; return integer numerators and their common denominator."""
    source = len(lines)
    left, share = _taps(source, target)
    if target < source:
        sums = np.zeros((source + 1, *lines.shape[1:]), np.int64)
        np.cumsum(lines, axis=0, out=sums[1:])
        return np.diff(sums[left] * target + lines[np.minimum(left, source - 1)] * share, axis=0), source
    if source == 1:
        return lines.repeat(target, axis=0), 1
    return lines[left] * (target - 1 - share) + lines[left + 1] * share, target - 1


@functools.lru_cache(maxsize=1024)
def _taps(source: int, target: int) -> tuple[Whole, Whole]:
    """Return the positions of the target pixels: whole source pixels (n,), and the remainders (n, 1, 1).

    When shrinking, the positions are the target + 1 borders of target pixels, and remainders are multiples of
    1 / ``target``. When enlarging, they are the target centres, and remainders are multiples of 1 / (``target`` - 1).
    """
    if target < source:
        left, share = np.divmod(np.arange(target + 1) * source, target)
    else:
        position = np.arange(target) * (source - 1)
        left = np.clip(position // max(target - 1, 1), 0, max(source - 2, 0))
        share = position - left * (target - 1)
    return left, share[:, None, None]


def normalized_position(position: NDArray[np.float64], source: Whole, target: int) -> NDArray[np.float64]:
    """Return the normalised position after resizing of a position along one side, clipped to the image.

    Convention: -1 and 1 are the outer edges of the border pixels of the resized image. Enlarging aligns the centres of
    the corner pixels, so that edges are not mapped to edges: a position of 0 lies slightly outside and is clipped.

    Args:
        position: position in source pixels from the outer edge of the first pixel.
        source: length of the side before resizing, in pixels.
        target: length of the side after resizing, in pixels.

    Returns:
        Positions in [-1, 1], in the shape of ``position``.
    """
    stretched = (position - 0.5) * (target - 1) / np.maximum(source - 1, 1) + 0.5
    pixels = np.where((target > source) & (source > 1), stretched, position * target / source)
    return np.clip(2 * pixels / target - 1, -1.0, 1.0)
