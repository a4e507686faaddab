"""Reading between pixels: the one place that calls torch's sampler."""

from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.spec.transformer import Padding

Interpolation = Literal["bilinear", "bicubic", "nearest"]

_MODES: Final[dict[Interpolation, int]] = {"bilinear": 0, "nearest": 1, "bicubic": 2}
_PADDINGS: Final[dict[Padding, int]] = {"zeros": 0, "border": 1, "reflection": 2}
"""As torch.nn.functional.grid_sample numbers them."""


def interpolate(
    images: Float[Tensor, "batch channels height width"],
    grid: Float[Tensor, "batch out_height out_width 2"],
    *,
    mode: Interpolation,
    padding: Padding,
    align_corners: bool,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """The images at normalised points (x, y) of one type with them, as ``torch.nn.functional.grid_sample`` reads.

    The operator is called by its name: on CUDA ``grid_sample`` takes cuDNN's for what most transformers here ask for
    (bilinear, zeros, corners aligned, float32), whose gradient to the grid is not repeatable (pytorch#180417) and which
    always computes the gradient to the images as well. That of torch's own has one writer a point of the grid.
    """
    sampled: Tensor = torch.ops.aten.grid_sampler_2d(images, grid, _MODES[mode], _PADDINGS[padding], align_corners)
    return sampled
