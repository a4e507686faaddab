"""Recovery after a crash: restoration of a store, removal of leftovers, and checkpoints to resume from."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from stnbench.core.errors import FolderError, StnbenchError, StoreError
from stnbench.core.files import AttemptLayout, RunsLayout, sync_folder
from stnbench.orchestration.observer import Observer
from stnbench.spec.codec import to_json
from stnbench.spec.result import AttemptState, FailureKind, TrialResult, TrialState
from stnbench.spec.trial import TrialSpec
from stnbench.store.file import PARTS
from stnbench.store.portable import TABLES, Row, Rows, drop_orphans, read_history
from stnbench.store.queries import StoreReader
from stnbench.store.store import Store
from stnbench.trials.files import load_result, load_spec

# Removal of checkpoints: only those of the best configurations are kept where disk space is short.


if TYPE_CHECKING:
    from stnbench.analysis.fitted import ScoredRun


def best_configurations(runs: "Sequence[ScoredRun]", keep: int) -> set[str]:
    """Return the ids of the ``keep`` configurations with the highest mean validation accuracy, adjusted for seeds."""
    from stnbench.analysis.comparison import compare_configurations  # imports SciPy, needed only with ``keep``

    ranked = [item.configuration for item in compare_configurations(runs).decisions if item.mean is not None]
    return set(ranked[:keep])


def drop_checkpoints(store: StoreReader, sweep: str, layout: RunsLayout, *, keep: int) -> int:
    """Remove the checkpoints of complete trials outside the ``keep`` best configurations; return their number.

    Results, predictions and epochs stay in the store, and probabilities in the trials' folders. A trial that is not
    complete keeps its checkpoint to resume from, and so does one without held-out validation images.
    """
    from stnbench.analysis.fitted import ScoredRun  # as above

    outcomes = store.outcomes(sweep)
    complete = [
        trial
        for trial in store.sweep_trials(sweep)
        if trial.state is TrialState.COMPLETE and trial.spec.has_held_out_images
    ]
    runs = [
        ScoredRun(
            configuration=trial.config_id,
            seed=trial.seed,
            correct=outcomes[trial.trial_id].validation.correct,
            images=outcomes[trial.trial_id].validation.images,
        )
        for trial in complete
        if trial.trial_id in outcomes
    ]
    kept = best_configurations(runs, keep)
    removed = 0
    for trial in complete:
        if trial.config_id in kept:
            continue
        for number in range(1, trial.attempts + 1):
            path = AttemptLayout(layout.attempt(trial.trial_id, number)).checkpoint
            with contextlib.suppress(OSError):  # removal is tried again after the next trial
                path.unlink()
                removed += 1
    return removed


# Restoration of a store from the files beside it: its history, the results of trials, and backups.
#
# The caller holds the orchestrator's lock. Nothing on the disk is lost: an existing store is moved aside.


SERVER_REMEDY: Final = "a server makes its own backups; a store that is a file is made again with STNBENCH_STORE unset"

BACKUP_EVERY_S: Final = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """Summary of a restored store and its sources.

    ``source`` is the origin of sweeps and attempts: ``history``, the name of a backup, or empty if only results were
    found. ``missing`` is the number of trials that were complete and whose result is gone: they are planned again.
    ``problems`` describe, one line each, files that could not be used. ``aside`` is the path of the previous store,
    None if there was none.
    """

    source: str
    sweeps: int
    trials: int
    complete: int
    missing: int
    problems: tuple[str, ...]
    aside: Path | None

    @property
    def summary(self) -> str:
        """Return the numbers of sweeps and trials in words."""
        sweeps = f"{self.sweeps} sweep{'' if self.sweeps == 1 else 's'}"
        return f"{sweeps}, {self.trials} trials, {self.complete} of them complete"


@dataclass(slots=True)
class _Found:
    rows: Rows
    source: str = ""
    results: dict[str, tuple[int, TrialResult]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    missing: int = 0


def restore_store(layout: RunsLayout, *, now: datetime) -> Restored:
    """Restore the store under a temporary name, and move it into place atomically.

    Raises:
        StoreError: if the store is on a server, or there is nothing to restore it from.
        FolderError: if the store cannot be written.
    """
    store = layout.store
    if not isinstance(store, Path):
        raise StoreError("the store is on a server", remedy=SERVER_REMEDY)
    found = _Found(rows={table: {} for table in TABLES})
    _read_rows(layout, found)
    _read_results(layout, found)
    _settle_restore(found, now)
    found.problems += _dropped(found)
    if not found.rows["trials"] and not found.rows["sweeps"]:
        raise StoreError(f"there is nothing below {layout.root} to make a store of", remedy="run a sweep")
    fresh = store.with_name(f".{store.name}.new")
    _remove(fresh)
    try:
        with Store.open(fresh, writable=True) as made:
            made.fill(found.rows, {trial: (number, result) for trial, (number, result) in found.results.items()})
        aside = _set_aside(store, now)
        fresh.replace(store)
        sync_folder(store.parent)
    except OSError as error:
        raise FolderError(f"the store cannot be made in {layout.root} ({error})", remedy="see to its disk") from error
    finally:
        with contextlib.suppress(OSError):
            _remove(fresh)
    return Restored(
        source=found.source,
        sweeps=len(found.rows["sweeps"]),
        trials=len(found.rows["trials"]),
        complete=len(found.results),
        missing=found.missing,
        problems=tuple(found.problems),
        aside=aside,
    )


class Backups(Observer):
    """Observer that copies the store every ``every_s`` seconds of a run; a failed copy causes a warning."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        warn: Callable[[str], None],
        *,
        every_s: float = BACKUP_EVERY_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._folder = folder
        self._warn = warn
        self._every_s = every_s
        self._clock_s = clock_s
        self._last_s = clock_s()

    @override
    def ticked(self) -> None:
        if self._clock_s() - self._last_s < self._every_s:
            return
        self._last_s = self._clock_s()
        try:
            self._store.back_up(self._folder)
        except StnbenchError as error:
            self._warn(f"the store was not copied: {error}")


def is_worth_restoring(layout: RunsLayout) -> bool:
    """Check whether a store that is a file is missing, and there are files to restore it from."""
    if not isinstance(layout.store, Path) or layout.store.exists():
        return False
    return layout.history.exists() or next(_result_files(layout), None) is not None


def _read_rows(layout: RunsLayout, found: _Found) -> None:
    """Read the rows of the history and, if it is missing or damaged, of the newest readable backup."""
    try:
        history = read_history(layout.history)
    except OSError as error:
        found.problems.append(f"{layout.history} cannot be read ({error.strerror or error})")
    else:
        if history.rows["trials"]:
            found.rows, found.source = history.rows, "history"
            if not history.damaged:
                return
        if history.damaged:
            lines = "line" if history.damaged == 1 else "lines"
            found.problems.append(f"{layout.history}: {history.damaged} {lines} cannot be read")
    _read_copies(layout, found)


def _read_copies(layout: RunsLayout, found: _Found) -> None:
    """Add the rows of the newest readable backup; rows of the history are newer and take precedence."""
    for copy in sorted(layout.backups.glob("*.db"), key=lambda path: path.name.rpartition("-")[2], reverse=True):
        try:
            rows = _rows_of(copy)
        except (StnbenchError, OSError) as error:
            found.problems.append(f"{copy} cannot be used ({error})")
            continue
        for table, own in rows.items():
            found.rows[table] = own | found.rows[table]
        found.source = f"{found.source} and {copy.name}" if found.source else copy.name
        return


def _rows_of(copy: Path) -> Rows:
    """Return the rows of a backup; a temporary copy of it is migrated if it is of an older revision."""
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=copy.parent) as folder:
        own = Path(shutil.copyfile(copy, Path(folder) / copy.name))
        with Store.open(own, writable=True) as store:
            return store.rows(TABLES)


def _read_results(layout: RunsLayout, found: _Found) -> None:
    attempts = found.rows["attempts"]
    for path in _result_files(layout):
        trial_id, number = path.parents[1].name, int(path.parent.name)
        try:
            result = load_result(path)
        except StnbenchError as error:
            found.problems.append(str(error.problem))
            continue
        known = attempts.get((trial_id, number))
        if result.trial_id != trial_id or (known is not None and known["token"] != result.token):
            found.problems.append(f"{path} is of another attempt")
            continue
        other = found.results.get(trial_id)
        is_recorded = known is not None and known["state"] == AttemptState.COMPLETE.value
        if other is None or is_recorded:
            if (trial_id,) not in found.rows["trials"] and not _describe_trial(path, result, found):
                continue
            if known is None:
                attempts[trial_id, number] = _attempt_of(path, result, number)
            found.results[trial_id] = (number, result)


def _describe_trial(path: Path, result: TrialResult, found: _Found) -> bool:
    """Add the row of a trial that is known only from its files; return False if they are not usable."""
    try:
        spec = load_spec(path.parent)
    except StnbenchError as error:
        found.problems.append(str(error.problem))
        return False
    if spec.trial_id != result.trial_id:
        found.problems.append(f"{AttemptLayout(path.parent).spec} describes another trial, {spec.trial_id}")
        return False
    found.rows["trials"][result.trial_id,] = {
        "id": result.trial_id,
        "cell_id": spec.config_id,
        "seed": spec.seed,
        "spec": to_json(spec),
        "state": TrialState.COMPLETE.value,
        "created_at": _written_at(path).isoformat(),
    }
    return True


def _attempt_of(path: Path, result: TrialResult, number: int) -> Row:
    ended = _written_at(path)
    began = ended - timedelta(seconds=result.train_duration_s)
    return {
        "trial_id": result.trial_id,
        "number": number,
        "token": result.token,
        "state": AttemptState.COMPLETE.value,
        "slot": "unknown",
        "host": result.environment.host,
        "pid": 0,
        "boot_id": "unknown",
        "started_at": began.isoformat(),
        "finished_at": ended.isoformat(),
    }


def _settle_restore(found: _Found, now: datetime) -> None:
    """Set the states of attempts and trials according to the results."""
    no_failure: Row = dict.fromkeys(("failure_kind", "failure_message", "failure_traceback", "failure_last_output"))
    for (trial_id, number), row in found.rows["attempts"].items():
        completes = found.results.get(str(trial_id), (0, None))[0] == number
        if completes:
            row |= {"state": AttemptState.COMPLETE.value, **no_failure}
            row["finished_at"] = row.get("finished_at") or now.isoformat()
        elif row["state"] == AttemptState.COMPLETE.value:
            row |= {"state": AttemptState.LOST.value, **no_failure}
            row |= {"failure_kind": FailureKind.KILLED.value, "failure_message": "its result is gone"}
            row |= {"failure_traceback": "", "failure_last_output": ""}
        elif row["state"] == AttemptState.RUNNING.value and str(trial_id) in found.results:
            row |= {"state": AttemptState.STOPPED.value, "finished_at": now.isoformat()}
    running = {key[0] for key, row in found.rows["attempts"].items() if row["state"] == AttemptState.RUNNING.value}
    for (trial_id,), row in found.rows["trials"].items():
        if trial_id in found.results:
            row["state"] = TrialState.COMPLETE.value
        elif row["state"] == TrialState.COMPLETE.value or (
            row["state"] == TrialState.RUNNING.value and trial_id not in running
        ):
            found.missing += row["state"] == TrialState.COMPLETE.value
            row["state"] = TrialState.PLANNED.value


def _dropped(found: _Found) -> Iterator[str]:
    """Remove incomplete rows and rows without their counterpart, and yield a message for them."""
    by_result = {key for key in found.rows["epochs"] if found.results.get(str(key[0]), (0,))[0] == key[1]}
    for key in by_result:
        del found.rows["epochs"][key]
    for table, own in found.rows.items():
        for key in [key for key, row in own.items() if not _is_whole(table, row)]:
            del own[key]
            yield f"a row of {table} is incomplete ({', '.join(map(str, key))})"
    count = drop_orphans(found.rows)
    for trial_id in [name for name in found.results if (name,) not in found.rows["trials"]]:
        del found.results[trial_id]
    if count:
        yield f"{count} rows have lost the trial, sweep or attempt that they belong to"


def _is_whole(table: str, row: Row) -> bool:
    needed: dict[str, Any] = {
        "sweeps": ("spec", "created_at", "updated_at"),
        "trials": ("spec", "cell_id", "seed", "created_at", "state"),
        "sweep_trials": ("position", "label", "point", "is_twin", "wanted"),
        "attempts": ("token", "state", "started_at"),
        "epochs": ("step", "health"),
        "controls": ("sweep", "request", "applied_at", "is_refused", "outcome", "effect"),
    }
    return all(row.get(name) is not None for name in needed.get(table, ()))


def _result_files(layout: RunsLayout) -> Iterator[Path]:
    """Yield the path of the result of every attempt, in order."""
    for path in sorted(layout.trials.glob("*/*/result.json")):
        if AttemptLayout(path.parent).result == path and path.parent.name.isdecimal():
            yield path


def _written_at(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, tz=UTC)


def _set_aside(store: Path, now: datetime) -> Path | None:
    """Move a store and its auxiliary files aside; return the new path, None if there was no store."""
    aside = None
    for part in PARTS:
        path = store.with_name(f"{store.name}{part}")
        if path.exists():
            moved = store.with_name(f"{store.name}.aside-{now:%Y%m%dT%H%M%S%f}{part}")
            path.rename(moved)
            aside = aside or moved
    return aside


def _remove(file: Path) -> None:
    for part in PARTS:
        file.with_name(f"{file.name}{part}").unlink(missing_ok=True)


# Leftovers of killed processes are removed: partly written files, and checkpoints that no attempt will resume from.


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
"""Patterns, below the runs folder, of files that only an unfinished write leaves."""


def remove_leftovers(layout: RunsLayout, *, older_than_s: float = 0.0) -> int:
    """Remove temporary files and folders of killed writers, and return their number.

    Errors of the disk are ignored. Files that were changed in the last ``older_than_s`` seconds are kept.
    """
    removed = 0
    for pattern in LEFTOVERS:
        for path in layout.root.glob(pattern):
            with contextlib.suppress(OSError):
                if older_than_s and time.time() - path.lstat().st_mtime < older_than_s:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                removed += 1
    return removed


def remove_checkpoints(store: Store, layout: RunsLayout) -> int:
    """Remove checkpoints of attempts whose trial another attempt completed, and return their number."""
    removed = 0
    for trial_id, number in store.superseded_attempts():
        with contextlib.suppress(OSError):
            AttemptLayout(layout.attempt(trial_id, number)).checkpoint.unlink()
            removed += 1
    return removed


def resumable(
    store: StoreReader, layout: RunsLayout, spec: TrialSpec, number: int, *, warn: Callable[[str], None]
) -> tuple[str, ...]:
    """Return the folders of attempts from whose checkpoint an attempt of a trial may go on, the latest first.

    Earlier attempts of the trial are followed by those of a trial with the same weights. The worker, which has torch,
    finds out whether a checkpoint can be read.

    Args:
        store: the store.
        layout: the runs folder.
        spec: the trial.
        number: number of the attempt that is to begin.
        warn: receives a warning for each attempt that had finished an epoch, and whose checkpoint is missing, later
            than the first that is there.
    """
    same_weights = spec.trained_as.trial_id
    tried = [(spec.trial_id, earlier) for earlier in range(number - 1, 0, -1)]
    if same_weights != spec.trial_id:
        others = store.attempts_of_trial(same_weights)
        tried += sorted(((same_weights, attempt.number) for attempt in others), reverse=True)
    folders = [layout.attempt(trial_id, attempt) for trial_id, attempt in tried]
    found = tuple(str(folder) for folder in folders if AttemptLayout(folder).checkpoint.exists())
    trained = {item.attempt for item in store.epochs_of_trial(spec.trial_id)} if number > 1 else set()
    for folder, (trial_id, attempt) in zip(folders, tried, strict=True):
        if str(folder) in found:
            break
        if trial_id == spec.trial_id and attempt in trained:
            path, then = AttemptLayout(folder).checkpoint, "an earlier one" if found else "the start"
            warn(
                f"the checkpoint {path} is gone, of an attempt that had finished an epoch: training begins from {then}"
            )
    return found
