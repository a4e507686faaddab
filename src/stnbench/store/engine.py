"""Databases: the SQLite backend, opening by path or URL, transactions, errors, and upgrades of the tables."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, column, create_engine, event, inspect, make_url, select, table
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError, StatementError
from sqlalchemy.pool import QueuePool

from stnbench.core.errors import StnbenchError, StoreBusyError, StoreError, StoreVersionError
from stnbench.core.files import writable_folder
from stnbench.store.file import BUSY_TIMEOUT_S, REBUILD_REMEDY, Backend, Holder, StoreFile, no_database
from stnbench.store.postgres import open_postgres
from stnbench.store.tables import REVISIONS

# SQLite backend: one file, written by one process while others read it.


FOLDER_REMEDY = "give a folder that can be written, for example with STNBENCH_RUNS"


def open_sqlite(url: URL, *, writable: bool, busy_timeout_s: float) -> Backend:
    """Return the backend of a SQLite file.

    If it is opened for writing, a missing file and folder are created.

    Args:
        url: URL of the file.
        writable: whether the file is opened for writing.
        busy_timeout_s: seconds to wait for locks.

    Raises:
        FolderError: if the folder cannot be created or written.
        StoreError: if the URL names no file, or the file to read does not exist.
    """
    if not url.database:
        raise StoreError(f"the store '{url.render_as_string()}' names no file", remedy="give the path of a file")
    path = Path(url.database)
    engine = _engine(path, writable=writable, busy_timeout_s=busy_timeout_s)
    return Backend(name=url.database, reader=engine, writer=engine, explain=explain, file=StoreFile(path))


def explain(name: str, error: StatementError) -> StoreError | None:  # noqa: PLR0911 - one return a meaning
    """Return the error as a one-line StoreError, or None for a violated constraint or an invalid statement."""
    if isinstance(error, IntegrityError | ProgrammingError):
        return None
    said = str(error.orig or error).splitlines()[0]
    match getattr(error.orig, "sqlite_errorcode", 0) & 0xFF:  # the low byte is the primary code
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            problem = f"the store {name} is being written by another process"
            return StoreBusyError(problem, remedy="wait until it ends", is_transient=True)
        case sqlite3.SQLITE_NOTADB:
            return no_database(name)
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
    """Set up a connection that writes: WAL permits concurrent readers, FULL makes every commit survive a power cut."""
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _configure_reader(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA query_only = ON").close()


def _begin(connection: Connection) -> None:
    """Begin a transaction; a writer takes the lock at once, since upgrading a read lock later may fail."""
    options: dict[str, Any] = dict(connection.get_execution_options())
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("stnbench_writes") else "BEGIN")


URL_REMEDY = "give the path of a file, or postgresql://user@host/database"


@dataclass(frozen=True, kw_only=True, slots=True)
class Database:
    """A SQLite file or a database of a PostgreSQL server, with a common interface."""

    backend: Backend
    writable: bool

    @classmethod
    def open(
        cls,
        where: Path | str,
        *,
        writable: bool,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        holder: Holder | None = None,
    ) -> "Database":
        """Open a database by the path of a SQLite file or by URL.

        If it is opened for writing, a missing file and folder are created; the database of a server must exist.

        Args:
            where: path or URL.
            writable: whether the database is opened for writing.
            busy_timeout_s: seconds to wait for locks.
            holder: process that keeps the right to write the database of a server until it is closed; None for no such
                process. A file is protected by the lock of its runs folder instead.

        Raises:
            FolderError: if a file or folder cannot be created.
            StoreBusyError: if another process holds the server's database, or runs the same sweep on it.
            StoreError: if the URL is invalid, a file to read is missing, or the server cannot be reached.
        """
        url = _url(where)
        if url.get_backend_name() == "sqlite":
            backend = open_sqlite(url, writable=writable, busy_timeout_s=busy_timeout_s)
            return cls(backend=backend, writable=writable)
        backend = open_postgres(url, writable=writable, busy_timeout_s=busy_timeout_s, holder=holder)
        database = cls(backend=backend, writable=writable)
        if holder is not None:
            database.hold()
        return database

    @property
    def name(self) -> str:
        """Return the path or URL of the database for messages, without a password."""
        return self.backend.name

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction: all writes of the block are committed, or none. Nothing else in the package commits.

        The block holds the right to write from its first statement on. Errors of the database in the block become
        StoreErrors; others are passed on.

        Raises:
            StoreBusyError: if another process keeps the right to write.
            StoreError: if the database cannot be used, or is open for reading only.
        """
        if not self.writable:
            raise StoreError(f"the store {self.name} is open for reading only", remedy="open it with writable=True")
        self.check()
        with self._explained(), self.backend.writer.connect() as connection:
            connection = connection.execution_options(stnbench_writes=True)  # noqa: PLW2901 - the same connection
            with connection.begin():
                yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a consistent view of the database for all statements of the block.

        Raises:
            StoreError: if the database cannot be used.
        """
        self.check()
        with self._explained(), self.backend.reader.connect() as connection, connection.begin():
            yield connection

    def check(self) -> None:
        """Check that a file opened for writing is still the one that was opened; do nothing for other databases.

        Raises:
            StoreError: if it was removed, replaced, truncated or overwritten.
        """
        if self.backend.file is not None and self.writable:
            self.backend.file.check()

    def hold(self) -> None:
        """Check that a server's database is held, and hold it again after a lost connection; do nothing for a file.

        Raises:
            StoreBusyError: if another process holds it by now.
            StoreError: if the server cannot be reached.
        """
        if self.backend.file is None and self.writable:
            with self._explained(), self.backend.writer.connect():
                pass  # the pooled connection holds the right to write

    def check_whole(self, attempts: Mapping[str, int]) -> None:
        """Check a file as ``check`` does, and read all of it as another process does.

        Args:
            attempts: expected number of attempts by state.

        Raises:
            StoreError: if it was removed, replaced, truncated or overwritten, is damaged, or holds other attempts.
        """
        if self.backend.file is not None:
            self.check()
            self.backend.file.check_whole(attempts)

    def back_up(self, folder: Path, *, note: str = "") -> Path | None:
        """Copy a file into a folder while it is used, and return the copy; None for the database of a server.

        Raises:
            StoreError: if the file cannot be read or copied.
            FolderError: if the folder cannot be written.
        """
        return None if self.backend.file is None else self.backend.file.back_up(folder, note=note)

    def close(self) -> None:
        """Close every connection."""
        self.backend.reader.dispose()
        self.backend.writer.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except StatementError as error:
            if isinstance(error.orig, StnbenchError):
                raise error.orig from error
            explained = self.backend.explain(self.name, error)
            if explained is None:
                raise  # a bug, which keeps its traceback
            raise explained from error


def _url(where: Path | str) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(Path(where).absolute()))
    try:
        return make_url(where)
    except (ArgumentError, ValueError) as error:  # their messages contain the password
        scheme = where.partition("://")[0]
        raise StoreError(f"the store '{scheme}://...' is no database URL", remedy=URL_REMEDY) from error


# The revision of a store: checked whenever a store is opened, raised when one is opened for writing.
#
# To change a table: edit ``tables.py``, add a file to ``migrations/versions`` and its revision to ``REVISIONS``, and
# keep a store of the old revision in ``tests/assets``. The tests compare what the migrations make with the tables.


MIGRATIONS = Path(__file__).with_name("migrations")
ALEMBIC_TABLE = "alembic_version"
UPGRADE_REMEDY = "the next sweep upgrades it: python -m stnbench.sweep NAME"


def prepare(database: Database, *, backups: Path | None = None) -> None:
    """Upgrade the database to the revision of this program, or check that it has it.

    Only a database opened for writing is changed, in one transaction, after a file was copied to ``backups``.

    Raises:
        StoreVersionError: if the database is newer than this program, or older and open for reading only.
        StoreBusyError: if sweeps of an older program run on it.
        StoreError: if it is no store.
    """
    with database.reading() as connection:
        revision = check(database.name, find_revision(database.name, connection), writable=database.writable)
    if revision == REVISIONS[-1]:
        return
    if revision is not None and backups is not None:
        database.back_up(backups, note=f"before-{REVISIONS[-1]}")
    with database.transaction() as connection:
        if find_revision(database.name, connection) == REVISIONS[-1]:
            return  # another process has upgraded it meanwhile
        database.backend.require_alone(connection)
        upgrade(connection)


def is_made(url: str) -> bool:
    """Check whether the database at a URL has the tables of a store, of any revision.

    Raises:
        StoreError: if it cannot be read, or belongs to another program.
    """
    database = Database.open(url, writable=False)
    try:
        with database.reading() as connection:
            return find_revision(database.name, connection) is not None
    finally:
        database.close()


def find_revision(name: str, connection: Connection) -> str | None:
    """Return the revision of a database, or None if it is empty.

    Raises:
        StoreError: if its tables belong to another program.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    if not {ALEMBIC_TABLE, "sweeps", "sweep_trials"} <= set(tables):
        raise StoreError(f"{name} is a database of another program", remedy="give the store another path or database")
    version = connection.execute(select(column("version_num")).select_from(table(ALEMBIC_TABLE))).scalar()
    return None if version is None else str(version)


def check(name: str, revision: str | None, *, writable: bool) -> str | None:
    """Return the revision after checking that this program can use it.

    Args:
        name: name of the store, for messages.
        revision: revision of the store; None if it is empty.
        writable: whether the store is open for writing, so that it can be upgraded.

    Raises:
        StoreVersionError: if it cannot; the message names the store, both revisions and the remedy.
    """
    ours = REVISIONS[-1]
    if revision is not None and revision not in REVISIONS:
        problem = f"the store {name} has revision {revision}, and this stnbench knows revisions up to {ours}"
        raise StoreVersionError(
            problem,
            remedy="a newer stnbench wrote it: update stnbench, or give another STNBENCH_RUNS or STNBENCH_STORE",
        )
    if revision != ours and not writable:
        found = "is empty" if revision is None else f"has the older revision {revision}"
        raise StoreVersionError(f"the store {name} {found}, and this stnbench reads {ours}", remedy=UPGRADE_REMEDY)
    return revision


def upgrade(connection: Connection, *, to: str = "head") -> None:
    """Run the migrations up to a revision, inside the transaction of the connection."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, to)
