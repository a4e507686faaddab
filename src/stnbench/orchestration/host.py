"""Which process this is, whether another still lives, and the lock of a runs folder."""

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

# Which process this is, so that another can later tell whether it still lives.
#
# No wall clock decides that: it may be set while a sweep runs. A process is known by its number and by when it began,
# counted from the boot of the machine.


_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_FIELD = 19
"""Of ``/proc/PID/stat`` after the name of the program: when the process began, in clock ticks since boot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessIdentity(Strict):
    """A process on a host since a boot; ``session`` is drawn anew for every orchestrator.

    ``start_ticks`` is when it began, since boot; 0 where the system does not tell.
    """

    host: str
    pid: int
    boot_id: str
    session: str
    start_ticks: int = 0

    @classmethod
    def current(cls) -> "ProcessIdentity":
        """This process."""
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
        """What messages call it."""
        return f"process {self.pid} on {self.host}"

    def is_alive(self) -> bool:
        """Whether it lives, asked on its host since its boot; another process may have its number by now."""
        return psutil.pid_exists(self.pid) and self.start_ticks in {0, start_ticks(self.pid)}


def start_ticks(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0 where the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        return int(stat.rpartition(b")")[2].split()[_START_FIELD])
    except (OSError, ValueError, IndexError):
        return 0


# One writer: the lock that an orchestrator holds on a runs folder.


@contextlib.contextmanager
def orchestrator_lock(layout: RunsLayout, identity: ProcessIdentity) -> Iterator[None]:
    """Hold the lock for the block; the system gives it back when the process ends, however it ends.

    Raises: StoreBusyError naming the process that holds it; FolderError where the folder cannot be written.
    """
    lock = FileLock(layout.orchestrator_lock, timeout=0)
    holder = layout.orchestrator_lock.with_suffix(".holder")
    try:
        lock.acquire()
    except Timeout as error:
        problem = f"another sweep runs on {layout.root} ({_holder_title(layout)})"
        raise StoreBusyError(problem, remedy="wait for it, stop it, or set STNBENCH_RUNS to another folder") from error
    except (OSError, NotImplementedError) as error:
        raise lock_error(layout.root, error, RUNS_VARIABLE) from error
    try:
        # Who cannot be named on a full or read-only disk holds the lock all the same; the block's error is what counts.
        with contextlib.suppress(OSError):
            holder.write_text(f"{identity.title}\n{to_json(identity)}\n")
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            lock.release()


def read_holder(layout: RunsLayout) -> ProcessIdentity | None:
    """The process that holds the lock or has died with it; None where nobody does, or none could say so."""
    try:
        _, _, text = layout.orchestrator_lock.with_suffix(".holder").read_text(errors="replace").partition("\n")
        return from_json(ProcessIdentity, text.encode(), where="the holder of the lock") if text.strip() else None
    except (OSError, SpecError):
        return None


def is_held(layout: RunsLayout) -> bool:
    """Return whether a process runs a sweep in this folder, as far as can be told from here."""
    holder = read_holder(layout)
    if holder is None:
        return False
    here = ProcessIdentity.current()
    return (holder.host, holder.boot_id) != (here.host, here.boot_id) or holder.is_alive()


def _holder_title(layout: RunsLayout) -> str:
    try:
        text = layout.orchestrator_lock.with_suffix(".holder").read_text(errors="replace")
    except OSError:
        text = ""
    return text.partition("\n")[0].strip() or "another process"
