"""Reading images at sampling points: the registry of samplers, one line each."""

from collections.abc import Mapping
from functools import partial
from typing import Final, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.core.errors import ShapeError
from stnbench.nn.sampling.interpolation import interpolate
from stnbench.nn.sampling.linearized import sample_linearized
from stnbench.nn.sampling.mipmap import sample_mipmap
from stnbench.spec.transformer import Padding, Sampler


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
    """The images at the grid's points, in the precision of the images; coordinates keep the grid's.

    Convention: grid holds normalised (x, y) of the input in [-1, 1]; what lies outside is 0, the nearest border pixel
    or a reflection, as ``padding`` says.

    Samplers: ``bilinear``; ``bicubic`` (16 pixels, overshoots at edges); ``nearest`` (no gradient to the grid: theta
    does not learn from it); ``mipmap`` (anti-aliased, see ``sample_mipmap``); ``linearized`` (bilinear with wider
    gradients, see ``sample_linearized``).

    The grid of the identity gives the images back to within (height + width) 2^-24 times the largest difference
    between neighbours (3e-6 for 48 x 48 pixels in [0, 1]): coordinates near -1 and 1 are rounded to 2^-24, which is at
    most (width - 1) 2^-25 pixels. ``bicubic`` and ``mipmap`` need up to four times as much, ``nearest`` nothing.
    Raises: ShapeError where the batches differ.
    """
    if images.shape[0] != grid.shape[0]:
        raise ShapeError("the sampling grid", grid.shape, f"({images.shape[0]}, height, width, 2), one grid an image")
    precision = torch.promote_types(images.dtype, grid.dtype)
    sampled = _SAMPLERS[sampler](images.to(precision), grid.to(precision), padding=padding, align_corners=align_corners)
    return sampled.to(images.dtype)


def outside_share(grid: Float[Tensor, "batch height width 2"]) -> Float[Tensor, " batch"]:
    """The share of every image's sampling points that lie outside [-1, 1] in x or in y."""
    return (grid.detach().abs() > 1).any(dim=-1).to(grid.dtype).mean(dim=(1, 2))
