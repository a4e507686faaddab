"""Blur and rectangles: how far they go, and that they leave alone what they should."""

import torch

from stnbench.data.augmentation import blurred, draw_blur, draw_erased, erased


def noise(count: int = 3, side: int = 16) -> torch.Tensor:
    """Random levels."""
    return 255 * torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def test_blur_keeps_an_even_image_and_the_mean_of_noise() -> None:
    """Even images stay exactly even; noise loses most of its variance at share 1, gains at -1, and stays at 0."""
    even = torch.full((2, 3, 16, 16), 90.0)
    torch.testing.assert_close(blurred(even, torch.tensor([1.0, -1.0])), even)
    images = noise().clamp(100, 150)
    soft, same, sharp = blurred(images, torch.tensor([1.0, 0.0, -1.0])).var(dim=(1, 2, 3)) / images.var(dim=(1, 2, 3))
    assert soft < 0.2
    torch.testing.assert_close(same, torch.ones(()))
    assert sharp > 2


def test_blur_is_the_gaussian_mean_of_the_neighbourhood() -> None:
    """One bright pixel becomes the product kernel of sigma 1.25 pixels, cut at two pixels and normalised."""
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 200
    weights = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / (2 * 1.25**2))
    weights = weights / weights.sum()
    spread = blurred(image, torch.ones(1))[0, 0]
    torch.testing.assert_close(spread[2:7, 2:7], 200 * weights[:, None] * weights)
    assert int((spread != 0).sum()) == 25


def test_a_rectangle_is_painted_in_the_mean_colour() -> None:
    """The upper left quarter is even in each channel's mean; the rest is as it was."""
    images = noise()
    painted = erased(images, torch.tensor([[-1.0, -1.0, 0.0, 0.0]]).repeat(3, 1))
    quarter = images.mean(dim=(2, 3), keepdim=True).expand(-1, -1, 8, 8)
    torch.testing.assert_close(painted[..., :8, :8], quarter)
    assert torch.equal(painted[..., 8:, :], images[..., 8:, :])
    assert torch.equal(painted[..., :8, 8:], images[..., :8, 8:])


def test_drawn_rectangles_lie_in_the_image_and_are_as_large_as_asked_at_most() -> None:
    """Sides are uniform from 0 to the share, places fill the image."""
    boxes = draw_erased(0.4, seed=1, epoch=0, count=4000)
    assert boxes is not None
    sides = (boxes[:, 2:] - boxes[:, :2]) / 2
    assert float(boxes.min()) >= -1
    assert float(boxes.max()) <= 1
    assert float(sides.max()) <= 0.4
    assert abs(float(sides.mean()) - 0.2) < 0.01
    assert abs(float((boxes[:, :2] + boxes[:, 2:]).mean())) < 0.05


def test_shares_of_blur_are_drawn_evenly_to_both_sides() -> None:
    """They lie between minus and plus the share, mean 0, and differ between epochs and seeds."""
    shares = draw_blur(0.8, seed=1, epoch=0, count=4000)
    assert shares is not None
    assert float(shares.abs().max()) <= 0.8
    assert abs(float(shares.mean())) < 0.03
    others = [draw_blur(0.8, seed=seed, epoch=epoch, count=4000) for seed, epoch in ((1, 1), (2, 0))]
    assert all(other is not None and not torch.equal(other, shares) for other in others)


def test_nothing_is_drawn_where_nothing_is_asked_for() -> None:
    """A share of 0 gives None."""
    assert draw_blur(0.0, seed=1, epoch=0, count=5) is None
    assert draw_erased(0.0, seed=1, epoch=0, count=5) is None
