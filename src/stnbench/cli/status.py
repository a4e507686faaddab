"""``python -m stnbench.status``: the progress of every sweep, its running trials and its failures."""

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from stnbench.cli.parser import CommandParser
from stnbench.core.command import DONE, SOME_FAILED
from stnbench.core.errors import UnknownNameError
from stnbench.core.files import RunsLayout
from stnbench.core.identity import Json
from stnbench.core.text import printable
from stnbench.orchestration.claims import ProcessIdentity, read_holder
from stnbench.report.runs import RunSummary, read_runs
from stnbench.spec.result import EpochRecord, TrialState
from stnbench.store.queries import StoreReader
from stnbench.store.store import Store
from stnbench.store.tables import AttemptRecord, SweepRecord, TrialRecord

LAST_LINES = 3
FAILURES_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningTrial:
    """A running trial. ``epoch`` is the last one that it has reported, 0 before the first."""

    trial_id: str
    label: str
    seed: int
    attempt: int
    slot: str
    epoch: int
    epochs: int
    validation_accuracy: float | None
    elapsed_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedTrial:
    """A trial that failed, by its last attempt; ``last_lines`` are the end of its traceback, or else of its log."""

    trial_id: str
    label: str
    seed: int
    attempts: int
    kind: str
    message: str
    last_lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepStatus:
    """The progress of a sweep, in which every trial is counted once.

    ``lost`` is the number of trials that are running in the store but whose orchestrator is gone; the next run settles
    them.
    """

    sweep: str
    question: str
    trials: int
    complete: int
    running: int
    planned: int
    failed: int
    pruned: int
    lost: int
    running_trials: tuple[RunningTrial, ...]
    failures: tuple[FailedTrial, ...]


def main(arguments: Sequence[str]) -> int:
    """Print the status and return the exit code, 1 if trials failed.

    Raises:
        UnknownNameError: if the store has no such sweep.
        StoreError: if the store cannot be used.
    """
    options = make_parser().parse_args(arguments)
    layout = RunsLayout.from_environment()
    holder = read_holder(layout) if isinstance(layout.store, Path) else None
    with Store.open(layout.store, writable=False) as store:
        here = ProcessIdentity.current()
        # A running attempt began by the clock of its orchestrator, which does not follow a wall clock that is set.
        now = holder.now() if holder is not None and holder.is_of_boot(here) else datetime.now(UTC)
        statuses = read_status(store, options.sweep, now=now, here=here, holder=holder)
        run = _read_run(store, options.sweep) if options.sweep else None
    if options.json:
        plain: dict[str, Json] = {"sweeps": [asdict(status) | _run_json(run) for status in statuses]}
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")
    else:
        print("\n".join([*status_lines(statuses), *(run_lines(run) if run else ())]))
    return SOME_FAILED if any(status.failed for status in statuses) else DONE


def read_status(
    store: StoreReader,
    sweep: str | None,
    *,
    now: datetime,
    here: ProcessIdentity,
    holder: ProcessIdentity | None = None,
) -> tuple[SweepStatus, ...]:
    """Read the status of one sweep, or of each of them, the most recently run first.

    Raises:
        UnknownNameError: if the store has no such sweep.
        StoreError: if the store cannot be read.
    """
    records = store.sweeps()
    names = [record.spec.name for record in records]
    if sweep is not None and sweep not in names:
        raise UnknownNameError("sweep", sweep, names, where="the store")
    wanted = [record for record in records if sweep in {None, record.spec.name}]
    return tuple(
        _read_sweep(store, record, now, functools.partial(is_gone, here=here, holder=holder)) for record in wanted
    )


def is_gone(attempt: AttemptRecord, here: ProcessIdentity, holder: ProcessIdentity | None = None) -> bool:
    """Check whether the orchestrator of a running attempt is known to be gone; on another host it is unknown.

    Args:
        attempt: one that is running according to the store.
        here: this process.
        holder: the process that claims to hold the runs folder. If it is on this host and began the attempt, it decides
            by being alive; if it is another one, whoever began the attempt is gone. Without it, any process with the
            recorded number is taken to be the orchestrator.
    """
    if attempt.host != here.host:
        return False
    if attempt.boot_id != here.boot_id:
        return True
    if holder is not None and (holder.host, holder.boot_id) == (here.host, here.boot_id):
        return not (holder.is_alive() and attempt.token.startswith(f"{holder.session}-"))
    return not psutil.pid_exists(attempt.pid)


def status_lines(statuses: Sequence[SweepStatus]) -> Iterator[str]:
    """Format the status as plain lines."""
    if not statuses:
        yield "the store has no sweeps yet"
    for index, status in enumerate(statuses):
        if index:
            yield ""
        yield f"{status.sweep}: {printable(status.question)}"
        yield f"  {_counts_text(status)}"
        yield from (f"  running  {_running_text(trial)}" for trial in status.running_trials)
        if status.lost:
            yield f"  lost: the process that ran {status.lost} of them is gone; run the same command again to go on"
        yield from _failure_lines(status.failures)


def run_lines(run: RunSummary) -> Iterator[str]:
    """Format a run as plain lines: its times, why it ended, the use of slots, common failures, and the next command."""
    yield f"  {run.reason}"
    if run.started_at is not None and run.ended_at is not None:
        when = f"started {run.started_at:%Y-%m-%d %H:%M} UTC, last event {run.ended_at:%Y-%m-%d %H:%M} UTC"
        yield f"  {when}, {_elapsed(run.wall_s or 0.0)}; {run.device_hours:.2f} device hours"
        if run.price is not None:
            yield f"  price: {run.price.of(run.device_hours)}"
        yield f"  energy: {run.energy}"
    for slot in run.slots:
        share = "" if slot.share is None else f", {100 * slot.share:.0f} % of the time"
        attempts = "1 attempt" if slot.attempts == 1 else f"{slot.attempts} attempts"
        yield f"  slot {printable(slot.slot)}: {attempts}, busy {_elapsed(slot.busy_s)}{share}"
    for kind in run.failed:
        if kind.shared:
            yield f"  {kind.kind}: {printable('; '.join(kind.shared))}"
    yield from (f"  {what.lower()}: {printable(command)}" for what, command in run.commands)


def _read_run(store: StoreReader, sweep: str) -> RunSummary:
    spec = next(record.spec for record in store.sweeps() if record.spec.name == sweep)
    return read_runs(store, spec)[1]


def _run_json(run: RunSummary | None) -> dict[str, Json]:
    if run is None:
        return {}
    return {
        "run": {
            "started_at": run.started_at.isoformat() if run.started_at else None,
            "ended_at": run.ended_at.isoformat() if run.ended_at else None,
            "reason": run.reason,
            "device_hours": round(run.device_hours, 6),
            "price": None if run.price is None else {**run.price.plain(run.device_hours)},
            "energy": {**run.energy.plain},
            "slots": [asdict(slot) for slot in run.slots],
            "failed": [asdict(kind) for kind in run.failed],
            "commands": [{"purpose": what, "command": command} for what, command in run.commands],
        }
    }


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench status",
        description="Says where every sweep stands, what runs, and what failed.",
        epilog="Reads the store in STNBENCH_RUNS, or runs/; a sweep may run meanwhile. "
        "Exit codes: 0 done, 1 some trials failed, 2 cannot start.",
    )
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="a sweep of the store (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def _read_sweep(
    store: StoreReader, record: SweepRecord, now: datetime, gone: Callable[[AttemptRecord], bool]
) -> SweepStatus:
    counts, trials = store.unsettled(record.spec.name)
    at_work = [(trial, trial.last_attempt) for trial in trials if trial.state is TrialState.RUNNING]
    alive = [(trial, attempt) for trial, attempt in at_work if attempt is not None and not gone(attempt)]
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    return SweepStatus(
        sweep=record.spec.name,
        question=record.spec.question,
        trials=sum(counts.values()),
        complete=counts.get(TrialState.COMPLETE, 0),
        running=len(alive),
        planned=counts.get(TrialState.PLANNED, 0),
        failed=counts.get(TrialState.FAILED, 0),
        pruned=counts.get(TrialState.PRUNED, 0),
        lost=counts.get(TrialState.RUNNING, 0) - len(alive),
        running_trials=tuple(_running_trial(store, trial, attempt, now) for trial, attempt in alive),
        failures=tuple(_failed_trial(trial) for trial in failed),
    )


def _running_trial(store: StoreReader, trial: TrialRecord, attempt: AttemptRecord, now: datetime) -> RunningTrial:
    epochs: list[EpochRecord] = [
        item.record for item in store.epochs_of_trial(trial.trial_id) if item.attempt == attempt.number
    ]
    last = epochs[-1] if epochs else None
    return RunningTrial(
        trial_id=trial.trial_id,
        label=trial.label,
        seed=trial.seed,
        attempt=attempt.number,
        slot=attempt.slot,
        epoch=last.epoch if last else 0,
        epochs=trial.spec.training.epochs,
        validation_accuracy=last.validation_accuracy if last else None,
        elapsed_s=round(max(0.0, (now - attempt.started_at).total_seconds()), 1),
    )


def _failed_trial(trial: TrialRecord) -> FailedTrial:
    failure = trial.last_attempt.failure if trial.last_attempt else None
    said = (failure.traceback or failure.last_output) if failure else ""
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    return FailedTrial(
        trial_id=trial.trial_id,
        label=trial.label,
        seed=trial.seed,
        attempts=trial.attempts,
        kind=failure.kind.value if failure else "unknown",
        message=failure.message if failure else "",
        last_lines=tuple(lines[-LAST_LINES:]),
    )


def _counts_text(status: SweepStatus) -> str:
    names = ("complete", "running", "planned", "failed", "pruned", "lost")
    counts = ((getattr(status, name), name) for name in names)
    said = [f"{count} {name}" for count, name in counts if count or name == "complete"]
    return f"{status.trials} trials: {', '.join(said)}"


def _running_text(trial: RunningTrial) -> str:
    accuracy = "" if trial.validation_accuracy is None else f", validation {100 * trial.validation_accuracy:.2f} %"
    again = f", attempt {trial.attempt}" if trial.attempt > 1 else ""
    where = f"epoch {trial.epoch}/{trial.epochs}{accuracy}, {_elapsed(trial.elapsed_s)} in {trial.slot}{again}"
    return f"{printable(trial.label)} · seed {trial.seed}: {where}"


def _elapsed(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _failure_lines(failures: Sequence[FailedTrial]) -> Iterator[str]:
    """Yield one block for each group of trials with the same failure, the largest first."""
    groups: dict[tuple[str, str], list[FailedTrial]] = {}
    for trial in failures:
        groups.setdefault((trial.kind, trial.message), []).append(trial)
    largest_first = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    for (kind, message), group in largest_first[:FAILURES_SHOWN]:
        first = group[0]
        others = f", and {len(group) - 1} more" if len(group) > 1 else ""
        yield f"  failed   {printable(first.label)} · seed {first.seed} ({first.trial_id}){others}"
        yield f"    {kind}: {printable(message)}"
        yield from (f"    | {printable(line)}" for line in first.last_lines)
    if len(groups) > FAILURES_SHOWN:
        yield f"  {len(groups) - FAILURES_SHOWN} other kinds of failure; --json lists all"
