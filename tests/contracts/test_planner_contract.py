"""What every planner promises, whatever it proposes."""

import dataclasses
from collections.abc import Callable

import pytest
from made_up_spaces import DECAY, MOMENTUM, RATE, MadeUpCompose, Run, bowl, choices, conditional, floats

from stnbench.planning import Known, Observation, Planner, Progress
from stnbench.planning.build import build_planner
from stnbench.spec.optimizer import SgdSpec
from stnbench.spec.planner import (
    AshaPrunerSpec,
    FreezeThawPrunerSpec,
    GridPlannerSpec,
    HyperbandPrunerSpec,
    MedianPrunerSpec,
    Nsga2PlannerSpec,
    OptunaPlannerSpec,
    RacingPlannerSpec,
    RandomPlannerSpec,
    ThresholdPrunerSpec,
    TpePlannerSpec,
    UntilDecidedPlannerSpec,
)
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import Axis, SweepSpec

pytestmark = pytest.mark.slow

GRID = (choices(RATE, 0.001, 0.003, 0.01, 0.03, 0.1), choices(MOMENTUM, 0.0, 0.5, 0.9))
EXCLUDED = ((RATE, "learning_rate=0.01"), (MOMENTUM, "momentum=0.9"))
SEARCH: tuple[Axis, ...] = (
    floats(RATE, 0.001, 0.3, log=True),
    choices(MOMENTUM, 0.0, 0.5, 0.9),
    conditional(floats(DECAY, 1e-5, 1e-2, log=True), MOMENTUM, "momentum=0.5", "momentum=0.9"),
)
GRID_SWEEP = SweepSpec(name="grid", question="?", axes=GRID, exclude=(EXCLUDED[:2],), seeds=(1, 2), baselines=False)
SEARCH_SWEEP = dataclasses.replace(
    GRID_SWEEP,
    name="search",
    axes=SEARCH,
    exclude=(((MOMENTUM, "momentum=0.0"),),),
    planner=RandomPlannerSpec(trials=24),
)


def searched(**changes: object) -> SweepSpec:
    """The search with another planner or pruner."""
    return dataclasses.replace(SEARCH_SWEEP, **changes)  # type: ignore[arg-type]


SWEEPS = {
    "grid": GRID_SWEEP,
    "grid with asha": dataclasses.replace(GRID_SWEEP, pruner=AshaPrunerSpec()),
    "grid with freeze_thaw": dataclasses.replace(GRID_SWEEP, pruner=FreezeThawPrunerSpec()),
    "grid with hyperband": dataclasses.replace(GRID_SWEEP, pruner=HyperbandPrunerSpec()),
    "grid with median": dataclasses.replace(GRID_SWEEP, pruner=MedianPrunerSpec()),
    "grid with threshold": dataclasses.replace(GRID_SWEEP, pruner=ThresholdPrunerSpec(accuracy=0.45)),
    "racing": dataclasses.replace(GRID_SWEEP, planner=RacingPlannerSpec(max_seeds=4)),
    "until decided": dataclasses.replace(GRID_SWEEP, planner=UntilDecidedPlannerSpec(max_seeds=5, looks=3)),
    "until decided from one seed": dataclasses.replace(
        GRID_SWEEP, seeds=(3,), planner=UntilDecidedPlannerSpec(max_seeds=4, looks=3)
    ),
    "until decided with asha": dataclasses.replace(
        GRID_SWEEP, planner=UntilDecidedPlannerSpec(max_seeds=4, looks=3), pruner=AshaPrunerSpec()
    ),
    "random": SEARCH_SWEEP,
    "random on a grid": dataclasses.replace(GRID_SWEEP, planner=RandomPlannerSpec(trials=100)),
    "tpe": searched(planner=TpePlannerSpec(trials=30)),
    "tpe on a grid": dataclasses.replace(GRID_SWEEP, planner=TpePlannerSpec(trials=100)),
    "tpe with asha": searched(planner=TpePlannerSpec(trials=30), pruner=AshaPrunerSpec()),
    "tpe with freeze_thaw": searched(planner=TpePlannerSpec(trials=30), pruner=FreezeThawPrunerSpec()),
    "nsga2": searched(planner=Nsga2PlannerSpec(trials=40, population=4)),
    "QMCSampler": searched(planner=OptunaPlannerSpec(trials=16, sampler="QMCSampler", options={"scramble": True})),
    "NSGAIISampler": searched(
        planner=OptunaPlannerSpec(trials=24, sampler="NSGAIISampler", options={"population_size": 4})
    ),
}
MakePlanner = Callable[[], Planner]


@pytest.fixture(params=SWEEPS)
def sweep(request: pytest.FixtureRequest) -> SweepSpec:
    """A sweep of every planner."""
    return SWEEPS[request.param]


@pytest.fixture
def make(sweep: SweepSpec) -> MakePlanner:
    """A fresh planner of the sweep."""
    return lambda: build_planner(sweep, MadeUpCompose(sweep))


def test_the_same_answers_give_the_same_questions(make: MakePlanner) -> None:
    """Two planners of one sweep ask the same trials in the same order, and end the same trials early."""
    first, second = Run(bowl).go_on(make(), slots=2), Run(bowl).go_on(make(), slots=2)

    assert first.asked == second.asked
    assert first.states == second.states


def test_a_planner_comes_to_an_end(make: MakePlanner, sweep: SweepSpec) -> None:
    """Exhausted, it asks nothing more; every config was asked with every seed of the sweep, and no trial twice."""
    planner = make()
    run = Run(bowl).go_on(planner)
    seeds: dict[str, set[int]] = {}
    for trial in run.planned.values():
        seeds.setdefault(trial.spec.config_id, set()).add(trial.spec.seed)

    assert run.planned
    assert planner.is_exhausted
    assert list(planner.ask()) == []
    assert len(run.asked) == len(set(run.asked))
    assert all(set(sweep.seeds) <= found for found in seeds.values())


def test_told_twice_is_told_once(make: MakePlanner) -> None:
    """A second answer for the same trial changes nothing."""

    class Twice(Run):
        def _tell(self, planner: Planner, trial: object) -> None:
            super()._tell(planner, trial)  # type: ignore[arg-type]
            super()._tell(planner, trial)  # type: ignore[arg-type]

    assert Twice(bowl).go_on(make()).asked == Run(bowl).go_on(make()).asked


def test_no_excluded_point_is_proposed(make: MakePlanner, sweep: SweepSpec) -> None:
    """What the sweep leaves out is never asked for."""
    run = Run(bowl).go_on(make())

    assert not any(sweep.excludes(trial.point.labels) for trial in run.planned.values())


@pytest.mark.parametrize("stop_after", [1, 3, 9, 17])
def test_an_interrupted_search_ends_like_one_that_was_not(sweep: SweepSpec, make: MakePlanner, stop_after: int) -> None:
    """A new planner that is given what the store has asks for what is open, runs nothing twice and finds the same."""
    whole = Run(bowl).go_on(make())
    run = Run(bowl).go_on(make(), stop_after=stop_after)
    planner = make()
    planner.resume(run.known())
    run.go_on(planner)

    assert planner.is_exhausted
    assert len(run.launched) == len(set(run.launched))
    assert set(run.states) == set(run.planned)
    if sweep.pruner is None:
        assert set(run.planned) == set(whole.planned)
    else:
        assert len(run.configs()) == len(whole.configs())


def test_a_finished_search_asks_nothing_new(make: MakePlanner) -> None:
    """Resumed at its end, it asks for what it knows and the runner finds all of it final."""
    run = Run(bowl).go_on(make())
    planner = make()
    planner.resume(run.known())
    again = Run(bowl, states=dict(run.states), accuracies=dict(run.accuracies)).go_on(planner)

    assert set(again.planned) == set(run.planned)
    assert again.launched == []


def test_failed_configurations_are_not_proposed_again(make: MakePlanner) -> None:
    """A search goes on past trials that fail."""
    run = Run(bowl, failing=lambda spec: isinstance(spec.optimizer, SgdSpec) and spec.optimizer.momentum > 0.7)
    planner = make()
    run.go_on(planner)

    assert planner.is_exhausted
    assert TrialState.FAILED in run.states.values()
    assert TrialState.COMPLETE in run.states.values()
    assert len(run.launched) == len(set(run.launched))


def test_an_answer_to_no_question_is_ignored(make: MakePlanner) -> None:
    """A trial of another sweep, or of one that was edited, disturbs nobody."""
    planner = make()
    planner.tell(Observation(trial_id="0" * 16, state=TrialState.COMPLETE, validation_accuracy=1.0))

    assert not planner.should_prune(Progress(trial_id="0" * 16, epoch=1, epochs=4, validation_accuracy=0.0))
    assert Run(bowl).go_on(planner).asked == Run(bowl).go_on(make()).asked


@pytest.mark.parametrize("kind", [Observation, Known, Progress])
def test_no_test_score_can_reach_a_planner(kind: type) -> None:
    """What planners are told has room for validation only."""
    names = {field.name for field in dataclasses.fields(kind)}

    assert not any("test" in name for name in names)
    assert "validation_accuracy" in names


def test_a_grid_imports_no_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain grid, the race and the search for verdicts do without it."""
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    for planner in (GridPlannerSpec(), RacingPlannerSpec(max_seeds=3), UntilDecidedPlannerSpec(max_seeds=3)):
        sweep = dataclasses.replace(GRID_SWEEP, planner=planner)
        assert Run(bowl).go_on(build_planner(sweep, MadeUpCompose(sweep))).planned
