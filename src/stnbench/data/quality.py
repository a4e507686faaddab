"""Quality checks of one half of a data set: repeated images, and impossible boxes."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stnbench.data.base import ImageSet

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


def count_shared(train: Keys, test: Keys) -> int:
    """Count the test images that are also among the training images."""
    known = set(train)
    return sum(count for key, count in Counter(test).items() if key in known)


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


def _differing(groups: list[NDArray[np.int64]], values: NDArray[np.int64]) -> int:
    return sum(len(np.unique(values[group])) > 1 for group in groups)
