"""The results of a sweep beside earlier ones of the same trials: which are equal, changed, new or gone.

The other side is a runs folder, an archive, a store on a server, another sweep of the same store, or those trials of
the sweep that were trained at a commit, also those that it contains no more because results now mean something else
(``RESULTS_VERSION``) or its file has changed. Trials are paired by their identity, else by the label of their
configuration and their seed. Without I/O, except for ``read_against``.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from stnbench.analysis.comparison import compare_paired
from stnbench.analysis.effects import LEVEL, NO_METHOD
from stnbench.analysis.fitted import ScoredRun
from stnbench.analysis.verdicts import Effect
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.files import RunsLayout, user_path
from stnbench.core.identity import Json
from stnbench.core.text import hide_passwords
from stnbench.orchestration.exchange import ArchiveSource, FolderSource
from stnbench.report import table as text
from stnbench.report.table import ESSENTIAL, Column, Section, Table
from stnbench.spec.codec import from_stored
from stnbench.spec.data import Split
from stnbench.spec.result import Environment, TrialState
from stnbench.store.portable import KEYS, Row, Rows
from stnbench.store.store import Store

_COMMIT_DIGITS: Final = range(7, 65)


class Status(StrEnum):
    """How a trial compares: changed where a number differs, new or gone where only one side has a result."""

    EQUAL = "equal"
    CHANGED = "changed"
    NEW = "new"
    GONE = "gone"


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A complete trial of one side.

    ``predicted`` are the packed predictions of the split, ``where`` says with which code and device it was trained.
    """

    trial_id: str
    label: str
    seed: int
    correct: int
    images: int
    loss: float
    predicted: Json
    commit: str
    where: str

    @property
    def accuracy(self) -> float:
        """Return the share of images that are recognised."""
        return self.correct / self.images


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """The results of a trial on both sides; None on a side that has none."""

    here: Run | None
    there: Run | None

    @property
    def some(self) -> Run:
        """Return the result here, or else there."""
        run = self.here or self.there
        assert run is not None  # noqa: S101 - a pair has a side
        return run

    @property
    def status(self) -> Status:
        """Return how the results compare."""
        if self.here is None or self.there is None:
            return Status.NEW if self.there is None else Status.GONE
        return Status.CHANGED if self.differs else Status.EQUAL

    @property
    def differs(self) -> tuple[str, ...]:
        """Return the names of the results that differ."""
        if self.here is None or self.there is None:
            return ()
        named = {"images": "images", "correct": "accuracy", "loss": "loss", "predicted": "predictions"}
        return tuple(name for key, name in named.items() if getattr(self.here, key) != getattr(self.there, key))


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """A configuration: its pairs, and the difference of accuracies here less there; None without a seed in common."""

    label: str
    pairs: tuple[Pair, ...]
    difference: Effect | None

    def count(self, status: Status) -> int:
        """Return the number of trials with a status."""
        return sum(pair.status is status for pair in self.pairs)


def runs_of(rows: Rows, sweep: str, *, split: Split = "validation", commit: str = "") -> list[Run]:
    """Return the complete trials of a sweep.

    Args:
        rows: rows of a store.
        sweep: name of the sweep.
        split: the split whose scores are compared.
        commit: only trials trained at a commit that begins so, also those that the sweep no longer contains.
    """
    environments = {
        str(digest): from_stored(Environment, str(row["environment"]), where="the store")
        for (digest,), row in rows["environments"].items()
    }
    found = []
    for (name, trial_id), link in rows["sweep_trials"].items():
        key, trial = (trial_id, split), rows["trials"][trial_id,]
        score, outcome = rows["scores"].get(key), rows["outcomes"].get((trial_id,))
        if name != sweep or score is None or outcome is None or trial["state"] != TrialState.COMPLETE.value:
            continue
        environment = environments[str(outcome["environment"])]
        if not (environment.commit.startswith(commit) if commit else link["wanted"]):
            continue
        found.append(_run(trial, link, score, rows["predictions"].get(key), environment))
    return sorted(found, key=lambda run: (run.label, run.seed, run.trial_id))


def _run(trial: Row, link: Row, score: Row, prediction: Row | None, environment: Environment) -> Run:
    changes = " with changes" if environment.dirty else ""
    return Run(
        trial_id=str(trial["id"]),
        label=str(link["label"]),
        seed=int(str(trial["seed"])),
        correct=int(str(score["correct"])),
        images=int(str(score["images"])),
        loss=float(str(score["loss"])),
        predicted=None if prediction is None else prediction["labels"],
        commit=environment.commit,
        where=f"{environment.commit[:12]}{changes}, {environment.device}",
    )


def pair_runs(here: Sequence[Run], there: Sequence[Run]) -> list[Pair]:
    """Pair the trials of both sides by identity, else by label and seed; one of several there is the first."""
    by_id = {run.trial_id: run for run in there}
    taken = {run.trial_id for run in here} & by_id.keys()
    by_name: dict[tuple[str, int], list[Run]] = {}
    for run in there:
        if run.trial_id not in taken:
            by_name.setdefault((run.label, run.seed), []).append(run)
    pairs = []
    for run in here:
        other = by_id.get(run.trial_id)
        if other is None and (alike := by_name.get((run.label, run.seed))):
            other = alike.pop(0)
        pairs.append(Pair(here=run, there=other))
    pairs += [Pair(here=None, there=run) for own in by_name.values() for run in own]
    return sorted(pairs, key=lambda pair: (pair.some.label, pair.some.seed, pair.some.trial_id))


def compare_pairs(pairs: Sequence[Pair]) -> list[Compared]:
    """Return a row for each configuration.

    Differences are compared by ``compare_paired`` over the configurations in which a trial changed. One whose trials
    are all equal has the difference 0 without an interval: there is nothing to test, and its lack of scatter says
    nothing about the others.
    """
    by_label: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_label.setdefault(pair.some.label, []).append(pair)
    changed = {label for label, own in by_label.items() if any(pair.status is Status.CHANGED for pair in own)}
    compared = {
        (label, pair.here.seed): (_scored(label, pair.here), _scored(label, pair.there))
        for label in changed
        for pair in by_label[label]
        if pair.here is not None and pair.there is not None
    }
    differences = compare_paired(list(compared.values()))
    for label, own in by_label.items():
        equal = len({pair.some.seed for pair in own if pair.status is Status.EQUAL})
        if label not in changed and equal:
            differences[label] = Effect(n=equal, mean=0.0, low=None, high=None, p_adjusted=None, method=NO_METHOD)
    return [
        Compared(label=label, pairs=tuple(own), difference=differences.get(label)) for label, own in by_label.items()
    ]


def _scored(label: str, run: Run) -> ScoredRun:
    return ScoredRun(configuration=label, seed=run.seed, correct=run.correct, images=run.images)


def against_sections(rows: Sequence[Compared], *, here: str, there: str, split: Split) -> list[Section]:
    """Return the comparison as sections: the answer, configurations, and the trials that are not equal."""
    counts = {status: sum(row.count(status) for row in rows) for status in Status}
    both = counts[Status.EQUAL] + counts[Status.CHANGED]
    equal = f"{counts[Status.EQUAL]:,} of {text.counted(both, 'trial')} that both have are equal"
    others = ", ".join(f"{counts[status]:,} {status}" for status in (Status.CHANGED, Status.NEW, Status.GONE))
    said = [f"{equal}, bit for bit, on the {split} split; {others}."]
    if counts[Status.CHANGED]:
        said.append(_said(rows))
    notes = [
        f"here: {here}; there: {there}. Trials are paired by identity, else by configuration and seed.",
        "The difference is here less there, in percentage points: the mean over common seeds, its interval over all.",
        "Variances are moderated across configurations with a changed trial; intervals and p hold for all at once.",
        "Incomplete trials count on no side.",
    ]
    sections = [Section(key="answer", heading="Answer", text=said, notes=notes)]
    if rows:
        table = Table(key="configurations", caption="Configurations", columns=_columns(), items=rows, label="label")
        sections.append(Section(key="configurations", heading="Configurations", tables=(table,)))
    apart_pairs = [pair for row in rows for pair in row.pairs if pair.status is not Status.EQUAL]
    if apart_pairs:
        trials = Table(key="trials", caption="Trials", columns=_pair_columns(), items=apart_pairs, label="label")
        sections.append(Section(key="trials", heading="Trials that are not equal", tables=(trials,)))
    return sections


def _said(rows: Sequence[Compared]) -> str:
    """Return the sentence on accuracies where trials changed."""
    tested = [(row.label, row.difference) for row in rows if row.difference and row.difference.p_adjusted is not None]
    if not tested:
        return "No configuration has two seeds in common with the other side: nothing is said of other seeds."
    apart = [label for label, found in tested if found.p_adjusted is not None and found.p_adjusted <= LEVEL]
    if apart:
        return f"Accuracies differ for {text.some(apart, 5)} (adjusted p at most {LEVEL:g})."
    most = max(abs(end) for _, found in tested for end in (found.low, found.high) if end is not None)
    return (
        "No configuration's mean accuracy differs beyond what its seeds explain: "
        f"none by more than {100 * most:.2f} pp, with 95 % confidence for all at once."
    )


def _columns() -> list[Column[Compared]]:
    def counted(status: Status) -> Column[Compared]:
        return Column(key=status.value, heading=status.value, value=lambda row: row.count(status), importance=ESSENTIAL)

    return [
        Column(
            key="label", heading="configuration", value=lambda row: row.label, is_number=False, importance=ESSENTIAL
        ),
        *(counted(status) for status in Status),
        Column(
            key="difference",
            heading="difference, pp",
            value=lambda row: row.difference,
            text=lambda row: text.points(row.difference, 2),
            is_estimate=True,
            importance=ESSENTIAL,
        ),
        Column(
            key="p_adjusted",
            heading="adjusted p",
            value=lambda row: row.difference.p_adjusted if row.difference else None,
            text=lambda row: text.p_value(row.difference.p_adjusted if row.difference else None),
        ),
    ]


def _pair_columns() -> list[Column[Pair]]:
    def of(side: str, get: Callable[[Run], Any]) -> Callable[[Pair], Any]:
        def value(pair: Pair) -> Any:  # noqa: ANN401 - a value of a column
            run = pair.here if side == "here" else pair.there
            return None if run is None else get(run)

        return value

    def accuracy(side: str) -> Column[Pair]:
        value = of(side, lambda run: run.accuracy)
        return Column(
            key=f"accuracy_{side}", heading=f"{side}, %", value=value, text=lambda pair: text.percent(value(pair), 2)
        )

    return [
        Column(key="label", heading="configuration", value=lambda pair: pair.some.label, is_number=False, importance=9),
        Column(key="seed", heading="seed", value=lambda pair: pair.some.seed, importance=ESSENTIAL),
        Column(
            key="status", heading="status", value=lambda pair: pair.status.value, is_number=False, importance=ESSENTIAL
        ),
        accuracy("here"),
        accuracy("there"),
        Column(key="differs", heading="differs in", value=lambda pair: ", ".join(pair.differs), is_number=False),
        *(
            Column(key=f"code_{side}", heading=f"code {side}", value=of(side, lambda run: run.where), is_number=False)
            for side in ("here", "there")
        ),
        *(
            Column(key=f"trial_{side}", value=of(side, lambda run: run.trial_id), is_number=False)
            for side in ("here", "there")
        ),
    ]


def read_against(layout: RunsLayout, sweep: str, other: str, *, split: Split) -> tuple[list[Compared], str]:
    """Read a sweep and its reference, and return the comparison and a name for the reference.

    Args:
        layout: the runs folder.
        sweep: name of the sweep.
        other: another sweep of the store, a runs folder, an archive, the URL of a server's store, or a commit (7 or
            more hexadecimal digits). A sweep comes first, then a path, then a commit.
        split: the split whose scores are compared.

    Raises:
        UnknownNameError: if the store has no such sweep, or ``other`` is none of these.
        SpecError: if the other side has no complete trial.
        StoreError: if a store or archive cannot be read.
    """
    with Store.open(layout.store, writable=False) as store:
        sweeps = [record.spec.name for record in store.sweeps()]
        if sweep not in sweeps:
            raise UnknownNameError("sweep", sweep, sweeps, where="the store")
        rows = store.rows(KEYS)
    if other in sweeps:
        there, name = runs_of(rows, other, split=split), f"the sweep {other}"
    elif "://" in other or user_path(other, "--against").exists():
        there, name = runs_of(_read_rows(other, sweep), sweep, split=split), hide_passwords(other)
    elif len(other) in _COMMIT_DIGITS and all(letter in "0123456789abcdef" for letter in other):
        there, name = runs_of(rows, sweep, split=split, commit=other), f"commit {other}"
    else:
        raise UnknownNameError("sweep, runs folder, archive or commit", other, sweeps, where="the store")
    here = runs_of(rows, sweep, split=split)
    if not there:
        raise SpecError(f"{name} has no complete trial of {sweep} with a {split} score", remedy="name another one")
    return compare_pairs(pair_runs(here, there)), name


def _read_rows(other: str, sweep: str) -> Rows:
    """Return the rows of a sweep in another store or an archive."""
    now = datetime.now(UTC)
    if "://" in other:
        layout = RunsLayout(Path.cwd(), store_url=other)
        return FolderSource(layout, [sweep], checkpoints=False, now=now).rows
    path = user_path(other, "--against")
    if path.is_dir():
        return FolderSource(RunsLayout(path), [sweep], checkpoints=False, now=now).rows
    source = ArchiveSource(path)
    with contextlib.closing(source):
        return source.rows
