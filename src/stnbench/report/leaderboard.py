"""From frames to a leaderboard, pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from stnbench.report.board import FailureGroup, Leaderboard, Row, StateCounts
from stnbench.report.frames import AXIS_PREFIX
from stnbench.report.provenance import differences, provenance
from stnbench.report.stats import (
    ENOUGH_SEEDS,
    Estimate,
    Standing,
    accuracy_estimate,
    paired_difference,
    standings,
)
from stnbench.spec.data import Split
from stnbench.spec.sweep import SweepSpec

NO_MESSAGE = "(no message)"


def build_leaderboard(sweep: SweepSpec, trials: pd.DataFrame, *, split: Split = "validation") -> Leaderboard:
    """The leaderboard of a sweep's trials (``frames.TRIAL_COLUMNS``), ranked by mean accuracy on one split.

    The same frame gives the same leaderboard: equal means are ordered by label and cell.
    """
    cells = [_Cell(frame=frame, split=split) for _, frame in trials.groupby("cell_id", sort=False)]
    scores = {cell.cell_id: cell.scores for cell in cells}
    rows = [_row(cell, scores) for cell in cells]
    rows.sort(key=lambda row: (-row.score.mean if row.score else 1.0, row.label, row.cell_id))
    ranked = tuple(_rank(rows, scores))
    known = provenance(sweep, trials, split)
    states = _count_states(trials)
    return Leaderboard(
        sweep=sweep.name,
        question=sweep.question,
        split=split,
        axes=tuple(name.removeprefix(AXIS_PREFIX) for name in trials.columns if name.startswith(AXIS_PREFIX)),
        rows=ranked,
        states=states,
        failures=tuple(_failures(trials)),
        provenance=known,
        notes=(*_notes(states, ranked, split), *differences(known)),
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Cell:
    """The trials of one cell."""

    frame: pd.DataFrame
    split: Split

    @property
    def cell_id(self) -> str:
        return str(self.frame["cell_id"].iloc[0])

    @property
    def twin_cell_id(self) -> str:
        return str(self.frame["twin_cell_id"].iloc[0])

    @property
    def scores(self) -> dict[int, float]:
        """Accuracy by seed."""
        scored = self._scored(self.split)
        return dict(zip(scored["seed"].tolist(), scored[f"{self.split}_accuracy"].tolist(), strict=True))

    def estimate(self, split: Split) -> Estimate | None:
        scored = self._scored(split)
        if scored.empty:
            return None
        return accuracy_estimate(scored[f"{split}_correct"].tolist(), scored[f"{split}_images"].tolist())

    def mean(self, column: str) -> float | None:
        values = self.frame[column].dropna()
        return None if values.empty else float(values.mean())

    def first(self, column: str) -> int | None:
        values = self.frame[column].dropna()
        return None if values.empty else int(values.iloc[0])

    def _scored(self, split: Split) -> pd.DataFrame:
        return self.frame[self.frame[f"{split}_correct"].notna()].sort_values("seed")


def _row(cell: _Cell, scores: Mapping[str, Mapping[int, float]]) -> Row:
    """A cell without its rank, which needs the others."""
    frame, own = cell.frame, scores[cell.cell_id]
    has_transformer = cell.twin_cell_id != cell.cell_id
    gain = paired_difference(own, scores.get(cell.twin_cell_id, {})) if has_transformer else None
    states = _count_states(frame)
    score = cell.estimate(cell.split)
    first = frame.iloc[0]
    axes = [name for name in frame.columns if name.startswith(AXIS_PREFIX) and isinstance(first[name], str)]
    return Row(
        rank_first=None,
        rank_last=None,
        standing=None,
        label=str(first["label"]),
        cell_id=cell.cell_id,
        axes=tuple((name.removeprefix(AXIS_PREFIX), str(first[name])) for name in axes),
        is_twin=bool(first["is_twin"]),
        seeds=tuple(sorted(own)),
        states=states,
        score=score,
        test=cell.estimate("test"),
        behind=None,
        st_gain=gain,
        parameters=cell.first("parameters"),
        flops=cell.first("flops"),
        activation_bytes=cell.first("activation_bytes"),
        epoch_duration_s=cell.mean("epoch_duration_s"),
        peak_memory_mib=cell.mean("peak_memory_mib"),
        notes=tuple(_row_notes(states, score, gain)),
    )


def _row_notes(states: StateCounts, score: Estimate | None, gain: Estimate | None) -> Iterator[str]:
    if states.unfinished:
        yield states.unfinished
    if score is not None and score.spread == 0:
        yield "all seeds scored the same"
    if gain is not None and gain.spread == 0:
        yield "all seeds gained the same"
    if score is not None and gain is not None and gain.n < score.n:
        yield f"gain from {_seeds(gain.n)}"


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


def _count_states(trials: pd.DataFrame) -> StateCounts:
    counts = trials["state"].value_counts()
    return StateCounts(**{str(state): int(count) for state, count in counts.items()})


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


def _notes(states: StateCounts, rows: Iterable[Row], split: Split) -> Iterator[str]:
    rows = [row for row in rows if row.score]
    if states.unfinished:
        yield f"{states.complete} of {states.trials} trials are complete ({states.unfinished})."
    if rows:
        yield from _method_notes([row.score for row in rows if row.score])
        yield from _standing_notes(rows)
    if any(row.st_gain for row in rows):
        yield (
            "ST gain: percentage points over the same network without its transformers, mean and 95 % t interval of "
            "the differences paired by seed."
        )
    if any(row.st_gain and row.st_gain.n == 1 for row in rows):
        yield "A gain from one seed has no interval: one pair cannot tell it from chance."
    if split == "test" and len(rows) > 1:
        yield "Ranked on the test split: the score of the best of many is too high by selection."


def _method_notes(scores: Sequence[Estimate]) -> Iterator[str]:
    if any(score.n > 1 for score in scores):
        yield "t: mean over n seeds with the 95 % interval of Student's t; with 2 seeds it is wide, as it must be."
    if any(score.n == 1 for score in scores):
        yield "W: Wilson's 95 % interval of one run over its images; how much another seed changes is not in it."
    clipped = sum(score.clipped for score in scores)
    if clipped:
        were = "interval was" if clipped == 1 else "intervals were"
        yield f"{clipped} {were} clipped to what is possible, 0 to 100 %."


def _standing_notes(rows: Sequence[Row]) -> Iterator[str]:
    found = {row.standing for row in rows}
    if len(rows) > 1:
        yield (
            f"Against the best: {len(rows) - 1} differences paired by seed, each with its own 95 % interval, not "
            "corrected for their number."
        )
    if Standing.TIED in found:
        yield "tied: the interval of the difference includes 0."
    if Standing.UNDERPOWERED in found:
        yield (
            f"underpowered: the difference could not be told from chance, and fewer than {ENOUGH_SEEDS} seeds could "
            "not have shown it by an exact test. It does not mean that there is none."
        )


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
