"""From frames to a leaderboard, pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from stnbench.analysis.frames_columns import AXIS_PREFIX
from stnbench.analysis.inference import Standing, compare, paired_difference
from stnbench.report.agreeing import build_agreement
from stnbench.report.board import FailureGroup, HealthCounts, Leaderboard, Row, StateCounts
from stnbench.report.notes import board_notes, row_notes
from stnbench.report.provenance import differences, provenance
from stnbench.report.scored import Cell, axis_columns, by_group, estimate_of, first_known, mean_of, read_cells
from stnbench.spec.data import Split
from stnbench.spec.sweep import SweepSpec

NO_MESSAGE = "(no message)"


def build_leaderboard(sweep: SweepSpec, trials: pd.DataFrame, *, split: Split = "validation") -> Leaderboard:
    """The leaderboard of a sweep's trials (``frames_columns.TRIAL_COLUMNS``), ranked by mean accuracy on one split.

    Where the sweep compares within an axis, each of the axis's labels is ranked by itself, in the axis's order. The
    same frame gives the same leaderboard: equal means are ordered by label and cell.
    """
    cells = read_cells(trials, split)
    scores = {cell.cell_id: cell.scores for cell in cells}
    rows = {cell.cell_id: _row(cell, scores) for cell in cells}
    ranked = tuple(row for group, own in by_group(sweep, cells) for row in _rank(group, own, rows, scores))
    known = provenance(sweep, trials, split)
    states = _count_states(trials["state"])
    return Leaderboard(
        sweep=sweep.name,
        question=sweep.question,
        split=split,
        axes=tuple(name.removeprefix(AXIS_PREFIX) for name in axis_columns(trials)),
        within=sweep.within,
        rows=ranked,
        states=states,
        failures=tuple(_failures(trials)),
        provenance=known,
        notes=(*board_notes(states, ranked, split), *differences(known, tasks=len({row.group for row in ranked}) or 1)),
        agreement=build_agreement(sweep.published, trials, split=split) if sweep.published else None,
    )


def _row(cell: Cell, scores: Mapping[str, Mapping[int, float]]) -> Row:
    """A cell without its group and its rank, which need the others."""
    own, runs = scores[cell.cell_id], cell.runs
    has_transformer = cell.twin_cell_id != cell.cell_id
    gain = paired_difference(own, scores.get(cell.twin_cell_id, {})) if has_transformer else None
    states = _count_states(run.state for run in runs)
    score = cell.score
    return Row(
        group="",
        rank_first=None,
        rank_last=None,
        standing=None,
        label=cell.label,
        cell_id=cell.cell_id,
        axes=cell.axes,
        is_twin=cell.is_twin,
        seeds=tuple(own),
        states=states,
        score=score,
        test=estimate_of((run.test_correct, run.test_images) for run in runs),
        behind=None,
        st_gain=gain,
        parameters=first_known(run.parameters for run in runs),
        flops=first_known(run.flops for run in runs),
        activation_bytes=first_known(run.activation_bytes for run in runs),
        epoch_duration_s=mean_of(run.epoch_duration_s for run in runs),
        peak_memory_mib=mean_of(run.peak_memory_mib for run in runs),
        notes=tuple(row_notes(states, score, gain)),
        health=HealthCounts(**Counter(run.health for run in runs if run.health)),
    )


def _rank(
    group: str, cells: Sequence[Cell], rows: Mapping[str, Row], scores: Mapping[str, Mapping[int, float]]
) -> Iterator[Row]:
    """The rows of a group's cells, which come the best first."""
    own = [replace(rows[cell.cell_id], group=group) for cell in cells]
    scored = [row for row in own if row.score]
    if scored:
        compared = compare([scores[row.cell_id] for row in scored])
        found = [Standing.BEST, *(comparison.standing for comparison in compared)]
        last_like_best = max(index for index, standing in enumerate(found, 1) if standing is not Standing.LOWER)
        yield replace(scored[0], rank_first=1, rank_last=last_like_best, standing=Standing.BEST)
        for index, (row, comparison) in enumerate(zip(scored[1:], compared, strict=True), 2):
            is_lower = comparison.standing is Standing.LOWER
            yield replace(
                row,
                rank_first=index if is_lower else 1,
                rank_last=index if is_lower else last_like_best,
                standing=comparison.standing,
                behind=comparison.difference,
                seeds_needed=comparison.seeds_needed,
            )
    yield from (row for row in own if not row.score)


def _count_states(states: Iterable[str]) -> StateCounts:
    return StateCounts(**Counter(states))


def _failures(trials: pd.DataFrame) -> Iterator[FailureGroup]:
    """Failed trials by kind and first line, the largest group first."""
    groups: dict[tuple[str, str], list[str]] = {}
    failed = trials[trials["state"] == "failed"]
    columns = (failed["failure_kind"], failed["failure_message"], failed["trial_id"])
    for kind, message, trial_id in zip(*columns, strict=True):
        lines = str(message or "").strip().splitlines()
        groups.setdefault((str(kind or "unknown"), lines[0] if lines else NO_MESSAGE), []).append(str(trial_id))
    for (kind, message), trial_ids in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        yield FailureGroup(kind=kind, message=message, trial_ids=tuple(sorted(trial_ids)))
