"""Portable rows: plain JSON values that mean the same in every store, without the numbers of one database.

An attempt is identified by its trial and number, an epoch by its attempt and number; times are ISO 8601, bytes base64.
The history of a store (below) and archives (``orchestration/exchange.py``) consist of such rows.
"""

import base64
import binascii
import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
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
from stnbench.core.files import write_all, write_atomic
from stnbench.core.identity import Json
from stnbench.store import tables
from stnbench.store.tables import UtcDateTime

Row = dict[str, Json]
Rows = dict[str, dict[tuple[Json, ...], Row]]
"""Rows by table and key."""

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
"""All tables except the record of trackers, parents before children, with the columns that identify a row in every
store."""

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
"""Rows required by a row: for each parent table, the columns that hold its key."""

BY_ATTEMPT: Final = frozenset({"epochs", "outcomes"})
"""Tables whose rows refer to their attempt by the number of the database."""

CHUNK: Final = 500
"""Largest number of rows or trials per statement."""


def key_of(table: str, row: Mapping[str, Json]) -> tuple[Json, ...]:
    """Return the key of a row.

    Raises:
        KeyError: if the row lacks a column of the key.
    """
    return tuple(row[column] for column in KEYS[table])


def columns_of(table: str) -> dict[str, Any]:
    """Return the columns of a table's portable rows by name, as columns of the database."""
    own = {column.name: column for column in tables.METADATA.tables[table].columns}
    if table == "attempts":
        del own["id"]
    if table in BY_ATTEMPT:
        del own["attempt_id"]
        own |= {"trial_id": tables.attempts.c.trial_id, "number": tables.attempts.c.number}
    return own


def encode(table: str, fields: Mapping[str, Any]) -> Row:
    """Return a row, or some of its columns, as JSON values; other fields are left out."""
    columns = columns_of(table)
    return {name: _encoded(value) for name, value in fields.items() if name in columns}


def decode(table: str, row: Mapping[str, Json], *, where: str) -> dict[str, Any]:
    """Return the values of a row as the database takes them; ``where`` names the source in messages.

    Raises:
        StoreError: if a column is unknown or a value has another type; the message names the table and the column.
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
    """Yield the rows of a table in the order of their keys.

    Args:
        connection: connection to the database.
        table: name of the table.
        wanted: condition on the rows, made from the table; for rows that refer to an attempt, from the table of
            attempts.
    """
    query = _query(table)
    if wanted is not None:
        query = query.where(wanted(tables.attempts if table in BY_ATTEMPT else tables.METADATA.tables[table]))
    columns = columns_of(table)
    for row in connection.execute(query.order_by(*(columns[name] for name in KEYS[table]))).mappings():
        yield {name: _encoded(row[name]) for name in columns}


def insert_rows(connection: Connection, table: str, rows: Iterable[Mapping[str, Json]], *, where: str) -> int:
    """Insert rows whose parents exist, and return their number; ``where`` names the source in messages.

    Raises:
        StoreError: if the table cannot hold a row.
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
    """Check that rows can be inserted into a store, by inserting them into an empty database in memory.

    Raises:
        StoreError: if rows are invalid or violate a constraint.
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
    """Remove rows whose parents are missing, so that the others can be inserted, and return their number."""
    dropped = 0
    for table, parents in PARENTS.items():
        own = rows.get(table, {})
        for key, row in list(own.items()):
            if any(tuple(row.get(name) for name in names) not in rows.get(parent, {}) for parent, names in parents):
                del own[key]
                dropped += 1
    return dropped


def _completed(table: str, fields: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the row with all columns; optional columns take their defaults."""
    for name, column in columns_of(table).items():
        if name in fields:
            continue
        if not column.nullable and column.server_default is None:
            raise StoreError(f"{where}: a row of {table} has no {name}", remedy="it was made by another version")
        fields[name] = None if column.server_default is None else _usual(column)
    return fields


def _usual(column: Any) -> object:  # noqa: ANN401 - a column with a default
    """Return the default of a column."""
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


# The history of a store: with the results of trials, everything needed to rebuild the store.
#
# ``trials/history.jsonl`` holds all rows except those that come from a ``result.json``, one line per transaction,
# appended once the transaction is committed. A line begins with the CRC-32 of the rest: a truncated or changed line is
# skipped on reading, and the others count. Of rows with equal keys, the columns written last apply.
#
# The history never stops a sweep: if it cannot be written, the sweep continues, and the next one rewrites it.


Entry = tuple[str, Mapping[str, Any]]
"""A table, and columns of one of its rows, including the key."""

TABLES: Final = ("sweeps", "trials", "sweep_trials", "attempts", "epochs", "controls")
"""Tables of a history; the other tables come from results."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadHistory:
    """Rows of a history, and the number of its lines that could not be read."""

    rows: Rows
    damaged: int


@dataclass(slots=True)
class History:
    """A writer that appends to a history file, which is created if it is missing."""

    path: Path
    _handle: int | None = None
    _is_torn: bool = False
    has_failed: bool = field(default=False)

    def add(self, entries: Sequence[Entry]) -> None:
        """Append one transaction; if that fails, set ``has_failed`` and continue."""
        if not entries:
            return
        line = _line([(table, encode(table, fields)) for table, fields in entries])
        try:
            if self._handle is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                self._is_torn = not _ends_whole(self.path)
            write_all(self._handle, b"\n" + line if self._is_torn else line)
            self._is_torn = False
        except OSError:
            self.has_failed = self._is_torn = True

    def rewrite(self, rows: Iterable[tuple[str, Row]]) -> None:
        """Replace the history atomically by one of the given rows; if that fails, set ``has_failed`` and continue."""
        self.close()
        data = b"".join(_line([row]) for row in rows)
        try:
            if self.path.exists() and self.path.read_bytes() == data:
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, data)
            self.has_failed = False
        except OSError:
            self.has_failed = True

    def close(self) -> None:
        """Close the file."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(OSError):
                os.close(handle)


def read_history(path: Path) -> ReadHistory:
    """Read a history; the result is empty if there is none.

    Raises:
        OSError: if it exists and cannot be read.
    """
    rows: Rows = {table: {} for table in TABLES}
    damaged = 0
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        lines = []
    for line in filter(None, lines):
        entries = _entries(line)
        if entries is None:
            damaged += 1
            continue
        for table, row in entries:
            rows[table].setdefault(key_of(table, row), {}).update(row)
    return ReadHistory(rows=rows, damaged=damaged)


def _line(entries: Iterable[tuple[str, Row]]) -> bytes:
    text = json.dumps([[table, row] for table, row in entries], ensure_ascii=False, separators=(",", ":"))
    data = text.encode(errors="surrogatepass")
    return b"%08x %s\n" % (zlib.crc32(data), data)


def _entries(line: bytes) -> list[tuple[str, Row]] | None:
    """Return the rows of a line, or None if the line is damaged."""
    checksum, _, data = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(data):
        return None
    try:
        plain: Json = json.loads(data.decode(errors="surrogatepass"))
        return list(_checked(plain))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _checked(plain: Json) -> Iterator[tuple[str, Row]]:
    if not isinstance(plain, list):
        raise TypeError("no rows")
    for entry in plain:
        table, row = entry if isinstance(entry, list) else (None, None)
        if table not in TABLES or not isinstance(row, dict) or not all(name in row for name in KEYS[str(table)]):
            raise ValueError("no row")
        yield str(table), row


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return True
        file.seek(size - 1)
        return file.read(1) == b"\n"
