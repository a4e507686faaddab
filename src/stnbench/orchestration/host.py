"""Identity of processes, the check whether one is still alive, and the locks of a runs folder."""

import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from stnbench.core.errors import SpecError, StoreBusyError
from stnbench.core.files import lock_error
from stnbench.core.paths import RUNS_VARIABLE, RunsLayout
from stnbench.spec.codec import Strict, from_json, to_json

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

    ``start_ticks`` is its start time in clock ticks since boot; 0 if the system does not report it.
    """

    host: str
    pid: int
    boot_id: str
    session: str
    start_ticks: int = 0

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
        )

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
        """Return what identifies the file that has the name of the lock; None if there is none."""
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
    """Return the process that holds the lock or died holding it; None if there is none or it is not recorded."""
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
