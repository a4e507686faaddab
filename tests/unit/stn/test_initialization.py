"""Weights: range, reproducibility, and no touch of global random state."""

import pytest
import torch
from torch import nn

from stnbench.stn.initialization import clear_weights, conv, draw_weights, linear, part_generator


@pytest.mark.parametrize(
    ("layer", "fan_in"), [(conv(3, 40, kernel=5, padding=2), 75), (linear(100, 60), 100)], ids=["conv", "linear"]
)
def test_weights_and_biases_fill_the_range_of_torch7(layer: nn.Conv2d | nn.Linear, fan_in: int) -> None:
    """Weights and bias are uniform in +-1 / sqrt(fan in): none outside, the deviation that of a uniform."""
    draw_weights(layer, part_generator(1, "part"))
    bound = fan_in**-0.5
    assert layer.bias is not None
    for values in (layer.weight, layer.bias):
        assert values.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert layer.weight.mean().item() == pytest.approx(0, abs=0.05 * bound)


def test_same_seed_and_part_give_the_same_weights_and_others_do_not() -> None:
    """Seed and part decide the weights, nothing else does."""

    def weights(seed: int, part: str) -> list[float]:
        layer = linear(3, 2)
        draw_weights(layer, part_generator(seed, part))
        values: list[float] = layer.weight.flatten().tolist()
        return values

    assert weights(1, "hidden") == weights(1, "hidden")
    assert weights(1, "hidden") != weights(2, "hidden")
    assert weights(1, "hidden") != weights(1, "logits")


def test_global_random_state_is_left_alone() -> None:
    """Making and drawing layers does not move torch's global generator."""
    before = torch.get_rng_state()
    draw_weights(nn.Sequential(conv(1, 2, kernel=3, padding=1), linear(2, 2)), part_generator(1, "x"))
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_lie_on_the_default_device() -> None:
    """A meta device costs no memory."""
    with torch.device("meta"):
        assert conv(1, 2, kernel=3, padding=1).weight.device.type == "meta"
        assert linear(1, 2).weight.device.type == "meta"


def test_cleared_weights_are_zero() -> None:
    """Nothing that lay in memory before shows through."""
    layer = linear(4, 4)
    clear_weights(layer)
    assert not layer.weight.any()
    assert not layer.bias.any()
