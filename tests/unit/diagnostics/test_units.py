"""Hidden units of a localisation network that are off for every image are counted."""

import contextlib
import dataclasses
from collections.abc import Callable

import pytest
import torch

from stnbench.diagnostics.health import UnitWatch
from stnbench.models.scored_network import localization_networks
from stnbench.spec.optimizer import TtaSpec
from stnbench.spec.transformer import DenseLocnetSpec
from stnbench.spec.trial import ComputeOptions, TrialSpec
from stnbench.training.evaluate import evaluate
from stnbench.training.step import TrainingRun

MakeRun = Callable[[TrialSpec], TrainingRun]


def dead_share(run: TrainingRun) -> float | None:
    """That of the run's one transformer, over its validation images."""
    (health,) = evaluate(run.model, run.images, run.validation).health
    return health.dead_share


def turn_off(run: TrainingRun, units: int) -> int:
    """Turn the first units of the last hidden layer off for good; how many there are."""
    (network,) = localization_networks(run.model.network).values()
    layer = [layer for layer in network.hidden if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        layer.bias[:units] = -1e6
        layer.bias[units:] = 1e6
    return len(layer.bias)


@pytest.mark.parametrize("units", [0, 1, 3])
def test_units_that_are_never_on_are_counted(make_run: MakeRun, toy_spec: TrialSpec, units: int) -> None:
    """The share of those that a large negative bias turns off; the others are on for every image."""
    run = make_run(toy_spec)
    there = turn_off(run, units)
    assert dead_share(run) == pytest.approx(units / there)


def test_one_image_keeps_a_unit_alive(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """A unit is dead over several batches only where it is off in all: the share is that of all images at once."""
    run = make_run(toy_spec)
    (network,) = localization_networks(run.model.network).values()
    seen = []
    handle = network.hidden.register_forward_hook(lambda _module, _inputs, hidden: seen.append(hidden))
    share = dead_share(run)
    handle.remove()
    on = (torch.cat(seen) > 0).any(dim=0)
    assert share == pytest.approx(1 - float(on.double().mean()))


def test_every_kind_of_localisation_network_is_watched(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """A fully connected one of two layers as well: its last layer counts. Views are looked at, too."""
    placed = dataclasses.replace(toy_spec.transformers[0], locnet=DenseLocnetSpec(sizes=(6, 4)))
    run = make_run(dataclasses.replace(toy_spec, transformers=(placed,), tta=TtaSpec(shift=0.1)))
    assert turn_off(run, 2) == 4
    assert dead_share(run) == pytest.approx(0.5)


def test_a_compiled_network_is_left_alone(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """A compiled call would not notice the hooks: nothing is said, rather than something wrong."""
    run = make_run(toy_spec)
    model = dataclasses.replace(run.model, compute=ComputeOptions(compile=True))
    (health,) = evaluate(model, run.images, run.validation).health
    assert health.dead_share is None


def test_no_hooks_stay_behind(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Training is as quick after a pass as before it, also where the pass fails."""
    run = make_run(toy_spec)
    (network,) = localization_networks(run.model.network).values()
    with contextlib.suppress(ZeroDivisionError), UnitWatch(run.model).watching():
        assert len(network.hidden._forward_hooks) == 1
        raise ZeroDivisionError
    assert not network.hidden._forward_hooks
