"""Contrastive normalisation against a literal reference, dense layers on maps, and dropout."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stnbench.core.errors import ShapeError, SpecError
from stnbench.nn.layers import (
    BOX_SIZE,
    CONTRASTIVE_KERNELS,
    THRESHOLD,
    ChannelDropout,
    ContrastiveNorm,
    Dense,
    box_kernel,
    gaussian_kernel,
    seed_dropout,
)

KERNELS = {"gaussian7": gaussian_kernel(7), "box9": box_kernel(BOX_SIZE), "lopsided3": (1.0, 2.0, 4.0)}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def literal(x: Tensor, kernel: tuple[float, ...]) -> Tensor:
    """The definition word by word: one two-dimensional convolution over all channels, in float64."""
    one = torch.tensor(kernel, dtype=torch.float64)
    channels = x.shape[1]
    weights = (torch.outer(one, one) / one.sum() ** 2 / channels).expand(1, channels, -1, -1)

    def mean(values: Tensor) -> Tensor:
        return functional.conv2d(values, weights, padding=len(kernel) // 2)

    coef = mean(torch.ones_like(x))
    v = x - mean(x) / coef
    s = mean(v**2).sqrt() / coef
    return v / torch.where(s > 1e-4, s, torch.full_like(s, 1e-4))


def norm(kernel: tuple[float, ...], maps: Tensor) -> ContrastiveNorm:
    """The layer for maps of this size."""
    return ContrastiveNorm(kernel, height=maps.shape[2], width=maps.shape[3])


def random_maps(*shape: int) -> Tensor:
    """Float64 maps in [0, 1], the same ones every time."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(11), dtype=torch.float64)


@every_kernel
@pytest.mark.parametrize("shape", [(2, 3, 12, 17), (1, 5, 6, 6), (2, 1, 3, 1), (1, 4, 1, 1)])
def test_it_is_the_definition_of_2015(kernel: tuple[float, ...], shape: tuple[int, ...]) -> None:
    """Values and gradients are those of the literal definition, also where the kernel is larger than the map.

    Relative tolerance 1e-6: the layer keeps its kernel in float32.
    """
    maps = random_maps(*shape).requires_grad_()
    weights = torch.linspace(-1, 2, maps.numel(), dtype=torch.float64).reshape(shape)
    actual, expected = norm(kernel, maps)(maps), literal(maps, kernel)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    if min(shape[1:]) > 1:  # a lone pixel is all threshold, where the literal definition has no gradient
        gradients = [torch.autograd.grad((result * weights).sum(), maps)[0] for result in (actual, expected)]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-5)


@every_kernel
def test_float32_is_close_to_the_definition(kernel: tuple[float, ...]) -> None:
    """In float32, at a network's size, the largest error is below 1e-5."""
    maps = random_maps(2, 8, 24, 24)
    assert (norm(kernel, maps)(maps.float()) - literal(maps, kernel)).abs().max() < 1e-5


def test_gradient_is_right() -> None:
    """The gradient agrees with finite differences, with part of the map below the threshold."""
    maps = random_maps(1, 2, 5, 6) * 1e-3
    maps[..., :3] = 0.5
    layer = norm(gaussian_kernel(3), maps)
    assert torch.autograd.gradcheck(layer, maps.requires_grad_(), eps=1e-9, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("level", [0.0, 0.7])
def test_flat_maps_give_zero_and_a_finite_gradient(level: float) -> None:
    """A constant map has no contrast: near-zero output, and no infinite slope of sqrt at 0."""
    maps = torch.full((1, 3, 12, 12), level, requires_grad=True)
    out = norm(box_kernel(9), maps)(maps)
    out.square().sum().backward()
    assert out.abs().max() < 1e-2
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


def test_contrast_below_the_threshold_is_not_blown_up() -> None:
    """A deviation below 1e-4 is divided by 1e-4, so that the output shrinks with it."""
    maps = random_maps(1, 1, 12, 12)
    layer = norm(box_kernel(9), maps)
    faint = layer(1e-6 * maps)
    assert faint.abs().max() < 1e-6 / THRESHOLD
    torch.testing.assert_close(layer(2e-6 * maps), 2 * faint)


def test_contrast_and_brightness_of_the_whole_do_not_matter() -> None:
    """Above the threshold the output is the same for brighter images with more contrast."""
    maps = random_maps(1, 3, 12, 12)
    layer = norm(gaussian_kernel(7), maps)
    torch.testing.assert_close(layer(3 * maps + 5), layer(maps), rtol=1e-5, atol=1e-5)


def test_channels_are_normalised_together() -> None:
    """A channel twice as bright stays brighter; normalised alone, the two would be equal."""
    one = random_maps(1, 1, 12, 12)
    maps = torch.cat([one, 2 * one], dim=1)
    out = norm(box_kernel(9), maps)(maps)
    assert (out[:, 1] - out[:, 0]).mean() > 0.5


def test_gaussian_is_that_of_torch_image() -> None:
    """exp(-((i - 4) / 1.75)^2 / 2) for i = 1..7."""
    expected = [math.exp(-(((i - 4) / 1.75) ** 2) / 2) for i in range(1, 8)]
    assert gaussian_kernel(7) == pytest.approx(expected, rel=1e-15)


def test_the_gaussian_of_a_network_is_the_two_dimensional_one() -> None:
    """The norm named ``gaussian`` is the definition with exp(-r^2 / (2 1.75^2)) on 7 x 7 pixels, to 1e-6."""
    maps = random_maps(2, 4, 12, 11)
    offset = torch.arange(7, dtype=torch.float64) - 3
    window = torch.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.75**2))
    weights = (window / window.sum() / 4).expand(1, 4, -1, -1)
    coef = functional.conv2d(torch.ones_like(maps), weights, padding=3)
    centred = maps - functional.conv2d(maps, weights, padding=3) / coef
    deviation = functional.conv2d(centred**2, weights, padding=3).sqrt() / coef
    actual = norm(CONTRASTIVE_KERNELS["gaussian"], maps)(maps)
    torch.testing.assert_close(actual, centred / deviation.clamp(min=THRESHOLD), rtol=1e-6, atol=1e-6)
    assert CONTRASTIVE_KERNELS["box"] == (1.0,) * 9


def test_an_even_kernel_is_an_error() -> None:
    """A kernel without a centre cannot be used."""
    with pytest.raises(SpecError, match="4 weights"):
        ContrastiveNorm(box_kernel(4), height=8, width=8)


def test_maps_of_another_size_are_an_error() -> None:
    """The layer knows the size that it was made for."""
    with pytest.raises(ShapeError) as caught:
        ContrastiveNorm(box_kernel(9), height=8, width=6)(torch.zeros(1, 2, 8, 8))
    assert caught.value.expected == "(batch, channels, 8, 6)"


def test_half_precision_is_normalised_in_float32() -> None:
    """bfloat16 maps, under autocast, differ from float32 ones by their own rounding only, and stay bfloat16."""
    maps = random_maps(1, 8, 12, 12).bfloat16()
    layer = norm(box_kernel(9), maps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(maps)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, layer(maps.float()).bfloat16())


def test_it_has_nothing_to_learn_and_nothing_to_store() -> None:
    """Checkpoints do not hold the kernel."""
    assert not ContrastiveNorm(box_kernel(9), height=8, width=8).state_dict()


def test_memory_format_is_kept() -> None:
    """A network in channels_last stays so, and gives the same numbers to 1e-5."""
    maps = random_maps(2, 8, 12, 12).float()
    layer = norm(box_kernel(9), maps)
    out = layer(maps.to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, layer(maps), rtol=1e-5, atol=1e-5)


def test_dense_is_a_linear_layer_of_the_flattened_map() -> None:
    """Channel by channel, row by row, in either memory format; the output is a map of one pixel."""
    layer = Dense(2 * 3 * 4, 5)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(2))
    maps = random_maps(6, 2, 3, 4).float()
    expected = maps.reshape(6, 24) @ layer.weight.T + layer.bias
    for memory in (torch.contiguous_format, torch.channels_last):
        out = layer(maps.contiguous(memory_format=memory))
        assert out.shape == (6, 5, 1, 1)
        torch.testing.assert_close(out.flatten(1), expected, rtol=1e-5, atol=1e-5)


def test_dropout_drops_whole_channels_and_keeps_the_mean() -> None:
    """A channel is zero or scaled by 1 / (1 - share); about the share of them is zero, 3 percent points at most off."""
    maps = random_maps(50, 40, 2, 3) + 0.5
    out = ChannelDropout(0.25)(maps)
    dropped = (out == 0).flatten(2)
    assert torch.equal(dropped.all(dim=2), dropped.any(dim=2))
    torch.testing.assert_close(out[out != 0], maps[out != 0] * 4 / 3, rtol=1e-6, atol=0)
    assert dropped[:, :, 0].double().mean().item() == pytest.approx(0.25, abs=0.03)


def test_dropout_does_nothing_in_evaluation() -> None:
    """The maps come back as they are."""
    maps = random_maps(2, 3, 4, 4)
    assert ChannelDropout(0.5).eval()(maps) is maps


def test_dropout_follows_its_seed_and_leaves_global_random_state_alone() -> None:
    """Layers of one network have streams of their own; seeding again repeats them; torch's generator does not move."""
    network = nn.ModuleList([ChannelDropout(0.5), ChannelDropout(0.5)])
    maps, before = torch.ones(4, 32, 1, 1), torch.get_rng_state()

    def dropped(seed: int) -> list[Tensor]:
        seed_dropout(network, seed)
        return [layer(maps) for layer in network]

    first, again, other = dropped(1), dropped(1), dropped(2)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_keeps_the_maps_type_and_can_be_copied() -> None:
    """bfloat16 stays bfloat16; a copy of a network, as an average of weights needs it, goes on from the same state."""
    layer = ChannelDropout(0.5)
    baseline = copy.deepcopy(layer)
    maps = torch.ones(4, 32, 2, 2, dtype=torch.bfloat16)
    out = layer(maps)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, baseline(maps))
    assert not layer.state_dict()
