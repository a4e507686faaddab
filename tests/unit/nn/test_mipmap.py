"""The anti-aliased sampler: grey instead of aliases, and bilinear where nothing is reduced."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from stnbench.nn.sampling import sample
from stnbench.nn.transforms.affine import Similarity
from stnbench.spec.transformer import Sampler

both_corners = pytest.mark.parametrize("align_corners", [True, False])


def zoomed(images: Tensor, scale: float, side: int, sampler: Sampler, *, align_corners: bool = False) -> Tensor:
    """The images zoomed about their centre to an output of so many pixels a side; scale 1 shows all of the input."""
    parameters = torch.full((len(images), 1), scale, dtype=images.dtype)
    grid = Similarity(scale=True).grid(parameters, (side, side), align_corners=align_corners)
    return sample(images, grid, sampler=sampler, padding="border", align_corners=align_corners)


def checkerboard(side: int) -> Tensor:
    """Single pixels of 0 and 1."""
    row = torch.arange(side) % 2
    return ((row + row[:, None]) % 2)[None, None].double()


def random_images(side: int) -> Tensor:
    """Two random images in [0, 1]."""
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@both_corners
def test_a_checkerboard_at_a_quarter_of_its_size_is_grey(*, align_corners: bool) -> None:
    """One output pixel for every 4 x 4 of black and white ones is their mean; bilinear shows what it happens to hit."""
    read = partial(zoomed, checkerboard(48), 0.95, 11, align_corners=align_corners)
    torch.testing.assert_close(read("mipmap"), torch.full((1, 1, 11, 11), 0.5, dtype=torch.float64))
    assert read("bilinear").std() > 0.1


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_power_of_two_is_block_means(level: int) -> None:
    """The whole image at 1/2, 1/4 and 1/8 of its size is the mean of blocks, between which nothing is interpolated."""
    images = random_images(48)
    expected = functional.avg_pool2d(images, 2**level)
    torch.testing.assert_close(zoomed(images, 1.0, 48 // 2**level, "mipmap"), expected, rtol=0, atol=1e-9)


def test_odd_sides_keep_their_place() -> None:
    """A ramp over 45 pixels at a third of its size is the ramp, within what rounding of sides shifts: not at all."""
    ramp = torch.arange(45.0, dtype=torch.float64).expand(1, 1, 45, 45)
    expected = torch.arange(15.0, dtype=torch.float64) * 3 + 1
    inside = slice(2, -2)
    read = zoomed(ramp, 1.0, 15, "mipmap")[0, 0]
    torch.testing.assert_close(read[7, inside], expected[inside], rtol=0, atol=1e-9)


def test_levels_in_between_are_mixed() -> None:
    """At 1 / sqrt(8) of its size an image is the mean of its readings at levels 1 and 2."""
    images, side = random_images(32), 8
    scale = side * math.sqrt(8) / 32
    half, quarter = (functional.avg_pool2d(images, 2**level) for level in (1, 2))
    both = [zoomed(coarse, scale, side, "bilinear") for coarse in (half, quarter)]
    torch.testing.assert_close(zoomed(images, scale, side, "mipmap"), sum(both) / 2, rtol=0, atol=1e-9)


@both_corners
@pytest.mark.parametrize("scale", [1.0, 0.7, -0.9, 0.05])
def test_what_is_not_reduced_is_read_bilinearly(*, align_corners: bool, scale: float) -> None:
    """Enlarged, half-turned or left alone, images are bit by bit those of bilinear, but for rounding at scale 1."""
    images = random_images(21)
    read = [zoomed(images, scale, 21, sampler, align_corners=align_corners) for sampler in ("mipmap", "bilinear")]
    torch.testing.assert_close(*read, rtol=0, atol=1e-12 if scale == 1 else 0)


def test_a_turn_reduces_nothing() -> None:
    """The determinant of a rotation is 1: within 1e-9, it is read bilinearly."""
    images = random_images(20)
    grid = Similarity(rotation=True).grid(torch.tensor([[0.3], [2.0]]).double(), (20, 20), align_corners=True)
    read = [sample(images, grid, sampler=name, padding="zeros", align_corners=True) for name in ("mipmap", "bilinear")]
    torch.testing.assert_close(*read, rtol=0, atol=1e-9)


def test_an_image_of_few_pixels_has_few_levels() -> None:
    """However small 3 x 2 pixels are shown, the result is their mean and finite."""
    images = torch.tensor([[[[0.0, 1.0], [0.2, 0.8], [0.5, 0.5]]]])
    far = zoomed(images, 30.0, 2, "mipmap")
    assert far.isfinite().all()
    torch.testing.assert_close(far, torch.full((1, 1, 2, 2), 0.5))
