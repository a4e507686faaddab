"""The convolution of few channels computes what torch's does, gradients included."""

import copy

import pytest
import step_cases
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

from stnbench.models.scored_network import choose_kernels
from stnbench.nn.initialization import (
    FewChannelConv2d,
    PaddedConv2d,
    conv,
    draw_weights,
    input_gradient,
    pad_channels,
    part_generator,
)
from stnbench.spec.trial import ComputeOptions
from stnbench.training.step import StaticStep


def pair(channels: int, kernel: int, padding: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Ours and torch's, with the same weights."""
    ours = conv(channels, 7, kernel=kernel, padding=padding)
    draw_weights(ours, part_generator(1, "test"))
    theirs = nn.Conv2d(channels, 7, kernel, padding=padding)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def random(*shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def gradients(layer: nn.Conv2d, images: Tensor) -> tuple[Tensor, ...]:
    """Of the maps, the images, the weights and the bias, under a loss that weighs every number of the maps."""
    images = images.clone().requires_grad_()
    layer.zero_grad()
    maps = layer(images)
    (maps.float() * random(*maps.shape)).sum().backward()
    found = (maps.detach(), images.grad, layer.weight.grad, None if layer.bias is None else layer.bias.grad)
    return tuple(tensor for tensor in found if tensor is not None)


@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(1, 4),
    kernel=st.integers(1, 7),
    padding=st.integers(0, 6),
    height=st.integers(8, 13),
    width=st.integers(8, 13),
)
def test_maps_and_gradients_are_those_of_torch(
    channels: int, kernel: int, padding: int, height: int, width: int
) -> None:
    """For every kernel, padding and side, odd ones too, to 1e-5 of the largest number."""
    padding = min(padding, kernel - 1)
    ours, theirs = pair(channels, kernel, padding)
    images = random(3, channels, height, width)
    assert isinstance(ours, FewChannelConv2d)
    for one, other in zip(gradients(ours, images), gradients(theirs, images), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize(("outputs", "kernel", "padding"), [(16, 5, 2), (24, 3, 1), (10, 7, 2)])
def test_the_gradient_is_exact_in_float64(outputs: int, kernel: int, padding: int) -> None:
    """With whole numbers for weights and gradients, nothing is rounded: both ways give the same."""
    generator = torch.Generator().manual_seed(3)
    side = 12 + 2 * padding - kernel + 1
    weight = torch.randint(-9, 10, (outputs, 3, kernel, kernel), generator=generator).double()
    gradient = torch.randint(-9, 10, (2, outputs, side, side), generator=generator).double()
    expected = conv2d_input((2, 3, 12, 12), weight, gradient, padding=padding)
    assert torch.equal(input_gradient(gradient, weight, padding=padding), expected)


def test_it_runs_under_autocast() -> None:
    """Maps are bfloat16 and every gradient float32, close to those of torch's own."""
    ours, theirs = pair(3, 5, 2)
    images = random(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = gradients(ours, images), gradients(theirs, images)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=2e-2 * float(other.abs().max()))


def test_the_quick_way_is_taken_only_where_a_gradient_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that need none, scoring and odd sides take torch's own way."""
    strides: list[object] = []
    real = functional.conv2d

    def watched(*given: object, **named: object) -> Tensor:
        strides.append(named.get("stride"))
        return real(*given, **named)  # type: ignore[call-overload, no-any-return] # passed on as they came

    ours, _ = pair(3, 5, 2)
    monkeypatch.setattr(functional, "conv2d", watched)
    ours(random(1, 3, 8, 8)).sum().backward()
    ours(random(1, 3, 9, 9).requires_grad_()).sum().backward()
    with torch.inference_mode():
        ours(random(1, 3, 8, 8))
    assert 2 not in strides
    ours(random(1, 3, 8, 8).requires_grad_()).sum().backward()
    assert strides.count(2) == 1


def test_many_channels_have_torch_s_own_layer() -> None:
    """Only few channels leave vectors empty; the names of the weights are the same."""
    assert type(conv(5, 7, kernel=3, padding=1)) is nn.Conv2d
    assert list(conv(3, 7, kernel=3, padding=1).state_dict()) == ["weight", "bias"]


def whole_numbers(*shape: int, seed: int) -> Tensor:
    """Small whole numbers, whose sums of products float32 holds exactly in any order."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "padding", "bias"),
    [(3, 108, 5, 2, True), (108, 13, 3, 1, True), (9, 16, 4, 0, False), (16, 9, 5, 2, False), (1, 1, 1, 0, True)],
)
def test_zero_channels_change_no_number(
    inputs: int, outputs: int, kernel: int, padding: int, bias: bool, layout: torch.memory_format
) -> None:
    """Maps, and the gradients of maps, weights and biases, are exactly those without them."""
    plain = conv(inputs, outputs, kernel=kernel, padding=padding, bias=bias)
    with torch.no_grad():
        for index, weight in enumerate(plain.parameters()):
            weight.copy_(whole_numbers(*weight.shape, seed=index))
    padded = copy.deepcopy(plain)
    pad_channels(padded)
    assert type(padded) is PaddedConv2d
    found = []
    for layer in (plain, padded):
        maps = whole_numbers(2, inputs, 8, 6, seed=7).contiguous(memory_format=layout).requires_grad_()
        result = layer(maps)
        result.backward(whole_numbers(*result.shape, seed=8))
        found.append([result.detach(), maps.grad, *(weight.grad for weight in layer.parameters())])
    assert len(found[0]) == 3 + bias
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert list(plain.state_dict()) == list(padded.state_dict())


def test_only_channels_that_are_no_multiple_of_eight_are_padded() -> None:
    """Images keep their three channels, and convolutions in groups are left alone."""
    module = nn.Sequential(
        conv(3, 16, kernel=3, padding=1),
        conv(3, 20, kernel=3, padding=1),
        conv(16, 24, kernel=3, padding=1),
        conv(20, 24, kernel=3, padding=1),
        nn.Conv2d(12, 12, 3, groups=4),
    )
    pad_channels(module)
    assert [type(layer) is PaddedConv2d for layer in module] == [False, True, False, True, False]


def test_a_padded_network_takes_the_same_steps() -> None:
    """Losses of four steps agree with the plain one's to rounding; later a maximum may be another pixel's."""
    spec = step_cases.trial(step_cases.placed())
    losses = []
    for is_padded in (False, True):
        run = step_cases.make_run(spec, torch.device("cpu"))
        if is_padded:
            choose_kernels(run.model.network, nn.Identity(), ComputeOptions(padded_channels=True))
            assert any(type(layer) is PaddedConv2d for layer in run.model.network.modules())
        step = StaticStep(run)
        run.model.network.train()
        step.begin_epoch(0, 0)
        for _ in range(4):
            step.take()
        losses.append(step.losses.clone())
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
