"""Records of a leaderboard, ready to be written in any format.

Accuracies are shares in [0, 1], and so are their differences; formats turn them into percent and percentage points.
The module does not import pandas, so that code which only passes a leaderboard on stays light.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stnbench.analysis import verdicts as decided
from stnbench.analysis.effects import Estimate
from stnbench.analysis.verdicts import Answer, Comparison, Decision, TaskSummary
from stnbench.report.findings import Agreement, Findings
from stnbench.report.runs import RunSummary, TrialRow
from stnbench.spec.data import Split
from stnbench.spec.result import Cost, TrialState, Verdict
from stnbench.tracking import ConfigurationView


@dataclass(frozen=True, kw_only=True, slots=True)
class StateCounts:
    """The number of trials in each state."""

    planned: int = 0
    running: int = 0
    complete: int = 0
    failed: int = 0
    pruned: int = 0

    @property
    def trials(self) -> int:
        """Return the number of all trials."""
        return self.planned + self.running + self.complete + self.failed + self.pruned

    @property
    def unfinished(self) -> str:
        """Return the states of the trials that are not complete, as in ``2 running, 1 failed``; empty if all are."""
        states = (state for state in TrialState if state is not TrialState.COMPLETE)
        counts = ((getattr(self, state.value), state.value) for state in states)
        return ", ".join(f"{count} {state}" for count, state in counts if count)


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthCounts:
    """The number of trials with each verdict on their transformers.

    Trials without a transformer that learns have no verdict.
    """

    healthy: int = 0
    unhelpful: int = 0
    identity: int = 0
    constant: int = 0
    collapsed: int = 0
    diverged: int = 0

    @property
    def is_bad(self) -> bool:
        """Return whether any verdict is not healthy."""
        return any(verdict is not Verdict.HEALTHY for verdict in self.verdicts)

    @property
    def verdicts(self) -> list[Verdict]:
        """Return the verdicts that occur, the worst first."""
        return [verdict for verdict in reversed(Verdict) if getattr(self, verdict.value)]

    @property
    def text(self) -> str:
        """Return ``healthy`` if all are, or as in ``2 collapsed, 1 healthy``; empty without a verdict."""
        if len(self.verdicts) == 1:
            return self.verdicts[0].value
        return ", ".join(f"{getattr(self, verdict.value)} {verdict.value}" for verdict in self.verdicts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A configuration of a leaderboard.

    Attributes:
        group: the configuration's label on the axis that the sweep compares within; ranks and differences are those of
            its group. Empty where all configurations are compared.
        rank_first: the best rank that it may have, such as 1 for each of 17 configurations that are undecided against
            the best; None without a score.
        rank_last: the worst rank that it may have, such as 17 for each of these; None without a score.
        standing: the verdict on its difference to the best; None where there is none.
        label: its name for people.
        config_id: its identity.
        axes: the names of the axes with its labels on them.
        is_baseline: whether it is a baseline without transformers.
        seeds: the seeds with a score.
        states: the states of its trials.
        score: mean accuracy on the board's split; None without a score.
        test: mean accuracy on the test split, where it is known.
        behind: the paired difference to the best.
        st_gain: the paired difference to its baseline without transformers.
        parameters: the number of weights.
        flops: FLOPs of one image.
        activation_bytes: bytes of the activations of one image.
        epoch_duration_s: mean over the complete trials, in seconds.
        peak_memory_mib: mean over the complete trials, in MiB.
        notes: remarks on its numbers, a few words each.
        health: verdicts on its transformers, those of pruned and diverged trials included.
        seeds_needed: the number of seeds with which a difference of this size would show; None where that is unknown.
    """

    group: str
    rank_first: int | None
    rank_last: int | None
    standing: decided.Verdict | None
    label: str
    config_id: str
    axes: tuple[tuple[str, str], ...]
    is_baseline: bool
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
    """The verdict, with all estimates that borrow strength across configurations; None where nothing was decided."""
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    """The means of the metrics on the board's split, by name."""

    @property
    def rank(self) -> str:
        """Return the rank as text, ``1-17`` or ``18``; empty without one."""
        if self.decision is not None:
            return self.decision.rank
        if self.rank_first is None:
            return ""
        return str(self.rank_first) if self.rank_first == self.rank_last else f"{self.rank_first}-{self.rank_last}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureGroup:
    """Trials that failed with the same kind and message; ``message`` is its first line."""

    kind: str
    message: str
    trial_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """A value and the number of complete trials that have it."""

    value: str
    trials: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """The code, machines, libraries and data that the numbers were made with.

    A field has several values where trials differ, the most frequent first.
    """

    command: str
    seeds: tuple[int, ...]
    commits: tuple[Counted, ...]
    devices: tuple[Counted, ...]
    platforms: tuple[Counted, ...]
    versions: tuple[Counted, ...]
    datasets: tuple[Counted, ...]
    images: tuple[Counted, ...]
    """The number of images of the split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaderboard:
    """A sweep's configurations, group by group, the best first, those without a score last.

    ``within`` names the axis whose labels are the groups; empty where all configurations are compared with each other.
    ``findings`` are the results of the same trials beyond the ranking, None where they were not computed. ``agreement``
    is that with published results, None where the sweep names none or no configuration has both accuracies.
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
    """The answer to the sweep's question; None where it was not computed."""
    tasks: TaskSummary | None = None
    """Configurations over the tasks of a sweep that compares within an axis."""
    trials: tuple[TrialRow, ...] = ()
    run: RunSummary | None = None
    """The summary of the sweep's run; None where it was not read."""
    comparisons: tuple[tuple[str, Comparison], ...] = ()
    """The comparison of each group, by its name."""
    columns: tuple[str, ...] = ()
    """The metrics that tables for people show; data have all."""

    @property
    def is_provisional(self) -> bool:
        """Return whether trials are missing, so that the verdicts may change."""
        is_open = self.states.planned + self.states.running > 0
        return is_open or any(comparison.is_provisional for _, comparison in self.comparisons)

    @property
    def why_unscored(self) -> str:
        """Return the reason if no configuration has a score on the board's split, else an empty text."""
        if any(row.score is not None for row in self.rows):
            return ""
        if not self.states.complete:
            return "No trial is complete yet."
        reasons = {
            "train": "images trained on are not scored",
            "validation": "no images were held out (split=all)",
            "test": "there were no test images",
        }
        return f"No trial has a score on the {self.split} split: {reasons[self.split]}."

    @property
    def images(self) -> int | None:
        """Return the number of images of the split, or None before a trial is complete.

        Where trials differ, it is the most frequent number.
        """
        counts = self.provenance.images
        return int(counts[0].value) if counts else None


# Configurations in the form that trackers show.


def configuration_views(board: Leaderboard) -> list[ConfigurationView]:
    """Return the configurations of a leaderboard that have a score, the best first."""
    scored = [(row, row.score) for row in board.rows if row.score]
    return [_view(board.sweep, row, score, place) for place, (row, score) in enumerate(scored)]


def _view(sweep: str, row: Row, score: Estimate, place: int) -> ConfigurationView:
    cost = None
    if row.parameters is not None and row.flops is not None and row.activation_bytes is not None:
        cost = Cost(parameters=row.parameters, flops=row.flops, activation_bytes=row.activation_bytes)
    return ConfigurationView(
        sweep=sweep,
        config_id=row.config_id,
        label=row.label,
        axes=row.axes,
        is_baseline=row.is_baseline,
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
