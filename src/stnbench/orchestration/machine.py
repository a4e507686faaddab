"""The orchestrator's decisions as a state machine without I/O: events in, commands out.

``Machine.handle`` receives events and returns commands; it reads no clock, file or process, so tests need no mocks. The
runner executes the commands and reports their outcome as events.

::

                 launch            finished
    planned ───────────> running ───────────> complete
       ^                    │ failed, and no retry left
       │  lost, stopped,    ├───────────> failed
       └────────────────────┘
          failed, and a retry is left

A running trial that the planner prunes becomes pruned once its attempt has stopped; so does a trial that a user gives
up, at once if it does not run. A user may request such a trial, or one that has failed, again: it is then planned. So
is a trial whose pruner only lets it pause.

Where orchestrators of several sweeps share a store, a trial may be elsewhere: claimed or ended by another one. It is
neither queued nor running here until the runner reports its state.
"""

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stnbench.core.errors import TransitionError
from stnbench.engines import Slot
from stnbench.orchestration.messages import (
    BLINDING,
    BREAKER_THRESHOLD,
    MACHINES_DOING,
    RETRIES,
    TROUBLES_MAX,
    Admission,
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
    Patience,
    PauseChanged,
    PeakMemoryLearnt,
    PruneAsked,
    RecordComplete,
    RecordEnd,
    Retry,
    RetryAsked,
    SlotsChanged,
    StopAsked,
    StopAttempt,
    ThawAsked,
    TimePassed,
    TrialsPlanned,
    WorkDone,
    infrastructure_wait_s,
    next_try,
    signature,
)
from stnbench.spec.result import AttemptState, Failure, FailureKind, TrialState


@dataclass(slots=True)
class _Trial:
    state: TrialState = TrialState.PLANNED
    failures: Counter[FailureKind] = field(default_factory=Counter)
    needs_device_alone: bool = False
    micro_batches: int = 1
    furthest_epoch: int = 0
    not_before_s: float = float("-inf")
    history: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Attempt:
    trial_id: str
    slot: Slot
    started_s: float
    alone: bool
    parts: int = 0
    silent_s: float = 0.0
    longest_pause_s: float = 0.0
    condemned_as: Failure | None = None
    is_killed: bool = False
    is_pruned: bool = False
    is_taken: bool = False
    given_up_s: float | None = None

    def show_life(self, parts: int) -> None:
        """Record a sign of life after ``parts`` parts of work, and the length of the pause before it."""
        self.longest_pause_s = max(self.longest_pause_s, self.silent_s)
        self.parts += parts
        self.silent_s = 0.0


class Machine:
    """State machine of one sweep's execution; ``session`` makes tokens unique among all orchestrators."""

    def __init__(
        self, slots: Sequence[Slot], *, session: str, timeout_s: float | None = None, patience: Patience | None = None
    ) -> None:
        self._slots = tuple(slots)
        self._session = session
        self._timeout_s = timeout_s
        self._patience = patience or Patience()
        self._counter = itertools.count(1)
        self._trials: dict[str, _Trial] = {}
        self._queue: deque[str] = deque()
        self._running: dict[str, _Attempt] = {}
        self._elsewhere: set[str] = set()
        self._bugs: Counter[str] = Counter()
        self._troubles = 0
        self._in_trouble: set[str] = set()
        self._blind: Counter[str] = Counter()
        self._without_data: Counter[str] = Counter()
        self._paused_until_s = float("-inf")
        self._admission = Admission(self._slots)
        self._now_s = 0.0
        self._is_paused = False
        self._stopping_since_s = float("inf")
        self.stop_reason = ""

    @property
    def is_idle(self) -> bool:
        """Return whether nothing runs and nothing more will, unless trials are planned."""
        is_done = not self._queue and not self._elsewhere
        return not self._running and (is_done or bool(self.stop_reason))

    @property
    def elsewhere(self) -> frozenset[str]:
        """Return the ids of the trials that another orchestrator has claimed or ended."""
        return frozenset(self._elsewhere)

    @property
    def running(self) -> dict[str, str]:
        """Return the trial ids of the running attempts, by token."""
        return {token: attempt.trial_id for token, attempt in self._running.items()}

    def state_of(self, trial_id: str) -> TrialState:
        """Return the state of a trial."""
        return self._trials[trial_id].state

    def handle(self, event: Event) -> tuple[Command, ...]:
        """Process an event and return the resulting commands, in order.

        Raises:
            TransitionError: if the event cannot happen now; the message has the trial's history.
        """
        handlers: dict[type[Event], Callable[[Any], tuple[Command, ...]]] = {
            TrialsPlanned: self._plan,
            PeakMemoryLearnt: self._learn,
            EpochEnded: self._get_further,
            WorkDone: self._show_life,
            PruneAsked: self._prune,
            AttemptFinished: self._finish,
            AttemptFailed: self._fail,
            AttemptStopped: self._end_stopped,
            TimePassed: self._pass_time,
            StopAsked: self._ask_stop,
            PauseChanged: self._change_pause,
            GiveUpAsked: self._give_up,
            RetryAsked: self._ask_retry,
            ThawAsked: self._thaw,
            SlotsChanged: self._change_slots,
            LaunchRefused: self._refuse_launch,
            AttemptTaken: self._take_away,
            ElsewhereChanged: self._change_elsewhere,
        }
        return (*handlers[type(event)](event), *self._launches())

    def _plan(self, event: TrialsPlanned) -> tuple[Command, ...]:
        for trial_id in event.trial_ids:
            if trial_id in self._trials:
                raise self._impossible(trial_id, "planned a second time")
            self._trials[trial_id] = _Trial(history=["planned"])
            self._queue.append(trial_id)
        return ()

    def _change_pause(self, event: PauseChanged) -> tuple[Command, ...]:
        self._is_paused = event.is_paused
        return ()

    def _give_up(self, event: GiveUpAsked) -> tuple[Command, ...]:
        asked, commands = set(event.trial_ids), list[Command]()
        for token, attempt in self._running.items():
            if attempt.trial_id in asked and attempt.given_up_s is None:
                attempt.given_up_s = self._now_s
                commands.append(StopAttempt(token=token))
        waiting = [name for name in self._queue if name in asked]
        for trial_id in [*waiting, *sorted(self._elsewhere & asked)]:
            self._unqueue(trial_id)
            self._elsewhere.discard(trial_id)
            self._trials[trial_id].state = TrialState.PRUNED
            self._trials[trial_id].history.append("given up")
            commands.append(DropTrial(trial_id=trial_id))
        return tuple(commands)

    def _ask_retry(self, event: RetryAsked) -> tuple[Command, ...]:
        wanted = set(event.trial_ids)
        for attempt in self._running.values():
            if attempt.trial_id in wanted:
                attempt.given_up_s = None
        for trial_id in event.trial_ids:
            known = self._trials.get(trial_id)
            if known is None or known.state in {TrialState.FAILED, TrialState.PRUNED}:
                self._trials[trial_id] = _Trial(history=[*(known.history if known else ()), "wanted again"])
                self._queue.append(trial_id)
        return ()

    def _thaw(self, event: ThawAsked) -> tuple[Command, ...]:
        for trial_id in reversed(event.trial_ids):
            trial = self._trials.setdefault(trial_id, _Trial(state=TrialState.PRUNED))  # an earlier run let it pause
            if trial.state is TrialState.PRUNED:
                trial.state = TrialState.PLANNED
                trial.history.append("goes on")
                self._queue.appendleft(trial_id)
        return ()

    def _change_slots(self, event: SlotsChanged) -> tuple[Command, ...]:
        self._slots = self._admission.slots = event.slots
        return ()

    def _refuse_launch(self, event: LaunchRefused) -> tuple[Command, ...]:
        attempt = self._running.pop(event.token)
        self._await(attempt.trial_id, "refused: elsewhere")
        return ()

    def _take_away(self, event: AttemptTaken) -> tuple[Command, ...]:
        attempt = self._running.get(event.token)
        if attempt is not None:
            is_killed, attempt.is_taken, attempt.is_killed = attempt.is_killed, True, True
            return () if is_killed else (KillAttempt(token=event.token),)
        if event.trial_id not in self.running.values():  # otherwise a later attempt has been granted
            self._await(event.trial_id, "taken over elsewhere")
        return ()

    def _change_elsewhere(self, event: ElsewhereChanged) -> tuple[Command, ...]:
        self._elsewhere.discard(event.trial_id)
        trial = self._trials[event.trial_id]
        trial.state = event.state
        trial.history.append(f"{event.state} elsewhere")
        if event.state is TrialState.PLANNED:
            self._queue.append(event.trial_id)
        return ()

    def _await(self, trial_id: str, why: str) -> None:
        """Leave a trial to another orchestrator until ``ElsewhereChanged``."""
        self._unqueue(trial_id)
        self._elsewhere.add(trial_id)
        self._trials[trial_id].state = TrialState.RUNNING
        self._trials[trial_id].history.append(why)

    def _unqueue(self, trial_id: str) -> None:
        if trial_id in self._queue:
            self._queue.remove(trial_id)

    def _yield_up(self, token: str) -> tuple[Command, ...]:
        """Forget an ended attempt whose trial was taken over."""
        self._await(self._running.pop(token).trial_id, "ended after it was taken over")
        return (ForgetAttempt(token=token),)

    def _learn(self, event: PeakMemoryLearnt) -> tuple[Command, ...]:
        (self._admission.expect if event.is_estimate else self._admission.learn)(event.peak_mib)
        return ()

    def _get_further(self, event: EpochEnded) -> tuple[Command, ...]:
        attempt = self._attempt(event.token)
        attempt.show_life(1)
        del self._blind[attempt.slot.name]
        trial = self._trials[attempt.trial_id]
        if event.epoch > trial.furthest_epoch:  # an attempt that repeats epochs after a failure makes no progress
            trial.furthest_epoch = event.epoch
            trial.failures.clear()
        self._end_trouble()
        return ()

    def _show_life(self, event: WorkDone) -> tuple[Command, ...]:
        self._attempt(event.token).show_life(event.parts)
        return ()

    def _prune(self, event: PruneAsked) -> tuple[Command, ...]:
        self._attempt(event.token).is_pruned = True
        return (StopAttempt(token=event.token),)

    def _finish(self, event: AttemptFinished) -> tuple[Command, ...]:
        self._bugs.clear()
        slot = self._attempt(event.token).slot
        del self._blind[slot.name], self._without_data[slot.name]
        self._end_trouble()
        self._leave(event.token, TrialState.COMPLETE, "finished")
        return (RecordComplete(token=event.token),)

    def _fail(self, event: AttemptFailed) -> tuple[Command, ...]:
        attempt = self._attempt(event.token)
        if attempt.is_taken:
            return self._yield_up(event.token)
        is_unwanted = attempt.is_pruned or attempt.given_up_s is not None
        if is_unwanted and _is_killed(event.failure):  # it was killed because it did not stop
            return self._end_stopped(AttemptStopped(token=event.token))
        trial = self._trials[attempt.trial_id]
        failure = self._judge(event.failure, attempt)
        is_of_machine = self._is_of_machine(failure, attempt.trial_id)
        if is_of_machine:
            self._hold_back(attempt)
        is_blind = failure.kind in BLINDING
        if is_blind:  # an epoch shows that there is a GPU, and only a result that the images were the right ones
            (self._blind if failure.kind is FailureKind.NO_DEVICE else self._without_data)[attempt.slot.name] += 1
        failures = trial.failures[failure.kind] = trial.failures[failure.kind] + 1
        retry = next_try(failure.kind, failures)
        if retry is not None:
            self._prepare(trial, retry)
        is_ours = bool(self.stop_reason) and (_is_killed(failure) or failure.kind is FailureKind.HUNG)
        is_blameless = is_of_machine and (failure.kind is FailureKind.HUNG or failures <= self._troubles)
        is_open = retry is not None or self._is_in_trouble(failure) or is_ours or is_blameless or is_blind
        state = TrialState.PLANNED if is_open else TrialState.FAILED
        if attempt.given_up_s is not None:
            state = TrialState.PRUNED
        # After a hang or a failure of the device another trial is next: if that fails too, the machine is the cause.
        at_once = failure.kind not in {FailureKind.DEVICE, FailureKind.HUNG}
        self._leave(event.token, state, f"failed ({failure.kind})", at_once=at_once)
        attempt_state = AttemptState.LOST if _is_killed(failure) else AttemptState.FAILED
        record = RecordEnd(token=event.token, attempt_state=attempt_state, trial_state=state, failure=failure)
        return (record, *self._break(failure))

    def _hold_back(self, attempt: _Attempt) -> None:
        """Launch nothing for a while if a second attempt fails without progress in between: the machine is the cause.

        Failures of attempts that began before the last pause belong to it. An epoch or a result resets the count.
        """
        if attempt.started_s >= self._paused_until_s:
            self._troubles += 1
            if self._troubles > 1:
                self._paused_until_s = self._now_s + infrastructure_wait_s(self._troubles - 1)

    def _is_of_machine(self, failure: Failure, trial_id: str) -> bool:
        """Check whether the machine is the cause of a failure, not the trial.

        Hangs and failures of a GPU count as the machine's if a second trial has one without progress in between.
        """
        if failure.kind in {FailureKind.DEVICE, FailureKind.HUNG}:
            self._in_trouble.add(trial_id)
            return len(self._in_trouble) > 1
        return failure.kind is FailureKind.INFRASTRUCTURE

    def _is_in_trouble(self, failure: Failure) -> bool:
        """Check whether waiting has not helped: then the user must act, and no trial is at fault."""
        return failure.kind in MACHINES_DOING and self._troubles > 1 + TROUBLES_MAX

    def _end_trouble(self) -> None:
        self._troubles = 0
        self._in_trouble.clear()

    def _prepare(self, trial: _Trial, retry: Retry) -> None:
        """Apply a retry to a trial; its memory settings are kept after a later failure of another kind."""
        trial.needs_device_alone |= retry.alone
        trial.micro_batches = max(trial.micro_batches, retry.micro_batches)
        trial.not_before_s = self._now_s + retry.wait_s if retry.wait_s else trial.not_before_s

    def _end_stopped(self, event: AttemptStopped) -> tuple[Command, ...]:
        attempt = self._attempt(event.token)
        if attempt.is_taken:
            return self._yield_up(event.token)
        is_pruned, is_given_up = attempt.is_pruned, attempt.given_up_s is not None
        state = TrialState.PRUNED if is_pruned or is_given_up else TrialState.PLANNED
        self._leave(event.token, state, "pruned" if is_pruned else "given up" if is_given_up else "stopped")
        attempt_state = AttemptState.PRUNED if is_pruned else AttemptState.STOPPED
        return (RecordEnd(token=event.token, attempt_state=attempt_state, trial_state=state, failure=None),)

    def _pass_time(self, event: TimePassed) -> tuple[Command, ...]:
        glance_s = min(event.now_s - self._now_s, self._patience.glance_s)
        self._now_s = event.now_s
        killed = []
        for token, attempt in self._running.items():
            if token in event.waiting:
                attempt.started_s, attempt.silent_s = event.now_s, 0.0
            else:
                attempt.silent_s += glance_s
            attempt.condemned_as = attempt.condemned_as or self._condemn(attempt, is_suspended=token in event.suspended)
            if (attempt.condemned_as or self._is_late_to_stop(attempt)) and not attempt.is_killed:
                attempt.is_killed = True
                killed.append(KillAttempt(token=token))
        return tuple(killed)

    def _condemn(self, attempt: _Attempt, *, is_suspended: bool) -> Failure | None:
        """Return the failure for which an attempt must be killed, or None if it may continue."""
        if self._timeout_s is not None and self._now_s - attempt.started_s > self._timeout_s:
            return Failure(kind=FailureKind.TIMEOUT, message=f"took longer than {self._timeout_s:g} s")
        allowed_s = self._patience.silence_s(
            parts=attempt.parts, longest_pause_s=attempt.longest_pause_s, is_suspended=is_suspended
        )
        if attempt.silent_s <= allowed_s:
            return None
        state = "its process is halted" if is_suspended else f"after {attempt.parts} steps or batches"
        message = f"no sign of life for {attempt.silent_s:.0f} s ({state}), and killed for it"
        return Failure(kind=FailureKind.HUNG, message=message)

    def _is_late_to_stop(self, attempt: _Attempt) -> bool:
        asked_s = self._stopping_since_s
        if attempt.given_up_s is not None:
            asked_s = min(asked_s, attempt.given_up_s)
        return self._now_s - asked_s > self._patience.stop_s

    def _ask_stop(self, event: StopAsked) -> tuple[Command, ...]:
        if not self.stop_reason:
            self.stop_reason, self._stopping_since_s = event.reason, self._now_s
        return tuple(StopAttempt(token=token) for token in self._running)

    def _judge(self, failure: Failure, attempt: _Attempt) -> Failure:
        """Return the cause of a failure: a timeout or hang if the machine killed the worker for it."""
        if attempt.condemned_as is None or not _is_killed(failure):
            return failure
        return replace(attempt.condemned_as, last_output=failure.last_output)

    def _break(self, failure: Failure) -> tuple[Command, ...]:
        if self._is_in_trouble(failure) and not self.stop_reason:
            return self._ask_stop(StopAsked(reason=f"no trial got on: {failure.message}"))
        if failure.kind in BLINDING and not self.stop_reason and all(map(self._is_blind, self._slots)):
            return self._ask_stop(StopAsked(reason=failure.message))
        if failure.kind is not FailureKind.BUG or self.stop_reason:
            return ()
        key = signature(failure)
        self._bugs[key] += 1
        if self._bugs[key] < BREAKER_THRESHOLD:
            return ()
        return self._ask_stop(StopAsked(reason=f"{BREAKER_THRESHOLD} trials died of the same bug: {failure.message}"))

    def _launches(self) -> Iterator[Command]:
        if self.stop_reason or self._is_paused or self._now_s < self._paused_until_s:
            return
        for slot in self._slots:
            trial_id = self._next_in_queue()
            if trial_id is None:
                return
            if self._admits(slot, trial_id):
                self._queue.remove(trial_id)
                yield self._launch(trial_id, slot)

    def _next_in_queue(self) -> str | None:
        """Return the first trial whose wait is over; if it needs more room than there is, the others wait for it."""
        return next((name for name in self._queue if self._trials[name].not_before_s <= self._now_s), None)

    def _admits(self, slot: Slot, trial_id: str) -> bool:
        """Check whether the slot can take the trial now."""
        if self._is_blind(slot):
            return False
        neighbours = [attempt for attempt in self._running.values() if attempt.slot.device == slot.device]
        if any(attempt.slot.name == slot.name or attempt.alone for attempt in neighbours):
            return False
        if self._trials[trial_id].needs_device_alone and neighbours:
            return False
        return self._admission.admits(trial_id, slot, [attempt.trial_id for attempt in neighbours])

    def _is_blind(self, slot: Slot) -> bool:
        """Check whether the slot saw no GPU or no usable data, even in a fresh process; other slots may continue."""
        counts = {FailureKind.NO_DEVICE: self._blind, FailureKind.DATA: self._without_data}
        return any(count[slot.name] > RETRIES[kind].retries for kind, count in counts.items())

    def _launch(self, trial_id: str, slot: Slot) -> LaunchTrial:
        trial = self._trials[trial_id]
        if trial.state is not TrialState.PLANNED:
            raise self._impossible(trial_id, "launched")
        token = f"{self._session}-{next(self._counter)}"
        trial.state = TrialState.RUNNING
        trial.history.append(f"launched in {slot.name} as {token}")
        alone = trial.needs_device_alone
        self._running[token] = _Attempt(trial_id=trial_id, slot=slot, started_s=self._now_s, alone=alone)
        return LaunchTrial(trial_id=trial_id, token=token, slot=slot, micro_batches=trial.micro_batches, alone=alone)

    def _leave(self, token: str, state: TrialState, why: str, *, at_once: bool = True) -> None:
        attempt = self._attempt(token)
        del self._running[token]
        trial = self._trials[attempt.trial_id]
        trial.state = state
        trial.history.append(why)
        if state is TrialState.PLANNED:
            (self._queue.appendleft if at_once else self._queue.append)(attempt.trial_id)

    def _attempt(self, token: str) -> _Attempt:
        if token not in self._running:
            raise TransitionError(f"attempt {token} ended, but it does not run", remedy="this is a bug of the engine")
        return self._running[token]

    def _impossible(self, trial_id: str, event: str) -> TransitionError:
        history = ", ".join(self._trials[trial_id].history)
        return TransitionError(f"trial {trial_id} was {event}", remedy=f"its history is: {history}")


def _is_killed(failure: Failure) -> bool:
    return failure.kind is FailureKind.KILLED
