"""How often methods of comparison are wrong, and what they find, in made-up sweeps: ``make bench-statistics``.

Each world is a sweep of configurations and seeds; accuracy is that of the configuration, plus what a seed does to all
of them, plus noise of the configuration's own standard deviation. Error rates are of worlds in which all configurations
are equal: how often any of them is called lower than the best, or different from the first one. Power is of worlds in
which a quarter each lies 0, 2, 3 and 5 standard deviations of a run behind: how many of the latter are called lower
than the one that scored best.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from baycomp import SignedRankTest
from numpy.typing import NDArray
from scipy import special, stats
from statistical_bound import measure_bound
from statistical_layouts import Layouts
from statistical_looks import measure_looks
from statistical_worlds import World

from stnbench.analysis.comparison import compare_configurations
from stnbench.analysis.effects import holm_adjusted, paired_difference, pairs_among
from stnbench.analysis.fitted import ScoredRun
from stnbench.analysis.simultaneous import critical_value, many_to_one_table, pairs_table
from stnbench.analysis.verdicts import Comparison, Verdict

OUT: Final = Path(__file__).parent / "statistics.md"
LEVEL: Final = 0.05
BEHIND: Final = (0.0, 2.0, 3.0, 5.0)
POWER_DRAWS: Final = 5
"""Power is measured with one in so many of the draws."""

OTHERS_DRAWS: Final = 10
"""Methods of others are measured with one in so many of the draws."""

SLOW_DRAWS: Final = 100
"""Methods in ``SLOW`` are measured with one in so many of the draws."""

CHECKED: Final = 20
"""The number of draws of a world that are also given to ``compare_configurations``."""

BOUND_DRAWS: Final = 2
"""Rules that know how variances are distributed are measured with one in so many draws."""

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
    "`make bench-statistics`. In percent, of {draws:,} draws a world ({fewer:,} for power) for `ours` and the oracle, "
    "which knows every variance; the other methods are slow and measured with every tenth draw, the Bayesian test "
    "with every hundredth. *False*: sweeps of equal configurations in which any is called lower than the best (at most "
    "5 is promised by each method); *false gain*: or different from the baseline, the first one. *Single*: coverage of "
    "the means' intervals. *2, 3, 5*: of configurations so many usual standard deviations of a run behind, the share "
    "called lower; *5 of all*: so many root mean squares of the standard deviations of all runs, which is more where "
    "they are unequal. One standard error is {error:.1f} points for *false* at 5 %. *Checked*: complete layouts are "
    "computed for many draws at once (`benchmarks/statistical_layouts.py`); of the first {checked} draws, how many "
    "verdicts and gains were compared with those of `stnbench.compare`, and how many differ."
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
FAST: Final = frozenset({"oracle"})
SLOW: Final = frozenset({"Bayesian signed-rank"})


def _measured(draw: int) -> list[tuple[str, Method]]:
    """Return the methods that are measured with a draw."""
    return [
        (name, method)
        for name, method in METHODS.items()
        if name in FAST
        or (name in SLOW and draw % (OTHERS_DRAWS * 10) == 0)
        or (name not in SLOW and draw % OTHERS_DRAWS == 0)
    ]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Found:
    """What our rule says of draws of a world.

    ``lower`` and ``held`` have the shape (draws, configurations), the latter NaN for a configuration without a mean;
    ``gains`` (draws, configurations - 1) says which differ from the first one.
    """

    lower: Told
    gains: Told
    held: Floats
    checked: str


def find(world: World, accuracies: Floats) -> Found:
    """Compare all draws of a world by our rule; complete layouts at once."""
    if world.missing or world.collapsed:
        found = [_found(ours(rows, world.images), world) for rows in accuracies]
        lower_, gains, held = (np.stack(part) for part in zip(*found, strict=True))
        return Found(lower=lower_, gains=gains, held=held, checked="all by `stnbench.compare`")
    parts = []
    for rows in np.array_split(accuracies, max(len(accuracies) // 250, 1)):
        layouts = Layouts(np.round(rows * world.images), world.images)
        gains = layouts.gains(all_members=False) <= LEVEL
        parts.append((layouts.verdicts() <= LEVEL, gains, layouts.means_hold(world.accuracy).astype(float)))
    lower_, gains, held = (np.concatenate(part) for part in zip(*parts, strict=True))
    first = accuracies[:CHECKED]
    by_compare = [_found(ours(rows, world.images), world)[:2] for rows in first]
    all_gains = Layouts(np.round(first * world.images), world.images).gains(all_members=True) <= LEVEL
    differ = sum(
        int((one != lower_[row]).sum() + (other != all_gains[row]).sum()) for row, (one, other) in enumerate(by_compare)
    )
    return Found(lower=lower_, gains=gains, held=held, checked=f"{CHECKED * (2 * world.configurations - 1)}, {differ}")


def called_lower(world: World, accuracies: Floats) -> Told:
    """Which configurations of each draw our rule calls lower, of shape (draws, configurations)."""
    if world.missing or world.collapsed:
        return np.stack([lower(ours(rows, world.images), world.configurations) for rows in accuracies])
    return Layouts(np.round(accuracies * world.images), world.images).verdicts() <= LEVEL


def _found(comparison: Comparison, world: World) -> tuple[Told, Told, Floats]:
    """Return which configurations are lower, which gain, and which means' intervals hold the truth."""
    gains, held = np.zeros(world.configurations, dtype=bool), np.full(world.configurations, np.nan)
    for item in comparison.decisions:
        place = int(item.configuration)
        gains[place] = item.gain is not None and (item.gain.p_adjusted or 0) <= LEVEL
        if item.mean is not None:
            held[place] = (item.low or 0) <= world.accuracy <= (item.high or 1)
    return lower(comparison, world.configurations), gains[1:], held


def measure(world: World, *, draws: int, seed: int) -> Iterator[str]:
    """The rows of a world's table."""
    rng = np.random.default_rng(seed)
    accuracies, deviations = world.draw_many(rng, np.zeros(world.configurations), draws=draws)
    found = find(world, accuracies)
    false = {"ours": [bool(row.any()) for row in found.lower]} | {name: [] for name in METHODS}
    dunnetts = []
    if not world.missing:
        for draw in range(draws):
            for name, method in _measured(draw):
                false[name].append(bool(method(accuracies[draw], deviations[draw]).any()))
            if draw % OTHERS_DRAWS == 0:
                dunnetts.append(dunnett(accuracies[draw]))
    power = _power(world, draws=max(draws // POWER_DRAWS, 20), rng=rng)
    for name in ["ours", *METHODS]:
        if not false[name]:
            continue
        single = f"{100 * np.nanmean(found.held):.1f}" if name == "ours" else ""
        gain = f"{100 * found.gains.any(axis=1).mean():.1f}" if name == "ours" else ""
        shares = " | ".join("" if np.isnan(value) else f"{100 * value:.0f}" for value in power[name])
        checked = found.checked if name == "ours" else ""
        yield f"| {name} | {100 * np.mean(false[name]):.1f} | {gain} | {single} | {shares} | {checked} |"
    if dunnetts:
        yield f"| Dunnett | | {100 * np.mean(dunnetts):.1f} | | | | | | |"


def _power(world: World, *, draws: int, rng: np.random.Generator) -> dict[str, list[float]]:
    """By method, the share found of those 2, 3 and 5 usual standard deviations behind, and 5 root mean squares."""
    behind = np.resize(np.array(BEHIND if world.configurations > 3 else (0.0, 5.0)), world.configurations)
    shares: dict[str, list[float]] = {name: [] for name in ["ours", *METHODS]}
    for is_uneven in (False, True) if world.unevenness else (False,):
        accuracies, deviations = world.draw_many(rng, behind, draws=draws, uneven_unit=is_uneven)
        told = {"ours": list(called_lower(world, accuracies))} | {name: [] for name in METHODS}
        if not world.missing:
            for draw in range(draws):
                for name, method in _measured(draw):
                    told[name].append(method(accuracies[draw], deviations[draw]))
        for name, rows in told.items():
            table = np.array(rows) if rows else np.zeros((0, len(behind)))
            for size in BEHIND[-1:] if is_uneven else BEHIND[1:]:
                part = table[:, behind == size]
                shares[name].append(float(part.mean()) if part.size else float("nan"))
    return {name: [*values, *[float("nan")] * (4 - len(values))] for name, values in shares.items()}


def write(worlds: Sequence[tuple[int, World]], *, draws: int, out: Path) -> None:
    """Measure the worlds one after the other, and write what there is after each."""
    lines = [
        "# Error rates and power of methods of comparison",
        "",
        _HEAD.format(
            draws=draws, fewer=max(draws // POWER_DRAWS, 20), checked=CHECKED, error=100 * (0.05 * 0.95 / draws) ** 0.5
        ),
    ]
    for number, world in worlds:
        start = time.monotonic()
        rows = list(measure(world, draws=draws, seed=number))
        lines += [
            "",
            f"## {world.configurations} configurations, {world.seeds} seeds, {world.name}",
            "",
            "| method | false | false gain | single | 2 | 3 | 5 | 5 of all | checked |",
            "|---|---|---|---|---|---|---|---|---|",
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
    parser.add_argument("--only", help="worlds whose name has this in it, without looking again and again")
    options = parser.parse_args()
    worlds = [(number, world) for number, world in enumerate(WORLDS) if not options.only or options.only in world.name]
    write(worlds, draws=options.draws, out=options.out)
    if not options.only:
        with options.out.open("a") as file:
            file.write("\n" + "\n".join(measure_bound(draws=options.draws // BOUND_DRAWS)) + "\n")
            file.write("\n" + "\n".join(measure_looks(draws=options.draws)) + "\n")


if __name__ == "__main__":
    main()
