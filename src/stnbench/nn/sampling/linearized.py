"""Linearised multi-sampling: the values of bilinear reading, with gradients that see further than two pixels."""

from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.nn.sampling.interpolation import interpolate
from stnbench.nn.sampling.jacobian import half_sides, pixel_jacobian
from stnbench.spec.transformer import Padding

_OFFSETS: Final = (
    *((0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5)),
    *((0.25, 0.25), (-0.25, 0.25), (-0.25, -0.25), (0.25, -0.25)),
)
"""The auxiliary points about the sampling point, in output pixels: with it, nine points of a quincunx lattice.

They mirror into one another, and their sum is 0, as is that of x y.
"""

_VARIANCE: Final = sum(x**2 for x, _ in _OFFSETS)
"""The sum of x^2 over the offsets, and of y^2."""

_SMALLEST_SPREAD: Final = 2.0
"""Input pixels an output pixel: the outer auxiliary points are at least one input pixel away."""


def sample_linearized(
    images: Float[Tensor, "batch channels height width"],
    grid: Float[Tensor, "batch out_height out_width 2"],
    *,
    padding: Padding,
    align_corners: bool,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """The images read bilinearly; the gradient to the grid is that of a plane (Jiang et al., ICCV 2019).

    The plane of an output pixel is fitted by least squares to the image at eight points around the sampling point,
    spread over the input as far as the output pixel is (half of it to each side, at least one input pixel). Its
    slope alone reaches the grid, and no gradient passes through the eight readings: values, and gradients to the
    images, are those of ``bilinear``.

    The paper draws the points from a normal distribution at every call. Here they are always the same ones, so that
    runs can be repeated, and spread evenly in all directions, so that the plane needs no system to be solved. They are
    drawn out as the circle of an output pixel becomes an ellipse in the input, but not turned or mirrored with it.
    Where no gradient to the grid is wanted, they are not read.
    """
    fixed = grid.detach()
    sampled = interpolate(images, fixed, mode="bilinear", padding=padding, align_corners=align_corners)
    if not (torch.is_grad_enabled() and grid.requires_grad):
        return sampled
    with torch.no_grad():
        slope_x, slope_y = _plane_slopes(images, fixed, padding=padding, align_corners=align_corners)
    moved_x, moved_y = (grid - fixed)[:, None].unbind(-1)  # zeros that carry the gradient
    return sampled + (slope_x * moved_x + slope_y * moved_y)


class _Symmetric(NamedTuple):
    """Matrices [[xx, xy], [xy, yy]], one an output pixel."""

    xx: Tensor
    xy: Tensor
    yy: Tensor

    def times(self, x: Tensor | float, y: Tensor | float) -> tuple[Tensor, Tensor]:
        """The products with (x, y)."""
        return self.xx * x + self.xy * y, self.xy * x + self.yy * y


def _plane_slopes(
    images: Tensor, grid: Tensor, *, padding: Padding, align_corners: bool
) -> tuple[Float[Tensor, "batch channels out_height out_width"], ...]:
    """The slope of every output pixel's plane along x, and along y, in values a unit of the normalised coordinates."""
    size = (images.shape[-2], images.shape[-1])
    spread, inverse = _spread(pixel_jacobian(grid, size, align_corners=align_corners))
    per_unit = half_sides(size, align_corners=align_corners, like=grid)
    # Along a side of one pixel there is nowhere to go: any step will do, and its slope becomes 0 below.
    units = 1 / per_unit.clamp(min=0.5)
    by_x = by_y = images.new_zeros(())
    for x, y in _OFFSETS:  # one by one, which is faster than all at once: less memory is touched
        step = torch.stack(spread.times(x, y), dim=-1)
        places = torch.addcmul(grid, step, units)
        read = interpolate(images, places, mode="bilinear", padding=padding, align_corners=align_corners)
        by_x = torch.add(by_x, read, alpha=x / _VARIANCE)
        by_y = torch.add(by_y, read, alpha=y / _VARIANCE)
    slope_x, slope_y = _Symmetric(*(entry[:, None] for entry in inverse)).times(by_x, by_y)
    return slope_x * per_unit[0], slope_y * per_unit[1]


def _spread(jacobian: Float[Tensor, "batch height width 2 2"]) -> tuple[_Symmetric, _Symmetric]:
    """From offsets in output pixels to input pixels, and back.

    The first is the square root of J J^T with its eigenvalues raised to the smallest spread: J without its rotation.
    """
    (a, b), (c, d) = (row.unbind(-1) for row in jacobian.unbind(-2))
    xx, xy, yy = a * a + b * b, a * c + b * d, c * c + d * d
    middle, half_difference = (xx + yy) / 2, (xx - yy) / 2
    radius = (half_difference.square() + xy.square()).sqrt()  # hypot has no counterpart in ONNX
    major = (middle + radius).sqrt().clamp(min=_SMALLEST_SPREAD)
    minor = (middle - radius).clamp(min=0).sqrt().clamp(min=_SMALLEST_SPREAD)
    # Cosine and sine of twice the angle of the major axis; both 0 for a circle, which has none.
    cosine, sine = (part / radius.clamp(min=torch.finfo(radius.dtype).tiny) for part in (half_difference, xy))

    def along(at_major: Tensor, at_minor: Tensor) -> _Symmetric:
        mean, half = (at_major + at_minor) / 2, (at_major - at_minor) / 2
        return _Symmetric(mean + half * cosine, half * sine, mean - half * cosine)

    return along(major, minor), along(1 / major, 1 / minor)
