"""Seeds go to configurations that may still be the best."""

import dataclasses
from random import Random

import pytest
from made_up_spaces import DECAY, MOMENTUM, RATE, MadeUpCompose, Run, choices
from narrowed import sgd_of

from stnbench.core.identity import derive_seed
from stnbench.planning.build import build_planner
from stnbench.spec.planner import RacingPlannerSpec
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import TrialSpec

SWEEP = SweepSpec(
    name="race",
    question="?",
    axes=(choices(MOMENTUM, 0.1, 0.2, 0.3, 0.8),),
    seeds=(1, 2),
    baselines=False,
    planner=RacingPlannerSpec(max_seeds=8),
)


def ladder(spec: TrialSpec) -> float:
    """0.1, 0.2 and 0.3 are told apart by a few seeds; 0.8 is as good as 0.3. Seeds move each by a little."""
    base = min(sgd_of(spec).momentum, 0.3)
    return 0.5 + base + 0.001 * ((spec.seed * 7 + round(sgd_of(spec).momentum * 10) * 3) % 5)


def race(sweep: SweepSpec, **options: bool) -> Run:
    """The whole race."""
    return Run(ladder).go_on(build_planner(sweep, MadeUpCompose(sweep, **options)))  # type: ignore[arg-type]


def seeds_by_momentum(run: Run) -> dict[float, list[int]]:
    """The seeds that each configuration ran with."""
    found: dict[float, list[int]] = {}
    for trial in run.planned.values():
        found.setdefault(sgd_of(trial.spec).momentum, []).append(trial.spec.seed)
    return found


def test_only_configurations_that_may_be_best_get_further_seeds() -> None:
    """The two that are level run with all eight; the others leave within five, all with the same first seeds."""
    seeds = seeds_by_momentum(race(SWEEP))

    assert seeds[0.3] == seeds[0.8] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert 2 <= len(seeds[0.1]) <= 5
    assert 2 <= len(seeds[0.2]) <= 5
    assert all(found == list(range(1, len(found) + 1)) for found in seeds.values())


def test_the_race_is_over_with_one_configuration_left() -> None:
    """Nobody runs alone."""
    sweep = dataclasses.replace(SWEEP, axes=(choices(MOMENTUM, 0.1, 0.2, 0.3),))
    seeds = seeds_by_momentum(race(sweep))

    assert max(map(len, seeds.values())) <= 6
    assert len(seeds[0.3]) == max(map(len, seeds.values()))


@pytest.mark.thorough
@pytest.mark.slow
def test_repeated_looks_keep_the_error_rate() -> None:
    """Of 25 races of four equals with six looks, no more than 3 ever drop one."""
    dropped = 0
    for number in range(25):

        def score(spec: TrialSpec, number: int = number) -> float:
            own = Random(derive_seed(number, spec.seed, spec.config_id)).gauss(0.0, 0.003)
            return 0.93 + own + Random(derive_seed(number, spec.seed)).gauss(0.0, 0.003)

        run = Run(score).go_on(build_planner(SWEEP, MadeUpCompose(SWEEP)))
        dropped += min(map(len, seeds_by_momentum(run).values())) < 8
    assert dropped <= 3


def test_trials_are_a_limit() -> None:
    """A round that would go beyond it does not begin; the first one always does.

    Four configurations with two seeds each, of which two are called lower: later rounds have two trials.
    """
    for limit, trials in ((13, 12), (12, 12), (11, 10), (9, 8), (1, 8)):
        sweep = dataclasses.replace(SWEEP, planner=RacingPlannerSpec(max_seeds=8, trials=limit))
        assert len(race(sweep).launched) == trials, limit


def test_tasks_are_races_of_their_own() -> None:
    """With ``within``, the configurations of a hard task are compared with one another only."""
    axes = (choices(DECAY, 0.0, 0.1), *SWEEP.axes)
    sweep = dataclasses.replace(SWEEP, axes=axes, within=DECAY)

    def score(spec: TrialSpec) -> float:
        return ladder(spec) - sgd_of(spec).weight_decay

    run = Run(score).go_on(build_planner(sweep, MadeUpCompose(sweep)))
    longest: dict[float, int] = {}
    for trial in run.planned.values():
        decay = sgd_of(trial.spec).weight_decay
        longest[decay] = max(longest.get(decay, 0), trial.spec.seed)

    assert longest == {0.0: 8, 0.1: 8}


def test_a_baseline_runs_as_long_as_its_configuration() -> None:
    """The gain of a configuration in the race is measured on as many seeds as the configuration has."""
    sweep = dataclasses.replace(SWEEP, baselines=True)

    def score(spec: TrialSpec) -> float:
        return ladder(spec) if spec.transformers else ladder(spec) - 0.4

    run = Run(score).go_on(build_planner(sweep, MadeUpCompose(sweep, has_transformer=True)))
    baselines = {sgd_of(trial.spec).momentum: trial.spec.seed for trial in run.planned.values() if trial.is_baseline}

    assert baselines[0.3] == baselines[0.8] == 8
    assert baselines[0.1] < 8


def test_configurations_that_fail_leave_the_race() -> None:
    """They get no further seeds, and the others race on."""
    run = Run(ladder, failing=lambda spec: sgd_of(spec).momentum == 0.8)
    run.go_on(build_planner(SWEEP, MadeUpCompose(SWEEP)))
    states = [run.states[key] for key, trial in run.planned.items() if sgd_of(trial.spec).momentum == 0.8]

    assert states == [TrialState.FAILED] * 2


def test_one_configuration_alone_does_not_race() -> None:
    """It runs with the sweep's seeds."""
    sweep = dataclasses.replace(SWEEP, axes=(choices(RATE, 0.1),))

    assert len(race(sweep).launched) == 2
