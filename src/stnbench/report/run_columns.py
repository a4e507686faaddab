"""The columns of trials and of the summary of a run."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from stnbench.report import table
from stnbench.report.runs import FailedKind, SlotUse, TrialRow
from stnbench.report.table import ESSENTIAL, Column, Facet, Table, Tone
from stnbench.spec.states import TrialState


def _accuracy(row: TrialRow) -> str:
    """Return the accuracy as text, in percent; for a trial that is not complete, with the epoch."""
    if row.accuracy is None:
        return table.MISSING
    where = "" if row.state is TrialState.COMPLETE else f" (epoch {row.epoch} of {row.epochs})"
    return f"{table.percent(row.accuracy, 2)}{where}"


_TONES: Final[Mapping[TrialState, Tone]] = {
    TrialState.PLANNED: "faint",
    TrialState.RUNNING: "open",
    TrialState.COMPLETE: "good",
    TrialState.FAILED: "bad",
    TrialState.PRUNED: "faint",
}

_BAD_HEALTH: Final = frozenset({"unhelpful", "identity", "constant", "collapsed", "diverged"})

TRIALS: Final[Sequence[Column[TrialRow]]] = (
    Column(key="cell", heading="configuration", value=lambda it: it.label, is_number=False, importance=ESSENTIAL),
    Column(key="seed", heading="seed", value=lambda it: it.seed, importance=ESSENTIAL),
    Column(key="state", heading="state", value=lambda it: it.state.value, is_number=False, importance=ESSENTIAL,
           text=lambda it: f"{it.state.value}: {it.failure_kind}" if it.failure_kind else it.state.value,
           tone=lambda it: _TONES[it.state]),
    Column(key="accuracy", heading="validation %", value=lambda it: it.accuracy, importance=ESSENTIAL,
           text=_accuracy),
    Column(key="health", heading="health", value=lambda it: it.health or None, is_number=False, importance=8,
           tone=lambda it: "bad" if it.health in _BAD_HEALTH else "good" if it.health else ""),
    Column(key="attempts", heading="attempts", value=lambda it: it.attempts, importance=6),
    Column(key="slot", heading="slot", value=lambda it: it.slot or None, is_number=False, importance=4),
    Column(key="started_at", heading="started", value=lambda it: iso(it.started_at), text=lambda it: at(it.started_at),
           is_number=False, importance=3),
    Column(key="finished_at", heading="ended", value=lambda it: iso(it.finished_at), is_number=False, importance=2,
           text=lambda it: at(it.finished_at)),
    Column(key="busy_s", heading="took", value=lambda it: it.busy_s, importance=5,
           text=lambda it: table.duration(it.busy_s) if it.finished_at else table.MISSING),
    Column(key="trial_id", heading="id", value=lambda it: it.trial_id, is_number=False, importance=7),
    Column(key="cell_id", value=lambda it: it.cell_id),
    Column(key="baseline", value=lambda it: it.is_baseline),
    Column(key="axes", value=lambda it: dict(it.axes), prefix="axis:"),
    Column(key="epoch", value=lambda it: it.epoch),
    Column(key="epochs", value=lambda it: it.epochs),
    Column(key="failure_kind", value=lambda it: it.failure_kind or None),
    Column(key="failure_message", value=lambda it: it.failure_message or None),
)  # fmt: skip

SLOTS: Final[Sequence[Column[SlotUse]]] = (
    Column(key="slot", heading="slot", value=lambda it: it.slot, is_number=False, importance=ESSENTIAL),
    Column(key="attempts", heading="attempts", value=lambda it: it.attempts),
    Column(key="busy_s", heading="busy", value=lambda it: it.busy_s, text=lambda it: table.duration(it.busy_s)),
    Column(key="share", heading="use, %", value=lambda it: it.share, text=lambda it: table.percent(it.share, 0)),
)  # fmt: skip

KINDS: Final[Sequence[Column[FailedKind]]] = (
    Column(key="kind", heading="kind", value=lambda it: it.kind, is_number=False, importance=ESSENTIAL,
           tone=lambda _: "bad"),
    Column(key="trials", heading="trials", value=lambda it: it.trials, importance=ESSENTIAL),
    Column(key="shared", heading="what they share", value=lambda it: list(it.shared), is_number=False, importance=8,
           text=lambda it: "; ".join(it.shared)),
    Column(key="labels", heading="configurations", value=lambda it: list(it.labels), is_number=False, importance=8,
           text=lambda it: table.some(it.labels, 4)),
    Column(key="message", heading="most frequent message", value=lambda it: it.message, is_number=False),
)  # fmt: skip


def trial_table(rows: Sequence[TrialRow], caption: str, most: int | None = None) -> Table[TrialRow]:
    """Return a table with a row for each trial, of which documents show ``most``."""
    return Table(
        key="trials",
        caption=caption,
        columns=TRIALS,
        items=rows,
        label="cell",
        most=most,
        facets=(
            Facet(heading="state", value=lambda it: it.state.value),
            Facet(heading="health", value=lambda it: it.health or None),
            Facet(heading="failure", value=lambda it: it.failure_kind or None),
            Facet(heading="seed", value=lambda it: str(it.seed)),
        ),
    )


def iso(moment: datetime | None) -> str | None:
    """Return a time for programs: ISO 8601 in UTC."""
    return None if moment is None else moment.isoformat(timespec="seconds")


def at(moment: datetime | None) -> str:
    """Return a time for people, in UTC."""
    return table.MISSING if moment is None else f"{moment:%Y-%m-%d %H:%M}"
