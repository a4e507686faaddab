"""Reading between pixels: the one place that calls ``grid_sample``."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from stnbench.spec.transformer import Padding

Interpolation = Literal["bilinear", "bicubic", "nearest"]


def interpolate(
    images: Float[Tensor, "batch channels height width"],
    grid: Float[Tensor, "batch out_height out_width 2"],
    *,
    mode: Interpolation,
    padding: Padding,
    align_corners: bool,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """The images at normalised points (x, y) of one type with them, as ``torch.nn.functional.grid_sample`` reads."""
    return functional.grid_sample(images, grid, mode=mode, padding_mode=padding, align_corners=align_corners)
