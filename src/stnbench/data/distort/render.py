"""An image through a warp: cubic splines, averaged where the image shrinks."""

import functools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.data.distort.warp import CORNERS, Points, Warp

SHRINK_UNAVERAGED: Final = 1.5
"""Source pixels an output pixel may cover without averaging."""
OVERSAMPLING_MAX: Final = 6

BAND_MIN: Final = 0.05
"""A band that is mirrored is at least so wide, in normalised coordinates."""

_MARGIN: Final = 4
"""Black pixels round an image, in which the spline dies away."""
_ORDER: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Picture:
    """An image ready to be sampled: the cubic B-spline coefficients of its channels (Unser et al. 1993).

    Attributes:
        coefficients: float32 (channels, side + 2 margin, side + 2 margin), of pixels in [0, 255].
        side: of the image in pixels.
        margin: pixels of black round it.
        box: (4,), x1, y1, x2, y2 of the thing in a photograph, normalised; None where beyond the edges all is black.
    """

    coefficients: NDArray[np.float32]
    side: int
    margin: int
    box: NDArray[np.float64] | None


def make_picture(image: NDArray[np.uint8], box: NDArray[np.float64] | None) -> Picture:
    """A picture of a square image, uint8 (channels, side, side).

    Beyond the edges it is black. Where a ``box`` is given, the bands between it and the edges are mirrored to and fro
    instead: a second, mirrored sign would be seen if the whole photograph were.
    """
    from scipy import ndimage  # the light commands import this module

    margin = _MARGIN if box is None else 0
    padded = np.pad(image, ((0, 0), (margin, margin), (margin, margin))).astype(np.float32)
    mode = "mirror" if box is None else "reflect"
    filtered = [ndimage.spline_filter(channel, _ORDER, output=np.float32, mode=mode) for channel in padded]
    return Picture(coefficients=np.stack(filtered), side=image.shape[-1], margin=margin, box=box)


def render(picture: Picture, warp: Warp, size: int) -> NDArray[np.uint8]:
    """The picture through the warp, uint8 (channels, size, size)."""
    from scipy import ndimage

    oversampling = _oversampling(picture, warp, size)
    source = warp.to_source(pixel_centres(size * oversampling))
    if picture.box is not None:
        source = fold(source, picture.box)
    columns, rows = ((source + 1) / 2 * picture.side - 0.5 + picture.margin).T
    mode = "constant" if picture.box is None else "reflect"
    shape = (size, oversampling, size, oversampling)
    channels = [
        ndimage.map_coordinates(channel, (rows, columns), np.float32, _ORDER, mode, prefilter=False)
        .reshape(shape)
        .mean(axis=(1, 3))
        for channel in picture.coefficients
    ]
    return np.clip(np.rint(channels), 0, 255).astype(np.uint8)


def fold(points: Points, box: NDArray[np.float64]) -> Points:
    """Points (n, 2) with those beyond the edges of the square brought into the bands between a box and the edges."""
    before, after = np.maximum(box[:2] + 1, BAND_MIN), np.maximum(1 - box[2:], BAND_MIN)
    inside: Points = np.clip(points, -1, 1)
    return inside + _zigzag(np.maximum(-1 - points, 0), before) - _zigzag(np.maximum(points - 1, 0), after)


def _zigzag(way: Points, width: NDArray[np.float64]) -> Points:
    """How far one is from the edge after going so far, to and fro over the width."""
    return width - np.abs(way % (2 * width) - width)


@functools.lru_cache(maxsize=8)
def pixel_centres(size: int) -> Points:
    """The centres of a square image's pixels in normalised coordinates, (size^2, 2), row by row."""
    steps = (2 * np.arange(size) + 1) / size - 1
    y, x = np.meshgrid(steps, steps, indexing="ij")
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    points.flags.writeable = False
    return points


def _oversampling(picture: Picture, warp: Warp, size: int) -> int:
    """Samples along a side of an output pixel: one, or as many as it covers source pixels, by the square's area."""
    x, y = warp.lattice[list(CORNERS)].T
    seen = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    shrink = picture.side / (size * math.sqrt(seen / 4))
    return 1 if shrink <= SHRINK_UNAVERAGED else min(OVERSAMPLING_MAX, math.ceil(shrink))
