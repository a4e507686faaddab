"""Queries of the store, each with one consistent view and a fixed number of statements."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, func, select

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.spec.control import ControlRecord
from stnbench.spec.data import Split
from stnbench.spec.result import AttemptState, Environment, SplitScore, TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.store import rows, tables
from stnbench.store.engine import Database
from stnbench.store.tables import AttemptEpoch, AttemptRecord, ImageSets, Outcome, SweepRecord, Timing, TrialRecord

trials, links, attempts = tables.trials, tables.sweep_trials, tables.attempts

SEEN_STATE = case(
    (and_(links.c.pruned, trials.c.state != TrialState.COMPLETE.value), TrialState.PRUNED.value),
    (trials.c.state == TrialState.PRUNED.value, TrialState.PLANNED.value),
    else_=trials.c.state,
)
"""State of a trial as seen by a sweep: pruned only if that sweep pruned it, regardless of others."""


class StoreReader:
    """A reader of the store, safe to use while another process writes and from several threads.

    Raises:
        StoreError: by every method if the database cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def sweeps(self) -> list[SweepRecord]:
        """Return all sweeps, the one last run first."""
        with self._database.reading() as connection:
            found = connection.execute(_sweeps_by_time()).all()
            counts = _count_states(connection)
        return [
            SweepRecord(
                spec=rows.from_stored(SweepSpec, row.spec),
                created_at=row.created_at,
                updated_at=row.updated_at,
                counts=counts.get(row.name, {}),
            )
            for row in found
        ]

    def sweep_trials(self, sweep: str) -> list[TrialRecord]:
        """Return the trials of a sweep, in the order of planning.

        Raises:
            UnknownNameError: if the store has no such sweep.
        """
        wanted = and_(links.c.sweep == sweep, links.c.wanted)
        with self._database.reading() as connection:
            require_sweep(connection, sweep)
            found = connection.execute(_trials_seen(wanted).order_by(links.c.position)).all()
        return [rows.trial_record(row) for row in found]

    def trial_ids(self, sweep: str) -> list[str]:
        """Return the identities of the trials of a sweep, in the order of planning; raises as ``sweep_trials``."""
        wanted = select(links.c.trial_id).where(links.c.sweep == sweep, links.c.wanted).order_by(links.c.position)
        with self._database.reading() as connection:
            require_sweep(connection, sweep)
            return list(connection.execute(wanted).scalars())

    def unsettled(self, sweep: str) -> tuple[dict[TrialState, int], list[TrialRecord]]:
        """Return the number of a sweep's trials by state, and its running and failed trials, in one view.

        Raises:
            UnknownNameError: if the store has no such sweep.
        """
        of_sweep = and_(links.c.sweep == sweep, links.c.wanted)
        shown = SEEN_STATE.in_([TrialState.RUNNING.value, TrialState.FAILED.value])
        with self._database.reading() as connection:
            require_sweep(connection, sweep)
            counts = _count_states(connection, links.c.sweep == sweep).get(sweep, {})
            found = connection.execute(_trials_seen(and_(of_sweep, shown)).order_by(links.c.position)).all()
        return counts, [rows.trial_record(row) for row in found]

    def latest_timings(self, limit: int) -> list[Timing]:
        """Return the training times of the ``limit`` most recently completed trials, the latest first."""
        table = tables.outcomes
        columns = (trials.c.spec, table.c.parameters, table.c.flops, table.c.activation_bytes, table.c.train_duration_s)
        joined = table.join(trials, trials.c.id == table.c.trial_id).join(attempts, attempts.c.id == table.c.attempt_id)
        validated = and_(tables.scores.c.trial_id == table.c.trial_id, tables.scores.c.split == "validation")
        joined = joined.join(tables.scores, validated)
        newest_first = (
            select(*columns, tables.scores.c.metrics)
            .select_from(joined)
            .order_by(attempts.c.finished_at.desc(), attempts.c.id.desc())
        )
        with self._database.reading() as connection:
            found = connection.execute(newest_first.limit(limit)).all()
        return [rows.timing(row) for row in found]

    def find_trial(self, prefix: str) -> TrialRecord:
        """Return the trial whose identity begins with a text, as seen by the last run sweep that contains it.

        Raises:
            UnknownNameError: if there is none; the message suggests the most similar ones.
            SpecError: if there are several.
        """
        begins = trials.c.id.startswith(prefix.lower(), autoescape=True)  # only SQLite would ignore case
        with self._database.reading() as connection:
            found = connection.execute(select(trials.c.id).where(begins).order_by(trials.c.id).limit(4)).scalars().all()
            if not found:
                raise UnknownNameError("trial", prefix, connection.execute(select(trials.c.id)).scalars())
            if len(found) > 1 or not prefix:
                shown = f"{', '.join(found[:3])}{', ...' if len(found) > 3 else ''}"
                raise SpecError(f"several trials begin with '{prefix}': {shown}", remedy="give more of its identity")
            seen = _trials_seen(trials.c.id == found[0]).join(tables.sweeps, tables.sweeps.c.name == links.c.sweep)
            newest_first = seen.order_by(links.c.wanted.desc(), tables.sweeps.c.updated_at.desc(), links.c.sweep)
            return rows.trial_record(connection.execute(newest_first.limit(1)).one())

    def trial_states(self, trial_ids: Iterable[str], *, sweep: str | None = None) -> dict[str, TrialState]:
        """Return the states of the given trials that the store knows, of any sweep.

        With a ``sweep``, the states are those seen by that sweep: a trial that another sweep pruned is planned, also if
        the sweep does not contain it yet.
        """
        asked = set(trial_ids)
        query = select(trials.c.id, trials.c.state)
        if sweep is not None:
            of_sweep = and_(links.c.trial_id == trials.c.id, links.c.sweep == sweep)
            query = select(trials.c.id, SEEN_STATE.label("state")).select_from(trials.outerjoin(links, of_sweep))
        with self._database.reading() as connection:
            found = connection.execute(query)
            return {row.id: TrialState(row.state) for row in found if row.id in asked}

    def attempts_of_trial(self, trial_id: str) -> list[AttemptRecord]:
        """Return the attempts of a trial, the first one first."""
        return self._attempts(select(attempts).where(attempts.c.trial_id == trial_id).order_by(attempts.c.number))

    def attempts_of_sweep(self, sweep: str) -> list[AttemptRecord]:
        """Return the attempts of all trials of a sweep, ordered by trial in the order of planning, then by number.

        Raises:
            UnknownNameError: if the store has no such sweep.
        """
        query = select(attempts).join(links, links.c.trial_id == attempts.c.trial_id)
        wanted = query.where(links.c.sweep == sweep, links.c.wanted).order_by(links.c.position, attempts.c.number)
        return self._attempts(wanted, sweep=sweep)

    def running_attempts(self) -> list[AttemptRecord]:
        """Return the attempts that have begun and not ended, as far as the store knows; the oldest first."""
        running = attempts.c.state == AttemptState.RUNNING.value
        return self._attempts(select(attempts).where(running).order_by(attempts.c.started_at, attempts.c.id))

    def live_sessions(self, sessions: Iterable[str]) -> set[str]:
        """Return those of the given sessions that hold a right to write a store on a server at present.

        A process that has lost its connection is missing until it is connected again. A file has a single writer, so
        that no other session is live.
        """
        asked = sorted(set(sessions))
        if not asked:
            return set()
        with self._database.reading() as connection:
            return self._database.backend.live_sessions(connection, asked)

    def find_attempt(self, token: str) -> AttemptRecord | None:
        """Return the attempt of a token, or None if there is none."""
        return next(iter(self._attempts(select(attempts).where(attempts.c.token == token))), None)

    def superseded_attempts(self) -> list[tuple[str, int]]:
        """Return trial and number of the attempts without a result whose trial another attempt has completed."""
        other = attempts.alias()
        by_other = select(other.c.trial_id).where(other.c.state == AttemptState.COMPLETE.value)
        given_up = attempts.c.state != AttemptState.COMPLETE.value
        query = select(attempts.c.trial_id, attempts.c.number).where(given_up, attempts.c.trial_id.in_(by_other))
        with self._database.reading() as connection:
            return [(row.trial_id, row.number) for row in connection.execute(query)]

    def epochs_of_trial(self, trial_id: str) -> list[AttemptEpoch]:
        """Return the epochs of all attempts of a trial, in order."""
        with self._database.reading() as connection:
            found = connection.execute(_epochs().where(attempts.c.trial_id == trial_id)).all()
        return [rows.attempt_epoch(row) for row in found]

    def epochs_of_sweep(self, sweep: str) -> dict[str, list[AttemptEpoch]]:
        """Return the epochs of all attempts of a sweep by trial id; trials without epochs are left out.

        Raises:
            UnknownNameError: if the store has no such sweep.
        """
        query = _epochs().join(links, links.c.trial_id == attempts.c.trial_id)
        with self._database.reading() as connection:
            require_sweep(connection, sweep)
            found = connection.execute(query.where(links.c.sweep == sweep, links.c.wanted)).all()
        epochs: dict[str, list[AttemptEpoch]] = defaultdict(list)
        for row in found:
            epochs[row.trial_id].append(rows.attempt_epoch(row))
        return dict(epochs)

    def outcomes(self, sweep: str, *, predictions: bool = False) -> dict[str, Outcome]:
        """Return the outcomes of the complete trials of a sweep by trial id.

        Args:
            sweep: name of the sweep.
            predictions: whether scores include predictions; otherwise these are empty.

        Raises:
            UnknownNameError: if the store has no such sweep.
        """
        wanted = select(links.c.trial_id).where(links.c.sweep == sweep, links.c.wanted)
        with self._database.reading() as connection:
            require_sweep(connection, sweep)
            return _outcomes(connection, wanted, predictions=predictions)

    def environments(self, trial_ids: Iterable[str]) -> dict[str, Environment]:
        """Return the environments of the given trials that are complete, by trial id."""
        asked = set(trial_ids)
        query = select(tables.outcomes.c.trial_id, tables.outcomes.c.environment)
        with self._database.reading() as connection:
            known = {
                row.digest: rows.from_stored(Environment, row.environment)
                for row in connection.execute(select(tables.environments))
            }
            return {row.trial_id: known[row.environment] for row in connection.execute(query) if row.trial_id in asked}

    def outcome(self, trial_id: str, *, predictions: bool = False) -> Outcome | None:
        """Return the outcome of a trial, or None if it is not complete."""
        one = select(trials.c.id).where(trials.c.id == trial_id)
        with self._database.reading() as connection:
            return _outcomes(connection, one, predictions=predictions).get(trial_id)

    def predictions(self, trial_id: str, split: Split) -> tuple[int, ...] | None:
        """Return the predicted label of every image of a split in file order, or None without a score on it."""
        table = tables.predictions
        query = select(table).where(table.c.trial_id == trial_id, table.c.split == split)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else rows.labels_of(row)

    def predictions_of_sweep(
        self, sweep: str, split: Split, trial_ids: Iterable[str] | None = None
    ) -> dict[str, tuple[int, ...]]:
        """Return the predicted labels in file order of the trials of a sweep that were scored on a split, by trial id.

        With ``trial_ids`` only these trials are included.

        Raises:
            UnknownNameError: if the store has no such sweep.
        """
        table = tables.predictions
        wanted = select(links.c.trial_id).where(links.c.sweep == sweep, links.c.wanted)
        query = select(table).where(table.c.trial_id.in_(wanted), table.c.split == split).order_by(table.c.trial_id)
        asked = None if trial_ids is None else sorted(set(trial_ids))
        with self._database.reading() as connection:
            require_sweep(connection, sweep)
            found = connection.execute(query if asked is None else query.where(table.c.trial_id.in_(asked))).all()
        return {row.trial_id: rows.labels_of(row) for row in found}

    def image_sets(self, sweep: str, split: Split) -> ImageSets:
        """Return the images of a split on which the trials of a sweep were scored, without older scores that lack them.

        Raises:
            UnknownNameError: if the store has no such sweep.
        """
        table, sets = tables.scored_images, tables.image_sets
        wanted = select(links.c.trial_id).where(links.c.sweep == sweep, links.c.wanted)
        query = select(table).where(table.c.trial_id.in_(wanted), table.c.split == split).order_by(table.c.trial_id)
        with self._database.reading() as connection:
            require_sweep(connection, sweep)
            of_trial = {row.trial_id: row.digest for row in connection.execute(query)}
            used = select(sets).where(sets.c.digest.in_(query.with_only_columns(table.c.digest).order_by(None)))
            found = connection.execute(used.order_by(sets.c.digest)).all()
        return ImageSets(sets={row.digest: rows.scored_images(row) for row in found}, of_trial=of_trial)

    def version(self, sweep: str) -> str:
        """Return a text that changes whenever a trial, attempt, epoch or request of the sweep is new or changed."""
        own = select(links.c.trial_id).where(links.c.sweep == sweep)
        of_attempts = (
            select(attempts.c.state, func.count(), func.max(attempts.c.started_at), func.max(attempts.c.finished_at))
            .where(attempts.c.trial_id.in_(own))
            .group_by(attempts.c.state)
            .order_by(attempts.c.state)
        )
        ids = select(attempts.c.id).where(attempts.c.trial_id.in_(own))
        of_epochs = select(func.count()).where(tables.epochs.c.attempt_id.in_(ids))
        of_controls = select(func.count()).where(tables.controls.c.sweep == sweep)
        of_links = select(func.count(), func.sum(case((links.c.wanted, 1), else_=0))).where(links.c.sweep == sweep)
        with self._database.reading() as connection:
            counts = _count_states(connection, links.c.sweep == sweep).get(sweep, {})
            queries = (of_attempts, of_epochs, of_controls, of_links)
            found = [[tuple(row) for row in connection.execute(query)] for query in queries]
        return f"{sorted(counts.items())} {found}"

    def controls(self, sweep: str) -> list[ControlRecord]:
        """Return the requests to a sweep, in the order in which they were executed."""
        table = tables.controls
        query = select(table).where(table.c.sweep == sweep).order_by(table.c.applied_at, table.c.id)
        with self._database.reading() as connection:
            return [rows.control_record(row) for row in connection.execute(query)]

    def mirrored(self, tracker: str) -> dict[str, str]:
        """Return the digests of the records that a tracker has, by attempt (its token) and configuration."""
        query = select(tables.mirrored).where(tables.mirrored.c.tracker == tracker)
        with self._database.reading() as connection:
            return {row.subject: row.digest for row in connection.execute(query)}

    def _attempts(self, query: Select[Any], *, sweep: str | None = None) -> list[AttemptRecord]:
        with self._database.reading() as connection:
            if sweep is not None:
                require_sweep(connection, sweep)
            found = connection.execute(query).all()
        return [rows.attempt_record(row) for row in found]


def require_sweep(connection: Connection, sweep: str) -> None:
    """Raise UnknownNameError, offering the nearest names, unless the store has this sweep."""
    known = connection.execute(select(tables.sweeps.c.name)).scalars().all()
    if sweep not in known:
        raise UnknownNameError("sweep", sweep, known, where="the store")


def _sweeps_by_time() -> Select[Any]:
    return select(tables.sweeps).order_by(tables.sweeps.c.updated_at.desc(), tables.sweeps.c.name)


def _count_states(
    connection: Connection, condition: ColumnElement[bool] | None = None
) -> dict[str, dict[TrialState, int]]:
    seen = select(links.c.sweep, SEEN_STATE.label("state"))
    wanted = links.c.wanted if condition is None else and_(links.c.wanted, condition)
    each = seen.join(trials, trials.c.id == links.c.trial_id).where(wanted).subquery()
    query = select(each.c.sweep, each.c.state, func.count().label("trials"))
    counts: dict[str, dict[TrialState, int]] = defaultdict(dict)
    for row in connection.execute(query.group_by(each.c.sweep, each.c.state)):
        counts[row.sweep][TrialState(row.state)] = row.trials
    return counts


def _trials_seen(condition: ColumnElement[bool]) -> Select[Any]:
    """Trials as sweeps see them, with their last attempts: one statement, however many there are."""
    earlier = attempts.alias()
    of_trial = select(func.max(earlier.c.number)).where(earlier.c.trial_id == trials.c.id)
    last = of_trial.correlate(trials).scalar_subquery()
    seen = (links.c.sweep, links.c.position, links.c.label, links.c.point, links.c.is_twin)
    trial = (trials.c.id, trials.c.cell_id, trials.c.seed, trials.c.spec, SEEN_STATE.label("trial_state"))
    attempt = tuple(column for column in attempts.c if column.name != "id")
    source = links.join(trials, trials.c.id == links.c.trial_id)
    with_last = source.outerjoin(attempts, and_(attempts.c.trial_id == trials.c.id, attempts.c.number == last))
    return select(*seen, *trial, *attempt).select_from(with_last).where(condition)


def _epochs() -> Select[Any]:
    columns = (attempts.c.trial_id, attempts.c.number, *tables.epochs.c)
    joined = select(*columns).join(tables.epochs, tables.epochs.c.attempt_id == attempts.c.id)
    return joined.order_by(attempts.c.trial_id, attempts.c.number, tables.epochs.c.epoch)


def _outcomes(connection: Connection, wanted: Select[Any], *, predictions: bool) -> dict[str, Outcome]:
    table = tables.outcomes
    found = connection.execute(
        select(table, attempts.c.number)
        .join(attempts, attempts.c.id == table.c.attempt_id)
        .where(table.c.trial_id.in_(wanted))
        .order_by(table.c.trial_id)
    ).all()
    scored = connection.execute(select(tables.scores).where(tables.scores.c.trial_id.in_(wanted))).all()
    labels = _labels(connection, wanted) if predictions else {}
    scores = _group_scores(scored, labels)
    environments = {
        row.digest: rows.from_stored(Environment, row.environment)
        for row in connection.execute(select(tables.environments))
    }
    return {row.trial_id: rows.outcome(row, scores[row.trial_id], environments[row.environment]) for row in found}


def _labels(connection: Connection, wanted: Select[Any]) -> dict[tuple[str, str], tuple[int, ...]]:
    table = tables.predictions
    found = connection.execute(select(table).where(table.c.trial_id.in_(wanted)))
    return {(row.trial_id, row.split): rows.labels_of(row) for row in found}


def _group_scores(
    scored: Iterable[Row[Any]], labels: Mapping[tuple[str, str], tuple[int, ...]]
) -> dict[str, dict[str, SplitScore]]:
    scores: dict[str, dict[str, SplitScore]] = defaultdict(dict)
    for row in scored:
        scores[row.trial_id][row.split] = rows.split_score(row, labels.get((row.trial_id, row.split), ()))
    return scores
