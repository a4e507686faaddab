"""Trials that end early."""

import dataclasses

import pytest
from made_up_spaces import MOMENTUM, RATE, MadeUpCompose, Run, bowl, choices, health
from narrowed import sgd_of

from stnbench.planning import Known, Observation, Planner, Progress
from stnbench.planning.build import build_planner
from stnbench.spec.planner import (
    AshaPrunerSpec,
    FreezeThawPrunerSpec,
    HyperbandPrunerSpec,
    MedianPrunerSpec,
    Nsga2PlannerSpec,
    RandomPlannerSpec,
    ThresholdPrunerSpec,
    TpePlannerSpec,
)
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.store.tables import PlannedTrial

SWEEP = SweepSpec(
    name="grid",
    question="?",
    axes=(choices(RATE, 0.001, 0.003, 0.01, 0.03), choices(MOMENTUM, 0.0, 0.5)),
    seeds=(1,),
    baselines=False,
    pruner=AshaPrunerSpec(reduction_factor=2),
)
FREEZE = FreezeThawPrunerSpec(reduction_factor=2)


def planned(sweep: SweepSpec, **options: bool) -> tuple[Planner, list[PlannedTrial]]:
    """A planner of the sweep and what it asks for."""
    planner = build_planner(sweep, MadeUpCompose(sweep, **options))  # type: ignore[arg-type]
    return planner, list(planner.ask())


def progress(trial: PlannedTrial, epoch: int, accuracy: float, outside_share: float = 0.0) -> Progress:
    """A trial after an epoch."""
    return Progress(
        trial_id=trial.spec.trial_id,
        epoch=epoch,
        epochs=trial.spec.training.epochs,
        validation_accuracy=accuracy,
        health=(health(outside_share),),
    )


def test_the_worse_half_ends_at_each_rung() -> None:
    """With a factor of 2 the rungs are epochs 1 and 2; the fourth of four rising trials goes on, a poor fifth ends."""
    planner, trials = planned(SWEEP)

    assert [planner.should_prune(progress(trial, 1, 0.1 * rank)) for rank, trial in enumerate(trials[:4], 1)] == [
        False
    ] * 4
    assert planner.should_prune(progress(trials[4], 1, 0.05))
    assert not planner.should_prune(progress(trials[3], 2, 0.5))
    assert planner.should_prune(progress(trials[0], 2, 0.2))


def ended(planner: Planner, trial: PlannedTrial, state: TrialState = TrialState.PRUNED) -> None:
    """Tell the end of a trial."""
    planner.tell(Observation(trial_id=trial.spec.trial_id, state=state, validation_accuracy=0.5))


def test_a_trial_pauses_at_a_rung_and_goes_on_once_it_is_among_the_best() -> None:
    """Of four, the best goes on at once, the second best once a fourth has come: then it is in the better half."""
    planner, (low, good, best, lower, *_) = planned(dataclasses.replace(SWEEP, pruner=FREEZE))

    assert planner.should_prune(progress(good, 1, 0.6))
    assert planner.thawed(is_idle=False) == []  # its attempt has not ended
    ended(planner, good)
    assert not planner.should_prune(progress(best, 1, 0.7))
    assert planner.should_prune(progress(low, 1, 0.3))
    ended(planner, low)
    assert planner.thawed(is_idle=False) == []
    assert planner.should_prune(progress(lower, 1, 0.2))
    ended(planner, lower)
    assert planner.thawed(is_idle=False) == [good.spec.trial_id]
    assert planner.thawed(is_idle=False) == []
    assert planner.should_prune(progress(good, 2, 0.65))  # the next rung; it is alone there
    assert planner.should_prune(progress(good, 2, 0.65))


def test_what_came_furthest_goes_on_if_nothing_else_is_left() -> None:
    """Alone at its rung it is not among the best half; once one is complete, none is thawed for want of others."""
    planner, (first, second, third, *_) = planned(dataclasses.replace(SWEEP, pruner=FREEZE))
    for trial, accuracy in ((first, 0.5), (second, 0.4), (third, 0.3)):
        planner.should_prune(progress(trial, 1, accuracy))
        ended(planner, trial)
    assert planner.thawed(is_idle=True) == [first.spec.trial_id]
    assert planner.should_prune(progress(first, 2, 0.6))
    ended(planner, first)
    assert planner.thawed(is_idle=False) == []
    assert planner.thawed(is_idle=True) == [first.spec.trial_id]
    ended(planner, first, TrialState.COMPLETE)
    assert planner.thawed(is_idle=True) == []


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.PLANNED])
def test_rungs_and_pauses_are_known_after_a_break(state: TrialState) -> None:
    """What was paused goes on when it may; what was killed before it paused does so at its next epoch."""
    sweep = dataclasses.replace(SWEEP, pruner=FREEZE)
    _, trials = planned(sweep)
    planner = build_planner(sweep, MadeUpCompose(sweep))
    known = [
        Known(planned=trials[0], state=state, validation_accuracy=0.5, epochs=(0.5,)),
        Known(planned=trials[1], state=TrialState.PRUNED, validation_accuracy=0.3, epochs=(0.2, 0.3)),
        Known(planned=trials[2], state=TrialState.COMPLETE, validation_accuracy=0.9, epochs=(0.3, 0.4, 0.8, 0.9)),
    ]
    planner.resume(known)
    planner.ask()
    assert planner.should_prune(progress(trials[3], 1, 0.1))
    ended(planner, trials[3])

    going = planner.thawed(is_idle=False)
    assert going == ([trials[0].spec.trial_id] if state is TrialState.PRUNED else [])
    assert planner.should_prune(progress(trials[0], 1, 0.5)) is (state is TrialState.PLANNED)


def test_nothing_ends_after_its_last_epoch() -> None:
    """A trial that has paid for everything is kept."""
    planner, trials = planned(SWEEP)
    for trial in trials[:4]:
        assert not planner.should_prune(progress(trial, 4, 0.9))
    assert not planner.should_prune(progress(trials[4], 4, 0.0))


def test_baselines_always_finish() -> None:
    """They are what gains are measured against; they are not competitors either."""
    sweep = dataclasses.replace(SWEEP, baselines=True, pruner=ThresholdPrunerSpec(accuracy=0.5))
    planner, trials = planned(sweep, has_transformer=True)
    baseline = next(trial for trial in trials if trial.is_baseline)
    config = next(trial for trial in trials if not trial.is_baseline)

    assert not planner.should_prune(progress(baseline, 1, 0.1))
    assert planner.should_prune(progress(config, 1, 0.1))


def test_tasks_are_not_compared_with_one_another() -> None:
    """With ``within``, a hard task loses no trial to an easy one."""
    sweep = dataclasses.replace(SWEEP, within=MOMENTUM)
    for found, expected in ((sweep, False), (SWEEP, True)):
        planner, trials = planned(found)
        easy = [trial for trial in trials if sgd_of(trial.spec).momentum == 0.5]
        hard = next(trial for trial in trials if sgd_of(trial.spec).momentum == 0.0)
        for trial in easy:
            planner.should_prune(progress(trial, 1, 0.9))
        assert planner.should_prune(progress(hard, 1, 0.3)) is expected


def test_a_threshold_looks_at_accuracy_and_at_transformers() -> None:
    """After the warm-up, too low an accuracy or a transformer that looks away ends a trial."""
    pruner = ThresholdPrunerSpec(accuracy=0.2, outside_share=0.8, warmup_epochs=2)
    planner, (trial, *_) = planned(dataclasses.replace(SWEEP, pruner=pruner))

    assert not planner.should_prune(progress(trial, 1, 0.1, 0.9))
    assert not planner.should_prune(progress(trial, 2, 0.3, 0.5))
    assert planner.should_prune(progress(trial, 2, 0.1))
    planner, (trial, *_) = planned(dataclasses.replace(SWEEP, pruner=pruner))
    assert planner.should_prune(progress(trial, 3, 0.3, 0.9))


def test_the_median_ends_what_is_below_it() -> None:
    """Once five trials are complete, a trial below the middle one of them at the same epoch ends."""
    planner, trials = planned(dataclasses.replace(SWEEP, pruner=MedianPrunerSpec(warmup_epochs=2)))
    for rank, trial in enumerate(trials[:5]):
        for epoch in (1, 2, 3, 4):
            planner.should_prune(progress(trial, epoch, 0.5 + 0.1 * rank))
        done = Observation(trial_id=trial.spec.trial_id, state=TrialState.COMPLETE, validation_accuracy=0.5)
        planner.tell(done)

    assert not planner.should_prune(progress(trials[5], 1, 0.1))
    assert planner.should_prune(progress(trials[5], 2, 0.6))
    assert not planner.should_prune(progress(trials[6], 2, 0.8))


def test_hyperband_shares_trials_among_its_brackets() -> None:
    """Some trials that are last of all go on where others end: their brackets begin later."""
    sweep = dataclasses.replace(SWEEP, seeds=tuple(range(1, 11)), pruner=HyperbandPrunerSpec())
    planner, trials = planned(sweep)
    ended = [planner.should_prune(progress(trial, 1, 1 - rank / 100)) for rank, trial in enumerate(trials)]

    assert 5 < sum(ended) < len(trials) - 5


def test_an_attempt_that_begins_again_is_not_judged_twice_by_the_same_epoch() -> None:
    """Nor does it disturb the others; what was once to end, ends."""
    planner, trials = planned(SWEEP)
    for rank, trial in enumerate(trials[:4], 1):
        planner.should_prune(progress(trial, 1, 0.1 * rank))
    assert planner.should_prune(progress(trials[4], 1, 0.05))

    assert not planner.should_prune(progress(trials[0], 1, 0.1))
    assert planner.should_prune(progress(trials[4], 1, 0.05))


def test_a_resumed_pruner_knows_the_rungs_of_earlier_runs() -> None:
    """A trial is compared with those that ran before the interruption."""
    planner, trials = planned(SWEEP)
    known = [
        Known(
            planned=trial,
            state=TrialState.COMPLETE if rank < 4 else TrialState.PLANNED,
            validation_accuracy=0.9 if rank < 4 else None,
            epochs=(0.6, 0.7, 0.8, 0.9) if rank < 4 else (),
        )
        for rank, trial in enumerate(trials)
    ]
    fresh, again = planned(SWEEP)
    planner = build_planner(SWEEP, MadeUpCompose(SWEEP))
    planner.resume(known)
    planner.ask()

    assert not fresh.should_prune(progress(again[5], 1, 0.1))
    assert planner.should_prune(progress(trials[5], 1, 0.1))
    assert not planner.should_prune(progress(trials[6], 1, 0.7))


@pytest.mark.parametrize(
    "planner", [RandomPlannerSpec(trials=30), TpePlannerSpec(trials=30), Nsga2PlannerSpec(trials=30)]
)
def test_a_search_goes_on_past_pruned_trials(planner: RandomPlannerSpec) -> None:
    """Configurations that were pruned are told as such, and none is asked twice."""
    axes = (choices(RATE, *[0.001 * 1.2**step for step in range(30)]), choices(MOMENTUM, 0.0, 0.5))
    sweep = dataclasses.replace(SWEEP, axes=axes, planner=planner)
    run = Run(bowl).go_on(build_planner(sweep, MadeUpCompose(sweep), slots=2), slots=2)

    assert len(run.launched) == len(set(run.launched)) == 30
    assert TrialState.PRUNED in run.states.values()
    assert run.best() > 0.85
