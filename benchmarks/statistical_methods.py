"""How often methods of comparison are wrong, and what they find, in made-up sweeps: ``make bench-statistics``.

Each world is a sweep of configurations and seeds; accuracy is that of the configuration, plus what a seed does to all
of them, plus noise of the configuration's own standard deviation. Error rates are of worlds in which all configurations
are equal: how often any of them is called lower than the best, or different from the first one. Power is of worlds in
which a quarter each lies 0, 2, 3 and 5 standard deviations of a run behind: how many of the latter are called lower
than the one that scored best.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from baycomp import SignedRankTest
from numpy.typing import NDArray
from scipy import special, stats
from statistical_looks import measure_looks
from statistical_worlds import World

from stnbench.analysis.comparison import compare_configurations
from stnbench.analysis.fitted import ScoredRun
from stnbench.analysis.inference import holm_adjusted, paired_difference, pairs_among
from stnbench.analysis.simultaneous import critical_value, many_to_one_table, pairs_table
from stnbench.analysis.verdicts import Comparison, Verdict

OUT: Final = Path(__file__).parent / "statistics.md"
LEVEL: Final = 0.05
BEHIND: Final = (0.0, 2.0, 3.0, 5.0)
POWER_DRAWS: Final = 5
"""Power is measured with one in so many of the draws."""

SLOW_DRAWS: Final = 10
"""Methods in ``SLOW`` are measured with one in so many of the draws."""

LOOKS_DRAWS: Final = 2
"""Rules that look again and again are measured with one in so many draws."""

BAYES_SAMPLES: Final = 500

Floats = NDArray[np.float64]


WORLDS: Final = (
    *(
        World(name="equal deviations", configurations=count, seeds=seeds)
        for count, seeds in ((2, 2), (2, 10), (5, 3), (17, 2), (17, 3), (23, 3), (23, 5), (60, 3))
    ),
    *(
        World(name=f"deviations log-normal {width}", configurations=count, seeds=seeds, unevenness=width)
        for width in (0.3, 0.5, 1.0)
        for count, seeds in ((5, 3), (17, 2), (17, 3), (23, 3), (23, 10))
    ),
    World(name="heavy tails (t of 3)", configurations=23, seeds=3, is_heavy_tailed=True),
    World(name="2 % of runs collapsed", configurations=23, seeds=3, collapsed=0.02),
    World(name="2 % collapsed, log-normal 0.3", configurations=17, seeds=5, collapsed=0.02, unevenness=0.3),
    World(name="accuracy 60 %", configurations=23, seeds=3, accuracy=0.6, deviation=0.015),
    World(name="accuracy 99.7 %", configurations=23, seeds=3, accuracy=0.997, deviation=0.0006, images=12630),
    World(name="10 % of runs missing", configurations=23, seeds=3, missing=0.1),
)

Told = NDArray[np.bool_]
Method = Callable[[Floats, Floats], Told]
"""From accuracies and true deviations to which configurations are called lower than the one that scored best."""


def ours(accuracies: Floats, images: int) -> Comparison:
    """All families, with the first configuration as the baseline."""
    runs = [
        ScoredRun(configuration=f"{place:03}", seed=seed, correct=round(value * images), images=images)
        for (place, seed), value in np.ndenumerate(accuracies)
        if not np.isnan(value)
    ]
    return compare_configurations(runs, baselines={f"{place:03}": "000" for place in range(1, len(accuracies))})


def lower(comparison: Comparison, count: int) -> Told:
    """Which configurations a comparison calls lower."""
    names = {item.configuration for item in comparison.decisions if item.verdict is Verdict.LOWER}
    return np.array([f"{place:03}" in names for place in range(count)])


def rule_before(accuracies: Floats, _deviations: Floats) -> Told:
    """Tell by what stnbench did before: each pair's own t test, Holm's correction for all pairs."""
    scores = [{seed: v for seed, v in enumerate(row.tolist()) if not np.isnan(v)} for row in accuracies]
    best, *others = sorted(range(len(scores)), key=lambda place: -float(np.mean(list(scores[place].values()) or [0.0])))
    found = [paired_difference(scores[place], scores[best]) for place in others]
    adjusted = holm_adjusted([item.p_value if item else 1.0 for item in found], tests=pairs_among(len(scores)))
    told = np.zeros(len(scores), dtype=bool)
    for place, item, p_adjusted in zip(others, found, adjusted, strict=True):
        told[place] = item is not None and item.mean < 0 and p_adjusted <= LEVEL
    return told


def _versus_best(p_values: Floats, best: int, means: Floats) -> Told:
    """Holm's step-down over comparisons with the best."""
    others = np.delete(np.arange(len(means)), best)
    order = others[np.argsort(p_values[others])]
    told = np.zeros(len(means), dtype=bool)
    for rank, place in enumerate(order):
        if p_values[place] * (len(order) - rank) > LEVEL:
            break
        told[place] = True
    return told


def paired_t(accuracies: Floats, _deviations: Floats) -> Told:
    """Paired t with Holm for comparisons with the best, as if it had not been picked."""
    means = accuracies.mean(axis=1)
    best = int(np.argmax(means))
    differences = accuracies - accuracies[best]
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = differences.mean(axis=1) / (differences.std(axis=1, ddof=1) / np.sqrt(accuracies.shape[1]))
    p_values = 2 * special.stdtr(accuracies.shape[1] - 1, -np.abs(statistic))
    return _versus_best(np.nan_to_num(p_values, nan=1.0), best, means)


def wilcoxon(accuracies: Floats, _deviations: Floats) -> Told:
    """Exact Wilcoxon signed-rank tests with Holm, likewise."""
    means = accuracies.mean(axis=1)
    best = int(np.argmax(means))
    p_values = np.ones(len(means))
    if 2 / 2 ** accuracies.shape[1] <= LEVEL:
        others = np.delete(np.arange(len(means)), best)
        differences = (accuracies - accuracies[best])[others] + 1e-12 * np.arange(1, accuracies.shape[1] + 1)
        p_values[others] = stats.wilcoxon(differences, axis=1, method="exact").pvalue
    return _versus_best(p_values, best, means)


def tukey(accuracies: Floats, _deviations: Floats) -> Told:
    """Tukey's test with pooled error, seeds as blocks."""
    count, seeds = accuracies.shape
    means = accuracies.mean(axis=1)
    left = accuracies - means[:, None] - accuracies.mean(axis=0) + means.mean()
    freedom = (count - 1) * (seeds - 1)
    error = np.sqrt(2 * (left**2).sum() / freedom / seeds)
    return (means.max() - means) / max(error, 1e-12) > _limit(count, freedom)


def dunnett(accuracies: Floats) -> bool:
    """Whether Dunnett's test with pooled error, seeds as blocks, calls any different from the first configuration."""
    count, seeds = accuracies.shape
    means = accuracies.mean(axis=1)
    left = accuracies - means[:, None] - accuracies.mean(axis=0) + means.mean()
    freedom = (count - 1) * (seeds - 1)
    error = np.sqrt(2 * (left**2).sum() / freedom / seeds)
    key = (-count, float(freedom))
    if key not in _LIMITS:
        _LIMITS[key] = critical_value(freedom, many_to_one_table(np.ones(count - 1), 1.0), LEVEL)
    return bool((np.abs(means[1:] - means[0]) / max(error, 1e-12)).max() > _LIMITS[key])


def games_howell(accuracies: Floats, _deviations: Floats) -> Told:
    """Games and Howell's test: each pair's own variances, seeds not used as blocks."""
    count, seeds = accuracies.shape
    means, variances = accuracies.mean(axis=1), accuracies.var(axis=1, ddof=1) / seeds + 1e-15
    best = int(np.argmax(means))
    both = variances + variances[best]
    freedom = both**2 / ((variances**2 + variances[best] ** 2) / (seeds - 1))
    limits = np.array([_limit(count, max(1.0, round(float(own), 1))) for own in freedom])
    return (means[best] - means) / np.sqrt(both) > limits


def nemenyi(accuracies: Floats, _deviations: Floats) -> Told:
    """Friedman's test, then Nemenyi's critical difference of mean ranks over seeds, as autorank does it."""
    count, seeds = accuracies.shape
    ranks = stats.rankdata(-accuracies, axis=0).mean(axis=1)
    if count > 2 and stats.friedmanchisquare(*accuracies).pvalue > LEVEL:
        return np.zeros(count, dtype=bool)
    critical = _limit(count, 1e6) * np.sqrt(count * (count + 1) / 6 / seeds)
    return ranks - ranks.min() > critical


def bayesian_signed_rank(accuracies: Floats, _deviations: Floats) -> Told:
    """Benavoli's Bayesian signed-rank test (2014) of each with the best: told where it is worse with a chance of 95 %.

    It has no correction for several comparisons, and none is made.
    """
    means = accuracies.mean(axis=1)
    best = int(np.argmax(means))
    told = np.zeros(len(means), dtype=bool)
    for place, row in enumerate(accuracies):
        if place != best:
            _, worse = SignedRankTest.probs(row, accuracies[best], rope=0, nsamples=BAYES_SAMPLES, random_state=place)
            told[place] = worse >= 1 - LEVEL
    return told


def oracle(accuracies: Floats, deviations: Floats) -> Told:
    """Knows every configuration's variance."""
    count, seeds = accuracies.shape
    means = accuracies.mean(axis=1)
    best = int(np.argmax(means))
    errors = np.sqrt((deviations**2 + deviations[best] ** 2) / seeds)
    return (means[best] - means) / errors > _limit(count, 1e6)


_HEAD: Final = (
    "`make bench-statistics`, {draws:,} draws a world ({fewer:,} for power; a tenth for the Bayesian "
    "test). In percent. *False*: sweeps of equal "
    "configurations in which any is called lower than the best (at most 5 is promised by each method); *false gain*: "
    "or different from the baseline, the first one. *Single*: coverage of the means' intervals; *all*: sweeps in which "
    "all differences to the best are covered. *2, 3, 5*: of configurations so many standard deviations of a run "
    "behind, the share called lower. The oracle knows every variance."
)
_LIMITS: dict[tuple[int, float], float] = {}


def _limit(count: int, freedom: float) -> float:
    key = (count, float(freedom))
    if key not in _LIMITS:
        _LIMITS[key] = critical_value(freedom, pairs_table(count), LEVEL)
    return _LIMITS[key]


METHODS: Final[dict[str, Method]] = {
    "the rule before": rule_before,
    "Tukey": tukey,
    "Games-Howell": games_howell,
    "paired t, Holm": paired_t,
    "Wilcoxon, Holm": wilcoxon,
    "Friedman, Nemenyi": nemenyi,
    "Bayesian signed-rank": bayesian_signed_rank,
    "oracle": oracle,
}
SLOW: Final = frozenset({"Bayesian signed-rank"})


def _measured(draw: int) -> list[tuple[str, Method]]:
    """Return the methods that are measured with a draw."""
    return [(name, method) for name, method in METHODS.items() if name not in SLOW or draw % SLOW_DRAWS == 0]


def measure(world: World, *, draws: int, seed: int) -> Iterator[str]:
    """The rows of a world's table."""
    rng = np.random.default_rng(seed)
    equal = np.zeros(world.configurations)
    false = dict.fromkeys(["ours", *METHODS], 0)
    gains = single = together = held = dunnetts = 0
    for draw in range(draws):
        deviations = world.deviations(rng)
        accuracies = world.draw(rng, deviations, equal)
        found = ours(accuracies, world.images)
        false["ours"] += lower(found, world.configurations).any()
        gains += any(item.gain and (item.gain.p_adjusted or 0) <= LEVEL for item in found.decisions)
        held += sum((item.low or 0) <= world.accuracy <= (item.high or 1) for item in found.decisions if item.mean)
        single += sum(item.mean is not None for item in found.decisions)
        together += all((item.delta.low or 0) <= 0 <= (item.delta.high or 0) for item in found.decisions if item.delta)
        if not world.missing:
            dunnetts += dunnett(accuracies)
            for name, method in _measured(draw):
                false[name] += bool(method(accuracies, deviations).any())
    power = _power(world, draws=max(draws // POWER_DRAWS, 20), rng=rng)
    coverage = f"{100 * held / max(single, 1):.1f} | {100 * together / draws:.1f}"
    for name in ["ours", *METHODS]:
        if world.missing and name != "ours":
            continue
        measured = len(range(0, draws, SLOW_DRAWS)) if name in SLOW else draws
        extra = f"{100 * gains / draws:.1f} | {coverage}" if name == "ours" else "| |"
        found_share = " | ".join("" if np.isnan(value) else f"{100 * value:.0f}" for value in power[name])
        yield f"| {name} | {100 * false[name] / measured:.1f} | {extra} | {found_share} |"
    if not world.missing:
        yield f"| Dunnett | | {100 * dunnetts / draws:.1f} | | | | | |"


def _power(world: World, *, draws: int, rng: np.random.Generator) -> dict[str, list[float]]:
    """By method, the share found of those that are 2, 3 and 5 standard deviations behind."""
    behind = np.resize(np.array(BEHIND if world.configurations > 3 else (0.0, 5.0)), world.configurations)
    told = {name: [] for name in ["ours", *METHODS]}
    for draw in range(draws):
        deviations = world.deviations(rng)
        accuracies = world.draw(rng, deviations, behind)
        told["ours"].append(lower(ours(accuracies, world.images), world.configurations))
        if not world.missing:
            for name, method in _measured(draw):
                told[name].append(method(accuracies, deviations))
    found = {name: np.array(rows) for name, rows in told.items() if rows}
    return {
        name: [float(rows[:, behind == size].mean()) if (behind == size).any() else float("nan") for size in BEHIND[1:]]
        for name, rows in found.items()
    }


def write(worlds: Iterable[World], *, draws: int, out: Path) -> None:
    """Measure the worlds one after the other, and write what there is after each."""
    lines = [
        "# Error rates and power of methods of comparison",
        "",
        _HEAD.format(draws=draws, fewer=draws // POWER_DRAWS),
    ]
    for number, world in enumerate(worlds):
        start = time.monotonic()
        rows = list(measure(world, draws=draws, seed=number))
        lines += [
            "",
            f"## {world.configurations} configurations, {world.seeds} seeds, {world.name}",
            "",
            "| method | false | false gain | single | all | 2 | 3 | 5 |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
        ]
        out.write_text("\n".join(lines) + "\n")
        print(
            f"{world.configurations} x {world.seeds} {world.name}: {time.monotonic() - start:.0f} s {rows[0]}",
            flush=True,
        )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", help="worlds whose name has this in it")
    options = parser.parse_args()
    worlds = [world for world in WORLDS if not options.only or options.only in world.name]
    write(worlds, draws=options.draws, out=options.out)
    with options.out.open("a") as file:
        file.write("\n" + "\n".join(measure_looks(draws=options.draws // LOOKS_DRAWS)) + "\n")


if __name__ == "__main__":
    main()
