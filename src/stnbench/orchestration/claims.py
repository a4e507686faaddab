"""Claims on trials: which running attempts are of processes that are gone, and their settlement.

The running attempt of a trial is the claim of the process that began it, and the session in its token names that
process. When a claim is settled, a result on the disk is adopted; without one the attempt is lost and its trial is free
again. Where the store is a file, the caller holds the orchestrator's lock, so that every other process is gone. Where
sweeps share a server's store, a sweep that finds a trial claimed waits for the outcome.
"""

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil
from filelock import FileLock, Timeout

from stnbench.core.errors import SpecError, StnbenchError, StoreBusyError, TransitionError
from stnbench.core.files import RUNS_VARIABLE, AttemptLayout, RunsLayout, lock_error
from stnbench.core.process import since_boot_s
from stnbench.orchestration.recovery import remove_checkpoints, remove_leftovers
from stnbench.spec.codec import Strict, from_json, to_json
from stnbench.spec.result import AttemptState, Failure, FailureKind, TrialResult, TrialState
from stnbench.store.store import Store
from stnbench.store.tables import AttemptRecord
from stnbench.trials.files import load_result

# Identity of processes, the check whether one is still alive, and the locks of a runs folder.


# The identity of a process, by which another can later determine whether it is still alive.
#
# It does not depend on the wall clock, which may be set while a sweep runs. A process is identified by its id and its
# start time, counted from the boot of the machine.


_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_FIELD = 19
"""Index in ``/proc/PID/stat``, after the program's name, of the start time of the process in clock ticks since boot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessIdentity(Strict):
    """Identity of a process: host, process id, boot and ``session``, which is drawn at random for every orchestrator.

    ``start_ticks`` is its start time in clock ticks since boot; 0 if the system does not report it. ``booted_at_s`` is
    the time of the boot in seconds since 1970, by the wall clock as it was when the process named itself; None in
    records of older versions.
    """

    host: str
    pid: int
    boot_id: str
    session: str
    start_ticks: int = 0
    booted_at_s: float | None = None

    @classmethod
    def current(cls) -> "ProcessIdentity":
        """Return the identity of this process, with a new session."""
        boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else str(int(psutil.boot_time()))
        pid = os.getpid()
        return cls(
            host=socket.gethostname(),
            pid=pid,
            boot_id=boot_id,
            session=secrets.token_hex(6),
            start_ticks=start_ticks(pid),
            booted_at_s=time.time() - since_boot_s(),
        )

    def now(self) -> datetime:
        """Return the time by the process's clock; to be called on the same host since the same boot.

        It is the wall clock when the process named itself, and goes on by the time since: setting the wall clock does
        not move it, so that differences between its times are durations.
        """
        booted_at_s = time.time() - since_boot_s() if self.booted_at_s is None else self.booted_at_s
        return datetime.fromtimestamp(booted_at_s + since_boot_s(), UTC)

    @property
    def title(self) -> str:
        """Return the description of the process for messages."""
        return f"process {self.pid} on {self.host}"

    def is_alive(self) -> bool:
        """Check whether the process is alive; to be called on the same host since the same boot.

        The start time is compared as well, because another process may have the same id by now.
        """
        return psutil.pid_exists(self.pid) and self.start_ticks in {0, start_ticks(self.pid)}

    def is_of_boot(self, other: "ProcessIdentity") -> bool:
        """Check whether both were started on one host since the same boot."""
        return (self.host, self.boot_id) == (other.host, other.boot_id)

    def runs_beside(self, other: "ProcessIdentity") -> bool:
        """Check whether the process is known to run on the host of another one that runs."""
        return self.is_of_boot(other) and self.is_alive()


def start_ticks(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot; 0 if the system does not report it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        return int(stat.rpartition(b")")[2].split()[_START_FIELD])
    except (OSError, ValueError, IndexError):
        return 0


def is_running(pid: int) -> bool:
    """Check whether a process of this host runs; one that has ended and was not waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


# The lock that an orchestrator holds on a runs folder, so that there is one writer. Where the store is on a server,
# several may use the folder at once, each for another sweep: then each holds a lock of its sweep.


@dataclass(kw_only=True, slots=True)
class HeldLock:
    """The lock of a runs folder while this process holds it.

    The system's lock belongs to the file, not to its name: once the file is removed or replaced, another process could
    lock a new one. ``keep`` notices that.

    Attributes:
        root: the runs folder.
        lock: the lock file.
        identity: this process.
        busy: returns the error for a lock that another process holds.
    """

    root: Path
    lock: FileLock
    identity: ProcessIdentity
    busy: Callable[[], StoreBusyError]
    _locked: tuple[int, int] | None = None

    @property
    def path(self) -> Path:
        """Return the path of the lock file."""
        return Path(self.lock.lock_file)

    @property
    def holder(self) -> Path:
        """Return the path of the file that names this process to others."""
        return self.path.with_suffix(".holder")

    def acquire(self) -> None:
        """Take the lock, and name this process in the file beside it.

        Raises:
            StoreBusyError: if another process holds the lock, or held it and still runs after its file was removed.
            FolderError: if the folder cannot be written.
        """
        try:
            self.lock.acquire()
        except Timeout as error:
            raise self.busy() from error
        except (OSError, NotImplementedError) as error:
            raise lock_error(self.root, error, RUNS_VARIABLE) from error
        earlier = _read_holder(self.holder)
        if earlier is not None and earlier.pid != self.identity.pid and earlier.runs_beside(self.identity):
            self.lock.release()
            raise self.busy()
        self._locked = self._file()
        self._name_holder()

    def keep(self) -> bool:
        """Check that the lock file is the one that was locked, and lock a new one if it is not.

        Returns:
            Whether the file was gone or another one.

        Raises:
            StoreBusyError: if another process has locked the new file.
            FolderError: if the folder cannot be written.
        """
        is_lost = self._file() != self._locked
        if is_lost:
            with contextlib.suppress(OSError):
                self.lock.release(force=True)
            self.acquire()
        elif _read_holder(self.holder) != self.identity:
            self._name_holder()
        return is_lost

    def release(self) -> None:
        """Remove the name of this process, and release the lock."""
        with contextlib.suppress(OSError):
            self.holder.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.lock.release()

    def _file(self) -> tuple[int, int] | None:
        """Return the device and inode of the file with the name of the lock, or None if there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _name_holder(self) -> None:
        # On a full or read-only disk the holder is not recorded, but holds the lock; the block's errors have priority.
        with contextlib.suppress(OSError):
            self.holder.write_text(f"{self.identity.title}\n{to_json(self.identity)}\n", encoding="utf-8")


@contextlib.contextmanager
def orchestrator_lock(layout: RunsLayout, identity: ProcessIdentity, *, sweep: str = "") -> Iterator[HeldLock]:
    """Hold the lock for the block; the system releases it when the process ends for any reason.

    Args:
        layout: the runs folder.
        identity: this process.
        sweep: the sweep that this process runs, if the store lets others run at the same time; else empty.

    Raises:
        StoreBusyError: if another process holds the lock; the message names it.
        FolderError: if the folder cannot be written.
    """
    path = layout.lock_of(sweep)

    def busy() -> StoreBusyError:
        what = f"the sweep {sweep} runs already" if layout.is_shared and sweep else "another sweep runs"
        holder = _read_holder(path.with_suffix(".holder"))
        problem = f"{what} on {layout.root} ({'another process' if holder is None else holder.title})"
        return StoreBusyError(problem, remedy="wait for it, stop it, or set STNBENCH_RUNS to another folder")

    held = HeldLock(root=layout.root, lock=FileLock(path, timeout=0), identity=identity, busy=busy)
    held.acquire()
    try:
        yield held
    finally:
        held.release()


def read_holder(layout: RunsLayout, sweep: str = "") -> ProcessIdentity | None:
    """Return the process that holds the lock or died holding it, or None if there is none or it is not recorded."""
    return _read_holder(layout.lock_of(sweep).with_suffix(".holder"))


def _read_holder(path: Path) -> ProcessIdentity | None:
    try:
        _, _, text = path.read_text(encoding="utf-8", errors="replace").partition("\n")
        return from_json(ProcessIdentity, text.encode(), where="the holder of the lock") if text.strip() else None
    except (OSError, SpecError):
        return None


def is_held(layout: RunsLayout, sweep: str) -> bool:
    """Check whether a process runs a sweep in this folder, as far as this can be determined from this host."""
    holder = read_holder(layout, sweep)
    if holder is None:
        return False
    here = ProcessIdentity.current()
    return not holder.is_of_boot(here) or holder.is_alive()


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
    """Return the result that an attempt left, or None if it is missing, damaged or of another attempt."""
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
