"""Identity of processes, the check whether one is still alive, and the locks of a runs folder."""

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
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


@contextlib.contextmanager
def orchestrator_lock(layout: RunsLayout, identity: ProcessIdentity, *, sweep: str = "") -> Iterator[None]:
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
    lock = FileLock(path, timeout=0)
    holder = path.with_suffix(".holder")
    try:
        lock.acquire()
    except Timeout as error:
        what = f"the sweep {sweep} runs already" if layout.is_shared and sweep else "another sweep runs"
        problem = f"{what} on {layout.root} ({_holder_title(holder)})"
        raise StoreBusyError(problem, remedy="wait for it, stop it, or set STNBENCH_RUNS to another folder") from error
    except (OSError, NotImplementedError) as error:
        raise lock_error(layout.root, error, RUNS_VARIABLE) from error
    try:
        # On a full or read-only disk the holder is not recorded, but holds the lock; the block's errors have priority.
        with contextlib.suppress(OSError):
            holder.write_text(f"{identity.title}\n{to_json(identity)}\n")
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            lock.release()


def read_holder(layout: RunsLayout, sweep: str = "") -> ProcessIdentity | None:
    """Return the process that holds the lock or died holding it; None if there is none or it is not recorded."""
    try:
        path = layout.lock_of(sweep).with_suffix(".holder")
        _, _, text = path.read_text(errors="replace").partition("\n")
        return from_json(ProcessIdentity, text.encode(), where="the holder of the lock") if text.strip() else None
    except (OSError, SpecError):
        return None


def is_held(layout: RunsLayout, sweep: str) -> bool:
    """Check whether a process runs a sweep in this folder, as far as this can be determined from this host."""
    holder = read_holder(layout, sweep)
    if holder is None:
        return False
    here = ProcessIdentity.current()
    return (holder.host, holder.boot_id) != (here.host, here.boot_id) or holder.is_alive()


def _holder_title(holder: Path) -> str:
    try:
        text = holder.read_text(errors="replace")
    except OSError:
        text = ""
    return text.partition("\n")[0].strip() or "another process"
