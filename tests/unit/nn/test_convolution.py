"""The convolution of few channels computes what torch's does, gradients included."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from stnbench.nn.initialization import FewChannelConv2d, conv, draw_weights, input_gradient, part_generator


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
    expected = torch.nn.grad.conv2d_input((2, 3, 12, 12), weight, gradient, padding=padding)
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
