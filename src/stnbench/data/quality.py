"""Quality checks of a data set: repeated and nearly repeated images, and impossible boxes."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, assert_never

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

from stnbench.data import ImageSet

Keys = Sequence[bytes]
"""One digest per image; equal digests mean equal images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeats:
    """The counts of images that occur more than once.

    Attributes:
        groups: the number of sets of equal images.
        images: the number of images in these sets.
        across_classes: the number of sets with more than one class.
        across_tracks: the number of sets with more than one track.
        across_split: the number of sets with images on both sides of a split, so that a held-out image is also trained
            on.
    """

    groups: int
    images: int
    across_classes: int
    across_tracks: int
    across_split: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxFacts:
    """The statistics of the signs' boxes of a half.

    Attributes:
        wrong: the number of boxes that leave the image, are empty, or are not numbers.
        width_share: 5, 50 and 95 % quantiles of the box's width over the image's.
        centre_sd: standard deviation of the box's centre, x and y, in normalised coordinates.
    """

    wrong: int
    width_share: tuple[float, float, float]
    centre_sd: tuple[float, float]


def pixel_keys(images: NDArray[np.uint8]) -> list[bytes]:
    """Return a digest of the pixels of each image, uint8 (n, 3, height, width)."""
    return [content_key(np.ascontiguousarray(image).tobytes()) for image in images]


def content_key(data: bytes) -> bytes:
    """Return a digest (BLAKE2b, 16 bytes) of some bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()


def find_repeats(
    keys: Keys, labels: NDArray[np.int64], tracks: NDArray[np.int64], held_out: NDArray[np.int64]
) -> Repeats:
    """Count the images of one half that occur more than once.

    Args:
        keys: one digest per image.
        labels: (n,), the classes.
        tracks: (n,), the tracks.
        held_out: the rows on the other side of a split; may be empty.
    """
    rows: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        rows[key].append(row)
    groups = [np.array(group) for group in rows.values() if len(group) > 1]
    is_held_out = np.zeros(len(keys), np.int64)
    is_held_out[held_out] = 1
    return Repeats(
        groups=len(groups),
        images=sum(len(group) for group in groups),
        across_classes=_differing(groups, labels),
        across_tracks=_differing(groups, tracks),
        across_split=_differing(groups, is_held_out),
    )


def equal_pairs(first: Keys, second: Keys) -> list[tuple[int, int]]:
    """Return the pairs of rows with equal images, one row of each half, sorted by the row in the second."""
    rows: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, key in enumerate(first):
        rows[key].append(row)
    return [(row, other) for other, key in enumerate(second) for row in rows.get(key, ())]


# Perceptual hashes: bits that stay as they are when an image is resized, compressed, brightened or moved by less than
# a pixel. Two hashes with different weaknesses have to agree, since one alone takes signs of equal shape for one
# photograph: gradients do not tell 50 from 60 in front of a bright sky, and low frequencies do not tell two signs of
# one kind that are a few pixels wide.
#
# Both are a few lines of numpy for all images at once, and what takes the time, the search for pairs, is a matrix
# product; libraries of image hashes take one image at a time and leave the search to the caller.


_CELLS: Final = 16
_FREQUENCIES: Final = 16
_SIDE: Final = 32
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
_BLOCK: Final = 1024

STRUCTURE_BITS: Final = 28
"""Largest Hamming distance of the structure hashes of near duplicates, of 255 bits."""

DETAIL_BITS: Final = 40
"""Largest Hamming distance of their detail hashes, of 256 bits.

Both limits were set on GTSRB's training half by looking at the pairs of images of different tracks: all that are within
both are of one sign before one background (docs/concepts.md); with eight more bits of detail, two classes are paired.
"""

DuplicateKind = Literal["equal", "near"]
"""Whether images repeat others pixel by pixel, or by their perceptual hashes, which includes the former."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PerceptualHashes:
    """Hashes of n images, one bit an element.

    Attributes:
        structure: bool (n, 255): whether each low frequency of the discrete cosine transform is above their median
            (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010).
        detail: bool (n, 256): whether each of 16 x 16 cells is darker than its neighbour to the right (dHash, Krawetz
            2013).
    """

    structure: NDArray[np.bool_]
    detail: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.structure)

    def rows(self, rows: NDArray[np.int64]) -> "PerceptualHashes":
        """Return the hashes of some images."""
        return PerceptualHashes(structure=self.structure[rows], detail=self.detail[rows])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NearPairs:
    """Pairs of nearly equal images, sorted by their rows.

    Attributes:
        rows: int64 (k, 2), the rows of both images.
        bits: int64 (k, 2), the Hamming distances of their structure and detail hashes.
    """

    rows: NDArray[np.int64]
    bits: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.rows)

    def where(self, kept: NDArray[np.bool_]) -> "NearPairs":
        """Return some of the pairs."""
        return NearPairs(rows=self.rows[kept], bits=self.bits[kept])


def perceptual_hashes(images: NDArray[np.uint8]) -> PerceptualHashes:
    """Return the perceptual hashes of images, uint8 (n, channels, height, width)."""
    structure = np.empty((len(images), _FREQUENCIES**2 - 1), bool)
    detail = np.empty((len(images), _CELLS**2), bool)
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        grey = _grey(np.asarray(images[block], np.float32))
        waves = dctn(_shrunk(grey, _SIDE, _SIDE), axes=(1, 2))[:, :_FREQUENCIES, :_FREQUENCIES]
        waves = waves.reshape(len(grey), -1)[:, 1:]  # without the mean lightness
        structure[block] = waves > np.median(waves, axis=1, keepdims=True)
        detail[block] = (np.diff(_shrunk(grey, _CELLS, _CELLS + 1), axis=2) > 0).reshape(len(grey), -1)
    return PerceptualHashes(structure=structure, detail=detail)


def near_pairs(first: PerceptualHashes, second: PerceptualHashes | None = None) -> NearPairs:
    """Find the pairs of images whose hashes are within ``STRUCTURE_BITS`` and ``DETAIL_BITS`` of each other.

    Args:
        first: the hashes of one set of images.
        second: those of another; None for the pairs within the first, each of which is listed once.
    """
    others = first if second is None else second
    signs, other_signs = _signs(first.structure), _signs(others.structure)
    found = [np.empty((0, 4), np.int64)]
    for start in range(0, len(first), _BLOCK):
        origin = start if second is None else 0
        agreement = signs[start : start + _BLOCK] @ other_signs[origin:].T  # bits that agree less those that do not
        row, other = np.nonzero(agreement >= signs.shape[1] - 2 * STRUCTURE_BITS)
        structure = (signs.shape[1] - agreement[row, other].astype(np.int64)) // 2
        row, other = row + start, other + origin
        detail = np.sum(first.detail[row] != others.detail[other], axis=1)
        near = (detail <= DETAIL_BITS) & ((row < other) if second is None else True)
        found.append(np.stack([row, other, structure, detail], axis=1)[near])
    pairs = np.concatenate(found)
    return NearPairs(rows=pairs[:, :2], bits=pairs[:, 2:])


def repeats_of(images: NDArray[np.uint8], known: NDArray[np.uint8], kind: DuplicateKind) -> NDArray[np.bool_]:
    """Find the images that repeat one of the known images.

    Args:
        images: uint8 (n, channels, height, width).
        known: uint8 (m, channels, height, width).
        kind: when two images count as repeats of each other.
    """
    repeated = np.zeros(len(images), bool)
    match kind:
        case "equal":
            rows = [other for _, other in equal_pairs(pixel_keys(known), pixel_keys(images))]
        case "near":
            rows = near_pairs(perceptual_hashes(known), perceptual_hashes(images)).rows[:, 1].tolist()
        case _:
            assert_never(kind)
    repeated[rows] = True
    return repeated


def box_facts(images: ImageSet) -> BoxFacts:
    """Count impossible boxes, and measure the size and the position of the signs."""
    x1, y1, x2, y2 = images.roi.T.astype(np.float64)
    fine = (x1 >= -1) & (x1 < x2) & (x2 <= 1) & (y1 >= -1) & (y1 < y2) & (y2 <= 1)
    low, middle, high = np.quantile((x2 - x1) / 2, [0.05, 0.5, 0.95])
    return BoxFacts(
        wrong=int(np.sum(~fine)),
        width_share=(float(low), float(middle), float(high)),
        centre_sd=(float(np.std((x1 + x2) / 2)), float(np.std((y1 + y2) / 2))),
    )


def _grey(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the lightness of images, (n, height, width)."""
    if images.shape[1] != 3:
        return np.asarray(images.mean(axis=1), np.float32)
    return np.asarray(np.tensordot(images, _LUMA, axes=([1], [0])), np.float32)


def _shrunk(grey: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return images of another size; each pixel is the mean over its area of the old one."""
    down, across = _areas(grey.shape[1], height), _areas(grey.shape[2], width)
    return np.asarray(down @ grey @ across.T, np.float32)


def _areas(size: int, parts: int) -> NDArray[np.float32]:
    """Return the share of each of ``size`` pixels in each of ``parts`` equal parts of a line, (parts, size)."""
    edges, pixels = np.arange(parts + 1) * size / parts, np.arange(size)
    overlap = np.minimum(pixels + 1, edges[1:, None]) - np.maximum(pixels, edges[:-1, None])
    return np.asarray(np.clip(overlap, 0, None) * parts / size, np.float32)


def _signs(bits: NDArray[np.bool_]) -> NDArray[np.float32]:
    return 2 * bits.astype(np.float32) - 1


def _differing(groups: list[NDArray[np.int64]], values: NDArray[np.int64]) -> int:
    return sum(len(np.unique(values[group])) > 1 for group in groups)
