"""From the cells of a cross-validation to findings over all its folds, pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from stnbench.analysis.comparison import compare_configurations
from stnbench.analysis.fitted import ScoredRun
from stnbench.analysis.folds import FOLDS_METHOD, folds_accuracy
from stnbench.analysis.verdicts import Verdict
from stnbench.report.decided import estimate_of_effect
from stnbench.report.findings import FoldsFinding
from stnbench.report.scored import Cell
from stnbench.spec.sweep import LABEL_SEPARATOR, SweepSpec

FOLD_KEY: Final = "split.fold"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fold:
    """What the networks of a recipe scored on one fold; ``errors`` is their mean number."""

    networks: int
    images: int
    errors: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recipe:
    """Cells that differ in their fold alone; folds are known by their place on the axis."""

    group: str
    label: str
    folds: Mapping[int, _Fold]

    @property
    def accuracies(self) -> dict[int, float]:
        """By fold."""
        return {place: 1 - fold.errors / fold.images for place, fold in self.folds.items()}


def find_over_folds(sweep: SweepSpec, cells: Sequence[Cell]) -> tuple[FoldsFinding, ...]:
    """What a sweep with an axis of folds says over all of them, the best first in each group; of others, nothing.

    Args:
        sweep: as it was last run.
        cells: its cells on the validation split.
    """
    axes = [axis for grid in sweep.grids for axis in grid if axis.keys == {FOLD_KEY}]
    if not axes:
        return ()
    name = axes[0].name
    labels = [*dict.fromkeys(choice.label for axis in axes if axis.name == name for choice in axis.values)]
    groups: dict[str, list[_Recipe]] = {}
    for recipe in _recipes(sweep, cells, name, labels):
        groups.setdefault(recipe.group, []).append(recipe)
    return tuple(finding for recipes in groups.values() for finding in _compared(recipes, folds=len(labels)))


def _recipes(sweep: SweepSpec, cells: Sequence[Cell], axis: str, labels: Sequence[str]) -> list[_Recipe]:
    """Those with a score on two folds or more."""
    found: dict[tuple[str, str], dict[int, _Fold]] = {}
    for cell in cells:
        own = dict(cell.axes)
        scored = [(run.correct, run.images) for run in cell.runs if run.correct is not None and run.images]
        if not scored or own.get(axis) not in labels:
            continue
        group = "" if sweep.within == axis else own.get(sweep.within, "")
        label = LABEL_SEPARATOR.join(part for part in cell.label.split(LABEL_SEPARATOR) if part != own[axis])
        images = scored[0][1]
        errors = images - statistics.fmean(correct for correct, _ in scored)
        fold = _Fold(networks=len(scored), images=images, errors=errors)
        found.setdefault((group, label or sweep.name), {})[labels.index(own[axis])] = fold
    return [_Recipe(group=group, label=label, folds=folds) for (group, label), folds in found.items() if len(folds) > 1]


def _compared(recipes: Sequence[_Recipe], *, folds: int) -> list[FoldsFinding]:
    """Each against the best: folds are the blocks that seeds are elsewhere."""
    runs = [
        ScoredRun(
            configuration=recipe.label,
            seed=place,
            correct=fold.images - fold.errors,
            images=fold.images,
            has_collapsed=False,
        )
        for recipe in recipes
        for place, fold in recipe.folds.items()
    ]
    found = {recipe.label: _finding(recipe, folds) for recipe in recipes}
    rows = []
    for decision in compare_configurations(runs).decisions:
        difference = estimate_of_effect(decision.delta)
        rows.append(
            replace(
                found[decision.configuration],
                standing=decision.verdict or Verdict.UNDECIDED,
                difference=difference and replace(difference, method=FOLDS_METHOD),
                corrected_p=difference.p_value if difference else None,
            )
        )
    return rows


def _finding(recipe: _Recipe, folds: int) -> FoldsFinding:
    own = recipe.folds.values()
    errors, images = [fold.errors for fold in own], [fold.images for fold in own]
    return FoldsFinding(
        group=recipe.group,
        label=recipe.label,
        folds=folds,
        scored_folds=len(own),
        networks=sum(fold.networks for fold in own),
        images=sum(images),
        errors=sum(errors),
        accuracy=folds_accuracy(errors, images),
        standing=Verdict.BEST,
    )
