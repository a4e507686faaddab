"""One writer: the lock that an orchestrator holds on a runs folder."""

import contextlib
from collections.abc import Iterator

from filelock import FileLock, Timeout

from stnbench.core.errors import SpecError, StoreBusyError
from stnbench.core.files import lock_error
from stnbench.core.paths import RUNS_VARIABLE, RunsLayout
from stnbench.orchestration.host import ProcessIdentity
from stnbench.spec.codec import from_json, to_json


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
