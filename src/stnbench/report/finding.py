"""From frames to findings: differences and gains between cells."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import pandas as pd

from stnbench.analysis.crossed import Crossed, crossed_difference, improvement_over_seeds
from stnbench.analysis.inference import holm_adjusted, paired_difference, pairs_among
from stnbench.analysis.mcnemar import mcnemar
from stnbench.analysis.pareto import pareto_front
from stnbench.analysis.verdicts import Verdict
from stnbench.report.answered import Answers, Pairing, ReadPredictions
from stnbench.report.decided import Baselines, Decided, decide, estimate_of_effect, parameters_of
from stnbench.report.findings import Findings, GainFinding, PairFinding, ParetoFront
from stnbench.report.folds import find_over_folds
from stnbench.report.layout import layout_findings
from stnbench.report.scored import Cell, mean_of, read_cells
from stnbench.spec.data import Split
from stnbench.spec.planner import SAMPLERS
from stnbench.spec.sweep import SweepSpec

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
    read = read_cells(trials, split)
    decided = decide(sweep, read)
    known = {cell.cell_id: cell for cell in decided.cells}
    cells = [known[cell.cell_id] for cell in read]
    groups = [(group, [cell for cell in own if cell.score]) for group, own in decided.groups]
    groups = [(group, own) for group, own in groups if own]
    twins = Baselines(sweep, cells)
    limit = max(FEWEST_ANSWERED, MOST_ANSWERED // max(len(groups), 1))
    looked_at = _looked_at(groups, twins, limit)
    answers = Answers(images[images["split"] == split], looked_at.values(), read_predictions)
    pairs = [pair for group, own in groups for pair in _pairs(group, own, answers, looked_at, decided)]
    gains = [gain for group, own in groups for gain in _gains(group, own, twins, answers, decided)]
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


def _looked_at(groups: Groups, twins: Baselines, limit: int) -> dict[str, Cell]:
    best = [cell for _, own in groups for cell in own[:limit]]
    bases = [twin for cell in best for twin in (twins.plain(cell), twins.equal_size(cell)) if twin]
    return {cell.cell_id: cell for cell in (*best, *bases)}


def _pairs(
    group: str, cells: Sequence[Cell], answers: Answers, looked_at: Mapping[str, Cell], decided: Decided
) -> Iterator[PairFinding]:
    """Every cell of a group against the first one, which is the best."""
    best, *others = cells
    pairings = [answers.pairing(cell, best) if cell.cell_id in looked_at else None for cell in others]
    crossed = [_crossed(pairing) for pairing in pairings]
    corrected = holm_adjusted(
        [item.difference.p_value if item else 1.0 for item in crossed], tests=pairs_among(len(cells))
    )
    for cell, pairing, item, p_value in zip(others, pairings, crossed, corrected, strict=True):
        decision = decided.decisions[cell.cell_id]
        difference = estimate_of_effect(decision.delta)
        paired = paired_difference(cell.scores, best.scores)
        over_seeds = improvement_over_seeds(paired) if paired else None
        yield PairFinding(
            group=group,
            cell_id=cell.cell_id,
            label=cell.label,
            best_cell_id=best.cell_id,
            best_label=best.label,
            standing=decision.verdict or Verdict.UNDECIDED,
            difference=difference,
            corrected_p=difference.p_value if difference else 1.0,
            over_images=item.difference if item else None,
            over_images_corrected_p=p_value if item else None,
            mcnemar=mcnemar(pairing.cell, pairing.base, pairing.tracks) if pairing else None,
            improvement=item.improvement if item else over_seeds,
            seeds_needed=decision.seeds_needed,
        )


def _gains(
    group: str, cells: Sequence[Cell], twins: Baselines, answers: Answers, decided: Decided
) -> Iterator[GainFinding]:
    for cell in cells:
        for twin, is_equal_size in ((twins.plain(cell), False), (twins.equal_size(cell), True)):
            decision = decided.decisions[cell.cell_id]
            difference = estimate_of_effect(decision.gain_equal_parameters if is_equal_size else decision.gain)
            if twin is None or difference is None:
                continue
            crossed = _crossed(answers.pairing(cell, twin))
            own, base = parameters_of(cell), parameters_of(twin)
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
