"""Replaced parameters are read as a transformer's own are, and only while it lasts."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from stnbench.models.scored_network import Key, learning_transformers, localization_networks
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrialSpec
from stnbench.training.evaluate import accuracy, emitting, evaluate, replaced_accuracies
from stnbench.training.step import TrainingRun

MakeRun = Callable[[TrialSpec], TrainingRun]
LOCNET = ConvLocnetSpec(sizes=(3, 4, 5))


def placed(place: int = 1, **fields: Any) -> PlacedTransformerSpec:
    """A transformer at a place."""
    return PlacedTransformerSpec(place=place, transformer=TransformerSpec(**fields), locnet=LOCNET)


def disturb(run: TrainingRun, scale: float = 0.3) -> None:
    """Let every localisation network emit something else for every image."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for network in localization_networks(run.model.network).values():
            layer = network.parameters_layer
            for weight in (layer.weight, layer.bias):
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=scale)


def logits(run: TrainingRun) -> Tensor:
    """Of eight images."""
    rows = torch.arange(100, 108)
    run.model.network.eval()
    with torch.inference_mode():
        return run.model.explain(run.images.images[rows], run.images.boxes[rows]).logits


@pytest.mark.parametrize(
    "transformer",
    [
        placed(),
        placed(family="tps", control_points=3),
        placed(family="corners", iterations=3),
        placed(scale_min=0.5, scale_max=1.5),
        placed(branches=2),
        placed(place=2),
    ],
)
def test_the_identity_reads_the_image_as_it_is(
    transformer: PlacedTransformerSpec, make_run: MakeRun, toy_spec: TrialSpec
) -> None:
    """Of any family, iterated, guarded, branched or behind a stage: as before training, when it is the identity."""
    run = make_run(dataclasses.replace(toy_spec, transformers=(transformer,)))
    before = logits(run)
    disturb(run)
    disturbed = logits(run)
    learners = learning_transformers(run.model.network)
    iterations = transformer.transformer.iterations
    identity = {key: (it.transformation.identity_parameters(),) * iterations for key, it in learners.items()}
    with emitting(run.model, identity):
        assert torch.allclose(logits(run), before, atol=1e-5)
    assert not torch.allclose(disturbed, before, atol=1e-3)
    assert torch.equal(logits(run), disturbed)


def test_every_look_has_its_own_mean(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """With one image the means are its own parameters, so replacing by them changes nothing, over all iterations."""
    run = make_run(dataclasses.replace(toy_spec, transformers=(placed(iterations=3),)))
    disturb(run)
    row = torch.tensor([7])
    found = evaluate(run.model, run.images, row)
    looks = found.mean_parameters[(1, 1)]
    assert len(looks) == 3
    assert looks[0] != looks[1]
    with emitting(run.model, found.mean_parameters):
        again = evaluate(run.model, run.images, row)
    assert again.loss == pytest.approx(found.loss, abs=1e-6)
    assert again.mean_parameters[(1, 1)] == looks


def test_each_transformer_is_replaced_alone_and_all_at_once(
    make_run: MakeRun, toy_spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two transformers, six passes; the accuracies are those of the network with these parts replaced."""
    run = make_run(dataclasses.replace(toy_spec, transformers=(placed(), placed(2))))
    disturb(run, 2.0)
    evaluation = evaluate(run.model, run.images, run.validation)
    learners = learning_transformers(run.model.network)
    identity = {key: (it.transformation.identity_parameters(),) for key, it in learners.items()}

    def by(*keys: Key) -> float:
        with emitting(run.model, {key: identity[key] for key in keys}):
            return accuracy(run.model, run.images, run.validation)

    found = replaced_accuracies(run.model, run.images, run.validation, evaluation)
    assert list(found) == [(1, 1), (2, 1)]
    assert [replaced.identity for replaced in found.values()] == [by((1, 1)), by((2, 1))]
    assert {replaced.all_identity for replaced in found.values()} == {by((1, 1), (2, 1))}
    with emitting(run.model, evaluation.mean_parameters):
        together = accuracy(run.model, run.images, run.validation)
    assert {replaced.all_mean for replaced in found.values()} == {together}


def test_without_finite_parameters_there_is_no_mean(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """The identity can still be read."""
    run = make_run(toy_spec)
    with torch.no_grad():
        localization_networks(run.model.network)[(1, 1)].parameters_layer.bias[0] = float("nan")
    evaluation = evaluate(run.model, run.images, run.validation)
    assert evaluation.mean_parameters == {}
    found = replaced_accuracies(run.model, run.images, run.validation, evaluation)[(1, 1)]
    assert (found.mean, found.all_mean) == (None, None)
    assert 0 <= found.identity == found.all_identity <= 1


def test_a_baseline_has_nothing_to_replace(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """No transformer, no accuracy."""
    run = make_run(toy_spec.baseline())
    assert (
        replaced_accuracies(run.model, run.images, run.validation, evaluate(run.model, run.images, run.validation))
        == {}
    )
