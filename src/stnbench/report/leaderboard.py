"""From frames to a leaderboard, pure."""

from collections import Counter
from collections.abc import Iterable, Iterator

import pandas as pd

from stnbench.analysis.frames_columns import AXIS_PREFIX
from stnbench.analysis.verdicts import Decision
from stnbench.report.agreeing import build_agreement
from stnbench.report.board import FailureGroup, HealthCounts, Leaderboard, Row, StateCounts
from stnbench.report.decided import decide, estimate_of_effect
from stnbench.report.notes import board_notes, row_notes
from stnbench.report.provenance import differences, provenance
from stnbench.report.scored import Cell, axis_columns, estimate_of, first_known, mean_of, metric_estimates, read_cells
from stnbench.spec.data import Split
from stnbench.spec.sweep import SweepSpec

NO_MESSAGE = "(no message)"


def build_leaderboard(sweep: SweepSpec, trials: pd.DataFrame, *, split: Split = "validation") -> Leaderboard:
    """The leaderboard of a sweep's trials (``frames_columns.TRIAL_COLUMNS``), ranked by mean accuracy on one split.

    Where the sweep compares within an axis, each of the axis's labels is ranked by itself, in the axis's order. The
    same frame gives the same leaderboard: equal means are ordered by label and cell.
    """
    decided = decide(sweep, read_cells(trials, split))
    ranked = tuple(
        _row(group, cell, decided.decisions.get(cell.cell_id)) for group, own in decided.groups for cell in own
    )
    known = provenance(sweep, trials, split)
    states = _count_states(trials["state"])
    return Leaderboard(
        sweep=sweep.name,
        question=sweep.question,
        split=split,
        axes=tuple(name.removeprefix(AXIS_PREFIX) for name in axis_columns(trials)),
        within=sweep.within,
        columns=sweep.columns,
        rows=ranked,
        states=states,
        failures=tuple(_failures(trials)),
        provenance=known,
        notes=(
            *board_notes(states, ranked, split, look_seeds=sweep.look_seeds),
            *differences(known, tasks=len({row.group for row in ranked}) or 1),
        ),
        answer=decided.answer,
        tasks=decided.tasks,
        comparisons=decided.comparisons,
        agreement=build_agreement(sweep.published, trials, split=split) if sweep.published else None,
    )


def _row(group: str, cell: Cell, decision: Decision | None) -> Row:
    runs, score = cell.runs, cell.score
    gain = estimate_of_effect(decision.gain if decision else None)
    states = _count_states(run.state for run in runs)
    return Row(
        group=group,
        rank_first=decision.rank_low if decision else None,
        rank_last=decision.rank_high if decision else None,
        standing=decision.verdict if decision else None,
        label=cell.label,
        cell_id=cell.cell_id,
        axes=cell.axes,
        is_twin=cell.is_twin,
        seeds=tuple(cell.scores),
        states=states,
        score=score,
        test=estimate_of((run.test_correct, run.test_images) for run in runs),
        behind=estimate_of_effect(decision.delta if decision else None),
        st_gain=gain,
        parameters=first_known(run.parameters for run in runs),
        flops=first_known(run.flops for run in runs),
        activation_bytes=first_known(run.activation_bytes for run in runs),
        epoch_duration_s=mean_of(run.epoch_duration_s for run in runs),
        peak_memory_mib=mean_of(run.peak_memory_mib for run in runs),
        notes=tuple(row_notes(states, score, gain)),
        health=HealthCounts(**Counter(run.health for run in runs if run.health)),
        seeds_needed=decision.seeds_needed if decision else None,
        decision=decision,
        metrics=metric_estimates(runs),
    )


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
