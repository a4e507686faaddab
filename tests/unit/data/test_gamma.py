"""Gamma: the exponent does what it says, and is drawn evenly in octaves."""

import torch

from stnbench.data.augmentation import apply_gamma, draw_gamma


def test_black_and_white_stay_and_what_lies_between_moves_by_the_exponent() -> None:
    """A quarter of full brightness becomes a sixteenth at exponent 2, a half at 0.5, and stays at 1."""
    levels = torch.tensor([0.0, 63.75, 255.0]).expand(3, 1, 1, 3)
    dark, same, light = apply_gamma(levels, torch.tensor([2.0, 1.0, 0.5]))[:, 0, 0]
    torch.testing.assert_close(dark, torch.tensor([0.0, 15.9375, 255.0]))
    torch.testing.assert_close(same, levels[0, 0, 0])
    torch.testing.assert_close(light, torch.tensor([0.0, 127.5, 255.0]))


def test_exponents_are_uniform_in_octaves() -> None:
    """Their binary logarithms fill minus to plus the key, mean 0, and differ between epochs and seeds."""
    exponents = draw_gamma(1.5, seed=1, epoch=0, count=4000)
    assert exponents is not None
    octaves = exponents.log2()
    assert 1.45 < float(octaves.abs().max()) <= 1.5
    assert abs(float(octaves.mean())) < 0.05
    others = [draw_gamma(1.5, seed=seed, epoch=epoch, count=4000) for seed, epoch in ((1, 1), (2, 0))]
    assert all(other is not None and not torch.equal(other, exponents) for other in others)


def test_no_octaves_draw_nothing() -> None:
    """0 gives None, so that images are not even copied."""
    assert draw_gamma(0.0, seed=1, epoch=0, count=5) is None
