"""The runner, which carries out the machine's decisions; it owns the writable store, the engine and the clock."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import assert_never

from stnbench.core.errors import FolderError, StnbenchError, TransitionError
from stnbench.core.files import AttemptLayout, RunsLayout, writable_folder
from stnbench.engines import (
    Ending,
    Engine,
    EngineEvent,
    Epoch,
    Failed,
    Finished,
    Launch,
    Lost,
    Note,
    Pulse,
    Stopped,
)
from stnbench.orchestration.asking import Asked, Asking, RunOptions, RunSummary, Spent
from stnbench.orchestration.claims import Claims, Others, ProcessIdentity, recover, result_of
from stnbench.orchestration.control import Decision, Inbox, decide
from stnbench.orchestration.machine import Machine
from stnbench.orchestration.messages import (
    AttemptFailed,
    AttemptFinished,
    AttemptStopped,
    AttemptTaken,
    Command,
    DropTrial,
    ElsewhereChanged,
    EpochEnded,
    Event,
    ForgetAttempt,
    GiveUpAsked,
    KillAttempt,
    LaunchRefused,
    LaunchTrial,
    PauseChanged,
    PeakMemoryLearnt,
    PruneAsked,
    RecordComplete,
    RecordEnd,
    RetryAsked,
    SlotsChanged,
    StopAsked,
    StopAttempt,
    ThawAsked,
    TimePassed,
    TrialsPlanned,
    WorkDone,
)
from stnbench.orchestration.observer import EndedAttempt, Observer, RunningAttempt
from stnbench.orchestration.recovery import drop_checkpoints, resumable
from stnbench.planning import Planner
from stnbench.spec.control import Action, AddSeeds, ControlRecord, ControlRequest, Pause, Resume, Retry, SetSlots, Stop
from stnbench.spec.result import AttemptState, Failure, FailureKind, TrialResult, TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.store.store import Store
from stnbench.store.tables import AttemptRecord, AttemptStart
from stnbench.trials.files import load_result

POLL_S = 0.2
CONTROL_EVERY_S = 0.5
"""Seconds between two checks for requests."""


class Runner:
    """Runner of one sweep, to its end or until a stop is requested."""

    def __init__(  # noqa: PLR0913 - the composition root of a run hands over every collaborator by name
        self,
        *,
        sweep: SweepSpec,
        planner: Planner,
        store: Store,
        engine: Engine,
        layout: RunsLayout,
        identity: ProcessIdentity,
        options: RunOptions,
        observers: Sequence[Observer] = (),
        now: Callable[[], datetime] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
        keep_alone: Callable[[], None] = lambda: None,
    ) -> None:
        self._keep_alone = keep_alone
        self._sweep, self._store, self._engine, self._layout = sweep, store, engine, layout
        self._identity, self._options, self._observers = identity, options, observers
        self._now = now = now or identity.now
        self._clock_s = clock_s
        self._machine = Machine(
            engine.slots, session=identity.session, timeout_s=options.trial_timeout_s, patience=options.patience
        )
        self._asking = Asking(
            sweep=sweep,
            planner=planner,
            store=store,
            retry_failed=options.retry_failed,
            now=now,
            digests=options.digests,
        )
        self._inbox = Inbox(layout.control, warn=self._tell)
        self._looked_s, self._slots_started = float("-inf"), len(engine.slots)
        self._running: dict[str, RunningAttempt] = {}
        self._results: dict[str, TrialResult] = {}
        self._following: list[Event] = []
        self._others = Others(store, layout, Claims(identity))
        self._stop_asked = ""
        self._launched = self._ended = 0
        self._device_s = 0.0

    @property
    def is_asked_to_stop(self) -> bool:
        """Return whether an early end was requested."""
        return bool(self._stop_asked)

    def ask_stop(self, reason: str) -> None:
        """End the sweep soon: running attempts stop at their next step. Safe to call from a signal handler."""
        self._stop_asked = self._stop_asked or reason

    def run(self) -> RunSummary:
        """Recover, plan, and run every trial that is not final.

        Raises:
            StnbenchError: if the sweep cannot be planned or the store, the engine or a folder fails.
        """
        started_s = now_s = self._clock_s()
        gone = self._others.gone(self._store.running_attempts(), now_s)
        adopted, lost = recover(self._store, self._layout, self._now(), attempts=gone)
        self._asking.resume()
        self._handle(TimePassed(now_s=started_s))
        self._begin_controlled()
        while not (self._machine.is_idle and (self._asking.is_exhausted or self._machine.stop_reason)):
            for event in self._engine.poll(POLL_S):
                self._take(event)
            before_s, now_s = now_s, self._clock_s()
            self._device_s += (now_s - before_s) * (len(self._running) - len(self._engine.waiting))
            if now_s - self._looked_s >= CONTROL_EVERY_S:
                self._looked_s = now_s
                self._take_requests()
            self._look_elsewhere(now_s)
            self._pass_time(now_s, Spent(wall_s=now_s - started_s, device_s=self._device_s, trials=self._ended))
            self._plan()
        return self._summary(adopted, lost)

    def _look_elsewhere(self, now_s: float) -> None:
        """Adopt the states that other orchestrators gave to trials of this sweep."""
        settled = self._others.settled(self._machine.elsewhere, self._sweep.name, now_s, self._now())
        for trial_id, state in settled.items():
            if state.is_final:
                self._asking.tell_ended(trial_id, state)
                for observer in self._observers:
                    observer.changed((trial_id,), state)
            self._handle(ElsewhereChanged(trial_id=trial_id, state=state))

    def _begin_controlled(self) -> None:
        """Plan, and apply the earlier requests of users; nothing is launched until that is done."""
        controls = self._asking.controls
        self._handle(PauseChanged(is_paused=True))
        if controls.slots and controls.slots_started == self._slots_started:
            self._resize(controls.slots)
        self._plan()
        self._take_requests()
        if self._asking.controls.paused_by is not None:
            by = self._asking.controls.paused_by
            self._tell(f"paused by {by.asked_by} at {by.asked_at[:19]}: stnbench control {self._sweep.name} resume")
        self._heed_budget(Spent())  # a budget of no trials launches none
        self._handle(PauseChanged(is_paused=self._asking.controls.is_paused))
        self._plan()

    def _take_requests(self) -> None:
        requests = self._inbox.waiting(self._sweep.name)
        if not requests:
            return
        known = {record.request.request_id for record in self._store.controls(self._sweep.name)}
        for request in requests:
            if request.request_id not in known:  # otherwise a process was killed after recording it
                self._carry_out(request)
            self._inbox.remove(request)

    def _carry_out(self, request: ControlRequest) -> None:
        """Record a request, then carry it out; the next run derives from the record whatever is not in the store."""
        action = request.action
        offered = 0
        if isinstance(action, SetSlots):
            offered = len(self._engine.resize(action.count))
        decision = decide(
            action,
            sweep=self._sweep,
            trials=self._store.sweep_trials(self._sweep.name),
            running={attempt.record.trial_id for attempt in self._running.values()},
            controls=self._asking.controls,
            slots=(offered, self._slots_started),
        )
        record = ControlRecord(
            request=request,
            applied_at=self._now(),
            is_refused=decision.is_refused,
            outcome=decision.outcome,
            effect=decision.effect,
        )
        self._store.add_control(record, give_up=decision.give_up, take_back=decision.take_back)
        self._asking.read_controls()
        self._tell(decision.outcome)
        if not decision.is_refused:
            self._do(action, decision)

    def _do(self, action: Action, decision: Decision) -> None:
        match action:
            case Pause() | Resume():
                self._handle(PauseChanged(is_paused=self._asking.controls.is_paused))
            case Stop():
                self._handle(GiveUpAsked(trial_ids=decision.give_up))
            case Retry():
                for observer in self._observers:
                    observer.changed(decision.take_back, TrialState.PLANNED)
                self._handle(RetryAsked(trial_ids=decision.take_back))
            case SetSlots():
                self._resize(decision.effect.slots)
            case AddSeeds():
                pass  # the next question to the planner has them
            case _:
                assert_never(action)

    def _resize(self, count: int) -> None:
        slots = tuple(self._engine.resize(count))
        self._handle(SlotsChanged(slots=slots))
        for observer in self._observers:
            observer.resized(len(slots))

    def _note(self, attempt: RunningAttempt, message: str) -> None:
        for observer in self._observers:
            observer.noted(attempt, message)

    def _tell(self, message: str) -> None:
        for observer in self._observers:
            observer.told(message)

    def _pass_time(self, now_s: float, spent: Spent) -> None:
        self._store.check()
        self._keep_alone()
        waiting, suspended = frozenset(self._engine.waiting), frozenset(self._engine.suspended)
        self._handle(TimePassed(now_s=now_s, waiting=waiting, suspended=suspended))
        self._heed_budget(spent)
        for observer in self._observers:
            observer.ticked()

    def _heed_budget(self, spent: Spent) -> None:
        self._stop_asked = self._stop_asked or self._options.budget.exceeded_by(spent)
        if self._stop_asked and not self._machine.stop_reason:
            for observer in self._observers:
                observer.stopping(self._stop_asked)
            self._handle(StopAsked(reason=self._stop_asked))

    def _plan(self) -> None:
        if self._machine.stop_reason:
            return
        asked = self._asking.ask()
        if asked is not None:
            self._plan_asked(asked)
        going = self._asking.thawed(is_idle=self._machine.is_idle)
        if going:
            self._ended -= len(going)
            for observer in self._observers:
                observer.changed(going, TrialState.PLANNED)
            self._handle(ThawAsked(trial_ids=going))

    def _plan_asked(self, asked: Asked) -> None:
        for observer in self._observers:
            observer.planned(asked.trials, asked.states)
        if asked.open_ids:
            expected_mib = self._asking.expected_peaks_mib(asked.open_ids, self._engine.slots)
            self._handle(PeakMemoryLearnt(peak_mib=expected_mib, is_estimate=True))
            self._handle(PeakMemoryLearnt(peak_mib=self._asking.known_peaks_mib()))
        self._handle(TrialsPlanned(trial_ids=asked.open_ids))

    def _take(self, event: EngineEvent) -> None:
        """Translate an engine's event, with the files on the disk, into an event of the machine."""
        attempt = self._running.get(event.token)
        if attempt is None:
            return
        match event:
            case Epoch(record=record):
                self._end_epoch(dataclasses.replace(attempt, epochs=(*attempt.epochs, record)))
            case Pulse(parts=parts):
                self._handle(WorkDone(token=event.token, parts=parts))
                for observer in self._observers:
                    observer.worked(attempt, parts)
            case Note(message=message):
                self._note(attempt, message)
            case _:
                self._take_ending(attempt, event)

    def _take_ending(self, attempt: RunningAttempt, event: Ending) -> None:
        match event:
            case Finished():
                self._end_well(self._finished(attempt))
            case Failed(failure=failure):
                self._handle(AttemptFailed(token=event.token, failure=failure))
            case Stopped():
                self._handle(AttemptStopped(token=event.token))
            case Lost():
                self._end_well(self._lost(attempt, event))
            case _:
                assert_never(event)

    def _end_epoch(self, attempt: RunningAttempt) -> None:
        token = attempt.record.token
        if not self._is_written(lambda: self._store.add_epoch(token, attempt.epochs[-1])):
            self._handle(AttemptTaken(token=token, trial_id=attempt.record.trial_id))
            return
        self._running[token] = attempt
        self._handle(EpochEnded(token=token, epoch=attempt.epochs[-1].epoch))
        for observer in self._observers:
            observer.epoch_ended(attempt)
        if self._asking.should_prune(attempt):
            self._handle(PruneAsked(token=token))

    def _end_well(self, event: Event) -> None:
        """Report an end to the machine, after the measured memory, which must be known before the slot is reused."""
        result = self._results.get(event.token) if isinstance(event, AttemptFinished) else None
        if result is not None:
            alike = self._asking.peaks_alike_mib({result.trial_id: result.peak_memory_mib})
            self._handle(PeakMemoryLearnt(peak_mib=alike))
        self._handle(event)

    def _finished(self, attempt: RunningAttempt) -> Event:
        record = attempt.record
        folder = self._layout.attempt(record.trial_id, record.number)
        try:
            result = load_result(AttemptLayout(folder).result)
        except StnbenchError as error:  # it was damaged in the meantime; the next attempt has its checkpoint
            failure = Failure(kind=FailureKind.KILLED, message=f"finished without a readable result: {error}")
            return AttemptFailed(token=record.token, failure=failure)
        return self._accepted(attempt, result)

    def _accepted(self, attempt: RunningAttempt, result: TrialResult) -> Event:
        """Return the event for a result, which counts if it is of the images that were found when the sweep began."""
        token = attempt.record.token
        message = self._asking.changed_images(attempt.trial.spec.dataset, result.environment)
        if message:
            return AttemptFailed(token=token, failure=Failure(kind=FailureKind.DATA, message=message))
        self._results[token] = result
        return AttemptFinished(token=token)

    def _lost(self, attempt: RunningAttempt, event: Lost) -> Event:
        """Return the event for a lost attempt, which counts as finished if its result was written before the end."""
        record = attempt.record
        result = result_of(self._layout, record.trial_id, record.number, record.token)
        if result is not None:
            return self._accepted(attempt, result)
        failure = Failure(kind=FailureKind.KILLED, message=event.reason, last_output=event.last_output)
        return AttemptFailed(token=record.token, failure=failure)

    def _handle(self, event: Event) -> None:
        for command in self._machine.handle(event):
            self._execute(command)
        while self._following:
            self._handle(self._following.pop())

    def _execute(self, command: Command) -> None:
        match command:
            case LaunchTrial():
                self._launch(command)
            case DropTrial(trial_id=trial_id):
                self._asking.tell_ended(trial_id, TrialState.PRUNED)
                for observer in self._observers:
                    observer.changed((trial_id,), TrialState.PRUNED)
            case RecordComplete() | RecordEnd():
                self._record(command)
            case ForgetAttempt(token=token):
                self._forget(token)
            case StopAttempt(token=token):
                self._engine.stop(token)
            case KillAttempt(token=token):
                self._engine.kill(token)
            case _:
                assert_never(command)

    def _record(self, command: RecordComplete | RecordEnd) -> None:
        """Write the end of an attempt; if another orchestrator has ended it already, leave the trial to that one."""
        token, now = command.token, self._now()
        if isinstance(command, RecordComplete):
            result = self._results.pop(token)
            if self._is_written(lambda: self._store.complete_attempt(token, result, now)):
                self._end(token, AttemptState.COMPLETE, TrialState.COMPLETE, now, result=result)
                self._save_room()
                return
        else:
            state, trial_state, failure = command.attempt_state, command.trial_state, command.failure
            end = functools.partial(self._store.end_attempt, trial_state=trial_state, sweep=self._sweep.name)
            if self._is_written(lambda: end(token, state, failure, now)):
                self._end(token, state, trial_state, now, failure=failure)
                return
        self._following.append(AttemptTaken(token=token, trial_id=self._running[token].record.trial_id))
        self._forget(token)

    def _launch(self, command: LaunchTrial) -> None:
        trial, record = self._asking.trials[command.trial_id], self._start(command)
        if record is None:
            self._following.append(LaunchRefused(token=command.token))
            return
        attempt = RunningAttempt(trial=trial, record=record, slot=command.slot)
        self._running[command.token] = attempt
        self._launched += 1
        place, remedy = self._layout.attempt(command.trial_id, record.number), "set STNBENCH_RUNS to another folder"
        try:
            folder = writable_folder(place, "an attempt", remedy=remedy)
        except FolderError as error:  # the disk is full or not writable, which may be temporary
            failure = Failure(kind=FailureKind.INFRASTRUCTURE, message=error.problem)
            self._following.append(AttemptFailed(token=command.token, failure=failure))
            return
        warn = functools.partial(self._note, attempt)
        launch = Launch(
            spec=trial.spec,
            token=command.token,
            folder=str(folder),
            data_root=str(self._options.data_root),
            source=str(self._options.source or ""),
            resume_from=resumable(self._store, self._layout, trial.spec, record.number, warn=warn),
            micro_batches=command.micro_batches,
        )
        if command.alone:
            for other in self._engine.slots:
                if other.device == command.slot.device and other.name != command.slot.name:
                    self._engine.release(other)
        self._engine.submit(command.slot, launch)
        for observer in self._observers:
            observer.launched(attempt)

    def _start(self, command: LaunchTrial) -> AttemptRecord | None:
        """Begin an attempt in the store and return it; None if another orchestrator has the trial."""
        start = AttemptStart(
            trial_id=command.trial_id,
            token=command.token,
            slot=command.slot.name,
            host=self._identity.host,
            pid=self._identity.pid,
            boot_id=self._identity.boot_id,
            started_at=self._now(),
        )
        started: list[AttemptRecord] = []
        return started[0] if self._is_written(lambda: started.append(self._store.start_attempt(start))) else None

    def _end(
        self,
        token: str,
        state: AttemptState,
        trial_state: TrialState,
        at: datetime,
        *,
        result: TrialResult | None = None,
        failure: Failure | None = None,
    ) -> None:
        attempt = self._running.pop(token)
        if trial_state.is_final:
            self._ended += 1
            self._asking.tell(attempt, trial_state, result)
        end = EndedAttempt(
            attempt=attempt, state=state, trial_state=trial_state, finished_at=at, result=result, failure=failure
        )
        for observer in self._observers:
            observer.ended(end)

    def _is_written(self, write: Callable[[], None]) -> bool:
        """Write to the store, and return whether it agrees: with a shared one, another process may have been first."""
        try:
            write()
        except TransitionError:
            if not self._store.is_shared:
                raise
            return False
        return True

    def _forget(self, token: str) -> None:
        failure = Failure(kind=FailureKind.KILLED, message="another sweep has taken the trial over")
        self._end(token, AttemptState.LOST, TrialState.PLANNED, self._now(), failure=failure)

    def _save_room(self) -> None:
        keep = self._options.keep_checkpoints
        if keep is not None:
            drop_checkpoints(self._store, self._sweep.name, self._layout, keep=keep)

    def _summary(self, adopted: int, lost: int) -> RunSummary:
        records = self._store.sweep_trials(self._sweep.name)
        return RunSummary(
            trials=len(records),
            complete=sum(record.state is TrialState.COMPLETE for record in records),
            failed=sum(record.state is TrialState.FAILED for record in records),
            pruned=sum(record.state is TrialState.PRUNED for record in records),
            launched=self._launched,
            adopted=adopted,
            lost=lost,
            stop_reason=self._machine.stop_reason,
        )
