"""Gradients are compared just before steps, every tenth step, and training is as without it."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from narrowed import known
from torch.nn import functional

from stnbench.diagnostics.health import EVERY_STEPS, GradientMeter
from stnbench.models.scored_network import localization_networks
from stnbench.spec.optimizer import SgdSpec
from stnbench.spec.trial import TrialSpec
from stnbench.training.step import TrainingRun

MakeRun = Callable[[TrialSpec], TrainingRun]


def give_gradients(run: TrainingRun, *, classifier: float, localization: float) -> None:
    """Every gradient is this number."""
    for parameters, value in (
        (run.model.network.classifier_parameters(), classifier),
        (run.model.network.localization_parameters(), localization),
    ):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, value)


def test_the_ratio_is_of_root_mean_squares(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Two looks at 0.3 and 0.4 over two at 0.5: sqrt(0.125) / 0.5, whatever the numbers of parameters."""
    run = make_run(toy_spec)
    meter = GradientMeter(run.model.network)
    for step in range(EVERY_STEPS + 1):
        give_gradients(run, classifier=0.5 if step in {0, EVERY_STEPS} else 9.0, localization=0.3 + step / 100)
        run.optimizer.step()
        meter.look()
    assert meter.ratios() == {(1, 1): pytest.approx(math.sqrt((0.3**2 + 0.4**2) / 2) / 0.5)}


def test_gradients_are_those_before_the_optimiser_uses_them(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """The ratio after one step is the one computed by hand before it: the optimiser leaves gradients as they were."""
    run = make_run(dataclasses.replace(toy_spec, optimizer=SgdSpec(momentum=0.9, nesterov=True, weight_decay=0.1)))
    rows = torch.arange(10)
    meter = GradientMeter(run.model.network)
    logits = run.model.explain(run.images.images[rows], run.images.boxes[rows]).logits
    functional.cross_entropy(logits, run.images.labels[rows]).backward()
    squares = {}
    for name, parameters in (
        ("classifier", run.model.network.classifier_parameters()),
        ("localization", localization_networks(run.model.network)[(1, 1)].parameters()),
    ):
        squares[name] = torch.cat([known(parameter.grad).flatten() for parameter in parameters]).square().mean().item()
    for _ in range(2):  # in the second step there is momentum
        run.optimizer.step()
    meter.look()
    assert meter.ratios()[(1, 1)] == pytest.approx(math.sqrt(squares["localization"] / squares["classifier"]), rel=1e-5)


def test_an_epoch_without_a_step_has_no_ratio(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """What is not known is None."""
    run = make_run(toy_spec)
    assert GradientMeter(run.model.network).ratios() == {(1, 1): None}


def test_a_baseline_has_no_ratio(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Without a localisation network there is nothing to compare."""
    run = make_run(toy_spec.baseline())
    meter = GradientMeter(run.model.network)
    run.optimizer.step()
    meter.look()
    assert meter.ratios() == {}
