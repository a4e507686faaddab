"""The fragments of HTML of a sweep's live page, with escaped contents from the store, readable without a script.

A fragment has a name and is sent again when it has changed. Values that depend on the clock are written by the page's
script from the times in ``datetime`` attributes, so that fragments of an unchanged store are equal.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from stnbench.core.text import counted
from stnbench.report.board import Leaderboard, Row
from stnbench.report.columns import leaderboard_table
from stnbench.report.html.document import escape
from stnbench.report.runs import RunSummary, TrialRow, read_runs
from stnbench.report.table import MISSING, Column, Table, duration
from stnbench.spec.control import ControlRecord, controls_after
from stnbench.spec.result import AttemptState, TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.store.queries import StoreReader
from stnbench.store.tables import AttemptRecord, TrialRecord

MOST_COLUMNS: Final = 7
FIRST_ROWS: Final = 25
FIRST_FAILURES: Final = 3
MOST_FAILURES: Final = 50
MOST_REQUESTS: Final = 10
_BAR: Final = 1000.0
_STATES: Final = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAILED, TrialState.PRUNED, TrialState.PLANNED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """State of a sweep in the store at one moment.

    Attributes:
        spec: specification of the sweep.
        rows: its trials.
        run: summary of its run so far.
        trials: its trials as records, for the labels in requests.
        attempts: every attempt.
        controls: requests of users.
        is_held: whether a process runs a sweep in this runs folder.
        losses: training loss of the last epoch, by trial.
    """

    spec: SweepSpec
    rows: Sequence[TrialRow]
    run: RunSummary
    trials: Sequence[TrialRecord]
    attempts: Sequence[AttemptRecord]
    controls: Sequence[ControlRecord]
    is_held: bool
    losses: Mapping[str, float]


def read_snapshot(store: StoreReader, spec: SweepSpec, *, is_held: bool) -> Snapshot:
    """Read the contents of the page except the leaderboard. Raises: StoreError."""
    rows, run = read_runs(store, spec)
    running = [row.trial_id for row in rows if row.state is TrialState.RUNNING]
    epochs = {trial_id: store.epochs_of_trial(trial_id) for trial_id in running}
    return Snapshot(
        spec=spec,
        rows=rows,
        run=run,
        trials=store.sweep_trials(spec.name),
        attempts=store.attempts_of_sweep(spec.name),
        controls=store.controls(spec.name),
        is_held=is_held,
        losses={trial_id: own[-1].record.train_loss for trial_id, own in epochs.items() if own},
    )


def fragments(snapshot: Snapshot, board: Leaderboard | None, form: str) -> dict[str, str]:
    """Return the fragments of the page, by name.

    Args:
        snapshot: state of the sweep.
        board: its leaderboard so far; None before it is computed.
        form: the hidden field that every form carries.
    """
    labels = {trial.trial_id: trial.label for trial in snapshot.trials}
    configs = {trial.config_id: trial.label for trial in snapshot.trials}
    parts: dict[str, Iterator[str]] = {
        "state": _state_lines(snapshot),
        "controls": _control_lines(snapshot, form),
        "running": _running_lines(snapshot, labels, form),
        "failures": _failure_lines(snapshot, labels, form),
        "board": _board_lines(snapshot, board, configs, form),
        "asked": _asked_lines(snapshot.controls),
    }
    return {name: "\n".join(lines) for name, lines in parts.items()}


def _state_lines(snapshot: Snapshot) -> Iterator[str]:
    counts = Counter(row.state for row in snapshot.rows)
    status, tone, meaning = _status(snapshot, counts)
    yield f'<p class="status"><span class="mark {tone}">{escape(status)}</span> {escape(meaning)}</p>'
    yield from _bar_lines(counts, len(snapshot.rows))
    yield '<dl class="facts">'
    ended = sum(counts[state] for state in TrialState if state.is_final)
    yield _fact("trials ended", f"{ended} of {len(snapshot.rows)}")
    yield from (_fact(state.value, str(counts[state]), state.value) for state in _STATES if counts[state])
    accuracies = [row.accuracy for row in snapshot.rows if row.state is TrialState.COMPLETE and row.accuracy]
    if accuracies:
        yield _fact("best trial so far, validation", f"{100 * max(accuracies):.2f} %")
    yield from _times(snapshot, is_running=snapshot.is_held and counts[TrialState.RUNNING] > 0)
    yield "</dl>"


def _bar_lines(counts: Counter[TrialState], trials: int) -> Iterator[str]:
    shown = ", ".join(f"{counts[state]} {state.value}" for state in _STATES if counts[state])
    yield f'<svg class="bar" viewBox="0 0 1000 14" preserveAspectRatio="none" role="img" aria-label="{escape(shown)}">'
    at = 0.0
    for state in _STATES:
        width = _BAR * counts[state] / max(trials, 1)
        if width:
            yield f'<rect class="{state.value}" x="{at:.2f}" y="0" width="{width:.2f}" height="14"/>'
        at += width
    yield "</svg>"


def _times(snapshot: Snapshot, *, is_running: bool) -> Iterator[str]:
    began = snapshot.run.started_at
    if began is not None:
        took = _since(began) if is_running else escape(duration(snapshot.run.wall_s or 0.0))
        yield f"<div><dt>elapsed</dt><dd>{took}</dd></div>"
    left_s = expected_left_s(snapshot.rows)
    if left_s is not None and is_running:
        yield _fact("left, expected", f"about {duration(left_s)}")
    yield _fact("device hours", f"{snapshot.run.device_hours:.2f}")


def _fact(name: str, value: str, kind: str = "") -> str:
    mark = f'<i class="key {escape(kind)}"></i>' if kind else ""
    return f"<div><dt>{mark}{escape(name)}</dt><dd>{escape(value)}</dd></div>"


def _status(snapshot: Snapshot, counts: Counter[TrialState]) -> tuple[str, str, str]:
    """Return the state in a word, its tone, and an explanation."""
    paused_by = controls_after(snapshot.controls).paused_by
    is_open = counts[TrialState.PLANNED] + counts[TrialState.RUNNING] > 0
    if not snapshot.rows:
        return "starting", "open", "No trial is planned yet."
    if not is_open:
        return "ended", "good", "Every trial has ended."
    if not snapshot.is_held:
        return "not running", "bad", f"No process runs it. stnbench sweep {snapshot.spec.name} goes on where it was."
    if paused_by is not None:
        return "paused", "open", f"No trial is started; trials that run go on. Asked by {paused_by.asked_by}."
    return "running", "good", ""


def expected_left_s(rows: Sequence[TrialRow]) -> float | None:
    """Return the expected remaining seconds, from complete trials and the number of running ones.

    It is None if nothing runs or no trial is complete.
    """
    running = [row for row in rows if row.state is TrialState.RUNNING]
    times = [row.busy_s for row in rows if row.state is TrialState.COMPLETE and row.busy_s > 0]
    if not running or not times:
        return None
    mean_s = sum(times) / len(times)
    planned = sum(row.state is TrialState.PLANNED for row in rows)
    parts_left = sum(1 - row.epoch / max(row.epochs, 1) for row in running)
    return (planned + parts_left) * mean_s / len(running)


def _control_lines(snapshot: Snapshot, form: str) -> Iterator[str]:
    controls = controls_after(snapshot.controls)
    is_open = any(not row.state.is_final for row in snapshot.rows) or not snapshot.rows
    if not snapshot.is_held:
        yield '<p class="note">Requests are carried out when the sweep is started again.</p>'
    yield '<div class="asks">'
    if controls.is_paused:
        yield from _button_form("resume", "Resume", form, accent=True)
    elif is_open:
        yield from _button_form("pause", "Pause", form)
    yield from _number_form("slots", "Slots", "Set slots", form, value=controls.slots or None)
    yield from _number_form("seeds", "More seeds", "Add seeds", form, value=1)
    if any(row.state is TrialState.FAILED for row in snapshot.rows):
        yield from _button_form("retry", "Retry all that failed", form, value="all")
    yield "</div>"


def _button_form(action: str, label: str, form: str, *, value: str = "", accent: bool = False) -> Iterator[str]:
    kind = ' class="accent"' if accent else ""
    named = f' aria-label="{escape(f"{label} {value}")}"' if value and value != "all" else ""
    yield (
        f'<form method="post" action="ask">{form}<input type="hidden" name="action" value="{escape(action)}">'
        f'<input type="hidden" name="value" value="{escape_exact(value)}">'
        f"<button{kind}{named}>{escape(label)}</button></form>"
    )


def _number_form(action: str, heading: str, label: str, form: str, *, value: int | None) -> Iterator[str]:
    shown = "" if value is None else f' value="{value}"'
    yield (
        f'<form method="post" action="ask">{form}<input type="hidden" name="action" value="{escape(action)}">'
        f'<label>{escape(heading)} <input type="number" name="value" min="1" max="10000" required{shown}></label>'
        f"<button>{escape(label)}</button></form>"
    )


def escape_exact(raw: str) -> str:
    """Escape a text for the value of a hidden field, which must be submitted unchanged."""
    plain = raw.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    return "".join(letter if letter.isprintable() else f"&#{ord(letter)};" for letter in plain)


def _running_lines(snapshot: Snapshot, labels: Mapping[str, str], form: str) -> Iterator[str]:
    running = [row for row in snapshot.rows if row.state is TrialState.RUNNING]
    begun = {
        attempt.trial_id: attempt.started_at for attempt in snapshot.attempts if attempt.state is AttemptState.RUNNING
    }
    if not running:
        yield '<p class="note">No trial runs.</p>'
        return
    yield '<div class="wide" tabindex="0" role="region" aria-label="Running trials"><table><thead><tr>'
    yield '<th scope="col">trial</th><th scope="col" class="number">validation %</th><th scope="col">epoch</th>'
    yield '<th scope="col">for</th><th scope="col" class="number">train loss</th><th scope="col">health</th>'
    yield '<th scope="col">slot</th><th scope="col"><span class="unseen">stop</span></th></tr></thead><tbody>'
    for row in sorted(running, key=lambda row: row.slot):
        loss = snapshot.losses.get(row.trial_id)
        shown = MISSING if loss is None else f"{loss:.4f}"
        accuracy = MISSING if row.accuracy is None else f"{100 * row.accuracy:.2f}"
        named = f"{row.label} \u00b7 seed {row.seed}"
        yield f'<tr><th scope="row">{escape(named)}</th><td class="number">{accuracy}</td>'
        yield f'<td><progress max="{row.epochs}" value="{row.epoch}" aria-label="epochs of {escape(named)}">'
        yield f"</progress> {row.epoch}/{row.epochs}</td>"
        yield f"<td>{_since(begun.get(row.trial_id), is_counted=snapshot.is_held)}</td>"
        yield f'<td class="number">{shown}</td><td>{escape(row.health)}</td><td>{escape(row.slot)}</td><td>'
        yield from _button_form("stop", "Stop", form, value=f"{labels[row.trial_id]}#{row.seed}")
        yield "</td></tr>"
    yield "</tbody></table></div>"


def _since(moment: datetime | None, *, is_counted: bool = True) -> str:
    if moment is None:
        return ""
    counted_on = " data-since" if is_counted else ""
    return f'<time datetime="{moment.isoformat()}"{counted_on}>since {moment:%H:%M} UTC</time>'


def _failure_lines(snapshot: Snapshot, labels: Mapping[str, str], form: str) -> Iterator[str]:
    for kind in snapshot.run.failed:
        shared = f" Shared: {'; '.join(kind.shared)}." if kind.shared else ""
        yield f'<p><span class="mark bad">{kind.trials} \u00d7 {escape(kind.kind)}</span> {escape(kind.message)}'
        yield f'<span class="faint">{escape(shared)}</span></p>'
    rows = {row.trial_id: row for row in snapshot.rows}
    ends = [item for item in snapshot.attempts if item.failure is not None and item.trial_id in rows]
    ends.sort(key=lambda item: item.finished_at or item.started_at, reverse=True)
    if not ends:
        yield '<p class="note">No attempt has failed.</p>'
        return
    lines = [line for item in ends[:MOST_FAILURES] for line in [_failure_line(item, rows, labels, form)]]
    yield f'<ul class="ends">{"".join(lines[:FIRST_FAILURES])}</ul>'
    if len(ends) > FIRST_FAILURES:
        most = f", the last {MOST_FAILURES} of {len(ends)}" if len(ends) > MOST_FAILURES else ""
        yield f"<details><summary>Earlier failures{most}</summary>"
        yield f'<ul class="ends">{"".join(lines[FIRST_FAILURES:])}</ul></details>'


def _failure_line(item: AttemptRecord, rows: Mapping[str, TrialRow], labels: Mapping[str, str], form: str) -> str:
    row, at, failure = rows[item.trial_id], item.finished_at or item.started_at, item.failure
    kind, message = (failure.kind.value, failure.message) if failure else ("", "")
    retry = ""
    if row.state is TrialState.FAILED:
        retry = "".join(_button_form("retry", "Retry", form, value=f"{labels[row.trial_id]}#{row.seed}"))
    return (
        f"<li><time>{at:%H:%M:%S} UTC</time> <strong>{escape(kind)}</strong>, attempt {item.number} of "
        f"{escape(row.label)} \u00b7 seed {row.seed}: {escape(message)} "
        f'<span class="faint">({escape(_FOLLOWS[row.state])})</span> {retry}</li>'
    )


_FOLLOWS: Final = {
    TrialState.FAILED: "the trial has failed",
    TrialState.PLANNED: "it will be tried again",
    TrialState.RUNNING: "it is tried again",
    TrialState.COMPLETE: "complete by a later attempt",
    TrialState.PRUNED: "given up",
}


def _board_lines(snapshot: Snapshot, board: Leaderboard | None, configs: Mapping[str, str], form: str) -> Iterator[str]:
    if board is None or board.why_unscored:
        yield f'<p class="note">{escape(board.why_unscored) if board else "No trial is complete yet."}</p>'
        return
    counts = Counter(row.state for row in snapshot.rows)
    if board.is_provisional:
        yield '<p><span class="mark open">provisional</span> '
        complete = f"{counts[TrialState.COMPLETE]} of {counted(len(snapshot.rows), 'trial')} complete"
        yield f"{complete}; ranks and verdicts may change.</p>"
    yield from (f"<p>{escape(line)}</p>" for line in (board.answer.lines if board.answer else ()))
    yield from _table_lines(snapshot, board, configs, form)


def _table_lines(snapshot: Snapshot, board: Leaderboard, configs: Mapping[str, str], form: str) -> Iterator[str]:
    table = leaderboard_table(board)
    yield from _rows_lines(table, table.items[:FIRST_ROWS], snapshot, configs, form)
    if len(table.items) > FIRST_ROWS:
        others = counted(len(table.items) - FIRST_ROWS, "configuration")
        yield f"<details><summary>{others} below these</summary>"
        yield from _rows_lines(table, table.items[FIRST_ROWS:], snapshot, configs, form)
        yield "</details>"


def _rows_lines(
    table: Table[Row], items: Sequence[Row], snapshot: Snapshot, configs: Mapping[str, str], form: str
) -> Iterator[str]:
    columns = table.people_columns(MOST_COLUMNS)
    yield '<div class="wide" tabindex="0" role="region" aria-label="Leaderboard"><table class="ranking"><thead><tr>'
    yield from (f'<th scope="col"{_align(column)}>{escape(column.heading)}</th>' for column in columns)
    yield '<th scope="col"><span class="unseen">stop or retry</span></th></tr></thead><tbody>'
    for item in items:
        tone = table.tone(item) if table.tone else ""
        yield f'<tr class="{tone}">' if tone else "<tr>"
        for column in columns:
            tag = 'th scope="row"' if column.key == table.label else f"td{_align(column)}"
            yield f"<{tag}>{escape(column.show(item))}</{tag.partition(' ')[0]}>"
        yield "<td>"
        if item.config_id in configs:
            yield from _configuration_form(snapshot, item.config_id, configs[item.config_id], form)
        yield "</td></tr>"
    yield "</tbody></table></div>"


def _align(column: Column[Row]) -> str:
    return ' class="number"' if column.is_number else ""


def _configuration_form(snapshot: Snapshot, config_id: str, label: str, form: str) -> Iterator[str]:
    """Yield the button of a configuration: stop if trials run or wait, retry if they were given up."""
    states = {row.state for row in snapshot.rows if row.config_id == config_id}
    if states & {TrialState.PLANNED, TrialState.RUNNING}:
        yield from _button_form("stop", "Stop", form, value=label)
    elif TrialState.PRUNED in states:
        yield from _button_form("retry", "Retry", form, value=label)


def _asked_lines(records: Sequence[ControlRecord]) -> Iterator[str]:
    if not records:
        yield '<p class="note">Nothing was asked of this sweep yet.</p>'
        return
    yield '<ul class="ends">'
    for record in reversed(records[-MOST_REQUESTS:]):
        refused = '<span class="mark bad">refused</span> ' if record.is_refused else ""
        yield f"<li><time>{record.applied_at:%H:%M:%S} UTC</time> "
        yield f"<strong>{record.request.action.kind}</strong>: {refused}"
        yield f'{escape(record.outcome)} <span class="faint">({escape(record.request.asked_by)})</span></li>'
    yield "</ul>"
