"""Lightness: what it is, and what stays when it changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stnbench.data.augmentation import lightness
from stnbench.data.preprocessing import with_lightness

LEVEL = st.floats(0, 255, width=32)


def test_the_lightness_of_rgb_is_its_luma() -> None:
    """A grey's luma is its level; pure colours have the luma of BT.601."""
    colours = torch.tensor([[200.0, 200, 200], [255, 0, 0], [0, 255, 0], [0, 0, 255]])[:, :, None, None]
    expected = torch.tensor([200, 0.299 * 255, 0.587 * 255, 0.114 * 255])
    torch.testing.assert_close(lightness(colours).flatten(), expected)


@pytest.mark.parametrize("channels", [1, 2])
def test_channels_that_are_no_colours_are_their_own_lightness(channels: int) -> None:
    """One or two channels come back as they are, and take a new lightness as it is."""
    images = torch.rand(2, channels, 4, 4, generator=torch.Generator().manual_seed(1)) * 255
    assert torch.equal(lightness(images), images)
    assert torch.equal(with_lightness(images, images / 2), images / 2)


@settings(deadline=None)
@given(red=LEVEL, green=LEVEL, blue=LEVEL, wanted=LEVEL)
def test_a_new_lightness_is_reached_exactly_and_keeps_the_hue(
    red: float, green: float, blue: float, wanted: float
) -> None:
    """The result is a colour that exists, its luma the wanted one, its chroma the old one or a share of it."""
    pixel = torch.tensor([red, green, blue]).reshape(1, 3, 1, 1)
    changed = with_lightness(pixel, torch.tensor(wanted).reshape(1, 1, 1, 1))
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert lightness(changed).item() == pytest.approx(wanted, abs=1e-3)
    old, new = pixel - lightness(pixel), changed - lightness(changed)
    share = (new * old).sum() / old.square().sum().clamp(min=1e-9)
    # A chroma far smaller than the lightness is known only to the rounding of float32 at that lightness.
    rounding = 4 * torch.finfo(torch.float32).eps * max(wanted, red, green, blue) / old.norm().clamp(min=1e-9)
    assert -1e-4 - rounding <= share <= 1 + 1e-4 + rounding
    torch.testing.assert_close(new, share * old, rtol=0, atol=2e-3)


def test_the_same_lightness_changes_nothing() -> None:
    """An image with its own lightness is itself, to a thousandth of a level."""
    images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(2)) * 255
    torch.testing.assert_close(with_lightness(images, lightness(images)), images, rtol=0, atol=1e-3)
