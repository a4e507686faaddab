"""Localisation networks: shape, first state, and inputs that are too small."""

import pytest
import torch
from narrowed import only

from stnbench.core.errors import InfeasibleError
from stnbench.nn.initialization import MapSize
from stnbench.nn.localization import Localization, build_localization
from stnbench.spec.transformer import ConvLocnetSpec

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def localization(size: MapSize, sizes: tuple[int, int, int] = (4, 5, 6)) -> Localization:
    """A small localisation network with weights drawn."""
    network = build_localization(ConvLocnetSpec(sizes=sizes), size, identity=IDENTITY)
    network.initialize(torch.Generator().manual_seed(2))
    return network


@pytest.mark.parametrize(
    ("channels", "side", "sizes", "parameters"),
    [(3, 48, (200, 300, 200), 3_676_906), (200, 12, (150, 150, 150), 1_336_356)],
)
def test_parameters_are_as_many_as_in_2015(
    channels: int, side: int, sizes: tuple[int, int, int], parameters: int
) -> None:
    """The two localisation networks of the 99.61 % net have their published sizes."""
    with torch.device("meta"):
        network = build_localization(ConvLocnetSpec(sizes=sizes), MapSize(channels, side, side), identity=IDENTITY)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_it_emits_the_identity_at_first_whatever_it_sees() -> None:
    """Zero weights and the identity as bias: no image changes the first parameters."""
    images = 100 * torch.randn(3, 3, 16, 20, generator=torch.Generator().manual_seed(1))
    assert torch.equal(localization(MapSize(3, 16, 20))(images), torch.tensor([IDENTITY] * 3))


def test_the_last_layer_learns_from_the_first_step() -> None:
    """The gradient of the last layer's weights is not zero at the start, that of the layers before it is."""
    network = localization(MapSize(3, 16, 16))
    network(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))).sum().backward()
    last = network.parameters_layer.weight.grad
    first = next(network.features.parameters()).grad
    assert last is not None
    assert last.abs().max() > 0
    assert first is not None
    assert first.abs().max() == 0


def test_parameters_keep_full_precision_under_autocast() -> None:
    """The last layer is not rounded to bfloat16, in which 1 + 2^-10 is 1."""
    network = localization(MapSize(3, 16, 16))
    with torch.no_grad():
        network.parameters_layer.bias.fill_(1 + 2**-10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parameters = network(torch.rand(1, 3, 16, 16))
    assert parameters.dtype == torch.float32
    assert parameters.tolist() == [[1 + 2**-10] * 6]


def test_pooling_before_relu_is_relu_before_pooling() -> None:
    """The order of 2015 gives the same parameters and the same gradients, bit by bit."""
    network = localization(MapSize(3, 16, 16))
    torch.nn.init.normal_(network.parameters_layer.weight, generator=torch.Generator().manual_seed(4))
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    pool, conv1, _, relu, conv2, *_ = only(torch.nn.Sequential, network.features)
    old = pool(relu(conv2(pool(relu(conv1(pool(images)))))))
    expected = network.parameters_layer(network.hidden(old.flatten(1)))
    actual = network(images)
    assert torch.equal(actual, expected)
    weights = list(network.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(actual.sum(), weights), torch.autograd.grad(expected.sum(), weights), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_a_map_that_is_pooled_to_nothing_is_infeasible() -> None:
    """Three poolings need 8 pixels; the message names the network, its input and every step."""
    assert localization(MapSize(3, 8, 8))(torch.zeros(1, 3, 8, 8)).shape == (1, 6)
    with pytest.raises(InfeasibleError, match=r"4-5-6 pools its 3 x 9 x 7 input to nothing .*4 x 3 -> 2 x 1 -> 1 x 0"):
        localization(MapSize(3, 9, 7))
