"""A database that can be connected to: how it is found, what a transaction is, and what its errors mean."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, StatementError

from stnbench.core.errors import StnbenchError, StoreError
from stnbench.store.backend import Backend
from stnbench.store.file import BUSY_TIMEOUT_S
from stnbench.store.postgres import open_postgres
from stnbench.store.sqlite import open_sqlite

URL_REMEDY = "give the path of a file, or postgresql://user@host/database"


@dataclass(frozen=True, kw_only=True, slots=True)
class Database:
    """A SQLite file or a database of a PostgreSQL server, which mean the same to everything above."""

    backend: Backend
    writable: bool

    @classmethod
    def open(
        cls, where: Path | str, *, writable: bool, busy_timeout_s: float = BUSY_TIMEOUT_S, holder: str = ""
    ) -> "Database":
        """A database by the path of a SQLite file, or by URL.

        A writable file and its folder are made where they are missing; the database of a server must be there.
        With a ``holder``, the name of a process, nobody else writes the database of a server until it is closed. (A
        file has the lock of its runs folder instead.)
        Raises: FolderError when a file or folder cannot be made; StoreBusyError when the server's database is held by
            somebody else; StoreError for a URL that says nothing, a missing file to read, or a server out of reach.
        """
        url = _url(where)
        if url.get_backend_name() == "sqlite":
            backend = open_sqlite(url, writable=writable, busy_timeout_s=busy_timeout_s)
            return cls(backend=backend, writable=writable)
        backend = open_postgres(url, writable=writable, busy_timeout_s=busy_timeout_s, holder=holder)
        database = cls(backend=backend, writable=writable)
        if holder:
            with database._explained(), backend.writer.connect():
                pass  # the connection that writes holds the right to, and stays
        return database

    @property
    def name(self) -> str:
        """What messages call it; never with a password."""
        return self.backend.name

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Commit what the block writes, or nothing of it: this is the only place that commits.

        The block holds the right to write from its first statement on. An error inside the block goes on as it is,
        but those of the database become one of ours.
        Raises: StoreBusyError when another process keeps writing; StoreError when the database cannot be used.
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
        """One consistent view of the database for all statements of the block.

        Raises: as ``transaction``.
        """
        with self._explained(), self.backend.reader.connect() as connection, connection.begin():
            yield connection

    def check(self) -> None:
        """See that a file that is written is still the one that was opened.

        Raises: StoreError where it was removed, replaced, cut short or overwritten.
        """
        if self.backend.file is not None and self.writable:
            self.backend.file.check()

    def check_whole(self, attempts: Mapping[str, int]) -> None:
        """As ``check``, and read the whole file as another process does: it is whole, and has so many attempts.

        Raises: as ``check``; StoreError where it is damaged, or holds something else.
        """
        if self.backend.file is not None:
            self.check()
            self.backend.file.check_whole(attempts)

    def back_up(self, folder: Path, *, note: str = "") -> Path | None:
        """Copy a file into a folder while it is used; None where the database is a server's.

        Raises: StoreError; FolderError.
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
                raise  # we wrote what must not be written: a bug, which keeps its traceback
            raise explained from error


def _url(where: Path | str) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(Path(where).absolute()))
    try:
        return make_url(where)
    except (ArgumentError, ValueError) as error:  # which say all of it, the password included
        scheme = where.partition("://")[0]
        raise StoreError(f"the store '{scheme}://...' is no database URL", remedy=URL_REMEDY) from error
