"""Statements that write the store, each inside its caller's transaction."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Table, bindparam, delete, func, insert, select, update

from stnbench.core.errors import StoreError, TransitionError, UnknownNameError
from stnbench.spec.codec import to_json
from stnbench.spec.result import AttemptState, EpochRecord, Failure, SplitScore, TrialResult, TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.store import portable, rows, tables
from stnbench.store.merge import MergePlan
from stnbench.store.portable import TABLES

trials, links, attempts = tables.trials, tables.sweep_trials, tables.attempts

COMPLETABLE = frozenset({AttemptState.RUNNING, AttemptState.LOST, AttemptState.STOPPED})
"""States in which a result is accepted, including those of attempts that were given up but finished."""


def insert_all(connection: Connection, table: Table, fields: Sequence[rows.Fields]) -> None:
    """Insert rows, possibly none."""
    if fields:
        connection.execute(insert(table), fields)


def save_spec(connection: Connection, spec: SweepSpec, at: datetime) -> None:
    """Insert or update the row of a sweep."""
    table = tables.sweeps
    found = connection.execute(
        update(table).where(table.c.name == spec.name), {"spec": to_json(spec), "updated_at": at}
    )
    if found.rowcount == 0:
        row = {"name": spec.name, "spec": to_json(spec), "created_at": at, "updated_at": at}
        connection.execute(insert(table), row)


def sweep_row(connection: Connection, name: str) -> rows.Fields:
    """Return the row of a sweep."""
    return dict(connection.execute(select(tables.sweeps).where(tables.sweeps.c.name == name)).mappings().one())


def count_attempts(connection: Connection) -> dict[str, int]:
    """Return the number of attempts by state."""
    query = select(attempts.c.state, func.count()).group_by(attempts.c.state)
    return {row[0]: row[1] for row in connection.execute(query)}


def history_rows(connection: Connection) -> Iterator[tuple[str, portable.Row]]:
    """Yield the rows of a history; epochs of complete attempts are left out, since their results contain them."""
    for table in TABLES:
        is_open = (lambda found: found.c.state != AttemptState.COMPLETE.value) if table == "epochs" else None
        yield from ((table, row) for row in portable.read_rows(connection, table, is_open))


def save_links(connection: Connection, sweep: str, wanted: Sequence[rows.Fields]) -> list[rows.Fields]:
    """Make a sweep contain exactly the wanted trials; correct rows are not written.

    Returns:
        The columns of every changed or new row.
    """
    found = connection.execute(select(links).where(links.c.sweep == sweep)).mappings()
    stored = {row["trial_id"]: dict(row) for row in found}
    asked = {row["trial_id"] for row in wanted}
    changed = [row for row in wanted if not row.items() <= stored.get(row["trial_id"], row).items()]
    dropped = [{"trial_id": trial_id} for trial_id in stored.keys() - asked]
    # Positions of wanted rows must be unique at any time, so rows that move are first marked as not wanted.
    _update_links(connection, sweep, [{"trial_id": row["trial_id"], "wanted": False} for row in [*changed, *dropped]])
    _update_links(connection, sweep, changed)
    new = [row for row in wanted if row["trial_id"] not in stored]
    insert_all(connection, links, new)
    unwanted = [{"sweep": sweep, "trial_id": row["trial_id"], "wanted": False} for row in dropped]
    return [*changed, *unwanted, *new]


def set_trial_state(connection: Connection, trial_id: str, state: TrialState) -> None:
    """Write the state of a trial."""
    connection.execute(update(trials).where(trials.c.id == trial_id), {"state": state.value})


def prune(connection: Connection, sweep: str, trial_id: str) -> None:
    """Write that a sweep's pruner has given up a trial."""
    row = (links.c.sweep == sweep) & (links.c.trial_id == trial_id)
    connection.execute(update(links).where(row), {"pruned": True})


def set_given_up(connection: Connection, sweep: str, trial_ids: Iterable[str], *, given_up: bool) -> list[str]:
    """Write that a user has given up trials of a sweep, or requested them again, and return the changed trials."""
    asked = set(trial_ids)
    if not asked:
        return []
    of_sweep = connection.execute(select(links.c.trial_id, links.c.pruned).where(links.c.sweep == sweep))
    changed = sorted(row.trial_id for row in of_sweep if row.trial_id in asked and row.pruned is not given_up)
    _update_links(connection, sweep, [{"trial_id": trial_id, "pruned": given_up} for trial_id in changed])
    return changed


def find_attempt(connection: Connection, token: str) -> Row[Any] | None:
    """Return the row of an attempt by its token, or None if there is none."""
    return connection.execute(select(attempts).where(attempts.c.token == token)).one_or_none()


def require_attempt(connection: Connection, token: str) -> Row[Any]:
    """Return the row of an attempt by its token.

    Raises:
        UnknownNameError: if there is none.
    """
    attempt = find_attempt(connection, token)
    if attempt is None:
        raise unknown("attempt", token, connection.execute(select(attempts.c.token)).scalars())
    return attempt


def attempt_by_number(connection: Connection, trial_id: str, number: int) -> Row[Any]:
    """Return the row of an attempt, which must exist, by its trial and number."""
    query = select(attempts).where(attempts.c.trial_id == trial_id, attempts.c.number == number)
    return connection.execute(query).one()


def require_completable(connection: Connection, attempt: Row[Any]) -> None:
    """Raise TransitionError unless a result of an attempt can be accepted."""
    siblings = connection.execute(select(attempts).where(attempts.c.trial_id == attempt.trial_id)).all()
    for other in siblings:
        if other.state == AttemptState.COMPLETE.value or (
            other.state == AttemptState.RUNNING.value and other.id != attempt.id
        ):
            what = f"cannot complete by attempt {attempt.number}: attempt {other.number} is {other.state}"
            raise refusal(connection, attempt.trial_id, what)
    if attempt.state not in COMPLETABLE:
        what = f"cannot complete by attempt {attempt.number}: it is {attempt.state}"
        raise refusal(connection, attempt.trial_id, what)


def missing_epochs(connection: Connection, attempt_id: int, records: Iterable[EpochRecord]) -> list[rows.Fields]:
    """Return the rows of the epochs that an attempt does not have yet."""
    table = tables.epochs
    known = set(connection.execute(select(table.c.epoch).where(table.c.attempt_id == attempt_id)).scalars())
    return [rows.epoch_fields(attempt_id, record) for record in records if record.epoch not in known]


def insert_outcome(connection: Connection, attempt_id: int, result: TrialResult) -> None:
    """Write the content of a result except its epochs."""
    table = tables.environments
    digest = rows.environment_digest(result.environment)
    if connection.execute(select(table.c.digest).where(table.c.digest == digest)).first() is None:
        connection.execute(insert(table), {"digest": digest, "environment": to_json(result.environment)})
    connection.execute(insert(tables.outcomes), rows.outcome_fields(attempt_id, result))
    for score in (result.validation, result.test):
        if score is not None:
            connection.execute(insert(tables.scores), rows.score_fields(result.trial_id, score))
            connection.execute(insert(tables.predictions), rows.prediction_fields(result.trial_id, score))
            _insert_scored(connection, result.trial_id, score)


def end_attempt(
    connection: Connection, attempt_id: int, state: AttemptState, failure: Failure | None, at: datetime
) -> rows.Fields:
    """Write that an attempt has ended, and return the written columns."""
    ended = {"state": state.value, "finished_at": at, **rows.failure_fields(failure)}
    connection.execute(update(attempts).where(attempts.c.id == attempt_id), ended)
    return ended


def save_mirrored(connection: Connection, tracker: str, digests: Mapping[str, str]) -> None:
    """Insert or update the digests of the records that a tracker has."""
    table = tables.mirrored
    known = set(connection.execute(select(table.c.subject).where(table.c.tracker == tracker)).scalars())
    new = [
        {"tracker": tracker, "subject": subject, "digest": digest}
        for subject, digest in digests.items()
        if subject not in known
    ]
    insert_all(connection, table, new)
    for subject in known & digests.keys():
        row = (table.c.tracker == tracker) & (table.c.subject == subject)
        connection.execute(update(table).where(row), {"digest": digests[subject]})


def merge(connection: Connection, plan: MergePlan) -> None:
    """Execute a plan of a merge."""
    _delete_attempts(connection, plan.replaced)
    for name, changes in plan.update_sweeps.items():
        row = update(tables.sweeps).where(tables.sweeps.c.name == name)
        connection.execute(row, portable.decode("sweeps", changes, where="a merge"))
    for trial_id, changes in plan.update_trials.items():
        row = update(trials).where(trials.c.id == trial_id)
        connection.execute(row, portable.decode("trials", changes, where="a merge"))
    for table in portable.KEYS:
        portable.insert_rows(connection, table, plan.insert[table].values(), where="a merge")
    for sweep, own in plan.links.items():
        connection.execute(delete(links).where(links.c.sweep == sweep))
        portable.insert_rows(connection, "sweep_trials", own, where="a merge")


def _delete_attempts(connection: Connection, trial_ids: Sequence[str]) -> None:
    """Delete all rows of trials, children before parents, except the trials themselves."""
    for start in range(0, len(trial_ids), portable.CHUNK):
        chunk = trial_ids[start : start + portable.CHUNK]
        own = select(attempts.c.id).where(attempts.c.trial_id.in_(chunk))
        for table in (tables.scored_images, tables.predictions, tables.scores, tables.outcomes):
            connection.execute(delete(table).where(table.c.trial_id.in_(chunk)))
        connection.execute(delete(tables.epochs).where(tables.epochs.c.attempt_id.in_(own)))
        connection.execute(delete(attempts).where(attempts.c.trial_id.in_(chunk)))


def refusal(connection: Connection, trial_id: str, what: str) -> TransitionError:
    """Return an error that names an impossible transition and the trial's history."""
    found = connection.execute(select(attempts).where(attempts.c.trial_id == trial_id).order_by(attempts.c.number))
    history = [f"attempt {row.number} {row.state}" for row in found]
    state = connection.execute(select(trials.c.state).where(trials.c.id == trial_id)).scalar_one()
    return TransitionError(f"trial {trial_id} {what}", remedy=f"its history: {', '.join([*history, f'now {state}'])}")


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return an error for a name that the store does not contain."""
    return UnknownNameError(kind, name, known, where="the store")


def _insert_scored(connection: Connection, trial_id: str, score: SplitScore) -> None:
    """Write the images of a score if it has them; a set that the store contains is not written again."""
    if score.scored is None:
        return
    if len(score.scored.labels) != score.images:
        problem = f"the {score.split} score of trial {trial_id} has {len(score.scored.labels)} true labels"
        raise StoreError(problem, remedy=f"give one for each of its {score.images} images")
    table = tables.image_sets
    fields = rows.image_set_fields(score.scored)
    if connection.execute(select(table.c.digest).where(table.c.digest == fields["digest"])).first() is None:
        connection.execute(insert(table), fields)
    of_score = {"trial_id": trial_id, "split": score.split, "digest": fields["digest"]}
    connection.execute(insert(tables.scored_images), of_score)


def _update_links(connection: Connection, sweep: str, changes: Sequence[rows.Fields]) -> None:
    if not changes:
        return
    columns = [name for name in changes[0] if name not in {"sweep", "trial_id"}]
    row = (links.c.sweep == sweep) & (links.c.trial_id == bindparam("of_trial"))
    statement = update(links).where(row).values({name: bindparam(f"new_{name}") for name in columns})
    parameters = [
        {"of_trial": change["trial_id"], **{f"new_{name}": change[name] for name in columns}} for change in changes
    ]
    connection.execute(statement, parameters)
