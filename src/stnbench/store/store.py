"""Store of trials, whose every writing method is one transaction."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import delete, func, insert, select, update

from stnbench.core.errors import SpecError, StoreError, UnknownNameError
from stnbench.core.identity import canonical_json
from stnbench.spec.control import ControlRecord
from stnbench.spec.data import Split
from stnbench.spec.result import AttemptState, EpochRecord, Failure, TrialResult, TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.store import engine, portable, rows, statements, tables
from stnbench.store.engine import Database
from stnbench.store.file import BUSY_TIMEOUT_S, Holder
from stnbench.store.merge import MergePlan
from stnbench.store.portable import Entry, History, Rows
from stnbench.store.queries import StoreReader, require_sweep
from stnbench.store.tables import AttemptRecord, AttemptStart, PlannedTrial

trials, attempts = tables.trials, tables.attempts

HOLD_EVERY_S = 5.0
"""Seconds between two checks that a shared store is still held; others believe a process gone after a minute and more.
"""


class Store(StoreReader):
    """The store of trials, read by any number of processes.

    A store that is a file is written by one process, which holds ``RunsLayout.orchestrator_lock``. One on a server is
    written by a process for each sweep that runs; a trial is claimed by its running attempt (see ``start_attempt``).

    Trials and attempts that have ended are never changed, except that ``replan`` plans failed trials again, and that an
    attempt that was given up may still deliver its result.

    Raises:
        StoreBusyError: if another process keeps the right to write.
        StoreError: if the database cannot be used or is open for reading only. A method that raises has written
            nothing.
    """

    def __init__(self, database: Database, history: History | None = None) -> None:
        super().__init__(database)
        self._history = history
        self._held_at_s = time.monotonic()

    @classmethod
    def open(
        cls,
        where: Path | str,
        *,
        writable: bool,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        holder: Holder | None = None,
        history: Path | None = None,
        backups: Path | None = None,
    ) -> Self:
        """Open the store at a path or a database URL.

        If it is opened for writing, a missing store is created and an older one upgraded.

        Args:
            where: path of a SQLite file, or URL of a database.
            writable: whether the store is opened for writing.
            busy_timeout_s: seconds to wait for locks.
            holder: process that keeps the right to write a store on a server until it is closed; None for no such
                process.
            history: file to which all writes are appended, and from which the store can be rebuilt; None for none.
            backups: folder to which a store that is a file is copied before an upgrade; None for no copy.

        Raises:
            FolderError: if a file or folder cannot be created.
            StoreBusyError: if another process holds the store, or runs the same sweep on it.
            StoreVersionError: if the revision of the store cannot be used.
            StoreError: if the store cannot be used.
        """
        database = Database.open(where, writable=writable, busy_timeout_s=busy_timeout_s, holder=holder)
        try:
            engine.prepare(database, backups=backups)
            store = cls(database, None if history is None else History(history))
            store._begin_history()
        except BaseException:
            database.close()
            raise
        return store

    @staticmethod
    def exists(where: Path | str) -> bool:
        """Check whether there is a store at a path, or at the URL of a server's database.

        Raises:
            StoreError: if the server cannot be reached, or holds the tables of another program.
        """
        return where.exists() if isinstance(where, Path) else engine.is_made(where)

    @property
    def is_shared(self) -> bool:
        """Return whether other processes may write the store at the same time, each for another sweep.

        Then an attempt of this process may be ended by another one that believed it gone, and a trial that was planned
        may be running, failed or complete at the next call: such calls raise TransitionError.
        """
        return self._database.backend.is_shared

    def close(self) -> None:
        """Close all connections; the store cannot be used afterwards."""
        self._database.close()
        if self._history is not None:
            self._history.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def save_sweep(
        self, spec: SweepSpec, planned: Sequence[PlannedTrial], at: datetime, *, given_up: Collection[str] = ()
    ) -> int:
        """Write a sweep and its trials, in their order; trials that exist are not changed.

        Trials that the sweep no longer contains are kept in the store, and no longer shown by it. Those that its pruner
        gave up stay pruned as long as it has one.

        Args:
            spec: the sweep.
            planned: its trials, in the order of planning.
            at: time of the change.
            given_up: ids of trials that a user has given up, which become pruned.

        Returns:
            The number of trials that are new to the store.

        Raises:
            SpecError: if the same trial is planned twice.
        """
        by_id = {trial.spec.trial_id: trial for trial in planned}
        if len(by_id) != len(planned):
            raise SpecError(f"the sweep {spec.name} plans a trial twice", remedy="plan each trial once")
        links = [
            rows.link_fields(spec.name, trial_id, position, trial)
            | ({"pruned": trial_id in given_up} if spec.pruner is None else {})
            for position, (trial_id, trial) in enumerate(by_id.items())
        ]
        with self._database.transaction() as connection:
            statements.save_spec(connection, spec, at)
            known = set(connection.execute(select(trials.c.id)).scalars())
            new = [rows.trial_fields(trial_id, by_id[trial_id].spec, at) for trial_id in by_id if trial_id not in known]
            statements.insert_all(connection, trials, new)
            changed = statements.save_links(connection, spec.name, links)
            pruned = statements.set_given_up(connection, spec.name, by_id.keys() & set(given_up), given_up=True)
            row = statements.sweep_row(connection, spec.name)
        self._note(("sweeps", row), *(("trials", one) for one in new), *(("sweep_trials", one) for one in changed))
        self._note(*(_link_entry(spec.name, trial_id, pruned=True) for trial_id in pruned))
        return len(new)

    def add_control(
        self, record: ControlRecord, *, give_up: Collection[str] = (), take_back: Collection[str] = ()
    ) -> bool:
        """Write the outcome of a request with its changes of the store; do nothing if the request is known.

        If the clock was set back since the last one of the sweep, it counts as applied right after that one.

        Args:
            record: record of the request.
            give_up: trials that become pruned in the sweep.
            take_back: trials that failed or were given up, and are planned again.

        Returns:
            Whether the request is new.

        Raises:
            UnknownNameError: if the store has no such sweep.
        """
        sweep = record.request.sweep
        fields = rows.control_fields(record)
        table = tables.controls
        with self._database.transaction() as connection:
            require_sweep(connection, sweep)
            if connection.execute(select(table.c.id).where(table.c.id == fields["id"])).first() is not None:
                return False
            newest = select(table.c.applied_at, table.c.id).where(table.c.sweep == sweep)
            newest = newest.order_by(table.c.applied_at.desc(), table.c.id.desc()).limit(1)
            last = connection.execute(newest).first()
            if last is not None and (fields["applied_at"], fields["id"]) < tuple(last):  # the clock was set back
                fields["applied_at"] = last.applied_at + timedelta(microseconds=1)
            connection.execute(insert(table), fields)
            given_up = statements.set_given_up(connection, sweep, give_up, given_up=True)
            wanted = statements.set_given_up(connection, sweep, take_back, given_up=False)
            of_states = connection.execute(select(trials.c.id, trials.c.state))
            states = {row.id: row.state for row in of_states} if take_back else {}
            failed = [name for name in sorted(take_back) if states.get(name) == TrialState.FAILED.value]
            for trial_id in failed:
                statements.set_trial_state(connection, trial_id, TrialState.PLANNED)
        self._note(
            ("controls", fields),
            *(_link_entry(sweep, trial_id, pruned=True) for trial_id in given_up),
            *(_link_entry(sweep, trial_id, pruned=False) for trial_id in wanted),
            *(_trial_entry(trial_id, TrialState.PLANNED) for trial_id in failed),
        )
        return True

    def start_attempt(self, start: AttemptStart) -> AttemptRecord:
        """Begin the next attempt of a planned trial, or of one that another sweep pruned, and return its record.

        The attempt is the claim of the process on the trial: nobody can begin another one until it has ended. Its token
        begins with the session of the process (``live_sessions``), so that the claim of a process that is gone can be
        ended by others.

        Raises:
            UnknownNameError: if the trial is unknown.
            TransitionError: if the trial is running, complete or failed, or the token was used before.
        """
        with self._database.transaction() as connection:
            state = connection.execute(select(trials.c.state).where(trials.c.id == start.trial_id)).scalar()
            if state is None:
                raise statements.unknown("trial", start.trial_id, connection.execute(select(trials.c.id)).scalars())
            if state not in {TrialState.PLANNED.value, TrialState.PRUNED.value}:
                raise statements.refusal(connection, start.trial_id, f"cannot start: it is {state}")
            if statements.find_attempt(connection, start.token) is not None:
                what = f"cannot start: the token {start.token} was used before"
                raise statements.refusal(connection, start.trial_id, what)
            last = select(func.max(attempts.c.number)).where(attempts.c.trial_id == start.trial_id)
            number = (connection.execute(last).scalar() or 0) + 1
            fields = rows.attempt_fields(start, number)
            connection.execute(insert(attempts), fields)
            statements.set_trial_state(connection, start.trial_id, TrialState.RUNNING)
            record = rows.attempt_record(statements.require_attempt(connection, start.token))
        self._note(("attempts", fields), _trial_entry(start.trial_id, TrialState.RUNNING))
        return record

    def add_epoch(self, token: str, record: EpochRecord) -> None:
        """Write one epoch of a running attempt; an epoch that exists is not changed.

        Raises:
            UnknownNameError: if the token is unknown.
            TransitionError: if the attempt has ended.
            StoreError: if a number is not finite.
        """
        with self._database.transaction() as connection:
            attempt = statements.require_attempt(connection, token)
            missing = statements.missing_epochs(connection, attempt.id, [record])
            if missing and attempt.state != AttemptState.RUNNING.value:
                what = f"cannot report epoch {record.epoch}: attempt {attempt.number} has ended"
                raise statements.refusal(connection, attempt.trial_id, what)
            statements.insert_all(connection, tables.epochs, missing)
        whose = {"trial_id": attempt.trial_id, "number": attempt.number}
        self._note(*(("epochs", fields | whose) for fields in missing))

    def complete_attempt(self, token: str, result: TrialResult, at: datetime) -> None:
        """Write a result, which completes the attempt and its trial.

        An attempt that was given up (lost or stopped) may still deliver its result, unless another attempt is complete
        or running.

        Raises:
            UnknownNameError: if the token is unknown.
            StoreError: if the result is of another attempt, or a number is not finite.
            TransitionError: if the trial is complete, another attempt of it is running, or this one has failed.
        """
        with self._database.transaction() as connection:
            attempt = statements.require_attempt(connection, token)
            if (result.token, result.trial_id) != (token, attempt.trial_id):
                problem = f"the result of attempt {result.token} of trial {result.trial_id}"
                remedy = f"it was given as that of attempt {token} of trial {attempt.trial_id}"
                raise StoreError(f"{problem} is another attempt's", remedy=remedy)
            statements.require_completable(connection, attempt)
            epochs = statements.missing_epochs(connection, attempt.id, result.epochs)
            statements.insert_all(connection, tables.epochs, epochs)
            statements.insert_outcome(connection, attempt.id, result)
            ended = statements.end_attempt(connection, attempt.id, AttemptState.COMPLETE, None, at)
            statements.set_trial_state(connection, attempt.trial_id, TrialState.COMPLETE)
        whose = {"trial_id": attempt.trial_id, "number": attempt.number}
        self._note(("attempts", ended | whose), _trial_entry(attempt.trial_id, TrialState.COMPLETE))

    def end_attempt(
        self,
        token: str,
        state: AttemptState,
        failure: Failure | None,
        at: datetime,
        *,
        trial_state: TrialState,
        sweep: str = "",
    ) -> None:
        """End a running attempt without a result, and set the state of its trial.

        Args:
            token: token of the attempt.
            state: final state of the attempt.
            failure: reason, required for a failed attempt.
            at: time of the end.
            trial_state: new state of the trial.
            sweep: sweep whose pruner gave up the trial, required for a pruned trial; others may continue to train it.

        Raises:
            UnknownNameError: if the token is unknown.
            TransitionError: if the attempt is not running, a required argument is missing, or a state needs a result or
                a running attempt.
        """
        with self._database.transaction() as connection:
            attempt = statements.require_attempt(connection, token)
            objection = _objection(AttemptState(attempt.state), state, failure, trial_state)
            if trial_state is TrialState.PRUNED and not sweep:
                objection = objection or "no sweep gave it up"
            if objection:
                what = f"cannot end attempt {attempt.number} as {state} and become {trial_state}: {objection}"
                raise statements.refusal(connection, attempt.trial_id, what)
            ended = statements.end_attempt(connection, attempt.id, state, failure, at)
            statements.set_trial_state(connection, attempt.trial_id, trial_state)
            if trial_state is TrialState.PRUNED:
                statements.prune(connection, sweep, attempt.trial_id)
        entries: list[Entry] = [("attempts", ended | {"trial_id": attempt.trial_id, "number": attempt.number})]
        entries.append(_trial_entry(attempt.trial_id, trial_state))
        if trial_state is TrialState.PRUNED:
            entries.append(("sweep_trials", {"sweep": sweep, "trial_id": attempt.trial_id, "pruned": True}))
        self._note(*entries)

    def replan(self, trial_ids: Iterable[str], *, paused_by: str = "") -> int:
        """Plan failed trials again, keeping their attempts, and return the number of trials.

        Args:
            trial_ids: the trials.
            paused_by: the sweep whose pruner gave the trials up and lets them go on; empty for failed trials.

        Raises:
            UnknownNameError: if a trial is unknown.
            TransitionError: if a trial has not failed.
        """
        asked = list(dict.fromkeys(trial_ids))
        if paused_by:
            with self._database.transaction() as connection:
                changed = statements.set_given_up(connection, paused_by, asked, given_up=False)
            self._note(*(_link_entry(paused_by, trial_id, pruned=False) for trial_id in changed))
            return len(asked)
        with self._database.transaction() as connection:
            states = {row.id: row.state for row in connection.execute(select(trials.c.id, trials.c.state))}
            for trial_id in asked:
                if trial_id not in states:
                    raise statements.unknown("trial", trial_id, states)
                if states[trial_id] != TrialState.FAILED.value:
                    raise statements.refusal(connection, trial_id, f"cannot be planned again: it is {states[trial_id]}")
                statements.set_trial_state(connection, trial_id, TrialState.PLANNED)
        self._note(*(_trial_entry(trial_id, TrialState.PLANNED) for trial_id in asked))
        return len(asked)

    def set_metrics(self, trial_id: str, split: Split, metrics: Mapping[str, float]) -> None:
        """Replace the metrics of a score.

        Raises:
            UnknownNameError: if the trial has no score on the split.
            SpecError: if a number is not finite.
        """
        scores = tables.scores
        text = canonical_json(dict(metrics))
        with self._database.transaction() as connection:
            of_score = (scores.c.trial_id == trial_id) & (scores.c.split == split)
            if connection.execute(update(scores).where(of_score).values(metrics=text)).rowcount != 1:
                raise UnknownNameError("score", f"{trial_id} ({split})", ())

    def set_mirrored(self, tracker: str, digests: Mapping[str, str]) -> None:
        """Save the digests of the records that a tracker has, by attempt (its token) or configuration."""
        with self._database.transaction() as connection:
            statements.save_mirrored(connection, tracker, digests)

    def forget_mirrored(self, tracker: str) -> None:
        """Delete the digests of a tracker's records, so that everything is written to it again."""
        with self._database.transaction() as connection:
            connection.execute(delete(tables.mirrored).where(tables.mirrored.c.tracker == tracker))

    def check(self) -> None:
        """Check that the file is still the one that was opened, or that the server still grants the right to write.

        The check is cheap enough to be called several times a second.

        Raises:
            StoreBusyError: if another process has taken the right to write after a lost connection.
            StoreError: if the file was removed, replaced, truncated or overwritten, or the server cannot be reached.
        """
        self._database.check()
        if self.is_shared and time.monotonic() - self._held_at_s >= HOLD_EVERY_S:
            self._database.hold()
            self._held_at_s = time.monotonic()

    def check_whole(self) -> None:
        """Check all pages of the file, read as by another process, after ``check``; do nothing for a server.

        Raises:
            StoreError: if the file is damaged, or lacks committed rows.
        """
        with self._database.reading() as connection:
            seen = statements.count_attempts(connection)
        self._database.check_whole(seen)

    def back_up(self, folder: Path) -> Path | None:
        """Copy the store into a folder while it is used, keep the newest copies, and return the path; None for servers.

        Raises:
            StoreError: if the store cannot be read.
            FolderError: if the folder cannot be written.
        """
        return self._database.back_up(folder)

    def rows(self, names: Iterable[str]) -> Rows:
        """Return all rows of the named tables, in one consistent view."""
        with self._database.reading() as connection:
            return {
                name: {portable.key_of(name, row): row for row in portable.read_rows(connection, name)}
                for name in names
            }

    def merge(self, plan: MergePlan) -> None:
        """Execute a plan of a merge in one transaction, and rewrite the history."""
        with self._database.transaction() as connection:
            statements.merge(connection, plan)
        self._begin_history()

    def fill(self, stored: Rows, results: Mapping[str, tuple[int, TrialResult]]) -> None:
        """Write the rows of a history and the results of trials.

        Args:
            stored: rows of the history.
            results: by trial id, the number of the attempt and its result.

        Raises:
            StoreError: if the store cannot hold a row.
        """
        with self._database.transaction() as connection:
            for table, own in stored.items():
                portable.insert_rows(connection, table, own.values(), where="the history")
            for trial_id, (number, result) in results.items():
                attempt = statements.attempt_by_number(connection, trial_id, number)
                epochs = statements.missing_epochs(connection, attempt.id, result.epochs)
                statements.insert_all(connection, tables.epochs, epochs)
                statements.insert_outcome(connection, attempt.id, result)

    def _note(self, *entries: Entry) -> None:
        if self._history is not None:
            self._history.add(entries)

    def _begin_history(self) -> None:
        """Rewrite the history from the store, since a killed process may not have appended its last transaction."""
        if self._history is not None and self._database.writable:
            with self._database.reading() as connection:
                self._history.rewrite(statements.history_rows(connection))


def _trial_entry(trial_id: str, state: TrialState) -> Entry:
    return "trials", {"id": trial_id, "state": state.value}


def _link_entry(sweep: str, trial_id: str, *, pruned: bool) -> Entry:
    return "sweep_trials", {"sweep": sweep, "trial_id": trial_id, "pruned": pruned}


def _objection(now: AttemptState, end: AttemptState, failure: Failure | None, trial_state: TrialState) -> str:
    """Return the reason why an attempt cannot end with these states; empty if it can."""
    if now is not AttemptState.RUNNING:
        return f"it is {now} already"
    if end in {AttemptState.RUNNING, AttemptState.COMPLETE}:
        return "only a result completes it, and nothing else goes on"
    if trial_state in {TrialState.RUNNING, TrialState.COMPLETE}:
        return "its trial then has no attempt at work, and no result"
    if end is AttemptState.FAILED and failure is None:
        return "no failure says why"
    return ""
