"""The four ways in which the committee of 2011 adjusted contrast."""

from collections.abc import Callable
from typing import Any

import kornia
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from torch import Tensor
from torch.nn import functional

from stnbench.data.augmentation import blurred, lightness
from stnbench.data.preprocessing import adjust_contrast, adjust_image, enhance_edges, equalise_histogram, equalise_tiles
from stnbench.spec.data import Contrast

ADJUSTMENTS: tuple[Contrast, ...] = ("image_adjustment", "histogram_equalisation", "clahe", "contrast_normalisation")


def dim_planes(side: int = 48, count: int = 3) -> Tensor:
    """Whole levels about 60, of low contrast, brighter to the right."""
    noise = torch.randn(count, side, side, generator=torch.Generator().manual_seed(side))
    return (60 + 8 * noise + torch.linspace(0, 20, side)).round().clamp(0, 255)


def coloured_images(count: int = 2) -> Tensor:
    """Random colours of low contrast about a random colour an image."""
    generator = torch.Generator().manual_seed(5)
    base = 40 + 120 * torch.rand(count, 3, 1, 1, generator=generator)
    return (base + 15 * torch.randn(count, 3, 16, 16, generator=generator)).clamp(0, 255)


def test_no_adjustment_is_the_identity() -> None:
    """``none`` gives the images themselves."""
    images = coloured_images()
    assert adjust_contrast(images, "none") is images


@pytest.mark.parametrize("contrast", ADJUSTMENTS)
@settings(max_examples=10, deadline=None)
@given(levels=arrays(np.uint8, (2, 3, 9, 9)))
def test_levels_stay_in_their_range(contrast: Contrast, levels: np.ndarray) -> None:
    """Whatever the image, the result is finite and in [0, 255]."""
    adjusted = adjust_contrast(torch.from_numpy(levels.astype(np.float32)), contrast)
    assert adjusted.min() >= 0  # false for a NaN as well
    assert adjusted.max() <= 255


@pytest.mark.parametrize("contrast", ADJUSTMENTS)
def test_the_hue_stays(contrast: Contrast) -> None:
    """Every pixel's chroma keeps its direction: the adjusted one is a share, between 0 and 1, of the old one."""
    images = coloured_images()
    adjusted = adjust_contrast(images, contrast)
    old, new = (each - lightness(each) for each in (images, adjusted))
    share = (new * old).sum(1, keepdim=True) / old.square().sum(1, keepdim=True)
    assert share.min() >= 0
    assert share.max() <= 1 + 1e-3
    torch.testing.assert_close(new, share * old, rtol=0, atol=1e-3)
    assert (lightness(adjusted) - lightness(images)).abs().mean() > 5


@pytest.mark.parametrize("contrast", ADJUSTMENTS)
def test_channels_that_are_no_colours_are_adjusted_alone(contrast: Contrast) -> None:
    """Two channels give what each gives by itself, and an image what it gives without its batch."""
    planes = dim_planes(16, count=4).reshape(2, 2, 16, 16)
    both = adjust_contrast(planes, contrast)
    for image in range(2):
        for channel in range(2):
            alone = adjust_contrast(planes[image, channel][None, None], contrast)
            torch.testing.assert_close(both[image, channel], alone[0, 0], rtol=0, atol=1e-3)


def test_image_adjustment_saturates_one_percent_at_each_end() -> None:
    """A little over 1 % become black and white each, as whole levels do; the rest is stretched linearly."""
    planes = dim_planes()
    adjusted = adjust_image(planes)
    for plane, result in zip(planes, adjusted, strict=True):
        assert 0.01 < (result == 0).float().mean() < 0.02
        assert 0.01 < (result == 255).float().mean() < 0.02
        inside = (result > 0) & (result < 255)
        slopes = (result[inside] - result[inside].min()) - (plane[inside] - plane[inside].min()) * (
            (result[inside].max() - result[inside].min()) / (plane[inside].max() - plane[inside].min())
        )
        assert slopes.abs().max() < 1e-3


def test_equalised_histograms_are_flat() -> None:
    """The share of pixels at or below a level is that level over 255, to within the pixels that share a level."""
    for plane, result in zip(dim_planes(), equalise_histogram(dim_planes()), strict=True):
        _, counts = plane.unique(return_counts=True)
        widest = counts.max().item() / plane.numel()
        for level in range(0, 256, 5):
            assert (result <= level).float().mean().item() == pytest.approx(level / 255, abs=widest + 0.01)


def test_equalisation_keeps_the_order_and_uses_the_whole_range() -> None:
    """Brighter pixels stay brighter, the darkest becomes black and the brightest white, however small the image."""
    digit = torch.zeros(1, 28, 28)
    digit[0, 8:20, 12:16] = torch.arange(1, 49, dtype=torch.float32).reshape(12, 4)
    result = equalise_histogram(digit)
    assert (result[digit == 0] == 0).all()
    steps = result[digit > 0].sort().values
    torch.testing.assert_close(steps, torch.arange(1, 49) * 255 / 48)


@pytest.mark.parametrize("adjust", [adjust_image, equalise_histogram])
def test_an_image_of_one_level_stays_as_it_is(adjust: object) -> None:
    """There is nothing to stretch, and no division by zero."""
    flat = torch.full((1, 8, 8), 77.0)
    assert callable(adjust)
    assert torch.equal(adjust(flat), flat)


@pytest.mark.parametrize("side", [28, 42, 45, 48])
def test_clahe_is_that_of_kornia(side: int) -> None:
    """The same curves and the same blend, for tiles of even and odd sides, also where 8 does not divide the image."""
    planes = dim_planes(side)
    pixels = (-(-side // 8)) ** 2
    clip_limit = 1.5 * 256 / pixels  # one pixel a level
    # kornia cuts to whole levels where we round: a quarter of a level more is the same level for both.
    expected = kornia.enhance.equalize_clahe((planes[:, None] + 0.25) / 255, clip_limit, (8, 8)) * 255
    torch.testing.assert_close(equalise_tiles(planes), expected[:, 0], rtol=0, atol=1e-3)


def test_clahe_raises_local_contrast_more_than_global() -> None:
    """The deviation within 6x6 tiles grows at least twofold; the dim image does not just become bright."""
    planes = dim_planes()

    def local(levels: Tensor) -> float:
        return levels.unfold(1, 6, 6).unfold(2, 6, 6).std(dim=(-2, -1)).mean().item()

    assert local(equalise_tiles(planes)) > 2 * local(planes)


def test_clahe_leaves_noise_in_flat_tiles_alone() -> None:
    """Where two levels are all there is, the clip limit keeps them close: less than a tenth of the range apart."""
    flicker = 100 + (torch.arange(48)[:, None] + torch.arange(48)) % 2
    result = equalise_tiles(flicker[None].float())
    assert result.max() - result.min() < 25
    assert (equalise_histogram(flicker[None].float()).max()) == 255


def test_a_flat_image_has_no_edges() -> None:
    """Contrast normalisation makes it middle grey, whatever its level, up to the border."""
    for level in (0.0, 33.0, 255.0):
        torch.testing.assert_close(
            enhance_edges(torch.full((1, 9, 9), level)), torch.full((1, 9, 9), 127.5), rtol=0, atol=1e-2
        )


def test_edges_stand_out_dark_and_bright() -> None:
    """A step is darkest just before and brightest just after; three pixels away there is nothing of it."""
    step = torch.full((1, 16, 16), 80.0)
    step[:, :, 8:] = 120
    row = enhance_edges(step)[0, 5]
    assert row.argmin() == 7
    assert row.argmax() == 8
    assert row[7] < 64
    assert row[8] > 191
    torch.testing.assert_close(row[[0, 5, 10, 15]], torch.full((4,), 127.5), rtol=0, atol=1e-2)


@pytest.mark.parametrize("filtered", [enhance_edges, lambda planes: blurred(planes[:, None], torch.ones(len(planes)))])
def test_filters_round_nothing_where_a_gpu_rounds_convolutions(
    filtered: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial in tf32 sees the images that one in float32 sees; the network's convolutions are rounded afterwards."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen: list[bool] = []
    real = functional.conv2d

    def watched(*given: Any, **options: Any) -> Tensor:
        seen.append(torch.backends.cudnn.allow_tf32)
        return real(*given, **options)

    monkeypatch.setattr(functional, "conv2d", watched)
    filtered(dim_planes())
    assert seen
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32


def test_contrast_normalisation_ignores_contrast_and_brightness() -> None:
    """Half the contrast and another brightness give the same edges."""
    planes = dim_planes()
    torch.testing.assert_close(enhance_edges(planes / 2 + 90), enhance_edges(planes), rtol=0, atol=0.05)
