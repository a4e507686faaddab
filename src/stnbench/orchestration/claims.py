"""Claims on trials: which running attempts are of processes that are gone, and their settlement.

The running attempt of a trial is the claim of the process that began it, and the session in its token names that
process. When a claim is settled, a result on the disk is adopted; without one the attempt is lost and its trial is free
again. Where the store is a file, the caller holds the orchestrator's lock, so that every other process is gone. Where
sweeps share a server's store, a sweep that finds a trial claimed waits for the outcome.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from stnbench.core.errors import StnbenchError, TransitionError
from stnbench.core.paths import AttemptLayout, RunsLayout
from stnbench.orchestration.host import ProcessIdentity, is_running
from stnbench.orchestration.recovery import remove_checkpoints, remove_leftovers
from stnbench.spec.result import AttemptState, Failure, FailureKind, TrialResult, TrialState
from stnbench.store.records import AttemptRecord
from stnbench.store.store import Store
from stnbench.trials.files import load_result

ELSEWHERE_EVERY_S = 1.0
"""Seconds between two looks at trials that other orchestrators have claimed."""

SHARED_LEFTOVER_S: Final = 3600.0
"""Age in seconds from which a temporary file of a runs folder that several processes write is a leftover."""

CLAIM_GRACE_S: Final = 90.0
"""Seconds without a connection after which a process that cannot be seen is taken to be gone; longer than a server's
restart and the time in which a process connects again."""


@dataclass(slots=True)
class Claims:
    """Judge of the claims of other processes: which of them are gone, so that their trials are free again.

    A process whose session is live at the server is there. One that is not is gone at once if it ran on this host and
    its process has ended; otherwise after ``grace_s`` seconds in which its session was never seen live.
    """

    here: ProcessIdentity
    grace_s: float = CLAIM_GRACE_S
    is_running: Callable[[int], bool] = is_running
    _missing_since_s: dict[str, float] = field(default_factory=dict)

    def gone(self, attempts: Sequence[AttemptRecord], live: Collection[str], now_s: float) -> list[AttemptRecord]:
        """Return the running attempts of processes that are gone.

        Args:
            attempts: running attempts, of any process.
            live: sessions that are live at the server.
            now_s: current time of a monotonic clock.
        """
        sessions = {session_of(attempt.token) for attempt in attempts}
        self._missing_since_s = {
            session: self._missing_since_s.get(session, now_s) for session in sessions if session not in live
        }
        return [attempt for attempt in attempts if self._is_gone(attempt, now_s)]

    def _is_gone(self, attempt: AttemptRecord, now_s: float) -> bool:
        session = session_of(attempt.token)
        if session == self.here.session or session not in self._missing_since_s:
            return False
        if attempt.host == self.here.host and not (
            attempt.boot_id == self.here.boot_id and self.is_running(attempt.pid)
        ):
            return True
        return now_s - self._missing_since_s[session] > self.grace_s


def session_of(token: str) -> str:
    """Return the session of the orchestrator that began the attempt of a token."""
    return token.rpartition("-")[0]


@dataclass(slots=True)
class Others:
    """The other orchestrators of a store, as one of them sees them; there are none unless the store is shared."""

    store: Store
    layout: RunsLayout
    claims: Claims
    _looked_s: float = float("-inf")

    def gone(self, attempts: Sequence[AttemptRecord], now_s: float) -> list[AttemptRecord]:
        """Return those running attempts of other processes that are gone: all, unless the store is shared."""
        if not self.store.is_shared:
            return list(attempts)
        live = self.store.live_sessions(session_of(attempt.token) for attempt in attempts)
        return self.claims.gone(attempts, live, now_s)

    def settled(self, awaited: Collection[str], sweep: str, now_s: float, now: datetime) -> dict[str, TrialState]:
        """End the claims of processes that are gone, and return the states of the trials that are claimed no more.

        Does nothing if the last look was less than ``ELSEWHERE_EVERY_S`` ago.

        Args:
            awaited: ids of trials that others had claimed.
            sweep: the sweep, as which the states are seen.
            now_s: current time of a monotonic clock.
            now: current time.
        """
        if not awaited or now_s - self._looked_s < ELSEWHERE_EVERY_S:
            return {}
        self._looked_s = now_s
        running = [attempt for attempt in self.store.running_attempts() if attempt.trial_id in awaited]
        settle(self.store, self.layout, self.gone(running, now_s), now)
        states = sorted(self.store.trial_states(awaited, sweep=sweep).items())
        return {trial_id: state for trial_id, state in states if state is not TrialState.RUNNING}


def recover(
    store: Store, layout: RunsLayout, now: datetime, *, attempts: Sequence[AttemptRecord] | None = None
) -> tuple[int, int]:
    """Settle running attempts whose process is gone, and remove leftovers.

    Args:
        store: the store.
        layout: the runs folder.
        now: current time.
        attempts: the attempts; if None, all that are running according to the store.

    Returns:
        The numbers of adopted and lost attempts.
    """
    running = store.running_attempts() if attempts is None else attempts
    settled = settle(store, layout, running, now)
    # Where others write as well, a temporary file may be in use; no file is written for an hour.
    remove_leftovers(layout, older_than_s=SHARED_LEFTOVER_S if store.is_shared else 0.0)
    remove_checkpoints(store, layout)
    return settled


def settle(store: Store, layout: RunsLayout, attempts: Sequence[AttemptRecord], now: datetime) -> tuple[int, int]:
    """Adopt the results of attempts whose process is gone, and record the others as lost; return both numbers.

    Attempts of a shared store that another process has settled meanwhile are left out.
    """
    adopted = lost = 0
    for attempt in attempts:
        try:
            is_adopted = _settle(store, layout, attempt, now)
        except TransitionError:
            if not store.is_shared:
                raise
            continue
        adopted, lost = adopted + is_adopted, lost + (not is_adopted)
    return adopted, lost


def result_of(layout: RunsLayout, trial_id: str, number: int, token: str) -> TrialResult | None:
    """Return the result that an attempt left; None if it is missing, damaged or of another attempt."""
    path = AttemptLayout(layout.attempt(trial_id, number)).result
    if not path.exists():
        return None
    try:
        result = load_result(path)
    except StnbenchError:
        return None
    return result if (result.trial_id, result.token) == (trial_id, token) else None


def _settle(store: Store, layout: RunsLayout, attempt: AttemptRecord, now: datetime) -> bool:
    result = result_of(layout, attempt.trial_id, attempt.number, attempt.token)
    if result is not None:
        store.complete_attempt(attempt.token, result, now)
        return True
    message = f"the orchestrator (process {attempt.pid} on {attempt.host}) ended while it ran"
    failure = Failure(kind=FailureKind.KILLED, message=message)
    store.end_attempt(attempt.token, AttemptState.LOST, failure, now, trial_state=TrialState.PLANNED)
    return False
