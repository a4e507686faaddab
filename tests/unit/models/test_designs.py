"""From the specification of a network to its design."""

import dataclasses
from typing import Any

import pytest

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.models.designs import (
    Activation,
    BatchNorm,
    ChannelDropout,
    Contrastive,
    Conv,
    GlobalAverage,
    MaxPool,
    design_network,
)
from stnbench.spec.codec import from_plain, to_identity, to_plain
from stnbench.spec.network import (
    AnyNetwork,
    CnnSpec,
    FcnSpec,
    IdsiaSpec,
    LecunSpec,
    ModernSpec,
    NetworkSpec,
    PoojahiraSpec,
)

NETWORKS = [
    LecunSpec(),
    IdsiaSpec(),
    FcnSpec(),
    CnnSpec(),
    PoojahiraSpec(),
    ModernSpec(),
    ModernSpec(sizes=(4, 5)),
    ModernSpec(sizes=(4, 5, 6, 7, 8), convs_per_stage=1),
]


@pytest.mark.parametrize("network", NETWORKS)
def test_transformers_may_stand_before_every_stage_and_nowhere_else(network: NetworkSpec) -> None:
    """The specification knows without torch how many stages its design has."""
    assert network.stages == len(design_network(network).stages)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_survives_the_journey_through_plain_values(network: NetworkSpec) -> None:
    """Decoding what was encoded gives the same network, ``kind`` choosing its class."""
    assert from_plain(AnyNetwork, to_plain(network), where="a test") == network


def norms(network: NetworkSpec) -> list[list[str]]:
    """The kernels of the contrastive norms of every stage."""
    stages = design_network(network).stages
    return [[layer.kernel for layer in stage.layers if isinstance(layer, Contrastive)] for stage in stages]


@pytest.mark.parametrize("kind", [LecunSpec, IdsiaSpec])
def test_the_contrastive_norm_has_the_kernel_that_is_asked_for(kind: type[LecunSpec | IdsiaSpec]) -> None:
    """The box by default, the gaussian, or no norm, in every stage."""
    stages = kind().stages
    assert norms(kind()) == [["box"]] * stages
    assert norms(kind(contrastive_kernel="gaussian")) == [["gaussian"]] * stages
    assert norms(kind(contrastive_norm=False)) == [[]] * stages


@pytest.mark.parametrize("kind", [LecunSpec, IdsiaSpec])
def test_a_kernel_without_a_norm_leaves_the_identity_alone(kind: type[LecunSpec | IdsiaSpec]) -> None:
    """What has no effect is no other network; and the default kernel adds nothing to the identity."""
    assert kind(contrastive_norm=False, contrastive_kernel="gaussian") == kind(contrastive_norm=False)
    assert to_identity(kind(contrastive_kernel="box")) == {"kind": kind().kind}
    assert to_identity(kind(contrastive_kernel="gaussian"))["contrastive_kernel"] == "gaussian"


def test_modern_stages_repeat_the_convolution_behind_the_pooling() -> None:
    """With two convolutions a stage, the second one works on the pooled map, and each has its batch norm."""
    stage = design_network(ModernSpec(sizes=(8, 9), convs_per_stage=2)).stages[1]
    conv = Conv(channels=9, kernel=3, padding=1, bias=False)
    normed = (BatchNorm(), Activation())
    assert stage.layers == (conv, MaxPool(), *normed, conv, *normed)


def test_modern_head_is_what_is_asked_for() -> None:
    """Average and dropout stand before the logits only where they are wanted."""
    assert design_network(ModernSpec(global_average=False, dropout=0.0)).hidden == ()
    both = design_network(ModernSpec(global_average=True, dropout=0.25)).hidden
    assert both == (GlobalAverage(), ChannelDropout(share=0.25))


def test_poojahira_without_dropout_has_no_dropout_layers() -> None:
    """A share of 0 is no layer at all."""
    design = design_network(PoojahiraSpec(dropout=0.0))
    layers = [*design.hidden, *(layer for stage in design.stages for layer in stage.layers)]
    assert not any(isinstance(layer, ChannelDropout) for layer in layers)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"kind": "modern", "sizes": [8]}, "network.sizes"),
        ({"kind": "modern", "sizes": [8] * 6}, "network.sizes"),
        ({"kind": "modern", "sizes": [8, 0]}, "network.sizes"),
        ({"kind": "modern", "convs_per_stage": 0}, "network.convs_per_stage"),
        ({"kind": "modern", "dropout": 1.0}, "network.dropout"),
        ({"kind": "poojahira", "dropout": -0.1}, "network.dropout"),
        ({"kind": "fcn", "sizes": [8]}, "network.sizes"),
        ({"kind": "cnn", "sizes": [8, -1]}, "network.sizes"),
    ],
)
def test_a_network_that_cannot_be_meant_is_an_error(wrong: dict[str, Any], key: str) -> None:
    """The message names the file and the key."""
    with pytest.raises(SpecError, match=f"a.yaml: {key}"):
        from_plain(AnyNetwork, wrong, where="a.yaml", prefix="network")


def test_an_unknown_kernel_is_an_error_that_offers_the_known_ones() -> None:
    """Box and gaussian are all there are."""
    with pytest.raises(UnknownNameError, match="gaussian") as caught:
        from_plain(AnyNetwork, {"kind": "idsia", "contrastive_kernel": "gauss"}, where="a.yaml", prefix="network")
    assert sorted(caught.value.known) == ["box", "gaussian"]


def test_designs_are_plain_data() -> None:
    """Two designs of one specification are equal, and frozen."""
    design = design_network(IdsiaSpec())
    assert design == design_network(IdsiaSpec())
    with pytest.raises(dataclasses.FrozenInstanceError):
        design.hidden = ()  # type: ignore[misc]
