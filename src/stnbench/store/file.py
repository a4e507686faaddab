"""SQLite file of a store, with checks of its integrity and backups, and the interface of database backends."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import StatementError

from stnbench.core.errors import StoreBusyError, StoreError
from stnbench.core.files import sync_folder, writable_folder

# The file of a store: checks that it still exists and is intact while it is used, and backups.
#
# SQLite holds its files open and does not notice when they are removed or replaced: it continues to write a file that
# no longer has a name. Therefore the names are checked at every write and every few seconds.
#
# The file is opened only through SQLite: closing it by other means would release the locks of the whole process.


REBUILD_REMEDY: Final = "make it again from the results on the disk: python -m stnbench.store rebuild"
SHARED_MEMORY: Final = "-shm"
PARTS: Final = ("", "-wal", SHARED_MEMORY)
"""Suffixes that SQLite appends to the path for the files beside it."""


def no_database(name: str) -> StoreError:
    """Return the error for a file that is something else, or was overwritten."""
    remedy = f"give another path; or, if it was a store, {REBUILD_REMEDY}"
    return StoreError(f"{name} is not a SQLite database", remedy=remedy)


QUICK_CHECK_MAX_BYTES: Final = 32 << 20
"""A file up to this size is read completely every few seconds; of a larger one only the first pages."""

CONTENT_CHECK_S: Final = 5.0
BACKUPS_KEPT: Final = 3
BUSY_TIMEOUT_S: Final = 20.0


@dataclass(slots=True)
class StoreFile:
    """A SQLite file and the files beside it, compared with their state when this process first saw them."""

    path: Path
    clock_s: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    _size: int = 0
    _mapped_size: int = 0
    _content_checked_s: float = float("-inf")
    _was_read: bool = False

    def check(self) -> None:
        """Check that the files are those that this process has open, and every ``CONTENT_CHECK_S`` their content.

        Raises:
            StoreError: if a file was removed, replaced, truncated or overwritten.
        """
        for part in PARTS:
            self._check_part(part)
        if self._seen and self.clock_s() - self._content_checked_s >= CONTENT_CHECK_S:
            self._content_checked_s = self.clock_s()
            with self._read() as connection:
                if self._size <= QUICK_CHECK_MAX_BYTES:
                    self._require_whole(connection, "quick_check(1)")
                else:
                    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                self._was_read = True

    def check_whole(self, attempts: Mapping[str, int]) -> None:
        """Check all pages, read as by another process, and the numbers of attempts by state.

        Raises:
            StoreError: if the file is damaged, or holds other numbers of attempts.
        """
        with self._read() as connection:
            self._require_whole(connection, "integrity_check(1)")
            found = dict(connection.execute("SELECT state, count(*) FROM attempts GROUP BY state"))
        if found != dict(attempts):
            raise self._lost("was replaced by another one")

    def back_up(self, folder: Path, *, note: str = "") -> Path:
        """Copy the store into a folder atomically, and keep the newest ``BACKUPS_KEPT`` copies of the same kind.

        Args:
            folder: the folder; it is created if it is missing.
            note: kind of the copy, for its name; by default ``hourly``.

        Returns:
            The path of the copy.

        Raises:
            FolderError: if the folder cannot be written.
            StoreError: if the store cannot be read or copied.
        """
        writable_folder(folder, "copies of the store", remedy="make room, or move STNBENCH_RUNS")
        stem = f"{self.path.stem}-{note or 'hourly'}-"
        copy = folder / f"{stem}{_later(sorted(folder.glob(f'{stem}*.db')), datetime.now(UTC), stem)}.db"
        temporary = copy.with_suffix(".tmp")
        try:
            with self._read() as source, contextlib.closing(sqlite3.connect(temporary)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode = DELETE").close()
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(copy)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"the store {self.path} cannot be copied to {folder} ({error})", remedy="make room"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        sync_folder(folder)
        for old in sorted(folder.glob(f"{stem}*.db"))[:-BACKUPS_KEPT]:
            old.unlink(missing_ok=True)
        return copy

    def _check_part(self, part: str) -> None:
        name = f"{self.path}{part}"
        try:
            status = os.stat(name)  # noqa: PTH116 - a path with a suffix that is none
        except FileNotFoundError:
            if part in self._seen:
                raise self._lost("was removed", name) from None
            return
        except OSError as error:
            raise StoreError(
                f"the store {name} cannot be reached ({error.strerror})", remedy="see to its disk"
            ) from error
        if self._seen.setdefault(part, (status.st_dev, status.st_ino)) != (status.st_dev, status.st_ino):
            raise self._lost("was replaced by another one", name)
        self._check_size(part, name, status.st_size)

    def _check_size(self, part: str, name: str, size: int) -> None:
        if part == "":
            if size < self._size:
                raise self._lost("was cut short", name)
            self._size = size
        elif part == SHARED_MEMORY:
            if size < self._mapped_size:
                self._make_map_again(name)
            self._mapped_size = size

    def _make_map_again(self, name: str) -> None:
        """Empty the file that SQLite maps, so that it is made again from the log at the next transaction.

        SQLite would trust the rest of it, and reading beyond its end would end the process. The file is changed by
        its name alone: to open and close it would release the locks that SQLite has on it.

        Raises:
            StoreBusyError: always; the next call goes on.
        """
        try:
            os.truncate(name, 0)
            os.truncate(name, self._mapped_size)
        except OSError as error:
            raise self._lost("was cut short", name) from error
        raise StoreBusyError(
            f"the store's file {name} was cut short while it was used",
            remedy="run the same command again",
            is_transient=True,
        )

    def _lost(self, how: str, name: str = "") -> StoreError:
        return StoreError(f"the store {name or self.path} {how} while it was used", remedy=REBUILD_REMEDY)

    @contextlib.contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """Open a separate read-only connection, so that the content of the disk is read."""
        try:
            address = f"{self.path.absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                return  # another process writes: checked again next time
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB and not self._was_read:
                raise no_database(str(self.path)) from error
            raise StoreError(f"the store {self.path} is damaged ({error})", remedy=REBUILD_REMEDY) from error

    def _require_whole(self, connection: sqlite3.Connection, pragma: str) -> None:
        ((said,),) = connection.execute(f"PRAGMA {pragma}").fetchmany(1)
        if said != "ok":
            problem = f"the store {self.path} is damaged ({' '.join(str(said).split())[:200]})"
            raise StoreError(problem, remedy=REBUILD_REMEDY)


_STAMP: Final = "%Y%m%dT%H%M%S%f"


def _later(copies: Sequence[Path], now: datetime, stem: str) -> str:
    """Return a stamp for a new copy that sorts after those of the others: the clock may have been set back."""
    for copy in reversed(copies):
        with contextlib.suppress(ValueError, OverflowError):
            newest = datetime.strptime(copy.stem.removeprefix(stem), _STAMP).replace(tzinfo=UTC)
            now = max(now, newest + timedelta(microseconds=1))
            break
    return f"{now:{_STAMP}}"


# The interface of a database backend: connections, who may write, and the meaning of its errors.


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """A process that keeps the right to write a store for as long as it is open.

    A store that is a file has one writer, which holds the lock of its runs folder. A server may have several, each for
    another sweep.

    Attributes:
        title: description of the process for messages.
        session: name of the process, unique among all; empty if it starts no attempts.
        sweep: the sweep that it alone runs, beside those of others; empty if it alone writes the store.
    """

    title: str
    session: str = ""
    sweep: str = ""


def no_other_session(_connection: Connection, _sessions: Collection[str]) -> set[str]:
    """Return the given sessions that are connected to the database: none, since a file has a single writer."""
    return set()


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """A kind of database.

    Attributes:
        name: name for messages, without a password.
        reader: connections that read; each transaction has one consistent view.
        writer: connections that write, perhaps the same; a transaction holds the right to write from its first
            statement on.
        explain: function that converts an error of the database to a StoreError; None for a bug of stnbench.
        file: the file of the database; None for a server.
        is_shared: whether other processes may write at the same time, each for another sweep.
        require_alone: function that raises StoreBusyError if other sweeps run, inside a transaction; until the end of
            that transaction none can begin.
        live_sessions: function that returns those of the given sessions that hold a right to write at present.
    """

    name: str
    reader: Engine
    writer: Engine
    explain: Callable[[str, StatementError], StoreError | None]
    file: StoreFile | None = None
    is_shared: bool = False
    require_alone: Callable[[Connection], None] = lambda _: None
    live_sessions: Callable[[Connection, Collection[str]], set[str]] = no_other_session
