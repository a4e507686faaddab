"""How densely a grid reads the input, in pixels."""

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.nn.transforms.base import Size


def half_sides(size: Size, *, align_corners: bool, like: Tensor) -> Float[Tensor, "2"]:
    """Pixels a unit of the normalised coordinates x and y, with the type and device of ``like``."""
    height, width = size
    return fill_numbers(*((side - align_corners) / 2 for side in (width, height)), like=like)


def fill_numbers(*numbers: float, like: Tensor) -> Float[Tensor, " numbers"]:
    """A few numbers as a tensor, with the type and device of ``like``.

    They are filled in on the device: numbers that are brought there from the host make it wait, and could be no part of
    a CUDA graph.
    """
    return torch.stack([like.new_full((), number) for number in numbers])


def pixel_jacobian(
    grid: Float[Tensor, "batch out_height out_width 2"], size: Size, *, align_corners: bool
) -> Float[Tensor, "batch out_height out_width 2 2"]:
    """By how many input pixels the sampling point moves from one output pixel to the next.

    Element [i, j]: along x (i = 0) or y (i = 1) in the input, from one pixel to its right (j = 0) or lower (j = 1)
    neighbour in the output. Central differences inside, one-sided ones at the border, and 0 along a side of one pixel.

    Args:
        grid: normalised (x, y) of every output pixel.
        size: height and width of the input.
        align_corners: whether -1 and 1 are the centres of the border pixels, or their outer edges.
    """
    pixels = grid * half_sides(size, align_corners=align_corners, like=grid)
    return torch.stack([_slope(pixels, dim=2), _slope(pixels, dim=1)], dim=-1)


def _slope(values: Tensor, *, dim: int) -> Tensor:
    """Differences of neighbours along a dimension, of the same shape as the values.

    Those of ``torch.gradient``, which an exported program ties to one batch size.
    """
    count = values.shape[dim]
    if count == 1:
        return torch.zeros_like(values)
    steps = values.diff(dim=dim)
    first, last = steps.narrow(dim, 0, 1), steps.narrow(dim, count - 2, 1)
    inner = (values.narrow(dim, 2, count - 2) - values.narrow(dim, 0, count - 2)) / 2
    return torch.cat([first, inner, last], dim=dim)
