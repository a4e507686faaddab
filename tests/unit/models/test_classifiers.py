"""Classifiers: baselines, golden logits, multi-scale, and what they tell about their transformers."""

import dataclasses

import pytest
import torch

from stnbench.models.classifiers import StnClassifier, build_network
from stnbench.nn.spatial_transformer import ParallelTransformers
from stnbench.spec.data import SignsSpec
from stnbench.spec.network import IdsiaSpec, LecunSpec, NetworkSpec
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrialSpec

SMALL = (
    LecunSpec(sizes=(4, 6, 5)),
    LecunSpec(sizes=(4, 6, 5), multi_scale=True),
    LecunSpec(sizes=(4, 6, 5), contrastive_norm=False),
    IdsiaSpec(sizes=(4, 5, 6, 7)),
)
small_networks = pytest.mark.parametrize("network", SMALL, ids=["lecun", "multi_scale", "no_norm", "idsia"])


def trial(network: NetworkSpec, *places: int) -> TrialSpec:
    """A small trial on 32 x 32 images with transformers at some places."""
    placed = tuple(
        PlacedTransformerSpec(
            place=place,
            transformer=TransformerSpec(family="scale_translation"),
            locnet=ConvLocnetSpec(sizes=(3, 4, 5)),
        )
        for place in places
    )
    return TrialSpec(dataset=SignsSpec(image_size=32), network=network, transformers=placed)


def build(spec: TrialSpec, *, seed: int = 1) -> StnClassifier:
    """Its network for 7 classes."""
    return build_network(spec, classes=7, seed=seed)


def last_layer(classifier: StnClassifier, place: int) -> torch.nn.Linear:
    """The layer that emits the parameters of the first transformer at a place."""
    placed = classifier.transformers[str(place)]
    assert isinstance(placed, ParallelTransformers)
    localization = placed.transformers()[0].localization
    assert localization is not None
    return localization.parameters_layer


def images(batch: int = 2) -> torch.Tensor:
    """Random images, the same ones every time."""
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(21))


@small_networks
def test_baselines_start_with_the_same_classifier(network: NetworkSpec) -> None:
    """With and without transformers, every weight they share is bitwise the same, and so are the logits to 1e-4."""
    baseline, with_transformers = build(trial(network)), build(trial(network, 1, 2))
    shared = with_transformers.state_dict()
    for name, value in baseline.state_dict().items():
        assert torch.equal(value, shared[name]), name
    with torch.no_grad():
        torch.testing.assert_close(with_transformers(images()), baseline(images()), rtol=0, atol=1e-4)


@small_networks
def test_seed_decides_every_weight(network: NetworkSpec) -> None:
    """The same seed gives the same network, another seed changes every drawn weight."""
    first, again, other = (build(trial(network, 1), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    same = {name for name in first if torch.equal(first[name], other[name])}
    assert same == {f"transformers.1.branches.0.localization.parameters_layer.{part}" for part in ("weight", "bias")}


def test_two_transformers_start_with_different_weights() -> None:
    """Localisation networks of one size at two places do not share their random numbers."""
    network = build(trial(IdsiaSpec(sizes=(3, 3, 6, 7)), 1, 2)).state_dict()
    first, second = (network[f"transformers.{place}.branches.0.localization.features.1.weight"] for place in (1, 2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("network", "golden"),
    [
        (
            LecunSpec(sizes=(4, 6, 5), multi_scale=True),
            [-0.18422, 0.39317, 0.01972, -0.01673, -0.40036, -0.6408, 0.39892],
        ),
        (IdsiaSpec(sizes=(4, 5, 6, 7)), [-0.18505, -0.21518, -0.34913, -0.28025, 0.08907, 0.07723, 0.09529]),
    ],
    ids=["lecun", "idsia"],
)
def test_logits_are_those_of_the_first_version(network: NetworkSpec, golden: list[float]) -> None:
    """Seed 1 gives the logits that it always gave, to 1e-4; a change here changes the meaning of every stored trial."""
    with torch.no_grad():
        logits = build(trial(network, 1, 2))(images(1))
    assert logits[0].tolist() == pytest.approx(golden, abs=1e-4)


def test_multi_scale_joins_the_pooled_input_behind_the_output() -> None:
    """The second stage's last channels are its input, pooled."""
    network = build(trial(LecunSpec(sizes=(4, 6, 5), multi_scale=True)))
    maps = torch.rand(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    out = network.stages[1](maps)
    assert out.shape == (1, 10, 8, 8)
    assert torch.equal(out[:, 6:], torch.nn.functional.max_pool2d(maps, 2))


@small_networks
def test_explain_gives_the_logits_of_forward_and_each_theta(network: NetworkSpec) -> None:
    """One pass gives both; a new transformer's theta is the identity and nothing lies outside."""
    classifier = build(trial(network, 1, 2))
    explained = classifier.explain(images(3))
    assert torch.equal(explained.logits, classifier(images(3)))
    assert [record.place for record in explained.transformers] == [1, 2]
    for record in explained.transformers:
        (parameters,) = record.done.parameters
        assert torch.equal(record.done.theta_out_to_in, torch.eye(2, 3).expand(3, 2, 3))
        assert parameters.tolist() == [[1.0, 0.0, 0.0]] * 3
        assert record.done.outside_share.tolist() == [0.0] * 3
        assert not record.done.theta_out_to_in.requires_grad


def test_explain_sees_what_each_transformer_did() -> None:
    """The second of two transformers, made to zoom out by two, is the one that is reported so, and changes logits."""
    classifier = build(trial(IdsiaSpec(sizes=(4, 5, 6, 7)), 1, 3))
    before = classifier(images())
    torch.nn.init.constant_(last_layer(classifier, 3).bias[:1], 2.0)
    explained = classifier.explain(images())
    first, second = explained.transformers
    assert first.done.theta_out_to_in[0].tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert second.place == 3
    assert second.done.theta_out_to_in[0].tolist() == [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
    assert second.done.outside_share[0] > 0.5
    assert not torch.allclose(before, explained.logits)


@small_networks
def test_parameters_are_either_of_localisation_or_of_the_classifier(network: NetworkSpec) -> None:
    """The two lists together hold every parameter once; a baseline has no parameters of localisation."""
    classifier = build(trial(network, 1, 2))
    localization, rest = list(classifier.localization_parameters()), list(classifier.classifier_parameters())
    assert len(localization) == 2 * 8
    assert {id(p) for p in [*localization, *rest]} == {id(p) for p in classifier.parameters()}
    assert len(localization) + len(rest) == len(list(classifier.parameters()))
    assert not list(build(trial(network)).localization_parameters())


def test_every_part_learns() -> None:
    """After a step with non-zero last layers, every parameter of network and transformers has a gradient."""
    classifier = build(trial(LecunSpec(sizes=(4, 6, 5)), 1, 2))
    for place in (1, 2):
        generator = torch.Generator().manual_seed(place)
        torch.nn.init.normal_(last_layer(classifier, place).weight, std=0.1, generator=generator)
    torch.nn.functional.cross_entropy(classifier(images(8)), torch.arange(8) % 7).backward()
    silent = [name for name, p in classifier.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_channels_last_gives_the_same_logits() -> None:
    """Memory format changes speed, not meaning: logits agree to 1e-4."""
    classifier = build(trial(LecunSpec(sizes=(4, 6, 5), multi_scale=True), 1))
    with torch.no_grad():
        expected = classifier(images())
        actual = classifier.to(memory_format=torch.channels_last)(images().to(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_weights_round_trip_through_a_state_dict() -> None:
    """A network built without a seed is zero, and equal to another one once its weights are loaded."""
    spec = trial(LecunSpec(sizes=(4, 6, 5)), 1)
    trained, empty = build(spec), build_network(spec, classes=7, seed=None)
    assert not any(parameter.any() for parameter in empty.parameters())
    empty.load_state_dict(trained.state_dict())
    assert torch.equal(empty(images()), trained(images()))


def test_training_seed_of_the_specification_is_not_locnet_input() -> None:
    """The seed passed in decides, so that a caller cannot be surprised by the specification's."""
    spec = trial(LecunSpec(sizes=(4, 6, 5)))
    first, second = build(spec), build(dataclasses.replace(spec, seed=9))
    assert torch.equal(first.head.logits.weight, second.head.logits.weight)
