"""Connections to the database: how they are made, what a transaction is, and what its errors mean."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, ProgrammingError, StatementError
from sqlalchemy.pool import QueuePool

from stnbench.core.errors import StnbenchError, StoreBusyError, StoreError
from stnbench.core.files import writable_folder

BUSY_TIMEOUT_S = 20.0
"""How long a statement waits for another process that is writing."""

FOLDER_REMEDY = "give a folder that can be written, for example with STNBENCH_RUNS"


@dataclass(frozen=True, kw_only=True, slots=True)
class Database:
    """A database that can be connected to; ``name`` is what messages call it."""

    engine: Engine
    name: str
    writable: bool

    @classmethod
    def open(cls, where: Path | str, *, writable: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> "Database":
        """A database by the path of a SQLite file, or by URL.

        A writable file and its folder are made where they are missing.
        Raises: FolderError when they cannot be; StoreError for a URL that says nothing, or a missing file to read.
        """
        url = _url(where)
        if url.get_backend_name() != "sqlite":
            return cls(engine=_server_engine(url), name=url.render_as_string(), writable=writable)
        if not url.database:
            raise StoreError(f"the store '{where}' names no file", remedy="give the path of a file")
        return cls(
            engine=_sqlite_engine(Path(url.database), writable=writable, busy_timeout_s=busy_timeout_s),
            name=url.database,
            writable=writable,
        )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Commit what the block writes, or nothing of it: this is the only place that commits.

        The block holds the right to write from its first statement on. An error inside the block goes on as it is,
        but those of the database become one of ours.
        Raises: StoreBusyError when another process keeps writing; StoreError when the database cannot be used.
        """
        if not self.writable:
            raise StoreError(f"the store {self.name} is open for reading only", remedy="open it with writable=True")
        with self._explained(), self.engine.connect() as connection:
            connection = connection.execution_options(stnbench_writes=True)  # noqa: PLW2901 - the same connection
            with connection.begin():
                yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view of the database for all statements of the block.

        Raises: as ``transaction``.
        """
        with self._explained(), self.engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (IntegrityError, ProgrammingError):
            raise  # we wrote what must not be written: a bug, which keeps its traceback
        except StatementError as error:
            if isinstance(error.orig, StnbenchError):
                raise error.orig from error
            raise explain(self.name, error) from error


def explain(name: str, error: StatementError) -> StoreError:
    """The error of a database as one of ours, in one line."""
    said = str(error.orig or error).splitlines()[0]
    match getattr(error.orig, "sqlite_errorcode", 0) & 0xFF:  # the low byte is the primary code
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusyError(f"the store {name} is being written by another process", remedy="wait until it ends")
        case sqlite3.SQLITE_NOTADB:
            return StoreError(f"{name} is not a SQLite database", remedy="move it away, or give another path")
        case sqlite3.SQLITE_CORRUPT:
            remedy = f"recover what can be with: sqlite3 {name} .recover | sqlite3 recovered.db"
            return StoreError(f"the store {name} is damaged ({said})", remedy=remedy)
        case sqlite3.SQLITE_FULL:
            return StoreError(f"no space is left on the disk of the store {name}", remedy="free some and run again")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN:
            remedy = "make the file and its folder writable (readers share a file beside it), or work on a copy"
            return StoreError(f"the store {name} cannot be opened ({said})", remedy=remedy)
        case _:
            return StoreError(f"the store {name} cannot be used", remedy=said)


def _url(where: Path | str) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(Path(where).absolute()))
    try:
        return make_url(where)
    except ArgumentError as error:
        raise StoreError(f"the store '{where}' is no database URL", remedy="give the path of a file") from error


def _server_engine(url: URL) -> Engine:
    try:
        return create_engine(url, isolation_level="REPEATABLE READ")
    except (NoSuchModuleError, ImportError) as error:
        problem = f"the driver of the store {url.render_as_string()} is not installed"
        raise StoreError(problem, remedy=str(error)) from error


def _sqlite_engine(file: Path, *, writable: bool, busy_timeout_s: float) -> Engine:
    if writable:
        writable_folder(file.parent, "the store", remedy=FOLDER_REMEDY)
    elif not file.is_file():
        raise StoreError(f"there is no store at {file}", remedy="run a sweep first: python -m stnbench.sweep NAME")
    address = f"{file.absolute().as_uri()}?mode={'rwc' if writable else 'ro'}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            address,
            uri=True,
            timeout=busy_timeout_s,
            isolation_level=None,  # transactions begin where we say, not before the first INSERT
            check_same_thread=False,  # the pool lends a connection to one thread at a time
        )

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)
    event.listen(engine, "connect", _configure_writer if writable else _configure_reader)
    event.listen(engine, "begin", _begin)
    return engine


def _configure_writer(connection: sqlite3.Connection, _record: object) -> None:
    """WAL lets others read meanwhile; FULL syncs it at every commit, so that a commit survives a power cut."""
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _configure_reader(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA query_only = ON").close()


def _begin(connection: Connection) -> None:
    """A writer takes the lock at once: upgrading a read lock later could fail at the worst moment."""
    options: dict[str, Any] = dict(connection.get_execution_options())
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("stnbench_writes") else "BEGIN")
