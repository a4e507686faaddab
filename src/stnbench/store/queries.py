"""Everything that is read from the store. Each question is one consistent view and a fixed number of statements."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, func, select

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.spec.control import ControlRecord
from stnbench.spec.data import Split
from stnbench.spec.result import Environment, SplitScore
from stnbench.spec.states import AttemptState, TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.store import rows, tables
from stnbench.store.engine import Database
from stnbench.store.records import AttemptEpoch, AttemptRecord, ImageSets, Outcome, SweepRecord, Timing, TrialRecord

trials, links, attempts = tables.trials, tables.sweep_trials, tables.attempts

SEEN_STATE = case(
    (and_(links.c.pruned, trials.c.state != TrialState.COMPLETE.value), TrialState.PRUNED.value),
    (trials.c.state == TrialState.PRUNED.value, TrialState.PLANNED.value),
    else_=trials.c.state,
)
"""Where a trial stands for a sweep: pruned only where that sweep pruned it, whatever another one does with it."""


class StoreReader:
    """Reads the store. Safe to use beside a process that writes it, and from several threads.

    Raises:
        StoreError: from every method when the database cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def sweeps(self) -> list[SweepRecord]:
        """Every sweep, the one last run first."""
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
        """The trials that a sweep is made of, in the order in which it planned them.

        Raises:
            UnknownNameError: when the store has no such sweep.
        """
        wanted = and_(links.c.sweep == sweep, links.c.wanted)
        with self._database.reading() as connection:
            require_sweep(connection, sweep)
            found = connection.execute(_trials_seen(wanted).order_by(links.c.position)).all()
        return [rows.trial_record(row) for row in found]

    def trial_ids(self, sweep: str) -> list[str]:
        """As ``sweep_trials``, the identities alone."""
        wanted = select(links.c.trial_id).where(links.c.sweep == sweep, links.c.wanted).order_by(links.c.position)
        with self._database.reading() as connection:
            require_sweep(connection, sweep)
            return list(connection.execute(wanted).scalars())

    def unsettled(self, sweep: str) -> tuple[dict[TrialState, int], list[TrialRecord]]:
        """How many trials of a sweep are in each state, and those of them that run or have failed, in one view.

        Raises:
            UnknownNameError: when the store has no such sweep.
        """
        of_sweep = and_(links.c.sweep == sweep, links.c.wanted)
        shown = SEEN_STATE.in_([TrialState.RUNNING.value, TrialState.FAILED.value])
        with self._database.reading() as connection:
            require_sweep(connection, sweep)
            counts = _count_states(connection, links.c.sweep == sweep).get(sweep, {})
            found = connection.execute(_trials_seen(and_(of_sweep, shown)).order_by(links.c.position)).all()
        return counts, [rows.trial_record(row) for row in found]

    def latest_timings(self, limit: int) -> list[Timing]:
        """What the complete trials that ended last took, the latest first."""
        table = tables.outcomes
        columns = (trials.c.spec, table.c.parameters, table.c.flops, table.c.activation_bytes, table.c.train_duration_s)
        joined = table.join(trials, trials.c.id == table.c.trial_id).join(attempts, attempts.c.id == table.c.attempt_id)
        newest_first = (
            select(*columns).select_from(joined).order_by(attempts.c.finished_at.desc(), attempts.c.id.desc())
        )
        with self._database.reading() as connection:
            found = connection.execute(newest_first.limit(limit)).all()
        return [rows.timing(row) for row in found]

    def find_trial(self, prefix: str) -> TrialRecord:
        """The trial whose identity begins with this text, as the sweep sees it that wants it and was last run.

        Raises:
            UnknownNameError: when there is none, offering the nearest.
            SpecError: when there are several.
        """
        begins = trials.c.id.startswith(prefix.lower(), autoescape=True)  # SQLite alone would not mind capitals
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
        """The states of those of these trials that the store knows, whichever sweep they are of.

        With a ``sweep`` as that one sees them: what another sweep pruned is planned, also where it does not have the
        trial yet.
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
        """Every attempt of a trial, the first one first."""
        return self._attempts(select(attempts).where(attempts.c.trial_id == trial_id).order_by(attempts.c.number))

    def attempts_of_sweep(self, sweep: str) -> list[AttemptRecord]:
        """Every attempt of every trial of a sweep, trials in its order, attempts in theirs.

        Raises:
            UnknownNameError: when the store has no such sweep.
        """
        query = select(attempts).join(links, links.c.trial_id == attempts.c.trial_id)
        wanted = query.where(links.c.sweep == sweep, links.c.wanted).order_by(links.c.position, attempts.c.number)
        return self._attempts(wanted, sweep=sweep)

    def running_attempts(self) -> list[AttemptRecord]:
        """Every attempt that has begun and not ended, as far as the store knows; the oldest first."""
        running = attempts.c.state == AttemptState.RUNNING.value
        return self._attempts(select(attempts).where(running).order_by(attempts.c.started_at, attempts.c.id))

    def superseded_attempts(self) -> list[tuple[str, int]]:
        """Attempts without a result of trials that another attempt has completed: trial and number."""
        other = attempts.alias()
        by_other = select(other.c.trial_id).where(other.c.state == AttemptState.COMPLETE.value)
        given_up = attempts.c.state != AttemptState.COMPLETE.value
        query = select(attempts.c.trial_id, attempts.c.number).where(given_up, attempts.c.trial_id.in_(by_other))
        with self._database.reading() as connection:
            return [(row.trial_id, row.number) for row in connection.execute(query)]

    def epochs_of_trial(self, trial_id: str) -> list[AttemptEpoch]:
        """Every epoch of every attempt of a trial, in order."""
        with self._database.reading() as connection:
            found = connection.execute(_epochs().where(attempts.c.trial_id == trial_id)).all()
        return [rows.attempt_epoch(row) for row in found]

    def epochs_of_sweep(self, sweep: str) -> dict[str, list[AttemptEpoch]]:
        """Every epoch of every attempt of each trial of a sweep; trials without one are left out.

        Raises:
            UnknownNameError: when the store has no such sweep.
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
        """What each complete trial of a sweep scored; scores have no predictions unless they are asked for.

        Raises:
            UnknownNameError: when the store has no such sweep.
        """
        wanted = select(links.c.trial_id).where(links.c.sweep == sweep, links.c.wanted)
        with self._database.reading() as connection:
            require_sweep(connection, sweep)
            return _outcomes(connection, wanted, predictions=predictions)

    def environments(self, trial_ids: Iterable[str]) -> dict[str, Environment]:
        """Return what each of these trials was computed with, of those that are complete."""
        asked = set(trial_ids)
        query = select(tables.outcomes.c.trial_id, tables.outcomes.c.environment)
        with self._database.reading() as connection:
            known = {
                row.digest: rows.from_stored(Environment, row.environment)
                for row in connection.execute(select(tables.environments))
            }
            return {row.trial_id: known[row.environment] for row in connection.execute(query) if row.trial_id in asked}

    def outcome(self, trial_id: str, *, predictions: bool = False) -> Outcome | None:
        """What a trial scored; None where it is not complete."""
        one = select(trials.c.id).where(trials.c.id == trial_id)
        with self._database.reading() as connection:
            return _outcomes(connection, one, predictions=predictions).get(trial_id)

    def predictions(self, trial_id: str, split: Split) -> tuple[int, ...] | None:
        """The predicted label of every image of a split, in file order; None where the trial was not scored on it."""
        table = tables.predictions
        query = select(table).where(table.c.trial_id == trial_id, table.c.split == split)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else rows.labels_of(row)

    def predictions_of_sweep(
        self, sweep: str, split: Split, trial_ids: Iterable[str] | None = None
    ) -> dict[str, tuple[int, ...]]:
        """The predicted labels of every trial of a sweep that was scored on a split, by trial id, in file order.

        With ``trial_ids`` only these are looked at.

        Raises:
            UnknownNameError: when the store has no such sweep.
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
        """On which images of a split the trials of a sweep were scored; older scores do not say so and are left out.

        Raises:
            UnknownNameError: when the store has no such sweep.
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
        """Return a text that is another one once a trial, attempt, epoch or request of the sweep is new or changed."""
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
        """Return what people asked of a sweep while it ran, in the order in which it was carried out."""
        table = tables.controls
        query = select(table).where(table.c.sweep == sweep).order_by(table.c.applied_at, table.c.id)
        with self._database.reading() as connection:
            return [rows.control_record(row) for row in connection.execute(query)]

    def mirrored(self, tracker: str) -> dict[str, str]:
        """What a tracker was last shown: the digest of the view of each attempt (by token) and cell."""
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
