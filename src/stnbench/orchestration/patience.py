"""A store whose calls wait while another program writes it, its disk is full, or its server restarts.

Nothing is lost meanwhile: the reports of trials wait in their pipes and folders. An interrupted transaction may have
been committed or not, so the store is checked for it before the next try.
"""

import functools
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from typing_extensions import override

from stnbench.core.errors import StoreBusyError, StoreError
from stnbench.spec.control import ControlRecord
from stnbench.spec.result import AttemptState, Failure, TrialResult, TrialState
from stnbench.store.store import Store
from stnbench.store.tables import AttemptRecord, AttemptStart

T = TypeVar("T")

BUSY_TIMEOUT_S: Final = 2.0
"""Seconds that one statement waits for another writer, without handling signals; longer waits are done here."""


@dataclass(kw_only=True, slots=True)
class StoreWait:
    """Policy of waiting for a store, and of reporting it.

    Args:
        say: prints a line.
        is_asked_to_stop: returns whether a user has requested a stop; then ``grace_s`` seconds are left.
        limit_s: maximum seconds of one wait.
        again_s: seconds between two reports of a wait.
    """

    say: Callable[[str], None]
    is_asked_to_stop: Callable[[], bool] = lambda: False
    limit_s: float = 600.0
    grace_s: float = 10.0
    again_s: float = 30.0
    pause_s: float = 0.5
    clock_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def until_done(
        self,
        call: Callable[[], T],
        *,
        settled: Callable[[], T | None] = lambda: None,
        kind: type[StoreError] = StoreError,
    ) -> T:
        """Call until the store answers.

        Args:
            call: the operation.
            settled: returns the result of an earlier, interrupted call that took effect; None if it did not.
            kind: class of the errors after which the call is repeated, if they are transient.

        Raises:
            StoreError: if the store does not answer in time, or the error is permanent.
        """
        began_s = self.clock_s()
        told_s = stopping_s = None
        while True:
            try:
                result = None if told_s is None else settled()
                result = call() if result is None else result
            except kind as error:
                now_s = self.clock_s()
                if self.is_asked_to_stop() and stopping_s is None:
                    stopping_s = now_s
                is_late = stopping_s is not None and now_s - stopping_s > self.grace_s
                if not error.is_transient or is_late or now_s - began_s > self.limit_s:
                    raise
                if told_s is None or now_s - told_s >= self.again_s:
                    self.say(f"waiting for the store for up to {self.limit_s:g} s: {error.problem}")
                    told_s = now_s
                self.sleep(self.pause_s)
            else:
                if told_s is not None:
                    self.say(f"the store answers again, after {self.clock_s() - began_s:.0f} s")
                return result


class PatientStore(Store):
    """Store whose methods wait until it answers, as configured by ``wait``."""

    wait = StoreWait(say=lambda _: None)

    @override
    def start_attempt(self, start: AttemptStart) -> AttemptRecord:
        return self.wait.until_done(
            lambda: Store.start_attempt(self, start), settled=lambda: self._attempt_of(start.trial_id, start.token)
        )

    @override
    def complete_attempt(self, token: str, result: TrialResult, at: datetime) -> None:
        def settled() -> bool | None:
            attempt = self._attempt_of(result.trial_id, token)
            return True if attempt is not None and attempt.state is AttemptState.COMPLETE else None

        def complete() -> bool:
            Store.complete_attempt(self, token, result, at)
            return True

        self.wait.until_done(complete, settled=settled)

    @override
    def end_attempt(
        self,
        token: str,
        state: AttemptState,
        failure: Failure | None,
        at: datetime,
        *,
        trial_state: TrialState,
        sweep: str = "",
    ) -> None:
        def end() -> bool:
            Store.end_attempt(self, token, state, failure, at, trial_state=trial_state, sweep=sweep)
            return True

        def settled() -> bool | None:
            # With a shared store another process may have ended it otherwise: then the call is made again, and refused.
            attempt = Store.find_attempt(self, token)
            return True if attempt is not None and attempt.state is state else None

        self.wait.until_done(end, settled=settled)

    @override
    def add_control(
        self, record: ControlRecord, *, give_up: Collection[str] = (), take_back: Collection[str] = ()
    ) -> bool:
        def settled() -> bool | None:
            known = Store.controls(self, record.request.sweep)
            return True if any(item.request.request_id == record.request.request_id for item in known) else None

        return self.wait.until_done(
            lambda: Store.add_control(self, record, give_up=give_up, take_back=take_back), settled=settled
        )

    @override
    def replan(self, trial_ids: Iterable[str], *, paused_by: str = "") -> int:
        asked = list(trial_ids)

        def settled() -> int | None:
            if paused_by:
                return None  # doing it again changes nothing
            states = Store.trial_states(self, asked)
            return len(asked) if all(state is not TrialState.FAILED for state in states.values()) else None

        return self.wait.until_done(lambda: Store.replan(self, asked, paused_by=paused_by), settled=settled)

    def _attempt_of(self, trial_id: str, token: str) -> AttemptRecord | None:
        return next((item for item in Store.attempts_of_trial(self, trial_id) if item.token == token), None)


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(Store, name)

    @functools.wraps(method)
    def call(store: PatientStore, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - of the method's own types
        return store.wait.until_done(lambda: method(store, *given, **named))

    return call


REPEATABLE: Final = (
    *("check", "save_sweep", "add_epoch", "set_metrics", "set_mirrored", "forget_mirrored"),
    *("sweeps", "version", "sweep_trials", "trial_ids", "unsettled", "latest_timings", "find_trial", "trial_states"),
    *("attempts_of_trial", "attempts_of_sweep", "running_attempts", "superseded_attempts", "epochs_of_trial"),
    *("live_sessions", "find_attempt"),
    *(
        "epochs_of_sweep",
        "outcomes",
        "outcome",
        "environments",
        "predictions",
        "predictions_of_sweep",
        "image_sets",
        "mirrored",
        "controls",
    ),
)
"""Methods that are idempotent."""

for _name in REPEATABLE:
    setattr(PatientStore, _name, _patient(_name))


def open_patiently(open_store: Callable[[], PatientStore], wait: StoreWait) -> PatientStore:
    """Open a store that waits as configured; wait here as well while another program writes it.

    Raises:
        StoreError: if it cannot be opened: the address of an unreachable server may be wrong.
    """
    store = wait.until_done(open_store, kind=StoreBusyError)
    store.wait = wait
    return store
