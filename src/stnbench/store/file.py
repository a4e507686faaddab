"""The file that a store is: whether it is there and whole while it is used, copies of it; and what a backend offers."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import StatementError

from stnbench.core.errors import StoreError
from stnbench.core.files import sync_folder, writable_folder

# The file that a store is: whether it is still there and whole while it is used, and copies of it.
#
# SQLite holds its files open and does not notice when somebody removes or replaces them: it goes on writing a file that
# has no name any more. So the names are looked at, every time something is written and every few seconds.
#
# Nothing here opens the file but by SQLite: closing it by other means would give back the locks of this whole process.


REBUILD_REMEDY: Final = "make it again from the results on the disk: python -m stnbench.store rebuild"
PARTS: Final = ("", "-wal", "-shm")
"""What SQLite appends to the path for the files beside it."""

QUICK_CHECK_MAX_BYTES: Final = 32 << 20
"""A file up to this size is read whole every few seconds; of a larger one its first pages."""

CONTENT_CHECK_S: Final = 5.0
BACKUPS_KEPT: Final = 3
BUSY_TIMEOUT_S: Final = 20.0


@dataclass(slots=True)
class StoreFile:
    """A file and those beside it, as they were when this process first looked at them."""

    path: Path
    clock_s: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    _size: int = 0
    _content_checked_s: float = float("-inf")

    def check(self) -> None:
        """See that the files are those that this process has open, and now and then that the content is a store's.

        Raises:
            StoreError: where one was removed, replaced, cut short or overwritten.
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

    def check_whole(self, attempts: Mapping[str, int]) -> None:
        """Read every page as another process does, and count the attempts by state.

        Raises:
            StoreError: where the file is damaged, or holds other attempts.
        """
        with self._read() as connection:
            self._require_whole(connection, "integrity_check(1)")
            found = dict(connection.execute("SELECT state, count(*) FROM attempts GROUP BY state"))
        if found != dict(attempts):
            raise self._lost("was replaced by another one")

    def back_up(self, folder: Path, *, note: str = "") -> Path:
        """Copy the store into a folder, whole or not at all, and remove the oldest copies of the same kind.

        Raises:
            FolderError: where the folder cannot be written.
            StoreError: where the store cannot be read.
        """
        writable_folder(folder, "copies of the store", remedy="make room, or move STNBENCH_RUNS")
        stem = f"{self.path.stem}-{note or 'hourly'}-"
        copy = folder / f"{stem}{datetime.now(UTC):%Y%m%dT%H%M%S%f}.db"
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
        if part == "":
            if status.st_size < self._size:
                raise self._lost("was cut short", name)
            self._size = status.st_size

    def _lost(self, how: str, name: str = "") -> StoreError:
        return StoreError(f"the store {name or self.path} {how} while it was used", remedy=REBUILD_REMEDY)

    @contextlib.contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own, so that what is read is what lies on the disk."""
        try:
            address = f"{self.path.absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                return  # somebody writes: the next look will tell
            raise StoreError(f"the store {self.path} is damaged ({error})", remedy=REBUILD_REMEDY) from error

    def _require_whole(self, connection: sqlite3.Connection, pragma: str) -> None:
        ((said,),) = connection.execute(f"PRAGMA {pragma}").fetchmany(1)
        if said != "ok":
            problem = f"the store {self.path} is damaged ({' '.join(str(said).split())[:200]})"
            raise StoreError(problem, remedy=REBUILD_REMEDY)


# What a kind of database gives: connections, and the meaning of its errors.


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """Connections that read, connections that write (the same where that makes no difference), and its errors.

    A transaction of ``writer`` holds the right to write from its first statement on, and each of ``reader`` has one
    consistent view. ``explain`` tells the error of a database as one of ours; None where it is a bug of ours.
    ``file`` is where a database lies that is a file.
    """

    name: str
    reader: Engine
    writer: Engine
    explain: Callable[[str, StatementError], StoreError | None]
    file: StoreFile | None = None
