"""The orchestrator's decisions, without I/O: events in, commands out.

``Machine.handle`` is told what happened and answers with what to do; it reads no clock, file or process, so a test is
"events in, commands out". The runner executes the commands and feeds the outcome back as events.

::

                 launch            finished
    planned ───────────> running ───────────> complete
       ^                    │ failed, and no retry left
       │  lost, stopped,    ├───────────> failed
       └────────────────────┘
          failed, and a retry is left
"""

import itertools
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from stnbench.core.errors import TransitionError
from stnbench.engines.base import Slot
from stnbench.orchestration.policy import BREAKER_THRESHOLD, RETRIES, signature
from stnbench.spec.result import Failure, FailureKind
from stnbench.spec.states import AttemptState, TrialState

# Events


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialsPlanned:
    """Trials that are to run, in order of preference."""

    trial_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptFinished:
    """An attempt is complete and its result is valid."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptFailed:
    """An attempt ended with a failure; a process that died without a word is a failure of the kind ``killed``."""

    token: str
    failure: Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptStopped:
    """An attempt stopped because it was asked to."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TimePassed:
    """The clock now, in seconds from any fixed origin."""

    now_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StopAsked:
    """A person or a budget wants the sweep to end: running attempts are stopped, and nothing new begins."""

    reason: str


Event = TrialsPlanned | AttemptFinished | AttemptFailed | AttemptStopped | TimePassed | StopAsked

# Commands


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchTrial:
    """Begin an attempt in a slot."""

    trial_id: str
    token: str
    slot: Slot


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordComplete:
    """Write the attempt's result to the store."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordEnd:
    """Write to the store how an attempt ended, and what becomes of its trial."""

    token: str
    attempt_state: AttemptState
    trial_state: TrialState
    failure: Failure | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StopAttempt:
    """Ask an attempt to stop at its next step."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KillAttempt:
    """End an attempt's process; its time is up."""

    token: str


Command = LaunchTrial | RecordComplete | RecordEnd | StopAttempt | KillAttempt


@dataclass(slots=True)
class _Trial:
    state: TrialState = TrialState.PLANNED
    failures: Counter[FailureKind] = field(default_factory=Counter)
    needs_device_alone: bool = False
    history: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Attempt:
    trial_id: str
    slot: Slot
    started_s: float
    alone: bool
    is_timed_out: bool = False


class Machine:
    """State of one sweep's execution. ``session`` makes tokens unique among all orchestrators that ever ran."""

    def __init__(self, slots: Sequence[Slot], *, session: str, timeout_s: float | None = None) -> None:
        self._slots = tuple(slots)
        self._session = session
        self._timeout_s = timeout_s
        self._counter = itertools.count(1)
        self._trials: dict[str, _Trial] = {}
        self._queue: deque[str] = deque()
        self._running: dict[str, _Attempt] = {}
        self._bugs: Counter[str] = Counter()
        self._now_s = 0.0
        self.stop_reason = ""

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing more will, unless trials are planned."""
        return not self._running and (not self._queue or bool(self.stop_reason))

    @property
    def running(self) -> dict[str, str]:
        """Tokens of running attempts, with their trials."""
        return {token: attempt.trial_id for token, attempt in self._running.items()}

    def state_of(self, trial_id: str) -> TrialState:
        """Where a trial stands."""
        return self._trials[trial_id].state

    def handle(self, event: Event) -> tuple[Command, ...]:
        """Take note of an event and say what to do about it, in order.

        Raises: TransitionError for an event that cannot happen now, with the trial's history.
        """
        match event:
            case TrialsPlanned():
                done = self._plan(event)
            case AttemptFinished():
                done = self._finish(event)
            case AttemptFailed():
                done = self._fail(event)
            case AttemptStopped():
                done = self._end_stopped(event)
            case TimePassed():
                done = self._pass_time(event)
            case StopAsked():
                done = self._ask_stop(event)
        return (*done, *self._launches())

    def _plan(self, event: TrialsPlanned) -> tuple[Command, ...]:
        for trial_id in event.trial_ids:
            if trial_id in self._trials:
                raise self._impossible(trial_id, "planned a second time")
            self._trials[trial_id] = _Trial(history=["planned"])
            self._queue.append(trial_id)
        return ()

    def _finish(self, event: AttemptFinished) -> tuple[Command, ...]:
        self._bugs.clear()
        self._leave(event.token, TrialState.COMPLETE, "finished")
        return (RecordComplete(token=event.token),)

    def _fail(self, event: AttemptFailed) -> tuple[Command, ...]:
        attempt = self._attempt(event.token)
        trial = self._trials[attempt.trial_id]
        failure = self._judge(event.failure, attempt)
        trial.failures[failure.kind] += 1
        policy = RETRIES[failure.kind]
        retry = trial.failures[failure.kind] <= policy.retries or (bool(self.stop_reason) and _is_killed(failure))
        trial.needs_device_alone = policy.alone
        state = TrialState.PLANNED if retry else TrialState.FAILED
        self._leave(event.token, state, f"failed ({failure.kind})")
        attempt_state = AttemptState.LOST if _is_killed(failure) else AttemptState.FAILED
        record = RecordEnd(token=event.token, attempt_state=attempt_state, trial_state=state, failure=failure)
        return (record, *self._break(failure))

    def _end_stopped(self, event: AttemptStopped) -> tuple[Command, ...]:
        self._leave(event.token, TrialState.PLANNED, "stopped")
        stopped, planned = AttemptState.STOPPED, TrialState.PLANNED
        return (RecordEnd(token=event.token, attempt_state=stopped, trial_state=planned, failure=None),)

    def _pass_time(self, event: TimePassed) -> tuple[Command, ...]:
        self._now_s = event.now_s
        late = []
        for token, attempt in self._running.items():
            is_late = self._timeout_s is not None and event.now_s - attempt.started_s > self._timeout_s
            if is_late and not attempt.is_timed_out:
                attempt.is_timed_out = True
                late.append(KillAttempt(token=token))
        return tuple(late)

    def _ask_stop(self, event: StopAsked) -> tuple[Command, ...]:
        self.stop_reason = self.stop_reason or event.reason
        return tuple(StopAttempt(token=token) for token in self._running)

    def _judge(self, failure: Failure, attempt: _Attempt) -> Failure:
        """A worker killed because its time was up did not die: it timed out."""
        if not (attempt.is_timed_out and _is_killed(failure)):
            return failure
        message = f"took longer than {self._timeout_s:g} s"
        return Failure(kind=FailureKind.TIMEOUT, message=message, last_output=failure.last_output)

    def _break(self, failure: Failure) -> tuple[Command, ...]:
        if failure.kind is not FailureKind.BUG or self.stop_reason:
            return ()
        key = signature(failure)
        self._bugs[key] += 1
        if self._bugs[key] < BREAKER_THRESHOLD:
            return ()
        return self._ask_stop(StopAsked(reason=f"{BREAKER_THRESHOLD} trials died of the same bug: {failure.message}"))

    def _launches(self) -> Iterator[Command]:
        if self.stop_reason:
            return
        for slot in self._slots:
            if not self._queue:
                return
            if self._admits(slot):
                trial_id = self._queue.popleft()
                yield self._launch(trial_id, slot)

    def _admits(self, slot: Slot) -> bool:
        """Whether the slot is free for the next trial; one that needs its device alone waits for it at the front."""
        neighbours = [attempt for attempt in self._running.values() if attempt.slot.device == slot.device]
        if any(attempt.slot == slot or attempt.alone for attempt in neighbours):
            return False
        return not (self._trials[self._queue[0]].needs_device_alone and neighbours)

    def _launch(self, trial_id: str, slot: Slot) -> LaunchTrial:
        trial = self._trials[trial_id]
        if trial.state is not TrialState.PLANNED:
            raise self._impossible(trial_id, "launched")
        token = f"{self._session}-{next(self._counter)}"
        trial.state = TrialState.RUNNING
        trial.history.append(f"launched in {slot.name} as {token}")
        alone = trial.needs_device_alone
        self._running[token] = _Attempt(trial_id=trial_id, slot=slot, started_s=self._now_s, alone=alone)
        return LaunchTrial(trial_id=trial_id, token=token, slot=slot)

    def _leave(self, token: str, state: TrialState, why: str) -> None:
        attempt = self._attempt(token)
        del self._running[token]
        trial = self._trials[attempt.trial_id]
        trial.state = state
        trial.history.append(why)
        if state is TrialState.PLANNED:
            self._queue.appendleft(attempt.trial_id)

    def _attempt(self, token: str) -> _Attempt:
        if token not in self._running:
            raise TransitionError(f"attempt {token} ended, but it does not run", remedy="this is a bug of the engine")
        return self._running[token]

    def _impossible(self, trial_id: str, event: str) -> TransitionError:
        history = ", ".join(self._trials[trial_id].history)
        return TransitionError(f"trial {trial_id} was {event}", remedy=f"its history is: {history}")


def _is_killed(failure: Failure) -> bool:
    return failure.kind is FailureKind.KILLED
