"""Clutter: small crops of other digits strewn over the frame, as in cluttered translated MNIST."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.data.digits.glyphs import DIGIT_SIDE, GLYPH_SIDE
from stnbench.spec.data import DistortionSpec

CROP_SIDE: Final = 6
"""Glyph pixels along a side of a crop."""


def strew(
    image: NDArray[np.uint8],
    distortion: DistortionSpec,
    glyphs: NDArray[np.uint8],
    own: int,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """The image (size, size) with ``distortion.clutter`` crops of glyphs other than ``own``, the brighter pixel on top.

    Crops keep the size that their digit would have undistorted; they are taken from where digits have ink (the middle
    20x20 pixels) and put on whole pixels anywhere in the frame. ``glyphs``: uint8 (n, 28, 28).
    """
    size = len(image)
    pixel = GLYPH_SIDE * distortion.canvas / size  # side of an output pixel in glyph pixels
    side = max(1, round(CROP_SIDE / pixel))
    border = (GLYPH_SIDE - DIGIT_SIDE) / 2
    cluttered = image.copy()
    for _ in range(distortion.clutter):
        other = (own + 1 + rng.integers(max(1, len(glyphs) - 1))) % len(glyphs)
        from_x, from_y = border + rng.uniform(0, DIGIT_SIDE - CROP_SIDE, 2)
        at_x, at_y = rng.integers(0, max(1, size - side + 1), 2)
        crop = _crop(glyphs[other], from_x, from_y, CROP_SIDE / side, side)
        place = cluttered[at_y : at_y + side, at_x : at_x + side]
        np.maximum(place, crop[: place.shape[0], : place.shape[1]], out=place)
    return cluttered


def _crop(glyph: NDArray[np.uint8], x: float, y: float, step: float, side: int) -> NDArray[np.uint8]:
    """A square of ``side`` pixels, ``step`` glyph pixels apart, from the outer corner (x, y) on."""
    from scipy import ndimage

    steps = (np.arange(side) + 0.5) * step - 0.5
    rows, columns = np.meshgrid(y + steps, x + steps, indexing="ij")
    sampled = ndimage.map_coordinates(glyph, (rows, columns), np.float32, order=1, mode="nearest")
    pixels: NDArray[np.uint8] = np.rint(sampled).astype(np.uint8)
    return pixels
