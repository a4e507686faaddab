"""Anti-aliased reading: the wider apart the points, the coarser the image that is read."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from stnbench.nn.sampling.interpolation import interpolate
from stnbench.nn.sampling.jacobian import fill_numbers, pixel_jacobian
from stnbench.nn.transforms.base import Size
from stnbench.spec.transformer import Padding

_LEVELS: Final = 3
"""Halvings of the image at most; points further apart than 8 pixels alias. Each costs one more reading."""


def sample_mipmap(
    images: Float[Tensor, "batch channels height width"],
    grid: Float[Tensor, "batch out_height out_width 2"],
    *,
    padding: Padding,
    align_corners: bool,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """The images read by trilinear interpolation in a pyramid (Williams, SIGGRAPH 1983).

    The level of an output pixel is ``log2 sqrt |det J|``, with J the movement of the sampling point in input pixels
    from one output pixel to the next: 0 where the image is enlarged, moved or turned, 1 where it is shown at half its
    size. Level 0 is read bilinearly, exactly as ``bilinear`` does. Every further level averages 2 x 2 pixels of the one
    before (of an odd last row or column only what is there, as if it were doubled). Its pixels are larger than the
    image's, so a coarse level fades into ``zeros`` over half of a larger pixel on either side of the edge. One level
    holds for both directions: what is squeezed along one axis only is blurred less along it, and more along the other,
    than it should be. The level has a gradient: theta also learns from what blurring does.
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
    """The level of every output pixel; 0 is the lowest, and there is no highest."""
    (a, b), (c, d) = (row.unbind(-1) for row in pixel_jacobian(grid, size, align_corners=align_corners).unbind(-2))
    determinant: Tensor = (a * d - b * c).abs()
    return determinant.clamp(min=1).log2()[:, None] / 2


def _coarse_grid(grid: Tensor, size: Size, coarse_size: Size, level: int, *, align_corners: bool) -> Tensor:
    """The grid in coordinates of a level whose -1 and 1 are the outer edges of its border pixels.

    A level whose sides are rounded up reaches beyond the right and lower edge of the image.
    """
    (height, width), (coarse_height, coarse_width) = size, coarse_size
    sides = fill_numbers(float(width), float(height), like=grid)
    to_edges = (sides - 1) / sides if align_corners else torch.ones_like(sides)
    coarse = fill_numbers(float(coarse_width), float(coarse_height), like=grid)
    share = sides / (coarse * 2**level)
    return torch.addcmul(share - 1, grid, to_edges * share)
