"""Sampling: borders, precision, and what counts as outside."""

import pytest
import torch
from torch import Tensor

from stnbench.core.errors import ShapeError
from stnbench.spec.transformer import Padding
from stnbench.stn.sampler import outside_share, sample

ROW = torch.tensor([[[[1.0, 2.0, 4.0]]]])


def read(x: float, *, padding: Padding = "zeros", align_corners: bool = True) -> float:
    """The value of ROW at one x, in the middle of its one line."""
    grid = torch.tensor([[[[x, 0.0]]]])
    value: float = sample(ROW, grid, sampler="bilinear", padding=padding, align_corners=align_corners).item()
    return value


@pytest.mark.parametrize(("x", "expected"), [(-1.0, 1.0), (0.0, 2.0), (1.0, 4.0), (0.5, 3.0), (2.0, 0.0)])
def test_corners_are_the_centres_of_border_pixels(x: float, expected: float) -> None:
    """With align_corners, -1 and 1 are the outermost centres, the rest is interpolated and outside is 0."""
    assert read(x) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("x", "expected"), [(-1.0, 0.5), (-2 / 3, 1.0), (0.0, 2.0), (1.0, 2.0)])
def test_corners_are_the_edges_of_border_pixels(x: float, expected: float) -> None:
    """Without align_corners, -1 and 1 lie half a pixel outside the outermost centres, half way to the zeros."""
    assert read(x, align_corners=False) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("padding", "expected"), [("zeros", 0.0), ("border", 4.0), ("reflection", 2.0)])
def test_padding_decides_what_lies_outside(padding: Padding, expected: float) -> None:
    """At x = 2, one pixel beyond the right border of three, the three paddings differ."""
    assert read(2.0, padding=padding) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_result_has_the_precision_of_the_images(dtype: torch.dtype) -> None:
    """Images keep their type, and half-precision ones are still read at float32 coordinates."""
    x = 1 - 2**-12
    grid = torch.tensor([[[[x, 0.0]]]])
    images = torch.tensor([[[[0.0] * 200 + [1024.0]]]], dtype=dtype)
    result = sample(images, grid, sampler="bilinear", padding="zeros", align_corners=True)
    assert result.dtype == dtype
    assert result.item() == pytest.approx(1024 * (1 - 100 * 2**-12), rel=2**-7)


def test_another_number_of_grids_than_images_is_an_error() -> None:
    """Two images need two grids."""
    with pytest.raises(ShapeError) as caught:
        sample(ROW.expand(2, 1, 1, 3), torch.zeros(3, 1, 1, 2), sampler="bilinear", padding="zeros", align_corners=True)
    assert caught.value.actual == (3, 1, 1, 2)


def test_gradients_of_image_and_grid_are_right() -> None:
    """Both gradients agree with finite differences where no point lies on a pixel."""
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(1, 2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    grid = (1.6 * torch.rand(1, 3, 3, 2, generator=generator, dtype=torch.float64) - 0.8).requires_grad_()

    def act(images: Tensor, grid: Tensor) -> Tensor:
        return sample(images, grid, sampler="bilinear", padding="zeros", align_corners=True)

    assert torch.autograd.gradcheck(act, (images, grid))


def test_outside_counts_points_beyond_an_edge_in_either_direction() -> None:
    """Points on the edge are inside; beyond it in x or y they are outside, and count once."""
    grid = torch.tensor([[[[1.0, -1.0], [1.1, 0.0]], [[0.0, -1.1], [2.0, 2.0]]], [[[0.0, 0.0]] * 2] * 2])
    assert outside_share(grid.requires_grad_()).tolist() == [0.75, 0.0]
