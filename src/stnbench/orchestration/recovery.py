"""After a crash: results that reached the disk are adopted, every other attempt that was running is lost.

What killed processes left behind is removed: files half written, and checkpoints that no attempt will go on from.
Called by a process that holds the orchestrator's lock, so whoever ran those attempts is gone.
"""

import contextlib
import shutil
from collections.abc import Sequence
from datetime import datetime

from stnbench.core.errors import StnbenchError
from stnbench.core.paths import AttemptLayout, RunsLayout
from stnbench.spec.result import Failure, FailureKind, TrialResult
from stnbench.spec.states import AttemptState, TrialState
from stnbench.store.records import AttemptRecord
from stnbench.store.store import Store
from stnbench.trials.files import load_result

LEFTOVERS = (
    ".mlflow.db.*",
    ".*.tmp",
    ".stnbench.db.new*",
    "control/.*.tmp",
    "backups/*.tmp",
    "backups/.copy-*",
    "machines/.*.tmp",
    "sources/.*.tmp",
    "trials/.*.tmp",
    "trials/*/*/.*.tmp",
)
"""Names, below the runs folder, that only an unfinished write has."""


def recover(store: Store, layout: RunsLayout, now: datetime) -> tuple[int, int]:
    """Settle every attempt that the store believes to run; return how many were adopted and how many were lost."""
    running: Sequence[AttemptRecord] = store.running_attempts()
    adopted = sum(_settle(store, layout, attempt, now) for attempt in running)
    remove_leftovers(layout)
    remove_checkpoints(store, layout)
    return adopted, len(running) - adopted


def remove_leftovers(layout: RunsLayout) -> int:
    """Remove what no process will finish: temporary files and folders of writers that were killed; how many.

    A disk that does not let go of them is no reason to stop.
    """
    removed = 0
    for pattern in LEFTOVERS:
        for path in layout.root.glob(pattern):
            with contextlib.suppress(OSError):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                removed += 1
    return removed


def remove_checkpoints(store: Store, layout: RunsLayout) -> int:
    """Remove checkpoints of attempts that were given up of trials that are complete by another one; how many."""
    removed = 0
    for trial_id, number in store.superseded_attempts():
        with contextlib.suppress(OSError):
            AttemptLayout(layout.attempt(trial_id, number)).checkpoint.unlink()
            removed += 1
    return removed


def result_of(layout: RunsLayout, trial_id: str, number: int, token: str) -> TrialResult | None:
    """The result that an attempt left, if it is whole and its own."""
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
