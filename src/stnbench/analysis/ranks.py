"""Agreement of two rankings of the same configurations.

One ranking is measured, over seeds; the other was published, with one run for each configuration. The estimand is the
rank correlation of the published accuracies with the mean accuracies that infinitely many seeds would give, for the
configurations at hand. The configurations were chosen and not drawn, so they are not resampled; the variance of a
published run over seeds is unknown, so it is not in the interval.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from stnbench.analysis.effects import (
    CONFIDENCE,
    INTERVAL_METHOD,
    KENDALL,
    LEVEL,
    NO_INTERVAL_METHOD,
    SPEARMAN,
    RankCorrelation,
    t_quantile,
)
from stnbench.analysis.simultaneous import critical_value, pairs_table
from stnbench.analysis.verdicts import Comparison, TaskRank, TaskSummary
from stnbench.core.identity import derive_seed

CONFIGURATIONS_MIN: Final = 3
"""The smallest number of configurations with a meaningful ranking."""

CONFIGURATIONS_FOR_INTERVAL: Final = 6

DRAWS: Final = 2000
PERMUTATIONS: Final = 4999
PAIRS_AT_ONCE: Final = 2_000_000
EXACT_CONFIGURATIONS: Final = 7
"""The largest number of configurations of which all orders (5,040) are enumerated."""

Floats = NDArray[np.float64]


def rank_correlations(scores: Floats, published: Floats) -> tuple[RankCorrelation, RankCorrelation] | None:
    """Compute Kendall's tau-b and Spearman's rho, or None with fewer than three configurations or a constant side.

    The interval comes from draws of the configurations' means without the noise of seeds. A mean is modelled as a line
    in the published accuracy and its normal score, plus an effect of the configuration, plus noise; the noise is as
    large as the residuals of configurations by seeds, without common effects of a seed (Gelman et al. 2013, section
    5.4, with all variances drawn too). Resampling three seeds, or adding their noise once more, would not do: if the
    noise is as large as the differences between configurations, such intervals hold the truth in as few as 2 % of
    cases, and these in 92 to 100 % (``tests/unit/analysis/test_ranks.py``).

    Args:
        scores: measured accuracies, of shape (configurations, seeds).
        published: published accuracies, of shape (configurations,).
    """
    configs, seeds = scores.shape
    means = scores.mean(axis=1)
    if configs < CONFIGURATIONS_MIN or np.ptp(means) == 0 or np.ptp(published) == 0:
        return None
    draws = noise_free_means(scores, published) if configs >= CONFIGURATIONS_FOR_INTERVAL and seeds > 1 else None

    def correlation(measure: str, of: Callable[[Floats, Floats], Floats]) -> RankCorrelation:
        value, low, high = float(of(means[None], published)[0]), None, None
        if draws is not None:
            drawn = np.concatenate([of(some, published) for some in _chunks(draws, configs)])
            ends = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
            low, high = min(float(ends[0]), value), max(float(ends[1]), value)
        return RankCorrelation(
            measure=measure,
            configs=configs,
            seeds=seeds,
            value=value,
            low=low,
            high=high,
            method=NO_INTERVAL_METHOD if draws is None else INTERVAL_METHOD,
            p_value=_permutation_p(measure, means, published),
        )

    return correlation(KENDALL, kendall_tau), correlation(SPEARMAN, spearman_rho)


def kendall_tau(first: Floats, second: Floats) -> Floats:
    """Compute Kendall's tau-b, which allows for ties, of each row of (rows, configurations) with (configurations,)."""
    one, other = _signs(first), _signs(second)
    sizes = (one**2).sum(axis=(1, 2)) * (other**2).sum()
    return np.asarray((one * other).sum(axis=(1, 2)) / np.sqrt(sizes))


def spearman_rho(first: Floats, second: Floats) -> Floats:
    """Compute Spearman's rho of each row of (rows, configurations) with (configurations,); ties share their rank."""
    one, other = _centred(ranks_of(first)), _centred(ranks_of(second))
    return np.asarray(one @ other / np.sqrt((one**2).sum(axis=1) * (other**2).sum()))


def ranks_of(values: Floats) -> Floats:
    """Return ranks along the last axis, from 1 for the smallest; equal values share their mean rank."""
    signs = _signs(values)
    return np.asarray((signs > 0).sum(axis=-1) + ((signs == 0).sum(axis=-1) + 1) / 2, dtype=np.float64)


def _signs(values: Floats) -> Floats:
    return np.sign(values[..., :, None] - values[..., None, :])


def _centred(ranks: Floats) -> Floats:
    return np.asarray(ranks - ranks.mean(axis=-1, keepdims=True))


def _chunks(rows: NDArray[Any], configs: int) -> list[NDArray[Any]]:
    """Split rows into chunks that limit the memory for pairs of configurations."""
    return np.array_split(rows, 1 + len(rows) * configs**2 // PAIRS_AT_ONCE)


def noise_free_means(scores: Floats, published: Floats) -> Floats:
    """Draw means (draws, configurations) as infinitely many seeds would give them; see ``rank_correlations``."""
    configs, seeds = scores.shape
    random = np.random.default_rng(derive_seed(seeds, "ranks", configs))
    means = scores.mean(axis=1)
    left = scores - means[:, None] - scores.mean(axis=0) + means.mean()
    freedom = (configs - 1) * (seeds - 1)
    noise = (left**2).sum() / seeds / random.chisquare(freedom, size=DRAWS)
    basis = _line(published)
    fitted = basis @ (basis.T @ means)
    degrees = configs - basis.shape[1]
    spread = ((means - fitted) ** 2).sum() / random.chisquare(degrees, size=DRAWS)  # about the line, with noise
    own = np.maximum(spread - noise, 0)
    kept = own / np.maximum(own + noise, np.finfo(np.float64).tiny)
    lines = fitted + np.sqrt(spread)[:, None] * (random.normal(size=(DRAWS, basis.shape[1])) @ basis.T)
    middles = lines + kept[:, None] * (means - lines)
    return np.asarray(middles + np.sqrt(kept * noise)[:, None] * random.normal(size=(DRAWS, configs)))


def _line(published: Floats) -> Floats:
    """Return an orthonormal basis (configurations, at most 3) of a constant, the accuracies and their normal scores."""
    from scipy import special  # the import takes 0.1 s

    normal = special.ndtri((ranks_of(published) - 0.5) / len(published))
    columns = np.stack([np.ones_like(published), (published - published.mean()) / published.std(), normal], axis=1)
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, sizes > 1e-6 * sizes[0]])


def _permutation_p(measure: str, first: Floats, second: Floats) -> float:
    """Return the two-sided p-value of a permutation test; with few configurations, of all orders.

    Both measures are monotone in a sum of products, whose other factors do not change with the order.
    """
    configs = len(first)
    is_exact = configs <= EXACT_CONFIGURATIONS
    if is_exact:
        orders = np.array(list(itertools.permutations(range(configs))))
    else:
        random = np.random.default_rng(derive_seed(configs, "permutations"))
        orders = random.permuted(np.tile(np.arange(configs), (PERMUTATIONS, 1)), axis=1)
    if measure == KENDALL:
        one, other = _signs(first), _signs(second)
        moved = [
            (one * other[some[:, :, None], some[:, None, :]]).sum(axis=(1, 2)) for some in _chunks(orders, configs)
        ]
    else:
        one, other = _centred(ranks_of(first)), ranks_of(second)
        moved = [other[orders] @ one]
    return _share(np.abs(np.concatenate(moved)), abs(float((one * other).sum())), is_exact=is_exact)


def _share(drawn: Floats, seen: float, *, is_exact: bool = False) -> float:
    """Return the p-value: the share of draws that reach the observed value, which counts as one of the draws."""
    reached = int((drawn >= seen - 1e-9 * max(1.0, seen)).sum())
    return reached / len(drawn) if is_exact else (1 + reached) / (1 + len(drawn))


# Pareto fronts of cost and value.


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Return the indices of the points that no other one beats or equals in cost (lower) and value (higher).

    The cheapest comes first. Of equal points the first is kept.
    """
    front: list[int] = []
    for place in sorted(range(len(costs)), key=lambda place: (costs[place], -values[place], place)):
        if not front or values[place] > values[front[-1]]:
            front.append(place)
    return front


# Configurations over several tasks: mean ranks, Friedman's test, Nemenyi's critical difference (Demsar 2006).


TASKS_MIN: Final = 5
"""The smallest number of tasks for a critical difference of mean ranks."""

_MANY: Final = 1e6


def summarise_tasks(
    comparisons: Mapping[str, Comparison], names: Mapping[str, Mapping[str, str]]
) -> TaskSummary | None:
    """Rank configurations over tasks; None with fewer than two tasks or two configurations.

    A configuration without a mean on a task where others have one failed there: it is given the worst rank, which is
    counted. Ties share their mean rank. The interval of a mean rank is that of t over tasks.

    Args:
        comparisons: by task, with all pairs.
        names: by task, the name of each of its configurations over all tasks.
    """
    tasks = [task for task, comparison in comparisons.items() if comparison.best is not None]
    all_names = sorted({name for task in tasks for name in names[task].values()})
    if len(tasks) < 2 or len(all_names) < 2:
        return None
    means = np.full((len(tasks), len(all_names)), -np.inf)
    score = {name: [0, 0, 0] for name in all_names}
    for row, task in enumerate(tasks):
        own = names[task]
        for item in comparisons[task].decisions:
            if item.mean is not None and item.configuration in own:
                means[row, all_names.index(own[item.configuration])] = item.mean
        for pair in comparisons[task].pairs:
            if pair.first in own and pair.second in own:
                ahead = 0 if pair.difference.is_told and pair.difference.mean > 0 else 1
                ahead = 2 if pair.difference.is_told and pair.difference.mean < 0 else ahead
                score[own[pair.first]][ahead] += 1
                score[own[pair.second]][2 - ahead] += 1
    ranks = stats.rankdata(-means, axis=1)
    imputed = np.isneginf(means).sum(axis=0)
    rows = [
        _rank(name, ranks[:, place], tuple(score[name]), int(imputed[place])) for place, name in enumerate(all_names)
    ]
    rows.sort(key=lambda item: (item.mean_rank, item.configuration))
    if len(tasks) < TASKS_MIN:
        note = (
            f"{len(tasks)} tasks are too few for a critical difference of mean ranks: {TASKS_MIN} or more are needed."
        )
        return TaskSummary(
            ranks=tuple(rows), tasks=tuple(tasks), critical_difference=None, cliques=(), friedman_p=None, note=note
        )
    difference = nemenyi(len(all_names), len(tasks))
    return TaskSummary(
        ranks=tuple(rows),
        tasks=tuple(tasks),
        critical_difference=difference,
        cliques=_cliques(rows, difference),
        friedman_p=_friedman(ranks),
        note="",
    )


def nemenyi(configurations: int, tasks: int) -> float:
    """Return Nemenyi's critical difference of mean ranks at 5 % (Demsar 2006).

    It is the studentised range over the root of 2, times the standard error of a difference of mean ranks.
    """
    limit = critical_value(_MANY, pairs_table(configurations), LEVEL)
    return limit * math.sqrt(configurations * (configurations + 1) / (6 * tasks))


def _rank(
    name: str, ranks: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", score: tuple[int, ...], imputed: int
) -> TaskRank:
    mean = float(ranks.mean())
    half = t_quantile(len(ranks) - 1) * float(ranks.std(ddof=1)) / math.sqrt(len(ranks))
    return TaskRank(
        configuration=name,
        mean_rank=mean,
        low=max(1.0, mean - half),
        high=mean + half,
        wins=score[0],
        ties=score[1],
        losses=score[2],
        imputed=imputed,
    )


def _friedman(ranks: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> float:
    """Return the p-value of Friedman's test, with the correction for ties, of ranks (tasks, configurations)."""
    tasks, count = ranks.shape
    squares = float(((ranks - (count + 1) / 2) ** 2).sum())
    if squares == 0:
        return 1.0
    between = tasks * tasks * float(((ranks.mean(axis=0) - (count + 1) / 2) ** 2).sum()) * (count - 1)
    return float(special.chdtrc(count - 1, between / squares))


def _cliques(rows: list[TaskRank], difference: float) -> tuple[tuple[str, ...], ...]:
    """Find the longest runs of neighbours in rank that differ by at most the critical difference."""
    found: list[tuple[int, int]] = []
    for first in range(len(rows)):
        last = first
        while last + 1 < len(rows) and rows[last + 1].mean_rank - rows[first].mean_rank <= difference:
            last += 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return tuple(tuple(row.configuration for row in rows[first : last + 1]) for first, last in found)
