"""Configurations beyond a sweep's limits are left out when it is planned, and samplers start from what is known."""

import dataclasses
from pathlib import Path

import pytest
from made_up_spaces import MOMENTUM, RATE, WIDTH, MadeUpCompose, Run, bowl, choices, floats

from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder
from stnbench.config.resolve import parse_overrides
from stnbench.config.sweeps import read_sweep
from stnbench.core.errors import BeyondLimitsError, InfeasibleError, SpecError, UnknownNameError
from stnbench.planning import Known, LimitedCompose, measure_trial
from stnbench.planning.build import build_planner
from stnbench.spec.network import LecunSpec
from stnbench.spec.planner import (
    GridPlannerSpec,
    Nsga2PlannerSpec,
    PlannerSpec,
    RacingPlannerSpec,
    RandomPlannerSpec,
    TpePlannerSpec,
    UntilDecidedPlannerSpec,
)
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import LimitsSpec, SweepSpec
from stnbench.spec.trial import TrialSpec

SWEEP = SweepSpec(
    name="limited",
    question="?",
    axes=(choices(WIDTH, 4, 8, 16), choices(MOMENTUM, 0.0, 0.5)),
    seeds=(1, 2),
    baselines=False,
)


def measure(spec: TrialSpec) -> dict[str, float]:
    """A cost that is the width, of which 8 cannot be built."""
    assert isinstance(spec.network, LecunSpec)
    width = spec.network.sizes[0]
    return {"parameters": width, "flops": 10 * width, "memory_mib": 1.0}


def specs_of(done: Run) -> list[TrialSpec]:
    """What was launched, in order."""
    return [done.planned[trial_id].spec for trial_id in done.launched]


def limited(sweep: SweepSpec, limits: LimitsSpec) -> LimitedCompose:
    """The made-up space with limits."""
    return LimitedCompose(compose=MadeUpCompose(sweep), limits=limits, measure=measure)


@pytest.mark.parametrize(
    "planner",
    [
        GridPlannerSpec(),
        RacingPlannerSpec(max_seeds=3),
        UntilDecidedPlannerSpec(max_seeds=3),
        RandomPlannerSpec(trials=8),
        TpePlannerSpec(trials=8),
    ],
    ids=lambda planner: planner.kind,
)
def test_no_planner_asks_for_what_is_beyond_the_limits(planner: PlannerSpec) -> None:
    """The widest network is never trained, and the reason is told; the others are."""
    sweep = dataclasses.replace(SWEEP, planner=planner)
    compose = limited(sweep, LimitsSpec(parameters=8, flops=1e9))
    done = Run(bowl).go_on(build_planner(sweep, compose))
    widths = {spec.network.sizes[0] for spec in specs_of(done) if isinstance(spec.network, LecunSpec)}

    assert widths == {4, 8}
    assert compose.refused
    assert set(compose.refused.values()) == {"parameters 16 is above the limit of 8"}


def test_limits_that_nothing_keeps_are_refused() -> None:
    """The reason is that of a configuration, and the remedy the limits."""
    with pytest.raises(BeyondLimitsError, match="flops 160 is above the limit of 1: raise the limits"):
        build_planner(SWEEP, limited(SWEEP, LimitsSpec(flops=1))).ask()


def test_what_cannot_be_built_is_told_where_it_is_planned() -> None:
    """Limits say nothing of it."""

    def unbuildable(spec: TrialSpec) -> dict[str, float]:
        raise InfeasibleError("too deep", remedy="use larger images")

    compose = LimitedCompose(compose=MadeUpCompose(SWEEP), limits=LimitsSpec(flops=1), measure=unbuildable)
    assert len(build_planner(SWEEP, compose).ask()) == 12
    assert not compose.refused


def test_every_limit_is_named_that_is_exceeded() -> None:
    """The limit itself is kept."""
    limits = LimitsSpec(parameters=10, flops=100, memory_mib=5)
    assert limits.exceeded_by(parameters=10, flops=100, memory_mib=5) == ""
    said = limits.exceeded_by(parameters=1234, flops=100, memory_mib=6)
    assert said == "parameters 1,234 is above the limit of 10, memory_mib 6 is above the limit of 5"


def test_the_cost_of_a_trial_is_known_without_data() -> None:
    """Exact parameters and FLOPs, and an estimate of memory."""
    found = measure_trial(TrialSpec())
    assert found["parameters"] > 1e5
    assert found["flops"] > 1e6
    assert found["memory_mib"] > 100


def written(folder: Path, text: str, *overrides: str) -> SweepSpec:
    """A sweep's file as the command reads it."""
    (folder / "mine.yaml").write_text(f"question: How?\naxes:\n  network.sizes: [[8, 8, 8], [9, 9, 9]]\n{text}")
    return read_sweep(folder / "mine.yaml", Composer(conf_folder()), parse_overrides(overrides))


def test_limits_and_the_start_are_read_from_the_file_and_the_command_line(tmp_path: Path) -> None:
    """What the command line changes makes a variant with a name of its own; what it repeats does not."""
    text = "limits: {parameters: 1e6, flops: 5e7}\nplanner: {kind: tpe, trials: 4}\nstart_from: other\n"
    plain = written(tmp_path, text)
    assert plain.limits == LimitsSpec(parameters=1e6, flops=5e7)
    assert plain.start_from == "other"
    changed = written(tmp_path, text, "limits.memory_mib=8000", "limits.flops=null", "start_from=third")
    assert changed.limits == LimitsSpec(parameters=1e6, memory_mib=8000)
    assert changed.start_from == "third"
    assert changed.name != plain.name
    assert written(tmp_path, text, "limits.flops=5e7").name == plain.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits: {parameter: 1}\n", "parameters"),
        ("limits: 5\n", "limits is 5"),
        ("limits: {flops: 0}\n", "above 0"),
        ("limits: {}\n", "limits"),
        ("limits: {flops: many}\n", "limits.flops"),
        ("start_from: other\n", "a planner that learns from answers"),
        ("start_from: [a]\nplanner: tpe\n", "name of a sweep"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(text: str, message: str, tmp_path: Path) -> None:
    """The message names the key and what to write."""
    with pytest.raises((SpecError, UnknownNameError), match=message):
        written(tmp_path, text)


SEARCH = SweepSpec(
    name="search",
    question="?",
    axes=(floats(RATE, 0.001, 0.3, log=True), choices(MOMENTUM, 0.0, 0.5, 0.9)),
    seeds=(1, 2),
    baselines=False,
    planner=TpePlannerSpec(trials=40),
)


def known_of(done: Run) -> list[Known]:
    """What a store would have of a search."""
    return done.known()


def best_first(sweep: SweepSpec, known: list[Known], configs: int) -> float:
    """The best accuracy among the first configurations of a search that starts from these answers."""
    planner = build_planner(sweep, MadeUpCompose(sweep))
    planner.learn(known)
    done = Run(bowl).go_on(planner)
    return max(bowl(spec) for spec in specs_of(done)[: 2 * configs])


@pytest.mark.thorough
@pytest.mark.slow
def test_a_search_that_starts_from_another_begins_where_it_ended() -> None:
    """Its first three configurations are better on average than without knowledge; none of the others is counted."""
    known = known_of(Run(bowl).go_on(build_planner(SEARCH, MadeUpCompose(SEARCH))))
    fresh, warm = [], []
    for seed in range(2, 7):
        sweep = dataclasses.replace(SEARCH, planner=TpePlannerSpec(trials=20, seed=seed))
        fresh.append(best_first(sweep, [], 3))
        warm.append(best_first(sweep, known, 3))
        planner = build_planner(sweep, MadeUpCompose(sweep))
        planner.learn(known)
        assert len(Run(bowl).go_on(planner).launched) == 20
    assert sum(warm) > sum(fresh)


def test_points_that_the_axes_do_not_have_are_passed_over() -> None:
    """As are trials that are not complete; two aims are learnt from as well."""
    known = known_of(Run(bowl).go_on(build_planner(SEARCH, MadeUpCompose(SEARCH))))
    failed = [dataclasses.replace(item, state=TrialState.FAILED, validation_accuracy=None) for item in known]
    narrow = dataclasses.replace(SEARCH, axes=(choices(WIDTH, 4, 8, 16),), planner=RandomPlannerSpec(trials=4))
    for sweep in (narrow, dataclasses.replace(SEARCH, planner=Nsga2PlannerSpec(trials=8, population=2))):
        planner = build_planner(sweep, MadeUpCompose(sweep))
        planner.learn([*known, *failed])
        assert Run(bowl).go_on(planner).launched
