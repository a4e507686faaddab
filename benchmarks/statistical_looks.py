"""How often rules that add seeds look by look are wrong: a part of ``make bench-statistics``.

All configurations are equal. At each look the planners' own functions decide who gets further seeds, at 5 % over the
number of planned looks; a sweep is wrong where any look calls any configuration lower than the best. Without a
margin nothing is ever found equivalent, so that every sweep is looked at to its end.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from statistical_layouts import Layouts
from statistical_worlds import World

from stnbench.analysis.comparison import compare_configurations
from stnbench.analysis.effects import LEVEL
from stnbench.analysis.fitted import ScoredRun
from stnbench.analysis.verdicts import Comparison, Verdict
from stnbench.planning.seeds import choose
from stnbench.spec.planner import UntilDecidedPlannerSpec

Floats = NDArray[np.float64]

CHECKED: Final = 10
"""The number of sweeps of a world that the planners' functions decide as well."""

COLLAPSED_DRAWS: Final = 10
"""Sweeps with collapsed runs are measured with one in so many draws."""

_WORLDS: Final = (
    World(name="equal deviations", configurations=6, seeds=2),
    World(name="deviations log-normal 0.3", configurations=6, seeds=2, unevenness=0.3),
    World(name="deviations log-normal 0.5", configurations=6, seeds=2, unevenness=0.5),
    World(name="2 % of runs collapsed, log-normal 0.3", configurations=6, seeds=2, unevenness=0.3, collapsed=0.02),
    World(name="deviations log-normal 0.5", configurations=17, seeds=2, unevenness=0.5),
    World(name="equal deviations", configurations=40, seeds=2),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """What became of one sweep: whether any look was wrong, at its level and at 5 %."""

    is_wrong: bool
    is_wrong_at_5: bool


def until_decided(world: World, accuracies: Floats, spec: UntilDecidedPlannerSpec) -> Looked:
    """Add seeds to configurations without a verdict, as ``UntilDecidedPlanner`` does."""
    looks = spec.look_seeds(world.seeds)
    names = [f"{place:03}" for place in range(world.configurations)]
    run = dict.fromkeys(names, looks[0])
    cost = dict.fromkeys(names, 1.0)
    found = []
    for after in (*looks[1:], looks[-1]):
        found.append(_look(world, accuracies, run, len(looks)))
        choice = choose(found[-1], seeds_run=run, trial_cost=cost, max_seeds=looks[-1])
        if not choice.wanted:
            break
        run |= {item.configuration: after for item in choice.wanted}
    return _looked(found)


def racing(world: World, accuracies: Floats, spec: UntilDecidedPlannerSpec) -> Looked:
    """Add a seed to all that may be the best, as ``RacingPlanner`` does."""
    names = [f"{place:03}" for place in range(world.configurations)]
    run = dict.fromkeys(names, world.seeds)
    staying, found = set(names), []
    for _ in range(spec.max_seeds - world.seeds):
        found.append(_look(world, accuracies, run, spec.max_seeds - world.seeds))
        staying -= {item.configuration for item in found[-1].decisions if item.verdict is Verdict.LOWER}
        if len(staying) < 2:
            break
        run |= {name: run[name] + 1 for name in staying}
    return _looked(found)


def _look(world: World, accuracies: Floats, run: Mapping[str, int], looks: int) -> Comparison:
    runs = [
        ScoredRun(configuration=name, seed=seed, correct=round(float(share) * world.images), images=world.images)
        for (name, count), row in zip(run.items(), accuracies, strict=True)
        for seed, share in enumerate(row[:count])
    ]
    return compare_configurations(runs, margin=0.0, level=LEVEL / looks)


def _looked(found: list[Comparison]) -> Looked:
    decisions = [item for comparison in found for item in comparison.decisions]
    return Looked(
        is_wrong=any(item.verdict is Verdict.LOWER for item in decisions),
        is_wrong_at_5=any(item.delta is not None and (item.delta.p_adjusted or 0.0) <= LEVEL for item in decisions),
    )


RULES: Final = {
    "until decided, 6 looks from 2 to 20 seeds": (until_decided, UntilDecidedPlannerSpec(max_seeds=20, looks=6)),
    "racing, 6 looks from 2 to 7 seeds": (racing, UntilDecidedPlannerSpec(max_seeds=8)),
}


def _looks_of(follow: object, spec: UntilDecidedPlannerSpec, world: World) -> tuple[int, ...]:
    """The seeds of all configurations at each look, until the first of them has a verdict."""
    return tuple(spec.look_seeds(world.seeds)) if follow is until_decided else tuple(range(world.seeds, spec.max_seeds))


def _errors_of(accuracies: Floats, images: int, looks: tuple[int, ...]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which sweeps (draws,) are wrong at any look, at the level of a look and at 5 %.

    All configurations are equal and nothing is ever equivalent, so that all have the same seeds until the first error:
    its chance is that of complete layouts.
    """
    p_values = [Layouts(np.round(accuracies[..., :seeds] * images), images).verdicts().min(axis=1) for seeds in looks]
    least = np.min(p_values, axis=0)
    return least <= LEVEL / len(looks), least <= LEVEL


def measure_looks(*, draws: int, seed: int = 0) -> Iterator[str]:
    """The lines of a table of error rates of rules that look again and again."""
    yield "## Looking again and again"
    yield ""
    yield (
        f"Sweeps of equal configurations that start with two seeds, {draws:,} draws each. In percent: *false*, sweeps "
        "in which any look calls any configuration lower, each look at 5 % over the number of looks; *at 5 %*, the "
        "same had each look been at 5 %. *Checked*: until its first error such a sweep is a complete layout at every "
        f"look; of the first {CHECKED} draws, how many were followed by the planners' own functions, and how many of "
        f"them end otherwise. Collapsed runs leave incomplete layouts: those are {draws // COLLAPSED_DRAWS} sweeps "
        "that the planners' functions decide."
    )
    yield ""
    yield "| rule | configurations | world | false | at 5 % | checked |"
    yield "|---|---|---|---|---|---|"
    for rule, (follow, spec) in RULES.items():
        for number, world in enumerate(_WORLDS):
            rng = np.random.default_rng([seed, number])
            longest = replace(world, seeds=spec.max_seeds)
            count = draws // COLLAPSED_DRAWS if world.collapsed else draws
            accuracies = longest.draw_many(rng, np.zeros(world.configurations), draws=count)[0]
            followed = [follow(world, rows, spec) for rows in accuracies[: None if world.collapsed else CHECKED]]
            wrong, at_5 = np.array([(item.is_wrong, item.is_wrong_at_5) for item in followed]).T
            checked = "all by the planners"
            if not world.collapsed:
                by_planners = wrong
                wrong, at_5 = _errors_of(accuracies, world.images, _looks_of(follow, spec, world))
                checked = f"{len(by_planners)}, {int((by_planners != wrong[:CHECKED]).sum())}"
            false = f"{100 * wrong.mean():.1f} | {100 * at_5.mean():.1f}"
            yield f"| {rule} | {world.configurations} | {world.name} | {false} | {checked} |"
