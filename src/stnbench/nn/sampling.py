"""Samplers by name: bilinear, bicubic, nearest, mipmap and linearised reading of images at sampling points."""

from collections.abc import Mapping
from functools import partial
from typing import Final, Literal, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from stnbench.core.errors import ShapeError
from stnbench.nn.transforms import Size
from stnbench.spec.transformer import Padding, Sampler

# Reading between pixels: the only call of torch's sampler in a network.


Interpolation = Literal["bilinear", "bicubic", "nearest"]

_MODES: Final[dict[Interpolation, int]] = {"bilinear": 0, "nearest": 1, "bicubic": 2}
_PADDINGS: Final[dict[Padding, int]] = {"zeros": 0, "border": 1, "reflection": 2}
"""Numbers of the modes as in torch.nn.functional.grid_sample."""


def interpolate(
    images: Float[Tensor, "batch channels height width"],
    grid: Float[Tensor, "batch out_height out_width 2"],
    *,
    mode: Interpolation,
    padding: Padding,
    align_corners: bool,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Read images at normalised points (x, y) of the input, as ``torch.nn.functional.grid_sample`` does.

    Images and grid have one type. The operator is called by its name: on CUDA ``grid_sample`` uses cuDNN's for the
    arguments of most transformers here (bilinear, zeros, corners aligned, float32), whose gradient with respect to the
    grid is not repeatable (pytorch#180417) and which always computes the gradient with respect to the images as well.
    In torch's own operator each point of the grid has one writer.

    Args:
        images: the images.
        grid: (x, y) of the input for every output pixel, in [-1, 1] inside the image.
        mode: the interpolation.
        padding: the values outside the image: 0, the nearest border pixel, or a reflection.
        align_corners: whether -1 and 1 are the centres of the border pixels, or their outer edges.
    """
    sampled: Tensor = torch.ops.aten.grid_sampler_2d(images, grid, _MODES[mode], _PADDINGS[padding], align_corners)
    return sampled


# Density of a grid's sampling points in the input, in pixels.


def half_sides(size: Size, *, align_corners: bool, like: Tensor) -> Float[Tensor, "2"]:
    """Return the pixels per unit of the normalised coordinates x and y, with the type and device of ``like``."""
    height, width = size
    return fill_numbers(*((side - align_corners) / 2 for side in (width, height)), like=like)


def fill_numbers(*numbers: float, like: Tensor) -> Float[Tensor, " numbers"]:
    """Return a few numbers as a tensor, with the type and device of ``like``.

    They are filled in on the device: numbers that are copied from the host make it wait, and could not be part of a
    CUDA graph.
    """
    return torch.stack([like.new_full((), number) for number in numbers])


def pixel_jacobian(
    grid: Float[Tensor, "batch out_height out_width 2"], size: Size, *, align_corners: bool
) -> Float[Tensor, "batch out_height out_width 2 2"]:
    """Return the movement of the sampling point, in input pixels, from one output pixel to the next.

    Element [i, j]: along x (i = 0) or y (i = 1) in the input, from one pixel to its right (j = 0) or lower (j = 1)
    neighbour in the output. Central differences inside, one-sided ones at the border, and 0 along a side of one pixel.

    Args:
        grid: normalised (x, y) of the input for every output pixel.
        size: height and width of the input in pixels.
        align_corners: whether -1 and 1 are the centres of the border pixels, or their outer edges.
    """
    pixels = grid * half_sides(size, align_corners=align_corners, like=grid)
    return torch.stack([_slope(pixels, dim=2), _slope(pixels, dim=1)], dim=-1)


def _slope(values: Tensor, *, dim: int) -> Tensor:
    """Return differences of neighbours along a dimension, in the shape of the values.

    They are those of ``torch.gradient``, which an exported program ties to one batch size.
    """
    count = values.shape[dim]
    if count == 1:
        return torch.zeros_like(values)
    steps = values.diff(dim=dim)
    first, last = steps.narrow(dim, 0, 1), steps.narrow(dim, count - 2, 1)
    inner = (values.narrow(dim, 2, count - 2) - values.narrow(dim, 0, count - 2)) / 2
    return torch.cat([first, inner, last], dim=dim)


# Linearised multi-sampling: the values of bilinear reading, with gradients from more than two pixels along an axis.


_OFFSETS: Final = (
    *((0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5)),
    *((0.25, 0.25), (-0.25, 0.25), (-0.25, -0.25), (0.25, -0.25)),
)
"""Auxiliary points about the sampling point, in output pixels: with it, nine points of a quincunx lattice.

They mirror into one another, and their sum is 0, as is that of x y.
"""

_VARIANCE: Final = sum(x**2 for x, _ in _OFFSETS)
"""Sum of x^2 over the offsets, and of y^2."""

_SMALLEST_SPREAD: Final = 2.0
"""Lower bound of the input pixels per output pixel: the outer auxiliary points are at least one input pixel away."""


def sample_linearized(
    images: Float[Tensor, "batch channels height width"],
    grid: Float[Tensor, "batch out_height out_width 2"],
    *,
    padding: Padding,
    align_corners: bool,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Read images bilinearly, with the gradient of a fitted plane to the grid (Jiang et al., ICCV 2019).

    The plane of an output pixel is fitted by least squares to the image at eight points around the sampling point,
    spread over the input as far as the output pixel is (half of it to each side, at least one input pixel). Only its
    slope reaches the grid, and no gradient passes through the eight readings: values, and gradients to the images, are
    those of ``bilinear``.

    The paper draws the points from a normal distribution at every call. Here they are always the same ones, so that
    runs can be repeated, and spread evenly in all directions, so that the plane needs no system to be solved. They are
    drawn out as the circle of an output pixel becomes an ellipse in the input, but not turned or mirrored with it.
    Where no gradient to the grid is required, they are not read.

    Arguments and conventions are those of :func:`sample`.
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
    """Matrices [[xx, xy], [xy, yy]], one for each output pixel."""

    xx: Tensor
    xy: Tensor
    yy: Tensor

    def times(self, x: Tensor | float, y: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return the products with the vectors (x, y)."""
        return self.xx * x + self.xy * y, self.xy * x + self.yy * y


def _plane_slopes(
    images: Tensor, grid: Tensor, *, padding: Padding, align_corners: bool
) -> tuple[Float[Tensor, "batch channels out_height out_width"], ...]:
    """Return the slopes of every output pixel's plane along x and along y, per unit of the normalised coordinates."""
    size = (images.shape[-2], images.shape[-1])
    spread, inverse = _spread(pixel_jacobian(grid, size, align_corners=align_corners))
    per_unit = half_sides(size, align_corners=align_corners, like=grid)
    # Along a side of one pixel any step will do: its slope becomes 0 below.
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
    """Return the matrices from offsets in output pixels to input pixels, and their inverses.

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


# Anti-aliased reading: a coarser image where the points are further apart.


_LEVELS: Final = 3
"""Largest number of halvings of the image; points further apart than 8 pixels alias. Each costs one more reading."""


def sample_mipmap(
    images: Float[Tensor, "batch channels height width"],
    grid: Float[Tensor, "batch out_height out_width 2"],
    *,
    padding: Padding,
    align_corners: bool,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Read images by trilinear interpolation in a pyramid, which is anti-aliased (Williams, SIGGRAPH 1983).

    The level of an output pixel is ``log2 sqrt |det J|``, with J the movement of the sampling point in input pixels
    from one output pixel to the next: 0 where the image is enlarged, moved or turned, 1 where it is shown at half its
    size. Level 0 is read bilinearly, exactly as ``bilinear`` does. Every further level averages 2 x 2 pixels of the one
    before (an odd last row or column counts as if it were doubled). Its pixels are larger than the
    image's, so a coarse level fades into ``zeros`` over half of a larger pixel on either side of the edge. One level
    holds for both directions: an image squeezed along one axis only is blurred less along it, and more along the other,
    than it should be. The level has a gradient: theta also learns from the change in blur.

    Arguments and conventions are those of :func:`sample`.
    """
    size = (images.shape[-2], images.shape[-1])
    level = _level(grid, size, align_corners=align_corners)
    sampled = interpolate(images, grid, mode="bilinear", padding=padding, align_corners=align_corners)
    for finer in range(min(_LEVELS, (max(size) - 1).bit_length())):
        images = functional.avg_pool2d(images, 2, ceil_mode=True, count_include_pad=False)
        places = _coarse_grid(grid, size, (images.shape[-2], images.shape[-1]), finer + 1, align_corners=align_corners)
        coarser = interpolate(images, places, mode="bilinear", padding=padding, align_corners=False)
        sampled = torch.lerp(sampled, coarser, (level - finer).clamp(0, 1))
    return sampled


def _level(grid: Tensor, size: Size, *, align_corners: bool) -> Float[Tensor, "batch 1 out_height out_width"]:
    """Return the level of every output pixel, at least 0 and without an upper bound."""
    (a, b), (c, d) = (row.unbind(-1) for row in pixel_jacobian(grid, size, align_corners=align_corners).unbind(-2))
    determinant: Tensor = (a * d - b * c).abs()
    return determinant.clamp(min=1).log2()[:, None] / 2


def _coarse_grid(grid: Tensor, size: Size, coarse_size: Size, level: int, *, align_corners: bool) -> Tensor:
    """Return the grid in coordinates of a level whose -1 and 1 are the outer edges of its border pixels.

    A level whose sides are rounded up reaches beyond the right and lower edge of the image.
    """
    (height, width), (coarse_height, coarse_width) = size, coarse_size
    sides = fill_numbers(float(width), float(height), like=grid)
    to_edges = (sides - 1) / sides if align_corners else torch.ones_like(sides)
    coarse = fill_numbers(float(coarse_width), float(coarse_height), like=grid)
    share = sides / (coarse * 2**level)
    return torch.addcmul(share - 1, grid, to_edges * share)


# Samplers by name.


class _Sample(Protocol):
    def __call__(self, images: Tensor, grid: Tensor, /, *, padding: Padding, align_corners: bool) -> Tensor: ...


_SAMPLERS: Final[Mapping[Sampler, _Sample]] = {
    "bilinear": partial(interpolate, mode="bilinear"),
    "bicubic": partial(interpolate, mode="bicubic"),
    "nearest": partial(interpolate, mode="nearest"),
    "mipmap": sample_mipmap,
    "linearized": sample_linearized,
}


def sample(
    images: Float[Tensor, "batch channels height width"],
    grid: Float[Tensor, "grids out_height out_width 2"],
    *,
    sampler: Sampler,
    padding: Padding,
    align_corners: bool,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Read images at the points of a grid with a sampler.

    Convention: the grid maps output to input. It holds, for every output pixel, the normalised (x, y) of the input in
    [-1, 1], x to the right and y down.

    The result has the type of the images; coordinates keep the precision of the grid. The grid of the identity gives
    the images back to within (height + width) 2^-24 times the largest difference between neighbours (3e-6 for 48 x 48
    pixels in [0, 1]): coordinates near -1 and 1 are rounded to 2^-24, which is at most (width - 1) 2^-25 pixels.
    ``bicubic`` and ``mipmap`` need up to four times as much, ``nearest`` nothing.

    Args:
        images: the images.
        grid: the sampling points, one grid for each image.
        sampler: ``bilinear``; ``bicubic`` (16 pixels, overshoots at edges); ``nearest`` (no gradient to the grid: theta
            does not learn from it); ``mipmap`` (anti-aliased, see ``sample_mipmap``); ``linearized`` (bilinear with
            wider gradients, see ``sample_linearized``).
        padding: the values outside [-1, 1]: 0, the nearest border pixel or a reflection.
        align_corners: whether -1 and 1 are the centres of the border pixels, or their outer edges.

    Raises:
        ShapeError: where the batch sizes of images and grid differ.
    """
    if images.shape[0] != grid.shape[0]:
        raise ShapeError("the sampling grid", grid.shape, f"({images.shape[0]}, height, width, 2), one grid an image")
    precision = torch.promote_types(images.dtype, grid.dtype)
    sampled = _SAMPLERS[sampler](images.to(precision), grid.to(precision), padding=padding, align_corners=align_corners)
    return sampled.to(images.dtype)


def outside_share(grid: Float[Tensor, "batch height width 2"]) -> Float[Tensor, " batch"]:
    """Return the share, in [0, 1], of every image's sampling points that lie outside [-1, 1] in x or in y."""
    return (grid.detach().abs() > 1).any(dim=-1).to(grid.dtype).mean(dim=(1, 2))
