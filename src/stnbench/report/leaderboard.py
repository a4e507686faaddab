"""From frames to a leaderboard, pure."""

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd

from stnbench.report.board import FailureGroup, HealthCounts, Leaderboard, Row, StateCounts
from stnbench.report.frames import AXIS_PREFIX
from stnbench.report.notes import board_notes, row_notes
from stnbench.report.provenance import differences, provenance
from stnbench.spec.data import Split
from stnbench.spec.sweep import SweepSpec
from stnbench.statistics.inference import (
    Estimate,
    Standing,
    accuracy_estimate,
    paired_difference,
    standings,
)

NO_MESSAGE = "(no message)"


def build_leaderboard(sweep: SweepSpec, trials: pd.DataFrame, *, split: Split = "validation") -> Leaderboard:
    """The leaderboard of a sweep's trials (``frames.TRIAL_COLUMNS``), ranked by mean accuracy on one split.

    Where the sweep compares within an axis, each of the axis's labels is ranked by itself, in the axis's order. The
    same frame gives the same leaderboard: equal means are ordered by label and cell.
    """
    cells = _read_cells(trials, split)
    scores = {cell.cell_id: cell.scores for cell in cells}
    rows = [_row(cell, scores, within=sweep.within) for cell in cells]
    rows.sort(key=lambda row: (-row.score.mean if row.score else 1.0, row.label, row.cell_id))
    groups = _group_order(sweep, rows)
    ranked = tuple(row for group in groups for row in _rank([row for row in rows if row.group == group], scores))
    known = provenance(sweep, trials, split)
    states = _count_states(trials["state"])
    return Leaderboard(
        sweep=sweep.name,
        question=sweep.question,
        split=split,
        axes=tuple(name.removeprefix(AXIS_PREFIX) for name in _axis_columns(trials)),
        within=sweep.within,
        rows=ranked,
        states=states,
        failures=tuple(_failures(trials)),
        provenance=known,
        notes=(*board_notes(states, ranked, split), *differences(known, tasks=len({row.group for row in ranked}) or 1)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """One trial of a frame, with None for what is missing."""

    seed: int
    state: str
    health: str | None
    correct: int | None
    images: int | None
    test_correct: int | None
    test_images: int | None
    parameters: int | None
    flops: int | None
    activation_bytes: int | None
    epoch_duration_s: float | None
    peak_memory_mib: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cell:
    """The trials of one cell, by seed, and what they share."""

    cell_id: str
    twin_cell_id: str
    label: str
    is_twin: bool
    axes: tuple[tuple[str, str], ...]
    runs: tuple[_Run, ...]

    @property
    def scores(self) -> dict[int, float]:
        """Accuracy by seed."""
        return {run.seed: run.correct / run.images for run in self.runs if run.correct is not None and run.images}


def _read_cells(trials: pd.DataFrame, split: Split) -> list[_Cell]:
    """The cells of a frame. Columns are taken out once: pandas is slow where thousands of cells ask one by one."""
    ordered = trials.sort_values("seed", kind="stable")
    of_run = {field.name: field.name for field in fields(_Run)}
    of_run |= {"correct": f"{split}_correct", "images": f"{split}_images"}
    columns = [_values(ordered, column) for column in of_run.values()]
    runs = [_Run(**dict(zip(of_run, values, strict=True))) for values in zip(*columns, strict=True)]
    places: dict[str, list[int]] = {}
    for place, cell_id in enumerate(_values(ordered, "cell_id")):
        places.setdefault(cell_id, []).append(place)
    axes = {name.removeprefix(AXIS_PREFIX): _values(ordered, name) for name in _axis_columns(trials)}
    shared = {name: _values(ordered, name) for name in ("twin_cell_id", "label", "is_twin")}
    return [
        _Cell(
            cell_id=cell_id,
            axes=tuple((name, labels[own[0]]) for name, labels in axes.items() if labels[own[0]] is not None),
            runs=tuple(runs[place] for place in own),
            **{name: values[own[0]] for name, values in shared.items()},
        )
        for cell_id, own in places.items()
    ]


def _axis_columns(trials: pd.DataFrame) -> list[str]:
    return [name for name in trials.columns if name.startswith(AXIS_PREFIX)]


def _values(frame: pd.DataFrame, column: str) -> list[Any]:
    """A column as Python values, None for what is missing."""
    values = frame[column]
    return [None if missing else value for value, missing in zip(values.tolist(), values.isna(), strict=True)]


def _estimate(scored: Iterable[tuple[int | None, int | None]]) -> Estimate | None:
    pairs = [(correct, images) for correct, images in scored if correct is not None and images is not None]
    return accuracy_estimate(*zip(*pairs, strict=True)) if pairs else None


def _first(values: Iterable[int | None]) -> int | None:
    return next((value for value in values if value is not None), None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _group_order(sweep: SweepSpec, rows: Iterable[Row]) -> list[str]:
    """The groups that there are: as the axis lists its choices, what it does not list last."""
    listed = [
        choice.label for grid in sweep.grids for axis in grid if axis.name == sweep.within for choice in axis.choices
    ]
    return list(dict.fromkeys([*listed, *sorted({row.group for row in rows})]))


def _row(cell: _Cell, scores: Mapping[str, Mapping[int, float]], *, within: str) -> Row:
    """A cell without its rank, which needs the others."""
    own, runs = scores[cell.cell_id], cell.runs
    has_transformer = cell.twin_cell_id != cell.cell_id
    gain = paired_difference(own, scores.get(cell.twin_cell_id, {})) if has_transformer else None
    states = _count_states(run.state for run in runs)
    score = _estimate((run.correct, run.images) for run in runs)
    return Row(
        group=dict(cell.axes).get(within, ""),
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
        test=_estimate((run.test_correct, run.test_images) for run in runs),
        behind=None,
        st_gain=gain,
        parameters=_first(run.parameters for run in runs),
        flops=_first(run.flops for run in runs),
        activation_bytes=_first(run.activation_bytes for run in runs),
        epoch_duration_s=_mean(run.epoch_duration_s for run in runs),
        peak_memory_mib=_mean(run.peak_memory_mib for run in runs),
        notes=tuple(row_notes(states, score, gain)),
        health=HealthCounts(**Counter(run.health for run in runs if run.health)),
    )


def _rank(rows: Sequence[Row], scores: Mapping[str, Mapping[int, float]]) -> Iterator[Row]:
    scored = [row for row in rows if row.score]
    if scored:
        best = scores[scored[0].cell_id]
        found = standings([scores[row.cell_id] for row in scored])
        last_like_best = max(index for index, standing in enumerate(found, 1) if standing is not Standing.LOWER)
        for index, (row, standing) in enumerate(zip(scored, found, strict=True), 1):
            behind = None if standing is Standing.BEST else paired_difference(scores[row.cell_id], best)
            first, last = (index, index) if standing is Standing.LOWER else (1, last_like_best)
            yield replace(row, rank_first=first, rank_last=last, standing=standing, behind=behind)
    yield from (row for row in rows if not row.score)


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
