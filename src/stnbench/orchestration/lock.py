"""One writer: the lock that an orchestrator holds on a runs folder."""

import contextlib
from collections.abc import Iterator

from filelock import FileLock, Timeout

from stnbench.core.errors import StoreBusyError
from stnbench.core.paths import RunsLayout
from stnbench.orchestration.host import ProcessIdentity


@contextlib.contextmanager
def orchestrator_lock(layout: RunsLayout, identity: ProcessIdentity) -> Iterator[None]:
    """Hold the lock for the block; the system gives it back when the process ends, however it ends.

    Raises: StoreBusyError naming the process that holds it.
    """
    lock = FileLock(layout.orchestrator_lock, timeout=0)
    holder = layout.orchestrator_lock.with_suffix(".holder")
    try:
        lock.acquire()
    except Timeout as error:
        who = holder.read_text().strip() if holder.exists() else "another process"
        problem = f"another sweep runs on {layout.root} ({who})"
        raise StoreBusyError(problem, remedy="wait for it, stop it, or set STNBENCH_RUNS to another folder") from error
    try:
        with contextlib.suppress(OSError):  # a full disk: nobody else can say then who holds it, and that is all
            holder.write_text(f"{identity.title}\n")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
