"""SQLite: one file, written by one process while others read it."""

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import IntegrityError, ProgrammingError, StatementError
from sqlalchemy.pool import QueuePool

from stnbench.core.errors import StoreBusyError, StoreError
from stnbench.core.files import writable_folder
from stnbench.store.backend import Backend
from stnbench.store.file import REBUILD_REMEDY, StoreFile

FOLDER_REMEDY = "give a folder that can be written, for example with STNBENCH_RUNS"


def open_sqlite(url: URL, *, writable: bool, busy_timeout_s: float) -> Backend:
    """A file; to write, it and its folder are made where they are missing.

    Raises: FolderError when they cannot be; StoreError where the URL names no file, or one to read that is not there.
    """
    if not url.database:
        raise StoreError(f"the store '{url.render_as_string()}' names no file", remedy="give the path of a file")
    path = Path(url.database)
    engine = _engine(path, writable=writable, busy_timeout_s=busy_timeout_s)
    return Backend(name=url.database, reader=engine, writer=engine, explain=explain, file=StoreFile(path))


def explain(name: str, error: StatementError) -> StoreError | None:  # noqa: PLR0911 - one return a meaning
    """The error as one of ours, in one line; None for what must not be written."""
    if isinstance(error, IntegrityError | ProgrammingError):
        return None
    said = str(error.orig or error).splitlines()[0]
    match getattr(error.orig, "sqlite_errorcode", 0) & 0xFF:  # the low byte is the primary code
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            problem = f"the store {name} is being written by another process"
            return StoreBusyError(problem, remedy="wait until it ends", is_transient=True)
        case sqlite3.SQLITE_NOTADB:
            remedy = f"give another path; or, if it was a store, {REBUILD_REMEDY}"
            return StoreError(f"{name} is not a SQLite database", remedy=remedy)
        case sqlite3.SQLITE_CORRUPT:
            return StoreError(f"the store {name} is damaged ({said})", remedy=REBUILD_REMEDY)
        case sqlite3.SQLITE_FULL:
            problem = f"no space is left on the disk of the store {name}"
            return StoreError(problem, remedy="free some and run again", is_transient=True)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN:
            remedy = "make the file and its folder writable (readers share a file beside it), or work on a copy"
            return StoreError(f"the store {name} cannot be opened ({said})", remedy=remedy)
        case _:
            return StoreError(f"the store {name} cannot be used", remedy=said)


def _engine(file: Path, *, writable: bool, busy_timeout_s: float) -> Engine:
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
