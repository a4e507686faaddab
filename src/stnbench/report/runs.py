"""The trials of a sweep and the summary of its run."""

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.text import Energy, Price
from stnbench.spec.metrics import ENERGY
from stnbench.spec.result import AttemptState, TrialState, judge_attempt
from stnbench.spec.sweep import SweepSpec, sized_label
from stnbench.store.queries import StoreReader
from stnbench.store.tables import AttemptEpoch, AttemptRecord, Outcome, TrialRecord

# The rows of the trial table and the summary of a sweep's run.
#
# Everything is read from records of the store, without pandas, so that ``status`` and ``trials`` start at once.


NO_ENERGY: Final = Energy(kwh=0.0, measured=0, trials=0)

TRIAL_HELP: Final = (
    "id of a trial or its beginning, SWEEP:LABEL#SEED, SWEEP:best, SWEEP:best:2, or best (of the last sweep)"
)

_BEST: Final = re.compile(r"best(?::(\d{1,6}))?")
_ID: Final = re.compile(r"[0-9a-fA-F]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRow:
    """A trial of a sweep.

    ``accuracy`` is on the validation split, in [0, 1]: the result, or that of the last epoch while the trial runs.
    Times are the start of the first attempt and the end of the last one; ``busy_s`` is the duration of all attempts.
    ``energy_kwh`` is that of the result, or of the epochs so far; None if it was not measured.
    """

    trial_id: str
    config_id: str
    label: str
    seed: int
    axes: tuple[tuple[str, str], ...]
    is_baseline: bool
    state: TrialState
    accuracy: float | None
    epoch: int
    epochs: int
    health: str
    attempts: int
    slot: str
    started_at: datetime | None
    finished_at: datetime | None
    busy_s: float
    failure_kind: str
    failure_message: str
    energy_kwh: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotUse:
    """The use of a slot: ``busy_s`` seconds, and their share of those from the first start to the last end."""

    slot: str
    attempts: int
    busy_s: float
    share: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """An attempt on the time axis, in seconds from the start of the sweep."""

    slot: str
    label: str
    seed: int
    state: AttemptState
    start_s: float
    duration_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedKind:
    """Failed trials of one kind.

    ``shared`` are the choices that most of them have, far more often than all trials do; ``message`` is the most
    frequent message.
    """

    kind: str
    trials: int
    labels: tuple[str, ...]
    shared: tuple[str, ...]
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """The summary of a sweep's run, as far as the store knows.

    ``ended_at`` is the last recorded time. ``reason`` says why the run ended, or that it has not. ``commands`` are
    pairs of a purpose and a command to type next. ``price`` is that of a device hour, ``energy`` that of the trials
    that have begun.
    """

    started_at: datetime | None
    ended_at: datetime | None
    reason: str
    device_hours: float
    slots: tuple[SlotUse, ...]
    spans: tuple[Span, ...]
    failed: tuple[FailedKind, ...]
    commands: tuple[tuple[str, str], ...]
    price: Price | None = None
    energy: Energy = NO_ENERGY

    @property
    def wall_s(self) -> float | None:
        """Return the seconds from the first start to the last end, or None before the first start."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


def read_runs(store: StoreReader, spec: SweepSpec) -> tuple[tuple[TrialRow, ...], RunSummary]:
    """Read the trials of a sweep and the summary of its run.

    Raises:
        UnknownNameError: if the store has no such sweep.
        StoreError: if the store cannot be read.
    """
    trials = store.sweep_trials(spec.name)
    attempts = store.attempts_of_sweep(spec.name)
    rows = trial_rows(trials, attempts, store.outcomes(spec.name), store.epochs_of_sweep(spec.name))
    return rows, replace(summarize_run(spec, rows, attempts), price=Price.from_environment())


def trial_rows(
    trials: Sequence[TrialRecord],
    attempts: Sequence[AttemptRecord],
    outcomes: Mapping[str, Outcome],
    epochs: Mapping[str, Sequence[AttemptEpoch]],
) -> tuple[TrialRow, ...]:
    """Return one row for each trial, in the order of the sweep."""
    of_trial: dict[str, list[AttemptRecord]] = {}
    for attempt in attempts:
        of_trial.setdefault(attempt.trial_id, []).append(attempt)
    return tuple(
        _trial_row(
            trial, of_trial.get(trial.trial_id, []), outcomes.get(trial.trial_id), epochs.get(trial.trial_id, [])
        )
        for trial in trials
    )


def _trial_row(
    trial: TrialRecord, attempts: Sequence[AttemptRecord], outcome: Outcome | None, epochs: Sequence[AttemptEpoch]
) -> TrialRow:
    last = trial.last_attempt
    failure = last.failure if last and trial.state is TrialState.FAILED else None
    ends = [attempt.finished_at for attempt in attempts if attempt.finished_at]
    verdict = judge_attempt(trial.spec, [item.record for item in epochs[-1:]], last.failure if last else None)
    return TrialRow(
        trial_id=trial.trial_id,
        config_id=trial.config_id,
        label=sized_label(trial.label, trial.point.labels, trial.spec),
        seed=trial.seed,
        axes=trial.point.labels,
        is_baseline=trial.is_baseline,
        state=trial.state,
        accuracy=_accuracy(trial, outcome, epochs),
        epoch=epochs[-1].record.epoch if epochs else 0,
        epochs=trial.spec.training.epochs,
        health=verdict.value if verdict else "",
        attempts=trial.attempts,
        slot=last.slot if last else "",
        started_at=min((attempt.started_at for attempt in attempts), default=None),
        finished_at=max(ends, default=None) if trial.state is not TrialState.RUNNING else None,
        busy_s=sum(attempt.duration_s or 0.0 for attempt in attempts),
        failure_kind=failure.kind.value if failure else "",
        failure_message=failure.message if failure else "",
        energy_kwh=_energy_kwh(outcome, epochs),
    )


def _energy_kwh(outcome: Outcome | None, epochs: Sequence[AttemptEpoch]) -> float | None:
    """Return the energy of a result, or of the epochs so far; an epoch that was trained again counts once."""
    if outcome is not None:
        return outcome.validation.metrics.get(ENERGY)
    latest = {item.record.epoch: item.record.metrics.get(ENERGY) for item in epochs}
    known = [value for value in latest.values() if value is not None]
    return sum(known) if known and len(known) == len(latest) else None


def _accuracy(trial: TrialRecord, outcome: Outcome | None, epochs: Sequence[AttemptEpoch]) -> float | None:
    if not trial.spec.has_held_out_images:
        return None
    if outcome is not None:
        return outcome.validation.accuracy
    return epochs[-1].record.validation_accuracy if epochs else None


def summarize_run(spec: SweepSpec, rows: Sequence[TrialRow], attempts: Sequence[AttemptRecord]) -> RunSummary:
    """Summarise a run from its trials and all their attempts. The same records give the same summary."""
    started = min((attempt.started_at for attempt in attempts), default=None)
    moments = [moment for item in attempts for moment in (item.started_at, item.finished_at) if moment]
    ended = max(moments, default=None)
    wall_s = (ended - started).total_seconds() if started and ended else 0.0
    known = {row.trial_id: row for row in rows}
    busy: dict[str, list[float]] = {}
    spans = []
    for attempt in attempts:
        end = attempt.finished_at or ended
        duration_s = max(0.0, (end - attempt.started_at).total_seconds()) if end else 0.0
        busy.setdefault(attempt.slot, []).append(duration_s)
        if started is not None and attempt.trial_id in known:
            row, start_s = known[attempt.trial_id], (attempt.started_at - started).total_seconds()
            span = Span(
                slot=attempt.slot, label=row.label, seed=row.seed, state=attempt.state, start_s=start_s,
                duration_s=duration_s,
            )  # fmt: skip
            spans.append(span)
    return RunSummary(
        started_at=started,
        ended_at=ended,
        reason=_reason(rows, attempts),
        device_hours=sum(map(sum, busy.values())) / 3600,
        slots=tuple(
            SlotUse(slot=slot, attempts=len(own), busy_s=sum(own), share=sum(own) / wall_s if wall_s else None)
            for slot, own in sorted(busy.items())
        ),
        spans=tuple(spans),
        failed=tuple(failed_kinds(rows)),
        energy=summed_energy(rows),
        commands=tuple(next_commands(spec, rows)),
    )


def summed_energy(rows: Sequence[TrialRow]) -> Energy:
    """Return the energy of the trials that have ended an epoch."""
    begun = [row for row in rows if row.epoch]
    known = [row.energy_kwh for row in begun if row.energy_kwh is not None]
    return Energy(kwh=sum(known), measured=len(known), trials=len(begun))


def _reason(rows: Sequence[TrialRow], attempts: Sequence[AttemptRecord]) -> str:
    states = Counter(row.state for row in rows)
    planned, running, failed = (states[state] for state in (TrialState.PLANNED, TrialState.RUNNING, TrialState.FAILED))
    if not rows:
        return "It has no trials yet."
    if running:
        verb = ("is", "was", "its") if running == 1 else ("are", "were", "their")
        state = f"{verb[0]} running, or {verb[1]} when {verb[2]} process ended"
        return f"It has not ended: {running} of {len(rows)} trials {state}."
    if not planned:
        return f"Every trial has ended{f'; {failed} failed' if failed else ''}."
    if not attempts:
        return "No trial has started yet."
    last = max(attempts, key=lambda attempt: (attempt.finished_at or attempt.started_at, attempt.started_at))
    how = _ENDS.get(last.state, "It was stopped between trials (by a person, a budget or a limit)")
    return f"{how}; {planned} of {len(rows)} trials are still planned."


_ENDS: Final = {
    AttemptState.STOPPED: "A person or a budget stopped it",
    AttemptState.LOST: "Its process ended unexpectedly",
    AttemptState.FAILED: "It ended after a failure",
}


def failed_kinds(rows: Sequence[TrialRow]) -> Iterator[FailedKind]:
    """Yield the failed trials by kind, the most frequent first, with the choices that most of them share."""
    groups: dict[str, list[TrialRow]] = {}
    for row in rows:
        if row.state is TrialState.FAILED:
            groups.setdefault(row.failure_kind or "unknown", []).append(row)
    everyone = Counter(choice for row in rows for choice in row.axes)
    for kind, own in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        messages = Counter((row.failure_message.strip().splitlines() or ["(no message)"])[0] for row in own)
        yield FailedKind(
            kind=kind,
            trials=len(own),
            labels=tuple(dict.fromkeys(row.label for row in own)),
            shared=tuple(_shared(own, everyone, len(rows))),
            message=min(messages, key=lambda message: (-messages[message], message)),
        )


def _shared(failed: Sequence[TrialRow], everyone: Mapping[tuple[str, str], int], trials: int) -> Iterator[str]:
    """Yield the choices that most of several failed trials have, far more often than all trials do.

    A choice reads ``transformer=tps: 15 of these 17, and 15 of all 60 trials with it``.
    """
    counts = Counter(choice for row in failed for choice in row.axes) if len(failed) > 1 else Counter()
    for (axis, label), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        share, usual = count / len(failed), everyone[axis, label] / trials
        if share >= _MOST_SHARE and share >= _FAR_MORE * usual:
            name = label if label.startswith(f"{axis.rpartition('.')[2]}=") else f"{axis}={label}"
            yield f"{name}: {count} of these {len(failed)}, and {count} of all {everyone[axis, label]} trials with it"


_MOST_SHARE: Final = 0.75
_FAR_MORE: Final = 1.5


def sweep_command(sweep: SweepSpec, *more: str) -> str:
    """Return the command that runs this sweep, or this single trial, again."""
    command = ["sweep", sweep.file] if sweep.file else ["train"]
    return shlex.join(["stnbench", *command, *map(str, sweep.overrides), *more])


def next_commands(spec: SweepSpec, rows: Sequence[TrialRow]) -> Iterator[tuple[str, str]]:
    """Yield the commands to type next, as pairs of a purpose and a command."""
    states = Counter(row.state for row in rows)
    if states[TrialState.PLANNED] or states[TrialState.RUNNING]:
        yield "Continue", sweep_command(spec)
    if spec.file and states[TrialState.PLANNED]:
        yield "Continue for two hours", sweep_command(spec, "--budget", "2h")
    if spec.file and states[TrialState.FAILED]:
        yield "Retry what failed", sweep_command(spec, "--retry-failed")
    if spec.file and states[TrialState.COMPLETE]:
        overrides = [item for item in spec.overrides if item.key != "seeds"]
        more = shlex.join(["stnbench", "sweep", spec.file, *map(str, overrides), f"seeds={len(spec.seeds) + 2}"])
        yield "Add two seeds", more
        if spec.planner.is_grid:
            yield "Add seeds until it is decided", sweep_command(spec, "--until", "decided", "--budget", "2h")
    if rows:
        yield "List the trials", shlex.join(["stnbench", "trials", spec.name])
    if states[TrialState.COMPLETE] and any(row.health for row in rows):
        yield "See the best transformer", shlex.join(["stnbench", "show", "transform", f"{spec.name}:best"])


def find_trial(store: StoreReader, name: str, *, with_transformer: bool = False) -> TrialRecord:
    """Find the trial that a name means.

    Args:
        store: the store with the trial.
        name: ``SWEEP:LABEL#SEED``, ``SWEEP:best`` or ``SWEEP:best:2`` (the second best on the validation split), in the
            sweep last run where none is named; or an id, or its beginning.
        with_transformer: whether ``best`` is only among trials with a spatial transformer.

    Raises:
        UnknownNameError: if there is no such sweep, trial, configuration or seed.
        SpecError: if the name matches several trials, or fewer trials are complete than ``best`` counts.
    """
    sweeps = [record.spec.name for record in store.sweeps()]
    sweep, colon, rest = name.partition(":")
    if colon and sweep not in sweeps and _BEST.fullmatch(rest) and sweep != "best":
        raise UnknownNameError("sweep", sweep, sweeps, where="the store")
    if not colon or sweep not in sweeps:
        sweep, rest = (sweeps[0] if sweeps else ""), name
    best = _BEST.fullmatch(rest)
    if best is not None and sweep:
        return _best_trial(store, sweep, int(best[1] or 1), with_transformer=with_transformer)
    label, hash_sign, seed = rest.rpartition("#")
    if hash_sign and sweep and seed.lstrip("-").isdecimal():
        return _labelled_trial(store, sweep, label, int(seed))
    if _ID.fullmatch(rest) and (rest == name or not colon):
        return store.find_trial(rest)
    if sweep and colon:
        return _labelled_trial(store, sweep, rest, None)
    return store.find_trial(name)


def _best_trial(store: StoreReader, sweep: str, place: int, *, with_transformer: bool) -> TrialRecord:
    outcomes = store.outcomes(sweep)
    ranked = sorted(
        (
            trial
            for trial in store.sweep_trials(sweep)
            if trial.trial_id in outcomes
            and trial.spec.has_held_out_images
            and (trial.spec.transformers or not with_transformer)
        ),
        key=lambda trial: (-outcomes[trial.trial_id].validation.accuracy, outcomes[trial.trial_id].validation.loss),
    )
    if not 1 <= place <= len(ranked):
        what = "complete trials with a transformer" if with_transformer else "complete trials with a validation score"
        raise SpecError(f"{sweep} has {len(ranked)} {what}, best:{place} was named", remedy="name a smaller number")
    return ranked[place - 1]


def _labelled_trial(store: StoreReader, sweep: str, label: str, seed: int | None) -> TrialRecord:
    trials = store.sweep_trials(sweep)
    own = [
        trial for trial in trials if label in {trial.label, sized_label(trial.label, trial.point.labels, trial.spec)}
    ]
    if not own:
        raise UnknownNameError("configuration", label, dict.fromkeys(trial.label for trial in trials), where=sweep)
    found = own if seed is None else [trial for trial in own if trial.seed == seed]
    if not found:
        raise UnknownNameError("seed", str(seed), [str(trial.seed) for trial in own], where=f"{sweep}:{label}")
    if len(found) > 1:
        seeds = ", ".join(str(trial.seed) for trial in found)
        raise SpecError(f"{sweep}:{label} has the seeds {seeds}", remedy=f"name one: {sweep}:{label}#{found[0].seed}")
    return found[0]
