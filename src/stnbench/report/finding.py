"""From frames to findings: differences and gains between cells."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import pandas as pd

from stnbench.analysis.crossed import Crossed, crossed_difference, improvement_over_seeds
from stnbench.analysis.inference import compare, holm_adjusted, paired_difference, pairs_among
from stnbench.analysis.mcnemar import mcnemar
from stnbench.analysis.pareto import pareto_front
from stnbench.report.answered import Answers, Pairing, ReadPredictions
from stnbench.report.findings import Findings, GainFinding, PairFinding, ParetoFront
from stnbench.report.folds import find_over_folds
from stnbench.report.layout import layout_findings
from stnbench.report.scored import Cell, by_group, first_known, mean_of, read_cells
from stnbench.spec.data import Split
from stnbench.spec.planner import SAMPLERS
from stnbench.spec.sweep import EQUAL_PARAMETERS, SweepSpec

MOST_ANSWERED: Final = 120
"""Cells of a sweep that are compared image by image: the best ones of every group, with their twins."""

FEWEST_ANSWERED: Final = 5
"""Of a group, however many groups there are."""

COSTS: Final = ("parameters", "flops", "epoch_duration_s")

Groups = Sequence[tuple[str, Sequence[Cell]]]


def find(
    sweep: SweepSpec,
    trials: pd.DataFrame,
    images: pd.DataFrame,
    read_predictions: ReadPredictions,
    *,
    split: Split = "validation",
) -> Findings:
    """What a sweep's trials say on one split beyond their ranking. The same frames give the same findings.

    Args:
        sweep: as it was last run.
        trials: ``frames_columns.TRIAL_COLUMNS``.
        images: the sets that they were scored on, ``frames_columns.IMAGE_COLUMNS``.
        read_predictions: the predictions of some trials on this split.
        split: validation or test.
    """
    cells = read_cells(trials, split)
    groups = [(group, [cell for cell in own if cell.score]) for group, own in by_group(sweep, cells)]
    groups = [(group, own) for group, own in groups if own]
    twins = _Twins(sweep, cells)
    limit = max(FEWEST_ANSWERED, MOST_ANSWERED // max(len(groups), 1))
    looked_at = _looked_at(groups, twins, limit)
    answers = Answers(images[images["split"] == split], looked_at.values(), read_predictions)
    pairs = [pair for group, own in groups for pair in _pairs(group, own, answers, looked_at)]
    gains = [gain for group, own in groups for gain in _gains(group, own, twins, answers)]
    main_effects, interactions, importances, remarks = layout_findings(sweep, cells)
    return Findings(
        split=split,
        folds=find_over_folds(sweep, cells) if split == "validation" else (),
        pairs=tuple(pairs),
        gains=tuple(gains),
        main_effects=main_effects,
        interactions=interactions,
        importances=importances,
        pareto=tuple(front for group, own in groups for front in _fronts(group, own)),
        notes=(*_notes(sweep, groups, pairs, limit), *remarks),
    )


def _looked_at(groups: Groups, twins: "_Twins", limit: int) -> dict[str, Cell]:
    best = [cell for _, own in groups for cell in own[:limit]]
    bases = [twin for cell in best for twin in (twins.plain(cell), twins.equal_size(cell)) if twin]
    return {cell.cell_id: cell for cell in (*best, *bases)}


class _Twins:
    """Finds what a cell's transformers can be compared with, among the cells that have a score."""

    def __init__(self, sweep: SweepSpec, cells: Sequence[Cell]) -> None:
        self._by_id = {cell.cell_id: cell for cell in cells if cell.score}
        self._wider: dict[str, list[tuple[int, Cell]]] = {}
        plain = {cell.twin_cell_id for cell in cells if not cell.is_twin}
        for cell in self._by_id.values() if sweep.twins == EQUAL_PARAMETERS else ():
            parameters = _parameters(cell)
            if cell.is_twin and cell.cell_id not in plain and parameters is not None:
                self._wider.setdefault(cell.bare_id, []).append((parameters, cell))

    def plain(self, cell: Cell) -> Cell | None:
        """The same network without transformers; None where the cell has none."""
        return None if cell.twin_cell_id == cell.cell_id else self._by_id.get(cell.twin_cell_id)

    def equal_size(self, cell: Cell) -> Cell | None:
        """Of the wider networks the one that is nearest in parameters; None where the sweep has none for the cell."""
        wanted = _parameters(cell)
        if cell.twin_cell_id == cell.cell_id or wanted is None or cell.bare_id not in self._wider:
            return None
        return min(self._wider[cell.bare_id], key=lambda item: (abs(item[0] - wanted), item[1].cell_id))[1]


def _parameters(cell: Cell) -> int | None:
    return first_known(run.parameters for run in cell.runs)


def _pairs(group: str, cells: Sequence[Cell], answers: Answers, looked_at: Mapping[str, Cell]) -> Iterator[PairFinding]:
    """Every cell of a group against the first one, which is the best."""
    best, *others = cells
    found = compare([cell.scores for cell in cells])
    pairings = [answers.pairing(cell, best) if cell.cell_id in looked_at else None for cell in others]
    crossed = [_crossed(pairing) for pairing in pairings]
    corrected = holm_adjusted(
        [item.difference.p_value if item else 1.0 for item in crossed], tests=pairs_among(len(cells))
    )
    for cell, comparison, pairing, item, p_value in zip(others, found, pairings, crossed, corrected, strict=True):
        difference = comparison.difference
        over_seeds = improvement_over_seeds(difference) if difference else None
        yield PairFinding(
            group=group,
            cell_id=cell.cell_id,
            label=cell.label,
            best_cell_id=best.cell_id,
            best_label=best.label,
            standing=comparison.standing,
            difference=difference,
            corrected_p=comparison.corrected_p,
            over_images=item.difference if item else None,
            over_images_corrected_p=p_value if item else None,
            mcnemar=mcnemar(pairing.cell, pairing.base, pairing.tracks) if pairing else None,
            improvement=item.improvement if item else over_seeds,
            seeds_needed=comparison.seeds_needed,
        )


def _gains(group: str, cells: Sequence[Cell], twins: _Twins, answers: Answers) -> Iterator[GainFinding]:
    for cell in cells:
        for twin, is_equal_size in ((twins.plain(cell), False), (twins.equal_size(cell), True)):
            difference = paired_difference(cell.scores, twin.scores) if twin else None
            if twin is None or difference is None:
                continue
            crossed = _crossed(answers.pairing(cell, twin))
            own, base = _parameters(cell), _parameters(twin)
            yield GainFinding(
                group=group,
                cell_id=cell.cell_id,
                label=cell.label,
                twin_cell_id=twin.cell_id,
                is_equal_size=is_equal_size,
                parameter_ratio=base / own if own and base else None,
                difference=difference,
                over_images=crossed.difference if crossed else None,
            )


def _crossed(pairing: Pairing | None) -> Crossed | None:
    """None where the store cannot tell, or one seed could not tell of others."""
    if pairing is None or len(pairing.cell) < 2:
        return None
    return crossed_difference(pairing.cell, pairing.base, pairing.tracks, is_tracked=pairing.is_tracked)


def _fronts(group: str, cells: Sequence[Cell]) -> Iterator[ParetoFront]:
    """The Pareto front for every cost that two cells or more have."""
    for cost in COSTS:
        known = []
        for cell in cells:
            value, score = mean_of(getattr(run, cost) for run in cell.runs), cell.score
            if value is not None and score is not None:
                known.append((cell, float(value), score.mean))
        if len(known) > 1:
            front = [known[place] for place in pareto_front([item[1] for item in known], [item[2] for item in known])]
            yield ParetoFront(
                group=group,
                cost=cost,
                cell_ids=tuple(cell.cell_id for cell, _, _ in front),
                labels=tuple(cell.label for cell, _, _ in front),
                costs=tuple(value for _, value, _ in front),
                means=tuple(mean for _, _, mean in front),
            )


def _notes(sweep: SweepSpec, groups: Groups, pairs: Sequence[PairFinding], limit: int) -> Iterator[str]:
    if pairs and not any(pair.mcnemar for pair in pairs):
        yield (
            "The store does not say which images these scores are of, or cells were scored on different ones: nothing "
            "is said over images."
        )
    elif any(len(cells) > limit for _, cells in groups):
        of_group = " of each group" if len(groups) > 1 else ""
        yield f"Compared image by image are the {limit} best cells{of_group} with their twins, not all."
    if sweep.planner.kind in SAMPLERS:
        yield "The planner chose the cells by what it had seen: effects and importances are those of what it chose."
