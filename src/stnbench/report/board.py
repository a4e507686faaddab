"""Records of a leaderboard, ready to be written in any format.

Accuracies are shares in [0, 1], and so are their differences; formats turn them into percent and percentage points.
The module does not import pandas, so that code which only passes a leaderboard on stays light.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from stnbench.analysis import verdicts as decided
from stnbench.analysis.frames import AXIS_PREFIX, METRIC_PREFIXES
from stnbench.analysis.inference import Estimate, accuracy_estimate, share_estimate, t_estimate
from stnbench.analysis.verdicts import Answer, Comparison, Decision, TaskSummary
from stnbench.core.errors import FolderError, UnknownNameError
from stnbench.core.paths import AttemptLayout, RunsLayout
from stnbench.report.findings import Agreement, Findings
from stnbench.report.runs import RunSummary, TrialRow
from stnbench.spec.data import Split
from stnbench.spec.metrics import PERCENT, describe, measure, missing, name_of
from stnbench.spec.result import Cost, ScoredImages, SplitScore, TrialState, Verdict
from stnbench.spec.sweep import SweepSpec
from stnbench.store.store import Store
from stnbench.tracking.base import CellView
from stnbench.trials.files import read_probabilities

# The configurations of a sweep's frame as plain values, and the metrics that their scores lack.


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A trial of a frame, with None for missing values; ``correct``, ``images`` and ``image_set`` are on the split."""

    trial_id: str
    seed: int
    state: str
    health: str | None
    failure_kind: str | None
    correct: int | None
    images: int | None
    image_set: str | None
    test_correct: int | None
    test_images: int | None
    parameters: int | None
    flops: int | None
    activation_bytes: int | None
    epoch_duration_s: float | None
    peak_memory_mib: float | None
    metrics: tuple[tuple[str, float], ...] = ()
    """The name and value of each metric on the split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """The trials of a configuration, ordered by seed, and their common properties.

    ``scores`` are accuracies by seed, in [0, 1]; ``score`` is their mean, None before a trial is complete.
    """

    cell_id: str
    baseline_cell_id: str
    bare_id: str
    label: str
    is_baseline: bool
    axes: tuple[tuple[str, str], ...]
    runs: tuple[Run, ...]
    scores: Mapping[int, float]
    score: Estimate | None


def read_cells(trials: pd.DataFrame, split: Split) -> list[Cell]:
    """Read the configurations of a frame, with the scores of their trials on a split."""
    # Columns are taken out once: pandas is slow where thousands of configurations take values one by one.
    ordered = trials.sort_values("seed", kind="stable")
    of_run = {field.name: field.name for field in fields(Run) if field.name != "metrics"}
    of_run |= {"correct": f"{split}_correct", "images": f"{split}_images", "image_set": f"{split}_image_set"}
    columns = [_values(ordered, column) for column in of_run.values()]
    metrics = _metrics(ordered, split)
    runs = [
        Run(**dict(zip(of_run, values, strict=True)), metrics=metrics[place])
        for place, values in enumerate(zip(*columns, strict=True))
    ]
    places: dict[str, list[int]] = {}
    for place, cell_id in enumerate(_values(ordered, "cell_id")):
        places.setdefault(cell_id, []).append(place)
    axes = {name.removeprefix(AXIS_PREFIX): _values(ordered, name) for name in axis_columns(trials)}
    shared = {name: _values(ordered, name) for name in ("baseline_cell_id", "bare_id", "label", "is_baseline")}
    cells = []
    for cell_id, own in places.items():
        of_cell = tuple(runs[place] for place in own)
        cell = Cell(
            cell_id=cell_id,
            axes=tuple((name, labels[own[0]]) for name, labels in axes.items() if labels[own[0]] is not None),
            runs=of_cell,
            scores={run.seed: run.correct / run.images for run in of_cell if run.correct is not None and run.images},
            score=estimate_of((run.correct, run.images) for run in of_cell),
            **{name: values[own[0]] for name, values in shared.items()},
        )
        cells.append(cell)
    return cells


def _metrics(trials: pd.DataFrame, split: Split) -> list[tuple[tuple[str, float], ...]]:
    """Return the metrics of each trial on a split, as pairs of name and value."""
    prefix = METRIC_PREFIXES[split]
    names = [str(name) for name in trials if str(name).startswith(prefix)]
    columns = {name.removeprefix(prefix): _values(trials, name) for name in names}
    return [
        tuple((name, values[place]) for name, values in columns.items() if values[place] is not None)
        for place in range(len(trials))
    ]


def metric_estimates(runs: Iterable[Run]) -> dict[str, Estimate]:
    """Return the mean of every metric over runs, with a t interval from two runs on."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run.metrics:
            values.setdefault(name, []).append(value)
    return {
        name: share_estimate(own) if describe(name).unit == PERCENT else t_estimate(own)
        for name, own in sorted(values.items())
    }


def axis_columns(trials: pd.DataFrame) -> list[str]:
    """Return the names of the columns that hold labels of axes."""
    return [name for name in trials.columns if name.startswith(AXIS_PREFIX)]


def by_group(sweep: SweepSpec, cells: Iterable[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    """Yield each group of configurations that are compared with each other, the best first, those without a score last.

    Groups are in the order in which the axis lists its choices, and then those that it does not list. Where all
    configurations are compared, there is one group without a name. Equal means are ordered by label and identity.
    """
    groups: dict[str, list[tuple[float, str, str, Cell]]] = {}
    for cell in cells:
        score = cell.score
        place = (-score.mean if score else 1.0, cell.label, cell.cell_id, cell)
        groups.setdefault(dict(cell.axes).get(sweep.within, ""), []).append(place)
    listed = [
        choice.label for grid in sweep.grids for axis in grid if axis.name == sweep.within for choice in axis.choices
    ]
    for group in dict.fromkeys([*listed, *sorted(groups)]):
        if group in groups:
            yield group, [cell for *_, cell in sorted(groups[group], key=lambda item: item[:3])]


def estimate_of(scored: Iterable[tuple[int | None, int | None]]) -> Estimate | None:
    """Return the mean accuracy of runs, from (correct, images) of each; None where none is known."""
    pairs = [(correct, images) for correct, images in scored if correct is not None and images is not None]
    return accuracy_estimate(*zip(*pairs, strict=True)) if pairs else None


def first_known(values: Iterable[int | None]) -> int | None:
    """Return the first known value; None without one."""
    return next((value for value in values if value is not None), None)


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of the known values; None without one."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _values(frame: pd.DataFrame, column: str) -> list[Any]:
    """Return a column as Python values, None for missing ones."""
    values = frame[column]
    return [None if missing else value for value, missing in zip(values.tolist(), values.isna(), strict=True)]


# Metrics of scores that are older than the metric, computed from the probabilities that their trials kept.


_SPLITS: Final[tuple[Split, ...]] = ("validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """The number of scores that have new metrics, that had all of them, and that kept no probabilities for them."""

    written: int
    complete: int
    without: int


def fill_metrics(store: Store, layout: RunsLayout, sweep: str | None, *, warn: Callable[[str], None]) -> Filled:
    """Compute the metrics that the scores of a sweep lack, including those of another version of a metric's code.

    Args:
        store: the store to read and write.
        layout: the runs folder with the probabilities.
        sweep: the name of the sweep; None for all sweeps.
        warn: called with a message for each score whose metrics cannot be computed.

    Raises:
        UnknownNameError: for an unknown sweep.
    """
    names = [record.spec.name for record in store.sweeps()]
    if sweep is not None and sweep not in names:
        raise UnknownNameError("sweep", sweep, names, where="the store")
    counts = Counter(
        _fill(store, one, warn=warn) for one in _scores(store, layout, names if sweep is None else [sweep])
    )
    return Filled(written=counts["written"], complete=counts["complete"], without=counts["without"])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scored:
    """A score of a trial, with the folder of its attempt and the images that it is for."""

    trial_id: str
    folder: Path
    score: SplitScore
    images: ScoredImages | None


def _scores(store: Store, layout: RunsLayout, sweeps: Iterable[str]) -> Iterator[_Scored]:
    """Yield every score of the sweeps once."""
    seen: set[str] = set()
    for sweep in sweeps:
        sets = {split: store.image_sets(sweep, split) for split in _SPLITS}
        outcomes = store.outcomes(sweep)
        for trial_id in outcomes.keys() - seen:
            outcome = outcomes[trial_id]
            for score in filter(None, (outcome.validation, outcome.test)):
                own = sets[score.split]
                yield _Scored(
                    trial_id=trial_id,
                    folder=layout.attempt(trial_id, outcome.attempt),
                    score=score,
                    images=own.sets.get(own.of_trial.get(trial_id, "")),
                )
        seen |= outcomes.keys()


def _fill(store: Store, one: _Scored, *, warn: Callable[[str], None]) -> Literal["written", "complete", "without"]:
    """Compute and write the metrics that a score lacks, and return the outcome as a word."""
    lacking = missing(one.score.metrics)
    if not lacking:
        return "complete"
    if one.images is None or not AttemptLayout(one.folder).probabilities(one.score.split).exists():
        return "without"
    try:
        probabilities = read_probabilities(one.folder, one.score.split, images=one.score.images)
    except FolderError as error:
        warn(f"warning: {error}")
        return "without"
    new = measure(probabilities, np.array(one.images.labels, np.int64), warn=warn, only=lacking)
    kept = {key: value for key, value in one.score.metrics.items() if name_of(key) not in map(name_of, new)}
    store.set_metrics(one.trial_id, one.score.split, kept | new)
    return "written"


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
        rank_first: the best rank that it may have, such as 1 for each of 17 configurations that cannot be told from the
            best; None without a score.
        rank_last: the worst rank that it may have, such as 17 for each of these; None without a score.
        standing: the verdict on its difference to the best; None where there is none.
        label: its name for people.
        cell_id: its identity.
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
    cell_id: str
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
    def images(self) -> int | None:
        """Return the number of images of the split; None before a trial is complete.

        Where trials differ, it is the most frequent number.
        """
        counts = self.provenance.images
        return int(counts[0].value) if counts else None


# Configurations in the form that trackers show.


def cell_views(board: Leaderboard) -> list[CellView]:
    """Return the configurations of a leaderboard that have a score, the best first."""
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
