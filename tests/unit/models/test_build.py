"""From a trial to its network: published sizes, and what cannot be built."""

import pytest
import torch
from narrowed import known, only

from stnbench.core.errors import InfeasibleError
from stnbench.models.classifiers import Stage, build_network
from stnbench.spec.data import SignsSpec
from stnbench.spec.network import (
    CnnSpec,
    FcnSpec,
    IdsiaSpec,
    LecunSpec,
    ModernSpec,
    NetworkSpec,
    PoojahiraSpec,
)
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec
from stnbench.spec.trial import TrialSpec


def placed(place: int, *sizes: int) -> PlacedTransformerSpec:
    """An affine transformer with a localisation network a-b-c."""
    first, second, hidden = sizes
    return PlacedTransformerSpec(place=place, locnet=ConvLocnetSpec(sizes=(first, second, hidden)))


@pytest.mark.parametrize(
    ("network", "transformers", "parameters"),
    [
        (IdsiaSpec(), (), 5_258_143),
        (IdsiaSpec(), (placed(1, 200, 300, 200), placed(3, 150, 150, 150)), 10_271_405),
        (IdsiaSpec(sizes=(200, 250, 350, 400)), (placed(1, 200, 300, 200),), 10_964_749),
        (IdsiaSpec(sizes=(100, 150, 250, 300)), (), 3_568_443),
        (LecunSpec(), (), 3_432_851),
        (LecunSpec(multi_scale=True), (), 3_432_851 + 108 * 144 * 100),
    ],
)
def test_networks_have_the_size_of_2015(
    network: NetworkSpec, transformers: tuple[PlacedTransformerSpec, ...], parameters: int
) -> None:
    """At 48 x 48 with 43 classes the parameters are as many as the code of 2015 has."""
    spec = TrialSpec(network=network, transformers=transformers)
    with torch.device("meta"):
        built = build_network(spec, classes=43, seed=None)
    assert sum(parameter.numel() for parameter in built.parameters()) == parameters


ARCOS_GARCIA = IdsiaSpec(sizes=(200, 250, 350, 400), contrastive_kernel="gaussian")
"""The classifier of conf/network/arcos_garcia.yaml."""


def parameters(network: NetworkSpec, *transformers: PlacedTransformerSpec, image_size: int, classes: int = 43) -> int:
    """How many numbers a network on colour images learns."""
    spec = TrialSpec(dataset=SignsSpec(image_size=image_size), network=network, transformers=transformers)
    with torch.device("meta"):
        built = build_network(spec, classes=classes, seed=None)
    return sum(parameter.numel() for parameter in built.parameters())


def test_arcos_garcia_has_the_published_size() -> None:
    """With its three transformers at 48 x 48 it has the 14,613,761 parameters of aarcosg/tsr-torch."""
    transformers = (placed(1, 250, 250, 250), placed(2, 150, 200, 300), placed(3, 150, 200, 300))
    assert parameters(ARCOS_GARCIA, *transformers, image_size=48) == 14_613_761


def test_poojahira_has_the_published_size_without_its_transformer() -> None:
    """At 32 x 32 it has 855,487 parameters less those of the localisation network, which is not one of ours.

    That one is conv 7x7 to 8, pool, conv 5x5 to 10, pool (4 x 4 pixels are left), 32 units and 6 parameters.
    """
    localization = (3 * 49 + 1) * 8 + (8 * 25 + 1) * 10 + (10 * 4 * 4 + 1) * 32 + (32 + 1) * 6
    assert parameters(PoojahiraSpec(), image_size=32) == 855_487 - localization


def test_modern_is_small() -> None:
    """At 48 x 48, with an affine transformer in front, it has fewer parameters than poojahira."""
    with_transformer = parameters(ModernSpec(), placed(1, 16, 32, 64), image_size=48)
    assert with_transformer == 668_755 + 88_230 < 855_487
    assert parameters(ModernSpec(global_average=False), image_size=48) == 668_755 + 192 * 8 * 43


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (FcnSpec(sizes=(128, 200)), (3 * 28 * 28 + 1) * 128 + 129 * 200 + 201 * 10),
        (CnnSpec(sizes=(32, 64)), (3 * 81 + 1) * 32 + (32 * 49 + 1) * 64 + (64 * 2 * 2 + 1) * 10),
    ],
)
def test_networks_of_the_paper_have_three_layers_of_weights(network: NetworkSpec, count: int) -> None:
    """At 28 x 28 with 10 classes, as counted by hand."""
    assert parameters(network, image_size=28, classes=10) == count


def test_idsia_maps_are_23_12_and_6_pixels_wide() -> None:
    """Unpadded by one row, pooled with the last odd one dropped, as in 2015."""
    with torch.device("meta"):
        network = build_network(TrialSpec(network=IdsiaSpec()), classes=43, seed=None)
    assert [only(Stage, stage).output_size.width for stage in network.stages] == [23, 12, 6]


@pytest.mark.parametrize("network", [LecunSpec(sizes=(2, 3, 4)), IdsiaSpec(sizes=(2, 3, 4, 5)), FcnSpec(sizes=(2, 3))])
@pytest.mark.parametrize("image_size", [8, 9, 31])
def test_the_smallest_images_that_a_specification_allows_work(network: NetworkSpec, image_size: int) -> None:
    """Networks with enough padding run on 8 x 8 pixels, with a transformer at the input."""
    spec = TrialSpec(dataset=SignsSpec(image_size=image_size), network=network, transformers=(placed(1, 2, 2, 2),))
    built = build_network(spec, classes=3, seed=1)
    assert built(torch.rand(2, 3, image_size, image_size)).shape == (2, 3)


def test_a_localisation_network_too_deep_for_its_map_is_infeasible() -> None:
    """The message names network, images, place, localisation network and steps, and the remedy."""
    spec = TrialSpec(dataset=SignsSpec(image_size=8), transformers=(placed(2, 10, 20, 30),))
    with pytest.raises(InfeasibleError) as caught:
        build_network(spec, classes=43, seed=None)
    assert caught.value.problem == (
        "the network lecun on 3 x 8 x 8 images is not possible: at place 2, the localisation network 10-20-30 pools "
        "its 108 x 4 x 4 input to nothing (4 x 4 -> 2 x 2 -> 1 x 1 -> 0 x 0)"
    )
    assert caught.value.remedy == "give it maps of at least 8 x 8: an earlier place or larger images"


def test_a_network_too_deep_for_its_images_is_infeasible() -> None:
    """The message names network, images and the layer that leaves nothing, and the remedy."""
    spec = TrialSpec(dataset=SignsSpec(image_size=20), network=CnnSpec())
    with pytest.raises(InfeasibleError) as caught:
        build_network(spec, classes=43, seed=None)
    assert caught.value.problem == (
        "the network cnn on 3 x 20 x 20 images is not possible: a convolution of side 7 leaves nothing of "
        "a 32 x 6 x 6 map"
    )
    assert caught.value.remedy == "use larger images or a network of fewer stages"


@pytest.mark.parametrize("network", [LecunSpec(), IdsiaSpec(), CnnSpec(), FcnSpec(), PoojahiraSpec(), ModernSpec()])
@pytest.mark.parametrize("side", [40, 47])
def test_the_specification_knows_the_sizes_of_the_maps(network: NetworkSpec, side: int) -> None:
    """``side_after`` says what the stages do, so that an output size equal to the input is recognised."""
    spec = TrialSpec(dataset=SignsSpec(image_size=side), network=network)
    built = build_network(spec, classes=43, seed=None)
    for number, stage in enumerate(built.stages, start=1):
        side = known(network.side_after(number, side))
        size = only(Stage, stage).output_size
        assert (size.height, size.width) == (side, side)
