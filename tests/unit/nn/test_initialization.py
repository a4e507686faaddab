"""Weights: range, reproducibility, and no touch of global random state."""

import pytest
import torch
from torch import nn

from stnbench.nn.initialization import batch_norm, clear_weights, conv, draw_weights, linear, part_generator


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


def test_a_convolution_without_a_bias_has_the_weights_of_one_with_a_bias() -> None:
    """Leaving the bias away moves no other weight of the layer, and is no error."""
    bare, full = (conv(3, 4, kernel=3, padding=1, bias=bias) for bias in (False, True))
    for layer in (bare, full):
        draw_weights(layer, part_generator(1, "part"))
    assert bare.bias is None
    assert torch.equal(bare.weight, full.weight)


def test_a_drawn_batch_norm_has_seen_no_batch() -> None:
    """Scale 1, shift 0, mean 0, variance 1 and no batches, whatever it was before; it takes no random numbers."""
    layer, generator = batch_norm(3), part_generator(1, "part")
    before = generator.get_state()
    with torch.no_grad():
        for value in layer.state_dict().values():
            value.fill_(7)
    draw_weights(layer, generator)
    state = {name: value.tolist() for name, value in layer.state_dict().items()}
    assert state == {
        "weight": [1.0] * 3,
        "bias": [0.0] * 3,
        "running_mean": [0.0] * 3,
        "running_var": [1.0] * 3,
        "num_batches_tracked": 0,
    }
    assert torch.equal(generator.get_state(), before)


def test_a_cleared_batch_norm_has_seen_no_batch_either() -> None:
    """Its parameters are zero, and its memory is that of a new one, not what lay in memory before."""
    layer = batch_norm(2)
    with torch.no_grad():
        for value in layer.state_dict().values():
            value.fill_(7)
    clear_weights(layer)
    assert not any(parameter.any() for parameter in layer.parameters())
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.running_mean.tolist() == [0.0, 0.0]
    assert layer.running_var.tolist() == [1.0, 1.0]
    assert layer.num_batches_tracked == 0


def test_layers_lie_on_the_default_device() -> None:
    """A meta device costs no memory."""
    with torch.device("meta"):
        assert conv(1, 2, kernel=3, padding=1).weight.device.type == "meta"
        assert linear(1, 2).weight.device.type == "meta"
        assert {value.device.type for value in batch_norm(2).state_dict().values()} == {"meta"}


def test_cleared_weights_are_zero() -> None:
    """Nothing that lay in memory before shows through."""
    layer = linear(4, 4)
    clear_weights(layer)
    assert not layer.weight.any()
    assert not layer.bias.any()
