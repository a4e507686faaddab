"""Trials whose transformer has gone wrong end early."""

import dataclasses

import pytest
from made_up_spaces import RATE, MadeUpCompose, choices, health

from stnbench.core.errors import SpecError
from stnbench.planning import Planner, Progress
from stnbench.planning.build import build_planner
from stnbench.spec.codec import from_json, to_json
from stnbench.spec.planner import HealthPrunerSpec
from stnbench.spec.result import Verdict
from stnbench.spec.sweep import SweepSpec
from stnbench.store.tables import PlannedTrial

SWEEP = SweepSpec(
    name="rates",
    question="?",
    axes=(choices(RATE, 0.001, 0.03),),
    seeds=(1,),
    baselines=True,
    pruner=HealthPrunerSpec(),
)


def planned(pruner: HealthPrunerSpec) -> tuple[Planner, list[PlannedTrial]]:
    """A planner with this pruner and what it asks for."""
    sweep = dataclasses.replace(SWEEP, pruner=pruner)
    planner = build_planner(sweep, MadeUpCompose(sweep, has_transformer=True))
    return planner, list(planner.ask())


def progress(trial: PlannedTrial, epoch: int, *verdicts: Verdict | None) -> Progress:
    """A trial after an epoch, with a transformer for each verdict."""
    return Progress(
        trial_id=trial.spec.trial_id,
        epoch=epoch,
        epochs=trial.spec.training.epochs,
        validation_accuracy=0.5,
        health=tuple(dataclasses.replace(health(0.0), verdict=verdict) for verdict in verdicts),
    )


def prunes(pruner: HealthPrunerSpec, epoch: int, *verdicts: Verdict | None) -> bool:
    """Whether it ends a trial of the sweep that is no baseline."""
    planner, trials = planned(pruner)
    trial = next(trial for trial in trials if not trial.is_baseline)
    return planner.should_prune(progress(trial, epoch, *verdicts))


@pytest.mark.parametrize(
    ("verdicts", "ends"),
    [
        ((Verdict.HEALTHY,), False),
        ((Verdict.IDENTITY, Verdict.CONSTANT, None), False),
        ((Verdict.HEALTHY, Verdict.COLLAPSED), True),
        ((Verdict.DIVERGED,), True),
        ((), False),
    ],
)
def test_a_collapse_ends_a_trial_in_its_epoch(verdicts: tuple[Verdict | None, ...], ends: bool) -> None:
    """One transformer is enough; one that has just begun, and a record without a verdict, are let go on."""
    assert prunes(HealthPrunerSpec(), 1, *verdicts) is ends


def test_what_ends_a_trial_and_when_can_be_said() -> None:
    """A transformer that is still constant after two epochs, here."""
    pruner = HealthPrunerSpec(verdicts=(Verdict.CONSTANT,), warmup_epochs=2)
    assert not prunes(pruner, 2, Verdict.CONSTANT)
    assert prunes(pruner, 3, Verdict.CONSTANT)
    assert not prunes(pruner, 3, Verdict.COLLAPSED)


def test_baselines_and_the_last_epoch_are_kept() -> None:
    """As with every pruner."""
    planner, trials = planned(HealthPrunerSpec())
    baseline, trial = (
        next(item for item in trials if item.is_baseline is is_baseline) for is_baseline in (True, False)
    )
    assert not planner.should_prune(progress(baseline, 1, Verdict.COLLAPSED))
    assert not planner.should_prune(progress(trial, trial.spec.training.epochs, Verdict.COLLAPSED))


def test_a_pruner_that_makes_no_sense_is_refused() -> None:
    """None to look for, the good one, or a time before training."""
    for wrong in ({"verdicts": ()}, {"verdicts": (Verdict.HEALTHY,)}, {"warmup_epochs": -1}):
        with pytest.raises(SpecError):
            HealthPrunerSpec(**wrong)


def test_a_sweep_with_it_is_stored_and_read() -> None:
    """Verdicts are words in the store."""
    assert from_json(SweepSpec, to_json(SWEEP), where="the store") == SWEEP
