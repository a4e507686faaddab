"""Seeds go where a verdict is missing, and looking again and again does not raise the error rate."""

import dataclasses
import math
from random import Random

import pytest
from made_up_spaces import DECAY, FACTOR, MOMENTUM, MadeUpCompose, Run, choices
from narrowed import sgd_of

from stnbench.analysis.comparison import compare_configurations
from stnbench.analysis.fitted import ScoredRun
from stnbench.analysis.verdicts import Comparison, Decision, Effect, Verdict
from stnbench.core.errors import SpecError
from stnbench.core.identity import derive_seed
from stnbench.planning import seeds as until_decided
from stnbench.planning.seeds import UntilDecidedPlanner, choose
from stnbench.spec.planner import UntilDecidedPlannerSpec
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import TrialSpec

PLANNER = UntilDecidedPlannerSpec(max_seeds=9, looks=4)
SWEEP = SweepSpec(
    name="until", question="?", axes=(choices(MOMENTUM, 0.1, 0.2, 0.3, 0.31),), seeds=(1, 2), baselines=False,
    planner=PLANNER, margin=0.0,
)  # fmt: skip


def ladder(spec: TrialSpec) -> float:
    """0.1 and 0.2 are far below; 0.31 is as good as 0.3. Seeds move each by 0.2 points."""
    own = Random(derive_seed(spec.seed, spec.config_id)).gauss(0.0, 0.002)
    return 0.5 + min(sgd_of(spec).momentum, 0.3) + own


def decision(name: str, verdict: Verdict, needed: int | None = None) -> Decision:
    """A decision as far as a choice looks at it."""
    return Decision(
        configuration=name, seeds=(1, 2), mean=0.9, low=None, high=None, method="", rank_low=1, rank_high=3,
        verdict=verdict, seeds_needed=needed,
    )  # fmt: skip


def looked(*decisions: Decision) -> Comparison:
    """What a look found."""
    return Comparison(
        decisions=decisions, margin=0.005, seeds=(1, 2), is_provisional=False, run_deviation=None, prior_freedom=None
    )


def until(sweep: SweepSpec = SWEEP, **options: bool) -> tuple[UntilDecidedPlanner, MadeUpCompose]:
    """A fresh planner."""
    compose = MadeUpCompose(sweep, **options)  # type: ignore[arg-type]
    assert isinstance(sweep.planner, UntilDecidedPlannerSpec)
    return UntilDecidedPlanner(sweep, sweep.planner, compose), compose


def seeds_by_momentum(run: Run) -> dict[float, list[int]]:
    """The seeds that each configuration ran with."""
    found: dict[float, list[int]] = {}
    for trial in run.planned.values():
        found.setdefault(sgd_of(trial.spec).momentum, []).append(trial.spec.seed)
    return found


def test_the_cheapest_verdict_comes_first() -> None:
    """What it lacks and what the best lacks, times what a trial costs; out of reach is last, decided ones get none."""
    comparison = looked(
        decision("best", Verdict.BEST),
        decision("far", Verdict.LOWER),
        decision("never", Verdict.UNDECIDED, 50),
        decision("unknown", Verdict.UNDECIDED, None),
        decision("dear", Verdict.UNDECIDED, 3),
        decision("cheap", Verdict.UNDECIDED, 6),
    )
    run = dict.fromkeys(["best", "far", "never", "unknown", "dear", "cheap"], 2)
    cost = {"best": 1.0, "far": 1.0, "never": 1.0, "unknown": 2.0, "dear": 20.0, "cheap": 2.0}
    choice = choose(comparison, seeds_run=run, trial_cost=cost, max_seeds=20)

    assert [item.configuration for item in choice.wanted] == ["best", "cheap", "dear", "never", "unknown"]
    assert [item.cost for item in choice.wanted] == [12.0, 12.0, 21.0, math.inf, math.inf]
    assert choice.reason == ""


def test_a_choice_of_nobody_says_why() -> None:
    """All verdicts are in, no seeds are left, or nothing has a score."""
    run, cost = {"a": 5, "b": 5}, {"a": 1.0, "b": 1.0}
    decided = looked(decision("a", Verdict.BEST), decision("b", Verdict.EQUIVALENT))
    spent = looked(decision("a", Verdict.BEST), decision("b", Verdict.UNDECIDED, 7))

    assert choose(decided, seeds_run=run, trial_cost=cost, max_seeds=9).reason == "every configuration has a verdict"
    assert "undecided with 5 seeds" in choose(spent, seeds_run=run, trial_cost=cost, max_seeds=5).reason
    assert choose(looked(), seeds_run={}, trial_cost={}, max_seeds=9).reason == "no configuration has a score"


@pytest.mark.parametrize("first", [1, 2, 3, 7, 20, 30])
@pytest.mark.parametrize("looks", [2, 3, 6, 40])
def test_looks_rise_from_the_first_seeds_to_the_most(first: int, looks: int) -> None:
    """Never more looks than are planned, none at a single seed, the last one at the most seeds."""
    seeds = UntilDecidedPlannerSpec(max_seeds=20, looks=looks).look_seeds(first)

    assert seeds[0] == max(first, 2)
    assert seeds[-1] == max(first, 20)
    assert list(seeds) == sorted(set(seeds))
    assert len(seeds) <= looks


def test_decided_configurations_get_no_further_seeds() -> None:
    """The two that are level run with all nine seeds; the others stop at a planned look."""
    planner, _ = until()
    seeds = seeds_by_momentum(Run(ladder).go_on(planner))

    assert seeds[0.3] == seeds[0.31] == list(range(1, 10))
    assert len(seeds[0.1]) < 9
    assert len(seeds[0.2]) < 9
    assert {len(own) for own in seeds.values()} <= set(PLANNER.look_seeds(2))
    assert planner.reason


def test_it_ends_with_all_verdicts() -> None:
    """Without level ones every configuration is decided, and the comparison of its runs at one look's level says so."""
    sweep = dataclasses.replace(SWEEP, axes=(choices(MOMENTUM, 0.1, 0.2, 0.3),))
    planner, _ = until(sweep)
    run = Run(ladder).go_on(planner)
    runs = [
        ScoredRun(
            configuration=trial.spec.config_id, seed=trial.spec.seed, correct=run.accuracies[key] * 1e4, images=10_000
        )
        for key, trial in run.planned.items()
    ]
    found = compare_configurations(runs, margin=0.0, level=0.05 / len(PLANNER.look_seeds(2)))

    assert planner.reason == "every configuration has a verdict"
    assert all(item.verdict is not Verdict.UNDECIDED for item in found.decisions)
    assert len(run.launched) < 3 * 9


def test_trials_are_a_limit() -> None:
    """It is never exceeded but by the first seeds, and what still fits is asked for, the cheapest verdict first."""
    for limit in (1, 8, 9, 10, 13):
        planner, _ = until(dataclasses.replace(SWEEP, planner=dataclasses.replace(PLANNER, trials=limit)))
        assert 8 <= len(Run(ladder).go_on(planner).launched) <= max(limit, 8), limit


def test_tasks_are_decided_for_themselves() -> None:
    """With ``within``, a configuration of a hard task is compared with those of the same task only."""
    sweep = dataclasses.replace(SWEEP, axes=(choices(DECAY, 0.0, 0.1), *SWEEP.axes), within=DECAY)
    planner, _ = until(sweep)
    run = Run(lambda spec: ladder(spec) - sgd_of(spec).weight_decay).go_on(planner)
    longest: dict[float, int] = {}
    for trial in run.planned.values():
        decay = sgd_of(trial.spec).weight_decay
        longest[decay] = max(longest.get(decay, 0), trial.spec.seed)

    assert longest == {0.0: 9, 0.1: 9}


def test_a_configuration_without_a_score_gets_no_further_seeds() -> None:
    """One that always fails has no verdict to reach, and the others go on."""
    planner, _ = until()
    run = Run(ladder, failing=lambda spec: sgd_of(spec).momentum == 0.31).go_on(planner)
    failed = [key for key, trial in run.planned.items() if sgd_of(trial.spec).momentum == 0.31]

    assert [run.states[key] for key in failed] == [TrialState.FAILED] * 2
    assert len(run.launched) > len(failed) + 6 - 1


@pytest.mark.parametrize("key", ["max_seeds", "looks", "trials"])
def test_impossible_numbers_are_refused(key: str) -> None:
    """The error names the key."""
    with pytest.raises(SpecError, match=key):
        UntilDecidedPlannerSpec(**{key: 0})  # type: ignore[arg-type]


@pytest.mark.thorough
@pytest.mark.slow
def test_repeated_looks_keep_the_error_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 sweeps of four equals with five looks, no more than 4 ever call one lower; at 5 % a look more would."""
    comparisons: list[Comparison] = []
    decide = until_decided.choose

    def spy(comparison: Comparison, **options: object) -> object:
        comparisons.append(comparison)
        return decide(comparison, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(until_decided, "choose", spy)
    wrong = wrong_at_5 = 0
    for number in range(40):
        comparisons.clear()

        def score(spec: TrialSpec, number: int = number) -> float:
            own = Random(derive_seed(number, spec.seed, spec.config_id)).gauss(0.0, 0.003)
            return 0.93 + own + Random(derive_seed(number, spec.seed)).gauss(0.0, 0.003)

        spec = UntilDecidedPlannerSpec(max_seeds=8, looks=5)
        axes = (choices(FACTOR, 1.0, 2.0, 3.0, 4.0),)
        sweep = dataclasses.replace(SWEEP, axes=axes, planner=spec)
        planner, _ = until(sweep, has_transformer=True)
        Run(score).go_on(planner)
        deltas: list[tuple[Verdict | None, Effect | None]] = [
            (item.verdict, item.delta) for found in comparisons for item in found.decisions
        ]
        wrong += any(verdict is Verdict.LOWER for verdict, _ in deltas)
        wrong_at_5 += any(delta is not None and (delta.p_adjusted or 1.0) <= 0.05 for _, delta in deltas)

    assert wrong <= 4
    assert wrong_at_5 > wrong
