"""What a leaderboard says, ready to be written in any format. No pandas here: who only passes it on stays light.

Accuracies are shares in [0, 1], and so are their differences; formats turn them into percent and percentage points.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stnbench.analysis import verdicts as decided
from stnbench.analysis.inference import Estimate
from stnbench.analysis.verdicts import Answer, Comparison, Decision, TaskSummary
from stnbench.report.agreement import Agreement
from stnbench.report.findings import Findings
from stnbench.report.runs import RunSummary, TrialRow
from stnbench.spec.data import Split
from stnbench.spec.result import Cost
from stnbench.spec.states import TrialState, Verdict
from stnbench.tracking.base import CellView


@dataclass(frozen=True, kw_only=True, slots=True)
class StateCounts:
    """How many trials are in which state."""

    planned: int = 0
    running: int = 0
    complete: int = 0
    failed: int = 0
    pruned: int = 0

    @property
    def trials(self) -> int:
        """All of them."""
        return self.planned + self.running + self.complete + self.failed + self.pruned

    @property
    def unfinished(self) -> str:
        """The states of the trials that are not complete, as text: ``2 running, 1 failed``; empty where all are."""
        states = (state for state in TrialState if state is not TrialState.COMPLETE)
        counts = ((getattr(self, state.value), state.value) for state in states)
        return ", ".join(f"{count} {state}" for count, state in counts if count)


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthCounts:
    """How many trials have which verdict on their transformers; those without one that learns have none."""

    healthy: int = 0
    unhelpful: int = 0
    identity: int = 0
    constant: int = 0
    collapsed: int = 0
    diverged: int = 0

    @property
    def is_bad(self) -> bool:
        """Whether any is not healthy."""
        return any(verdict is not Verdict.HEALTHY for verdict in self.verdicts)

    @property
    def verdicts(self) -> list[Verdict]:
        """Those that occur, the worst first."""
        return [verdict for verdict in reversed(Verdict) if getattr(self, verdict.value)]

    @property
    def text(self) -> str:
        """``healthy`` where all are, or ``2 collapsed, 1 healthy``; empty where there are none."""
        if len(self.verdicts) == 1:
            return self.verdicts[0].value
        return ", ".join(f"{getattr(self, verdict.value)} {verdict.value}" for verdict in self.verdicts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One cell.

    It ranks from ``rank_first`` to ``rank_last``: 1 to 17 for each of the cells that cannot be told from the best, None
    without a score. Where a sweep compares within an axis, ``group`` is the cell's label on it, and ranks and
    differences are those of its group. ``score`` is on the board's split, ``test`` on the test split where it is known.
    ``behind`` is the paired difference to the best, ``st_gain`` that to the cell's twin. ``seeds_needed`` is with how
    many seeds a difference of this size would show, None where that cannot be said. Durations are means over the
    complete trials, ``health`` counts those that were pruned or diverged as well.
    """

    group: str
    rank_first: int | None
    rank_last: int | None
    standing: decided.Verdict | None
    label: str
    cell_id: str
    axes: tuple[tuple[str, str], ...]
    is_twin: bool
    seeds: tuple[int, ...]
    states: StateCounts
    score: Estimate | None
    test: Estimate | None
    behind: Estimate | None
    st_gain: Estimate | None
    parameters: int | None
    flops: int | None
    activation_bytes: int | None
    epoch_duration_s: float | None
    peak_memory_mib: float | None
    notes: tuple[str, ...]
    health: HealthCounts = field(default_factory=HealthCounts)
    seeds_needed: int | None = None
    decision: Decision | None = None
    """Its verdict, with everything that borrows strength across configurations; None where nothing was decided."""
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    """The means of the metrics on the board's split, by name."""

    @property
    def rank(self) -> str:
        """The rank as text, ``1-17`` or ``18``; empty without one."""
        if self.decision is not None:
            return self.decision.rank
        if self.rank_first is None:
            return ""
        return str(self.rank_first) if self.rank_first == self.rank_last else f"{self.rank_first}-{self.rank_last}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureGroup:
    """Trials that failed alike; ``message`` is the first line."""

    kind: str
    message: str
    trial_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """A value, and how many complete trials have it."""

    value: str
    trials: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """What the numbers were made with; several values where trials differ, the most frequent first."""

    command: str
    seeds: tuple[int, ...]
    commits: tuple[Counted, ...]
    devices: tuple[Counted, ...]
    platforms: tuple[Counted, ...]
    versions: tuple[Counted, ...]
    datasets: tuple[Counted, ...]
    images: tuple[Counted, ...]
    """How many images the split has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaderboard:
    """A sweep's cells, group by group, the best first, cells without a score last.

    ``within`` names the axis whose labels are the groups; empty where all cells are compared with each other.
    ``findings`` are what the same trials say beyond the ranking, None where nobody looked for them. ``agreement`` is
    that with results published elsewhere, None where the sweep names none or no cell has both.
    """

    sweep: str
    question: str
    split: Split
    axes: tuple[str, ...]
    within: str
    rows: tuple[Row, ...]
    states: StateCounts
    failures: tuple[FailureGroup, ...]
    provenance: Provenance
    notes: tuple[str, ...]
    findings: Findings | None = None
    agreement: Agreement | None = None
    answer: Answer | None = None
    """What the sweep answers to its question; None where nobody computed it."""
    tasks: TaskSummary | None = None
    """Configurations over the tasks of a sweep that compares within an axis."""
    trials: tuple[TrialRow, ...] = ()
    run: RunSummary | None = None
    """How its run went; None where nobody looked."""
    comparisons: tuple[tuple[str, Comparison], ...] = ()
    """The comparison of each group, by its name."""
    columns: tuple[str, ...] = ()
    """The metrics that tables for people show; data have all."""

    @property
    def is_provisional(self) -> bool:
        """Whether trials are missing, so that the verdicts may change."""
        is_open = self.states.planned + self.states.running > 0
        return is_open or any(comparison.is_provisional for _, comparison in self.comparisons)

    @property
    def images(self) -> int | None:
        """Images of the split, the most frequent number where trials differ; None before a trial is complete."""
        counts = self.provenance.images
        return int(counts[0].value) if counts else None


# Cells as trackers show them.


def cell_views(board: Leaderboard) -> list[CellView]:
    """The cells of a leaderboard that have a score, the best first."""
    scored = [(row, row.score) for row in board.rows if row.score]
    return [_view(board.sweep, row, score, place) for place, (row, score) in enumerate(scored)]


def _view(sweep: str, row: Row, score: Estimate, place: int) -> CellView:
    cost = None
    if row.parameters is not None and row.flops is not None and row.activation_bytes is not None:
        cost = Cost(parameters=row.parameters, flops=row.flops, activation_bytes=row.activation_bytes)
    return CellView(
        sweep=sweep,
        cell_id=row.cell_id,
        label=row.label,
        axes=row.axes,
        is_twin=row.is_twin,
        seeds=score.n,
        mean=score.mean,
        low=score.low,
        high=score.high,
        method=score.method,
        cost=cost,
        rank=row.rank_first,
        rank_text=row.rank,
        standing=row.standing.value if row.standing else "",
        st_gain=row.st_gain,
        health=row.health.text,
        place=place,
    )
