"""From a trial to its network: published sizes, and what cannot be built."""

import pytest
import torch

from stnbench.core.errors import InfeasibleError
from stnbench.networks.build import build_network
from stnbench.spec.data import SignsSpec
from stnbench.spec.network import IdsiaSpec, LecunSpec, NetworkSpec
from stnbench.spec.transformer import LocnetSpec, PlacedTransformerSpec
from stnbench.spec.trial import TrialSpec


def placed(place: int, *sizes: int) -> PlacedTransformerSpec:
    """An affine transformer with a localisation network a-b-c."""
    first, second, hidden = sizes
    return PlacedTransformerSpec(place=place, locnet=LocnetSpec(sizes=(first, second, hidden)))


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


def test_idsia_maps_are_23_12_and_6_pixels_wide() -> None:
    """Unpadded by one row, pooled with the last odd one dropped, as in 2015."""
    with torch.device("meta"):
        network = build_network(TrialSpec(network=IdsiaSpec()), classes=43, seed=None)
    assert [stage.output_size.width for stage in network.stages] == [23, 12, 6]


@pytest.mark.parametrize("network", [LecunSpec(sizes=(2, 3, 4)), IdsiaSpec(sizes=(2, 3, 4, 5))])
@pytest.mark.parametrize("image_size", [8, 9, 31])
def test_the_smallest_images_that_a_specification_allows_work(network: NetworkSpec, image_size: int) -> None:
    """Both networks run on 8 x 8 pixels, with a transformer at the input."""
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
