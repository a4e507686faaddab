"""Sampling: borders, precision, and what counts as outside."""

import pytest
import torch
from torch import Tensor

from stnbench.core.errors import ShapeError
from stnbench.nn.sampling import outside_share, sample
from stnbench.spec.transformer import Padding, Sampler

ROW = torch.tensor([[[[1.0, 2.0, 4.0]]]])


def read(x: float, *, padding: Padding = "zeros", align_corners: bool = True) -> float:
    """The value of ROW at one x, in the middle of its one line."""
    grid = torch.tensor([[[[x, 0.0]]]])
    value: float = sample(ROW, grid, sampler="bilinear", padding=padding, align_corners=align_corners).item()
    return value


def read_row(images: Tensor, x: Tensor, sampler: Sampler) -> Tensor:
    """What a sampler reads along the fourth row of a 7 x 9 image, at columns that may lie between pixels."""
    grid = torch.stack([x / 4 - 1, torch.zeros_like(x)], dim=-1)[None, None]
    return sample(images, grid, sampler=sampler, padding="zeros", align_corners=True).flatten()


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


def test_bicubic_is_the_kernel_of_torch_and_near_a_ramp() -> None:
    """Half way its weights are -3, 19, 19, -3 in 32; a ramp inside comes back within 0.048 of its slope, no closer."""
    spike = torch.zeros(1, 1, 7, 9, dtype=torch.float64)
    spike[..., 4] = 1
    x = torch.tensor([2.5, 3.5, 4.5, 5.5], dtype=torch.float64)
    read = read_row(spike, x, "bicubic")
    assert read.tolist() == pytest.approx([-3 / 32, 19 / 32, 19 / 32, -3 / 32], abs=1e-12)
    ramp = torch.arange(9.0, dtype=torch.float64).expand(1, 1, 7, 9)
    between = torch.linspace(2, 6, 65, dtype=torch.float64)
    error = (read_row(ramp, between, "bicubic") - between).abs()
    assert 0.047 < error.max() < 0.048
    assert error[::8].max() < 1e-12


def test_nearest_reads_one_pixel_and_pulls_nowhere() -> None:
    """Values are those of the nearest pixel, and the gradient to the grid is zero: theta cannot learn from it."""
    ramp = torch.arange(9.0, dtype=torch.float64).expand(1, 1, 7, 9)
    x = torch.tensor([2.4, 2.6, 7.9], dtype=torch.float64, requires_grad=True)
    read = read_row(ramp, x, "nearest")
    assert read.tolist() == [2.0, 3.0, 8.0]
    assert torch.autograd.grad(read.sum(), x)[0].tolist() == [0.0] * 3


def test_outside_counts_points_beyond_an_edge_in_either_direction() -> None:
    """Points on the edge are inside; beyond it in x or y they are outside, and count once."""
    grid = torch.tensor([[[[1.0, -1.0], [1.1, 0.0]], [[0.0, -1.1], [2.0, 2.0]]], [[[0.0, 0.0]] * 2] * 2])
    assert outside_share(grid.requires_grad_()).tolist() == [0.75, 0.0]
