"""Cost: counted by hand for a network small enough."""

import dataclasses
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stnbench.core.errors import InfeasibleError
from stnbench.models.classifiers import build_network
from stnbench.models.scored_network import measure_cost
from stnbench.nn.spatial_transformer import ParallelTransformers, PlaceOutput
from stnbench.spec.data import SignsSpec
from stnbench.spec.network import IdsiaSpec, LecunSpec, ModernSpec, NetworkSpec
from stnbench.spec.result import Cost
from stnbench.spec.transformer import (
    TRANSFORMERS,
    ConvLocnetSpec,
    DenseLocnetSpec,
    LocnetSpec,
    PlacedTransformerSpec,
    SharedLocnetSpec,
)
from stnbench.spec.trial import TrialSpec
from stnbench.testing.transformers import specification

SPEC = TrialSpec(
    dataset=SignsSpec(image_size=16),
    network=LecunSpec(sizes=(2, 3, 4), contrastive_norm=False),
    transformers=(PlacedTransformerSpec(place=1, locnet=ConvLocnetSpec(sizes=(2, 3, 4))),),
)

CLASSIFIER_FLOPS = 2 * (16 * 16 * 75 * 2 + 8 * 8 * 50 * 3 + 3 * 4 * 4 * 4 + 4 * 5)
LOCALIZATION_FLOPS = 2 * (8 * 8 * 75 * 2 + 4 * 4 * 50 * 3 + 3 * 2 * 2 * 4 + 4 * 6)


def test_flops_are_twice_the_multiply_adds() -> None:
    """Every convolution and linear layer counts, of localisation networks too."""
    assert measure_cost(SPEC, classes=5).flops == CLASSIFIER_FLOPS + LOCALIZATION_FLOPS
    assert measure_cost(SPEC.baseline(), classes=5).flops == CLASSIFIER_FLOPS


def test_parameters_are_those_of_the_network() -> None:
    """The same number as the built network has."""
    network = build_network(SPEC, classes=5, seed=1)
    assert measure_cost(SPEC, classes=5).parameters == sum(p.numel() for p in network.parameters())


def test_activations_are_the_outputs_of_all_layers() -> None:
    """Four bytes for every number that a convolution, pooling, ReLU, linear layer or transformer puts out."""
    conv_stages = (2 * 16 * 16 + 2 * 2 * 8 * 8) + (3 * 8 * 8 + 2 * 3 * 4 * 4)
    classifier = conv_stages + 4 + 4 + 5
    localization = 3 * 8 * 8 + (2 * 8 * 8 + 2 * 2 * 4 * 4) + (3 * 4 * 4 + 2 * 3 * 2 * 2) + 4 + 4 + 6
    transformed = 3 * 16 * 16
    assert measure_cost(SPEC.baseline(), classes=5).activation_bytes == 4 * classifier
    assert measure_cost(SPEC, classes=5).activation_bytes == 4 * (classifier + localization + transformed)


def test_contrastive_norm_adds_flops_and_no_parameters() -> None:
    """The matrix products of the norm are counted."""
    plain = SPEC.baseline()
    normed = dataclasses.replace(plain, network=LecunSpec(sizes=(2, 3, 4)))
    assert measure_cost(normed, classes=5).parameters == measure_cost(plain, classes=5).parameters
    products = 2 * 2 * 2 * (8**3 + 4**3)
    assert measure_cost(normed, classes=5).flops == CLASSIFIER_FLOPS + products


def test_batch_norm_adds_parameters_and_no_flops() -> None:
    """Two numbers a channel are learnt; running statistics are not parameters, and only products are counted."""
    modern = dataclasses.replace(
        SPEC.baseline(), network=ModernSpec(sizes=(2, 3), convs_per_stage=1, global_average=False)
    )
    cost = measure_cost(modern, classes=5)
    assert cost.parameters == (27 * 2 + 2 * 2) + (18 * 3 + 2 * 3) + (3 * 4 * 4 + 1) * 5
    assert cost.flops == 2 * (16 * 16 * 27 * 2 + 8 * 8 * 18 * 3 + 3 * 4 * 4 * 5)


def test_one_image_on_a_map_of_one_pixel_can_be_measured() -> None:
    """Batch norm has no statistics of a single number while it trains; measuring does not need them."""
    deep = dataclasses.replace(SPEC.baseline(), network=ModernSpec(sizes=(2, 3, 4, 5), dropout=0.5))
    assert measure_cost(deep, classes=5).flops > 0


def test_measuring_leaves_random_state_and_default_device_alone() -> None:
    """Planning a sweep has no effect on what runs after it."""
    before = torch.get_rng_state()
    measure_cost(SPEC, classes=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.empty(0).device.type == "cpu"


LOCNETS: tuple[LocnetSpec, ...] = (ConvLocnetSpec(sizes=(2, 3, 4)), DenseLocnetSpec(sizes=(5, 6)), SharedLocnetSpec())
NETWORKS: tuple[NetworkSpec, ...] = (
    LecunSpec(sizes=(2, 3, 4), multi_scale=True),
    IdsiaSpec(sizes=(2, 3, 4, 5)),
    ModernSpec(sizes=(2, 3, 4), dropout=0.5),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=12)
@given(
    network=st.sampled_from(NETWORKS),
    family=st.sampled_from(TRANSFORMERS.names()),
    locnet=st.sampled_from(LOCNETS),
    repeats=st.fixed_dictionaries(
        {"iterations": st.integers(1, 3), "branches": st.integers(1, 2), "output_pooling": st.integers(1, 2)}
    ),
    output_size=st.sampled_from([None, 20]),
    place=st.integers(1, 2),
)
def test_a_network_costs_what_its_parts_cost(
    network: NetworkSpec,
    family: str,
    locnet: LocnetSpec,
    repeats: dict[str, int],
    output_size: int | None,
    place: int,
) -> None:
    """The sum over parts, each measured once, is what the whole network costs; both can be built, or neither."""
    is_control = family in ("fixed_zoom", "roi")
    transformer = specification(family, output_size=output_size, **({} if is_control else repeats))
    placed = PlacedTransformerSpec(place=place, transformer=transformer, locnet=None if is_control else locnet)
    spec = TrialSpec(dataset=SignsSpec(image_size=32), network=network, transformers=(placed,))
    try:
        expected = whole_cost(spec)
    except InfeasibleError as error:
        with pytest.raises(InfeasibleError, match=re.escape(error.problem)):
            measure_cost(spec, classes=5)
    else:
        assert measure_cost(spec, classes=5) == expected


def whole_cost(spec: TrialSpec) -> Cost:
    """The cost of a network that is built and run as a whole."""
    layers: list[int] = []

    def note(_layer: nn.Module, _inputs: object, output: Tensor | PlaceOutput) -> None:
        outputs = [done.images for done in output.branches] if isinstance(output, PlaceOutput) else [output]
        layers.extend(one.numel() for one in outputs)

    with torch.device("meta"), torch.no_grad():
        network = build_network(spec, classes=5, seed=None).eval()
        for module in network.modules():
            if isinstance(module, ParallelTransformers) or not any(module.children()):
                module.register_forward_hook(note)
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 32, 32), torch.empty(1, 4))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters=parameters, flops=counter.get_total_flops(), activation_bytes=4 * sum(layers))


def test_an_infeasible_trial_has_no_cost() -> None:
    """The reason comes instead."""
    small = dataclasses.replace(
        SPEC,
        dataset=SignsSpec(image_size=8),
        transformers=(PlacedTransformerSpec(place=2),),
    )
    with pytest.raises(InfeasibleError, match="at place 2"):
        measure_cost(small, classes=5)
