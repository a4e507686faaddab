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
from statistical_worlds import World

from stnbench.analysis.comparison import compare_configurations
from stnbench.analysis.fitted import ScoredRun
from stnbench.analysis.inference import LEVEL
from stnbench.analysis.verdicts import Comparison, Verdict
from stnbench.planning.seeds import choose
from stnbench.spec.planner import UntilDecidedPlannerSpec

Floats = NDArray[np.float64]

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
    """What became of one sweep: whether any look was wrong, at its own level and at 5 %, and runs a configuration."""

    is_wrong: bool
    is_wrong_at_5: bool
    runs: float


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
    return _looked(found, run)


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
    return _looked(found, run)


def _look(world: World, accuracies: Floats, run: Mapping[str, int], looks: int) -> Comparison:
    runs = [
        ScoredRun(configuration=name, seed=seed, correct=round(float(share) * world.images), images=world.images)
        for (name, count), row in zip(run.items(), accuracies, strict=True)
        for seed, share in enumerate(row[:count])
    ]
    return compare_configurations(runs, margin=0.0, level=LEVEL / looks)


def _looked(found: list[Comparison], run: Mapping[str, int]) -> Looked:
    decisions = [item for comparison in found for item in comparison.decisions]
    return Looked(
        is_wrong=any(item.verdict is Verdict.LOWER for item in decisions),
        is_wrong_at_5=any(item.delta is not None and (item.delta.p_adjusted or 0.0) <= LEVEL for item in decisions),
        runs=float(np.mean(list(run.values()))),
    )


RULES: Final = {
    "until decided, 6 looks from 2 to 20 seeds": (until_decided, UntilDecidedPlannerSpec(max_seeds=20, looks=6)),
    "racing, 6 looks from 2 to 8 seeds": (racing, UntilDecidedPlannerSpec(max_seeds=8)),
}


def measure_looks(*, draws: int, seed: int = 0) -> Iterator[str]:
    """The lines of a table of error rates of rules that look again and again."""
    yield "## Looking again and again"
    yield ""
    yield (
        f"Sweeps of equal configurations that start with two seeds, {draws:,} draws each. In percent: *false*, sweeps "
        "in which any look calls any configuration lower, each look at 5 % over the number of looks; *at 5 %*, the "
        "same had each look been at 5 %. *Runs*: of a configuration, on average."
    )
    yield ""
    yield "| rule | configurations | world | false | at 5 % | runs |"
    yield "|---|---|---|---|---|---|"
    for rule, (follow, spec) in RULES.items():
        for number, world in enumerate(_WORLDS):
            rng = np.random.default_rng([seed, number])
            longest, equal = replace(world, seeds=spec.max_seeds), np.zeros(world.configurations)
            looked = []
            for _ in range(draws):
                accuracies = longest.draw(rng, longest.deviations(rng), equal)
                looked.append(follow(world, accuracies, spec))
            false, at_5 = (
                100 * np.mean([getattr(item, name) for item in looked]) for name in ("is_wrong", "is_wrong_at_5")
            )
            runs = np.mean([item.runs for item in looked])
            yield f"| {rule} | {world.configurations} | {world.name} | {false:.1f} | {at_5:.1f} | {runs:.1f} |"
