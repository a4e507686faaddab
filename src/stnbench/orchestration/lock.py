"""One writer: the lock that an orchestrator holds on a runs folder."""

import contextlib
from collections.abc import Iterator

from filelock import FileLock, Timeout

from stnbench.core.errors import FolderError, StoreBusyError
from stnbench.core.paths import RUNS_VARIABLE, RunsLayout
from stnbench.orchestration.host import ProcessIdentity

REMEDY = f"set {RUNS_VARIABLE} to a folder you can write"


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
        problem = f"another sweep runs on {layout.root} ({_read_holder(layout)})"
        raise StoreBusyError(problem, remedy="wait for it, stop it, or set STNBENCH_RUNS to another folder") from error
    except (OSError, NotImplementedError) as error:
        problem = f"the lock {layout.orchestrator_lock} cannot be taken ({getattr(error, 'strerror', None) or error})"
        raise FolderError(problem, remedy=REMEDY) from error
    try:
        # Who cannot be named on a full or read-only disk holds the lock all the same; the block's error is what counts.
        with contextlib.suppress(OSError):
            holder.write_text(f"{identity.title}\n")
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            lock.release()


def _read_holder(layout: RunsLayout) -> str:
    try:
        return layout.orchestrator_lock.with_suffix(".holder").read_text(errors="replace").strip() or "another process"
    except OSError:
        return "another process"
