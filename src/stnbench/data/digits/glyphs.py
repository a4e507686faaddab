"""The digits that are distorted: 28x28 images with a digit of about 20x20 pixels in the middle, as MNIST has them."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from stnbench.core.seeds import derive_seed

Half = Literal["train", "test"]

GLYPH_SIDE: Final = 28
DIGIT_SIDE: Final = 20
TEST_SHARE: Final = 0.2
"""Share of scikit-learn's digits of each class that are the test half."""

_FULL: Final = 16
"""The brightest pixel of scikit-learn's digits: all of a 4x4 block of the scan."""
_INK: Final = (0.2, 0.75)
"""Shares of ink that become black and white: blocks have blurred what was a bitmap."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Glyphs:
    """Digits before they are distorted.

    Attributes:
        images: uint8 (n, 28, 28), white on black.
        labels: int64 (n,), the digit.
        numbers: int64 (n,), one number a digit, no two alike in both halves together where they come from one file.
        original_size: width and height in pixels before they were brought to 28x28.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    numbers: NDArray[np.int64]
    original_size: tuple[int, int]

    def __len__(self) -> int:
        """How many digits."""
        return len(self.labels)


def load_sklearn_glyphs(half: Half) -> Glyphs:
    """One half of the 1,797 digits of 8x8 pixels that scikit-learn brings along (UCI, Alpaydin and Kaynak 1998).

    They are UCI's own test set. ``TEST_SHARE`` of each class are drawn once for ever as the test half; numbers count
    through both halves.
    """
    from sklearn.datasets import load_digits  # takes a second

    scans = load_digits()
    labels = scans.target.astype(np.int64)
    rows = half_rows(labels, half)
    images = np.stack([enlarge(scan) for scan in scans.images[rows] / _FULL])
    return Glyphs(images=images, labels=labels[rows], numbers=rows, original_size=(8, 8))


def half_rows(labels: NDArray[np.int64], half: Half) -> NDArray[np.int64]:
    """The sorted rows of a half, stratified by class; a function of the labels alone."""
    is_test = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        drawn = np.random.default_rng(derive_seed(0, "digits", "test", int(label))).permutation(own)
        is_test[drawn[: round(TEST_SHARE * len(own))]] = True
    return np.flatnonzero(is_test == (half == "test"))


def enlarge(scan: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A scan (8, 8) of shares of ink as a glyph, uint8 (28, 28): smooth, with the contrast of pen strokes."""
    from scipy import ndimage

    margin = 2
    padded = np.pad(scan, margin)
    steps = (np.arange(DIGIT_SIDE) + 0.5) * len(scan) / DIGIT_SIDE - 0.5 + margin
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    smooth = ndimage.map_coordinates(padded, (rows, columns), order=3, mode="constant")
    low, high = _INK
    ink = np.clip((smooth - low) / (high - low), 0, 1)
    border = (GLYPH_SIDE - DIGIT_SIDE) // 2
    return np.pad(np.rint(255 * ink * ink * (3 - 2 * ink)).astype(np.uint8), border)
