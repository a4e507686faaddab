"""From the cells of a sweep to what its axes do: main effects, interactions, importance."""

import statistics
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Final

from stnbench.analysis.effects import InteractionTest, interaction, main_effects, variance_explained
from stnbench.analysis.inference import holm_adjusted
from stnbench.analysis.layout import PlacedCell
from stnbench.planning.importance import FEWEST_CELLS, axis_importances
from stnbench.report.findings import Importance, Interaction, MainEffect
from stnbench.report.scored import Cell
from stnbench.spec.sweep import Labels, SweepSpec

MOST_LABELS: Final = 40
"""Of an axis whose main effects are asked for: more are a range that a planner draws from."""

MOST_AXES: Final = 12
"""Whose pairs are looked at: the first ones."""

LayoutFindings = tuple[tuple[MainEffect, ...], tuple[Interaction, ...], tuple[Importance, ...], tuple[str, ...]]


def layout_findings(sweep: SweepSpec, cells: Sequence[Cell]) -> LayoutFindings:
    """What the axes do, and in sentences what cannot be said; nothing where cells differ on one axis only.

    Twins, which stand beside the axes, are left out. The axis that a sweep compares within is a task: others are
    compared within it, and it has no effect of its own.
    """
    scored = [cell for cell in cells if not cell.is_twin and cell.score]
    labels = {name: dict.fromkeys(dict(cell.axes).get(name) for cell in scored) for name in _axes(scored)}
    axes = [name for name, own in labels.items() if len(own) > 1 and name != sweep.within]
    if len(axes) < 2:
        return (), (), (), ()
    placed = [PlacedCell(labels=dict(cell.axes), scores=cell.scores) for cell in scored]
    few = [name for name in axes if len(labels[name]) <= MOST_LABELS]
    effects = {name: found for name in few if (found := main_effects(placed, name)) is not None}
    rows = tuple(
        MainEffect(axis=name, label=label, mean=mean, effect=effect, cells=found.cells, method=found.method)
        for name, found in effects.items()
        for label, mean, effect in zip(found.labels, found.means, found.effects, strict=True)
    )
    importances = tuple(_importances(sweep, scored, axes))
    remarks = [*_unknown([name for name in axes if name not in effects])]
    if not any(item.ped_anova is not None for item in importances):
        remarks.append(f"Optuna's importances need {FEWEST_CELLS} cells of different accuracy.")
    return rows, tuple(_interactions(placed, few[:MOST_AXES])), importances, tuple(remarks)


def _axes(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(name for cell in cells for name, _ in cell.axes))


def _interactions(cells: Sequence[PlacedCell], axes: Sequence[str]) -> Iterator[Interaction]:
    found: list[InteractionTest] = [
        test for first, second in combinations(axes, 2) if (test := interaction(cells, first, second)) is not None
    ]
    tested = [test.p_value for test in found if test.p_value is not None]
    corrected = iter(holm_adjusted(tested, tests=len(tested)))
    for test in found:
        yield Interaction(
            first=test.blocks.axes[0],
            second=test.blocks.axes[1],
            first_labels=test.blocks.labels[0],
            second_labels=test.blocks.labels[1],
            means=tuple(map(tuple, test.means.tolist())),
            residuals=tuple(map(tuple, test.residuals.tolist())),
            seeds=len(test.blocks.seeds),
            cells=test.blocks.cells,
            statistic=test.statistic,
            p_value=test.p_value,
            corrected_p=None if test.p_value is None else next(corrected),
        )


def _importances(sweep: SweepSpec, cells: Sequence[Cell], axes: Sequence[str]) -> Iterator[Importance]:
    """From the cells' means, each less the mean of its group."""
    groups: dict[str, list[float]] = {}
    means = [(cell, dict(cell.axes).get(sweep.within, ""), cell.score.mean) for cell in cells if cell.score]
    for _, group, mean in means:
        groups.setdefault(group, []).append(mean)
    base = {group: statistics.fmean(own) for group, own in groups.items()}
    points: list[tuple[Labels, float]] = [
        (tuple(item for item in cell.axes if item[0] in axes), mean - base[group]) for cell, group, mean in means
    ]
    found = axis_importances(sweep, points)
    for name in axes:
        there = [(dict(labels)[name], value) for labels, value in points if name in dict(labels)]
        own = found.get(name)
        yield Importance(
            axis=name,
            cells=len(there),
            variance_explained=variance_explained([label for label, _ in there], [value for _, value in there]),
            ped_anova=own.ped_anova if own else None,
            fanova=own.fanova if own else None,
        )


def _unknown(axes: Sequence[str]) -> Iterator[str]:
    if axes:
        yield (
            f"Main effects are not told for {', '.join(axes)}: too many choices for the cells there are, or the axis "
            "goes along with another one."
        )
