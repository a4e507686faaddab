"""Reading images at sampling points: the one place that calls ``grid_sample``."""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from stnbench.core.errors import ShapeError
from stnbench.spec.transformer import Padding, Sampler

_Sample = Callable[[Tensor, Tensor, Padding, bool], Tensor]


def _bilinear(images: Tensor, grid: Tensor, padding: Padding, align_corners: bool) -> Tensor:  # noqa: FBT001 - _Sample
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=align_corners)


_SAMPLERS: Final[Mapping[Sampler, _Sample]] = {"bilinear": _bilinear}


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

    The grid of the identity gives the images back to within (height + width) 2^-24 times the largest difference
    between neighbours (3e-6 for 48 x 48 pixels in [0, 1]): coordinates near -1 and 1 are rounded to 2^-24, which is at
    most (width - 1) 2^-25 pixels.
    Raises: ShapeError where the batches differ.
    """
    if len(images) != len(grid):
        raise ShapeError("the sampling grid", grid.shape, f"({len(images)}, height, width, 2), one grid an image")
    precision = torch.promote_types(images.dtype, grid.dtype)
    sampled = _SAMPLERS[sampler](images.to(precision), grid.to(precision), padding, align_corners)
    return sampled.to(images.dtype)


def outside_share(grid: Float[Tensor, "batch height width 2"]) -> Float[Tensor, " batch"]:
    """The share of every image's sampling points that lie outside [-1, 1] in x or in y."""
    return (grid.detach().abs() > 1).any(dim=-1).to(grid.dtype).mean(dim=(1, 2))
