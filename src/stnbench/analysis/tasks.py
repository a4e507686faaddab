"""Configurations over several tasks: mean ranks, Friedman's test, Nemenyi's critical difference (Demsar 2006)."""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from scipy import special, stats

from stnbench.analysis.inference import LEVEL, t_quantile
from stnbench.analysis.simultaneous import critical_value, pairs_table
from stnbench.analysis.verdicts import Comparison, TaskRank, TaskSummary

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
