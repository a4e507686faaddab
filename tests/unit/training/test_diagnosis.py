"""A diagnosis completes the health of an evaluation and says what it means."""

import dataclasses
from collections.abc import Callable

import torch

from stnbench.models.scored_network import localization_networks
from stnbench.spec.result import Verdict
from stnbench.spec.transformer import PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrialSpec
from stnbench.training.evaluate import diagnose, evaluate
from stnbench.training.loop import Hooks, Progress, train
from stnbench.training.step import TrainingRun

MakeRun = Callable[[TrialSpec], TrainingRun]


def verdicts(run: TrainingRun, *, is_last: bool = False) -> list[Verdict | None]:
    """Of every transformer of a network as it is."""
    evaluation = evaluate(run.model, run.images, run.validation)
    found = diagnose(run.model, run.images, run.validation, evaluation, {(1, 1): 0.5}, is_last=is_last)
    return [health.verdict for health in found]


def shift(run: TrainingRun, x: float) -> None:
    """Let the transformer read x half sides further right, for every image."""
    with torch.no_grad():
        localization_networks(run.model.network)[(1, 1)].parameters_layer.bias[2] = x


def test_what_a_transformer_does_decides(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """New, shifted a little, far outside, and not a number."""
    run = make_run(toy_spec)
    assert verdicts(run) == ["identity"]
    shift(run, 0.3)
    assert verdicts(run) == ["constant"]
    shift(run, 5.0)
    assert verdicts(run) == ["collapsed"]
    shift(run, float("nan"))
    assert verdicts(run, is_last=True) == ["diverged"]


def test_controls_and_baselines_are_not_judged(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """A constant zoom is constant by design."""
    zoom = PlacedTransformerSpec(place=1, transformer=TransformerSpec(family="fixed_zoom"), locnet=None)
    assert verdicts(make_run(dataclasses.replace(toy_spec, transformers=(zoom,))), is_last=True) == [None]
    assert verdicts(make_run(toy_spec.baseline()), is_last=True) == []


def test_every_epoch_is_judged_and_the_last_one_tried_without_theta(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Verdicts and gradient ratios come every epoch; accuracies with theta replaced after the last one alone."""
    quiet = Hooks(save=lambda progress: None, report=lambda record: None, should_stop=lambda: False)
    run = make_run(toy_spec)
    records = train(run, quiet, Progress()).progress.records
    healths = [record.health[0] for record in records]
    assert all(health.gradient_ratio is not None for health in healths)
    assert healths[-1].verdict is not None
    assert all(health.gradient_ratio > 0 for health in healths)  # type: ignore[operator] # not None, see above
    assert [health.accuracy_identity is None for health in healths] == [True, True, False]
    last = healths[-1]
    assert (last.accuracy_all_identity, last.accuracy_all_mean) == (last.accuracy_identity, last.accuracy_mean)
    assert last.accuracy_mean is not None
    assert 0 <= last.accuracy_mean <= 1
