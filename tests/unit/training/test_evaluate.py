"""An evaluation scores every image once, in order, and leaves the network as it was."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from stnbench.spec.optimizer import TtaSpec
from stnbench.spec.trial import TrialSpec
from stnbench.training import evaluate as module
from stnbench.training.evaluate import accuracy, evaluate
from stnbench.training.step import TrainingRun

MakeRun = Callable[[TrialSpec], TrainingRun]


def test_the_score_is_that_of_one_large_batch(
    make_run: MakeRun, toy_spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of 7, the last one smaller, give the loss, hits and predictions of all images at once."""
    monkeypatch.setattr(module, "_BATCH", 7)
    run = make_run(toy_spec)
    rows = torch.tensor([5, 3, 110, 7, 64, 33, 2, 90, 91, 119])
    found = evaluate(run.model, run.images, rows)
    with torch.no_grad():
        logits = run.model.explain(run.images.images[rows], run.images.boxes[rows]).logits
    labels = run.images.labels[rows]
    assert found.predictions == tuple(logits.argmax(dim=1).tolist())
    assert found.loss == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-6)
    assert found.correct == int((logits.argmax(dim=1) == labels).sum())
    assert found.accuracy == found.correct / 10


def test_a_new_transformer_is_the_identity(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Health comes out of the same pass: before training nothing is moved and nothing outside is read."""
    run = make_run(toy_spec)
    (health,) = evaluate(run.model, run.images, run.validation).health
    assert (health.place, health.identity_distance, health.outside_share, health.determinant_mean) == (1, 0, 0, 1)


def test_without_a_transformer_there_is_no_health(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """A baseline has none to report."""
    run = make_run(toy_spec.baseline())
    assert evaluate(run.model, run.images, run.validation).health == ()


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_network_is_kept(training: bool, make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Evaluation does not end training, nor begin it, and leaves no gradient."""
    run = make_run(toy_spec)
    run.model.network.train(training)
    evaluate(run.model, run.images, run.validation)
    assert run.model.network.training is training
    assert all(parameter.grad is None for parameter in run.model.network.parameters())


def test_an_evaluation_becomes_the_score_of_a_split(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Nothing is lost on the way."""
    run = make_run(toy_spec)
    found = evaluate(run.model, run.images, run.validation)
    score = found.score("test")
    assert (score.split, score.images, score.accuracy) == ("test", 20, found.accuracy)
    assert dataclasses.asdict(score).items() >= {"loss": found.loss, "predictions": found.predictions}.items()


def test_probabilities_are_kept_of_every_image(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """They are float16, add up to one, and their largest is what is predicted."""
    run = make_run(toy_spec)
    found = evaluate(run.model, run.images, run.validation)
    assert found.probabilities.dtype == np.float16
    assert found.probabilities.shape == (len(run.validation), 4)
    np.testing.assert_allclose(found.probabilities.sum(axis=1, dtype=np.float32), 1, atol=2e-3)
    assert tuple(found.probabilities.argmax(axis=1)) == found.predictions


def test_views_average_probabilities(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Over two views, the probabilities are the mean of those of each alone, and so is what the loss sees."""
    run = make_run(toy_spec)
    zooms = (TtaSpec(zooms=(1.1,)), TtaSpec(zooms=(1.3,)), TtaSpec(zooms=(1.1, 1.3)))
    models = [dataclasses.replace(run.model, tta=views) for views in zooms]
    one, other, both = (evaluate(model, run.images, run.validation) for model in models)
    mean = (one.probabilities.astype(np.float32) + other.probabilities.astype(np.float32)) / 2
    np.testing.assert_allclose(both.probabilities, mean, atol=1e-3)
    labels = run.images.labels[run.validation].numpy()
    own = both.probabilities.astype(np.float64)[np.arange(len(labels)), labels]
    assert both.loss == pytest.approx(-np.log(own).mean(), abs=2e-3)
    assert accuracy(models[2], run.images, run.validation) == both.accuracy
