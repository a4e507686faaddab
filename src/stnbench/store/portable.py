"""Rows as plain JSON values that mean the same in every store: without the numbers that one database gave them.

An attempt is known by its trial and number, an epoch by that of its attempt; times are ISO 8601, bytes base64. The
history of a store (``store/history.py``) and archives (``store/archive.py``) are made of them.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Float,
    Integer,
    LargeBinary,
    Select,
    Table,
    create_engine,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError

from stnbench.core.errors import StoreError
from stnbench.core.identity import Json
from stnbench.store import tables
from stnbench.store.utc import UtcDateTime

Row = dict[str, Json]
Rows = dict[str, dict[tuple[Json, ...], Row]]
"""Rows by table, and in each by the values of its key."""

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "sweeps": ("name",),
    "trials": ("id",),
    "sweep_trials": ("sweep", "trial_id"),
    "attempts": ("trial_id", "number"),
    "epochs": ("trial_id", "number", "epoch"),
    "environments": ("digest",),
    "outcomes": ("trial_id",),
    "scores": ("trial_id", "split"),
    "predictions": ("trial_id", "split"),
    "image_sets": ("digest",),
    "scored_images": ("trial_id", "split"),
    "controls": ("id",),
}
"""Every table but what trackers were shown, parents before children, with the columns that name a row everywhere."""

PARENTS: Final[Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]]] = {
    "sweep_trials": (("sweeps", ("sweep",)), ("trials", ("trial_id",))),
    "attempts": (("trials", ("trial_id",)),),
    "epochs": (("attempts", ("trial_id", "number")),),
    "outcomes": (("attempts", ("trial_id", "number")), ("environments", ("environment",))),
    "scores": (("outcomes", ("trial_id",)),),
    "predictions": (("scores", ("trial_id", "split")),),
    "scored_images": (("scores", ("trial_id", "split")), ("image_sets", ("digest",))),
    "controls": (("sweeps", ("sweep",)),),
}
"""Which rows a row needs: a table, and the columns that hold that table's key."""

BY_ATTEMPT: Final = frozenset({"epochs", "outcomes"})
"""Tables whose rows name their attempt by the number that the database gave it."""

CHUNK: Final = 500
"""Rows, or trials, that one statement is about."""


def key_of(table: str, row: Mapping[str, Json]) -> tuple[Json, ...]:
    """What names a row. Raises: KeyError where the row lacks a part of it."""
    return tuple(row[column] for column in KEYS[table])


def columns_of(table: str) -> dict[str, Any]:
    """The columns that a portable row of a table has, with the columns of the database that they stand for."""
    own = {column.name: column for column in tables.METADATA.tables[table].columns}
    if table == "attempts":
        del own["id"]
    if table in BY_ATTEMPT:
        del own["attempt_id"]
        own |= {"trial_id": tables.attempts.c.trial_id, "number": tables.attempts.c.number}
    return own


def encode(table: str, fields: Mapping[str, Any]) -> Row:
    """A row, or some of its columns, as JSON values."""
    columns = columns_of(table)
    return {name: _encoded(value) for name, value in fields.items() if name in columns}


def decode(table: str, row: Mapping[str, Json], *, where: str) -> dict[str, Any]:
    """The values of a row as the database takes them.

    Raises: StoreError naming the table and the column for an unknown column or a value of another type.
    """
    columns = columns_of(table)
    fields: dict[str, Any] = {}
    for name, value in row.items():
        if name not in columns:
            raise StoreError(
                f"{where}: {table} has no column '{str(name)[:40]}'", remedy="it was made by another version"
            )
        try:
            fields[name] = _decoded(columns[name], value)
        except (TypeError, ValueError, binascii.Error) as error:
            problem = f"{where}: the column {name} of {table} is {str(value)[:40]!r}"
            raise StoreError(problem, remedy=str(error)) from error
    return fields


def read_rows(
    connection: Connection, table: str, wanted: Callable[[Table], ColumnElement[bool]] | None = None
) -> Iterator[Row]:
    """The rows of a table, in the order of their keys; with ``wanted``, those that meet it.

    The condition is on the table itself; for rows that name their attempt, on the table of attempts.
    """
    query = _query(table)
    if wanted is not None:
        query = query.where(wanted(tables.attempts if table in BY_ATTEMPT else tables.METADATA.tables[table]))
    columns = columns_of(table)
    for row in connection.execute(query.order_by(*(columns[name] for name in KEYS[table]))).mappings():
        yield {name: _encoded(row[name]) for name in columns}


def insert_rows(connection: Connection, table: str, rows: Iterable[Mapping[str, Json]], *, where: str) -> int:
    """Insert rows whose parents are there; how many.

    Raises: StoreError for a row that the table cannot have.
    """
    count = 0
    for chunk in _chunks(rows):
        fields = [_completed(table, decode(table, row, where=where), where) for row in chunk]
        if table in BY_ATTEMPT:
            numbers = _attempt_ids(connection, [row["trial_id"] for row in fields])
            for row in fields:
                row["attempt_id"] = numbers[row["trial_id"], row.pop("number")]
                if table == "epochs":
                    del row["trial_id"]
        connection.execute(insert(tables.METADATA.tables[table]), fields)
        count += len(fields)
    return count


def require_insertable(rows: Rows, *, where: str) -> None:
    """Insert rows into an empty database in memory, whose tables promise what those of a store do.

    Raises: StoreError for rows that break a promise.
    """
    engine = create_engine("sqlite://")
    try:
        tables.METADATA.create_all(engine)
        with engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            for table in KEYS:
                insert_rows(connection, table, rows[table].values(), where=where)
    except IntegrityError as error:
        said = str(error.orig)[:200]
        raise StoreError(f"{where} has rows that no store can hold ({said})", remedy="export it again") from error
    finally:
        engine.dispose()


def drop_orphans(rows: Rows) -> int:
    """Take out rows whose parents are missing, so that the others can be inserted; how many."""
    dropped = 0
    for table, parents in PARENTS.items():
        own = rows.get(table, {})
        for key, row in list(own.items()):
            if any(tuple(row.get(name) for name in names) not in rows.get(parent, {}) for parent, names in parents):
                del own[key]
                dropped += 1
    return dropped


def _completed(table: str, fields: dict[str, Any], where: str) -> dict[str, Any]:
    """The row with every column, those that may be missing at their defaults."""
    for name, column in columns_of(table).items():
        if name in fields:
            continue
        if not column.nullable and column.server_default is None:
            raise StoreError(f"{where}: a row of {table} has no {name}", remedy="it was made by another version")
        fields[name] = None if column.server_default is None else _usual(column)
    return fields


def _usual(column: Any) -> object:  # noqa: ANN401 - a column with a default
    """What a row has in a column that it does not name."""
    return False if isinstance(column.type, Boolean) else column.server_default.arg


def _query(table: str) -> Select[Any]:
    columns = columns_of(table)
    labelled = [column.label(name) for name, column in columns.items()]
    source = tables.METADATA.tables[table]
    if table in BY_ATTEMPT:
        return select(*labelled).select_from(source.join(tables.attempts, tables.attempts.c.id == source.c.attempt_id))
    return select(*labelled)


def _attempt_ids(connection: Connection, trial_ids: Sequence[str]) -> dict[tuple[str, int], int]:
    attempts = tables.attempts
    query = select(attempts.c.trial_id, attempts.c.number, attempts.c.id)
    found = connection.execute(query.where(attempts.c.trial_id.in_(sorted(set(trial_ids)))))
    return {(row.trial_id, row.number): row.id for row in found}


def _chunks(rows: Iterable[Mapping[str, Json]]) -> Iterator[list[Mapping[str, Json]]]:
    chunk: list[Mapping[str, Json]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _encoded(value: Any) -> Json:  # noqa: ANN401 - any value of a column
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    plain: Json = value
    return plain


def _decoded(column: Any, value: Json) -> Any:  # noqa: ANN401, PLR0911 - any value of a column, one return a type
    if value is None and column.nullable:
        return None
    match column.type:
        case UtcDateTime():
            return _moment(_of(str, value))
        case LargeBinary():
            return base64.b64decode(_of(str, value), validate=True)
        case Boolean():
            return _of(bool, value)
        case Integer() | BigInteger():
            return _whole(value)
        case Float():
            return float(_of((int, float), value))
        case _:
            return _of(str, value)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("it has no time zone")
    return moment


def _of(kind: Any, value: Json) -> Any:  # noqa: ANN401 - a type or several
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError("it is of another type")
    return value


def _whole(value: Json) -> int:
    number: int = _of(int, value)
    if not -(2**63) <= number < 2**63:
        raise ValueError("it has more than 64 bits")
    return number
