"""Resizing as in torch's image package of 2015: area averages when shrinking, linear interpolation when enlarging.

All arithmetic uses integers over a common denominator, so the sums are exact: the pixels, and with them the digest of a
data set, are the same on every machine. Each target pixel costs two source rows (of a running sum when shrinking),
which is faster than multiplying by weight matrices: with such small matrices BLAS busy-waits on all cores.
"""

import functools

import numpy as np
from numpy.typing import NDArray

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
