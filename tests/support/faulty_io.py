"""A file system and a database that fail at one call: the n-th write, sync, rename, lock, folder or statement.

A fault is an error of the system, or the death of the process: an exception that no handler catches, after which every
further call fails as well, so that no clean-up takes place that a dead process could not do.
"""

import contextlib
import errno
import fcntl
import io
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from typing_extensions import override

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)
SQLITE_CODES = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EIO: sqlite3.SQLITE_IOERR,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_CANTOPEN,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
}
WRITES = ("INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "BEGIN IMMEDIATE", "PRAGMA JOURNAL_MODE")
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND


class Death(BaseException):
    """The process ends here."""


@dataclass(slots=True)
class Faults:
    """Which call fails, how, and what was called so far; ``code`` None is death.

    ``lasting`` says that every later call fails as well, as on a disk that stays full.
    """

    root: Path
    at: int | None = None
    code: int | None = None
    lasting: bool = False
    calls: list[str] = field(default_factory=list)
    is_dead: bool = False
    is_off: bool = False
    handles: dict[int, str] = field(default_factory=dict)

    def end(self) -> None:
        """No more faults; a process that died gives its locks back."""
        self.is_off = True
        for handle in self.handles:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)

    def concerns(self, path: object) -> bool:
        """Whether a path is below the root."""
        if isinstance(path, int):
            return path in self.handles
        return str(path).startswith((str(self.root), f"file://{self.root}"))

    def fails(self, what: str) -> bool:
        """Count a call; whether it fails with an error."""
        if self.is_off:
            return False
        if self.is_dead:
            raise Death
        self.calls.append(what)
        count = len(self.calls)
        hit = self.at is not None and (count >= self.at if self.lasting else count == self.at)
        if hit and self.code is None:
            self.is_dead = True
            raise Death
        return hit

    def step(self, what: str, path: object) -> None:
        """Count a call of the file system. Raises: OSError or Death where it is to fail."""
        if self.concerns(path) and self.fails(f"{what} {self.handles.get(path, path)}"):  # type: ignore[call-overload]
            assert self.code is not None
            raise OSError(self.code, os.strerror(self.code), str(path))

    def statement(self, what: str) -> None:
        """Count a statement. Raises: sqlite3.OperationalError or Death where it is to fail."""
        if self.fails(f"sql {what}"):
            assert self.code is not None
            error = sqlite3.OperationalError("a fault was injected")
            error.sqlite_errorcode = SQLITE_CODES[self.code]
            raise error


class _File:
    """An open file that is written through a fault."""

    def __init__(self, file: Any, faults: Faults, name: str) -> None:
        self._file, self._faults, self._name = file, faults, name
        faults.handles[file.fileno()] = name

    def write(self, data: Any) -> Any:
        self._faults.step("write", self._name)
        return self._file.write(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def inject(monkeypatch: pytest.MonkeyPatch, faults: Faults) -> None:
    """Let calls of this process go through the faults until the patches are undone."""
    for name in ("mkdir", "unlink", "remove", "rmdir", "truncate"):
        monkeypatch.setattr(os, name, _before(getattr(os, name), faults, name))
    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, _before(getattr(os, name), faults, name))
    real_close = os.close

    def close(handle: int) -> None:
        faults.handles.pop(handle, None)
        real_close(handle)

    monkeypatch.setattr(os, "close", close)
    monkeypatch.setattr(os, "write", _before(os.write, faults, "write"))
    monkeypatch.setattr(os, "fsync", lambda handle: faults.step("fsync", handle))  # and none is waited for
    monkeypatch.setattr(fcntl, "flock", _before(fcntl.flock, faults, "lock"))
    _inject_open(monkeypatch, faults)
    _inject_sqlite(monkeypatch, faults)


def _before(call: Callable[..., Any], faults: Faults, what: str) -> Callable[..., Any]:
    def faulty(path: Any, *words: Any, **named: Any) -> Any:
        faults.step(what, path)
        return call(path, *words, **named)

    return faulty


def _inject_open(monkeypatch: pytest.MonkeyPatch, faults: Faults) -> None:
    real_open, real_io_open = os.open, io.open

    def faulty_os_open(path: Any, flags: int, *words: Any, **named: Any) -> int:
        if not faults.concerns(path):
            return real_open(path, flags, *words, **named)
        if flags & WRITE_FLAGS:
            faults.step("open", path)
        handle = real_open(path, flags, *words, **named)
        faults.handles[handle] = str(path)
        return handle

    def faulty_io_open(file: Any, mode: str = "r", *words: Any, **named: Any) -> Any:
        if isinstance(file, int) or not faults.concerns(file) or not set(mode) & set("wax+"):
            return real_io_open(file, mode, *words, **named)
        faults.step("open", file)
        return _File(real_io_open(file, mode, *words, **named), faults, str(file))

    monkeypatch.setattr(os, "open", faulty_os_open)
    monkeypatch.setattr(io, "open", faulty_io_open)


def _inject_sqlite(  # noqa: C901 - two classes and a function, each a few lines
    monkeypatch: pytest.MonkeyPatch, faults: Faults
) -> None:
    class FaultyCursor(sqlite3.Cursor):
        @override
        def execute(self, sql: str, *words: Any) -> "FaultyCursor":
            _count(faults, sql)
            super().execute(sql, *words)
            return self

        @override
        def executemany(self, sql: str, *words: Any) -> "FaultyCursor":
            _count(faults, sql)
            super().executemany(sql, *words)
            return self

    class FaultyConnection(sqlite3.Connection):
        @override
        def cursor(self, factory: Any = FaultyCursor) -> Any:
            return super().cursor(factory)

        @override
        def execute(self, sql: str, *words: Any) -> sqlite3.Cursor:
            _count(faults, sql)
            return super().execute(sql, *words)

        @override
        def commit(self) -> None:
            if self.in_transaction and self.total_changes:
                faults.statement("commit")
                super().commit()
                if faults.code is None:
                    faults.statement("committed")
            else:
                super().commit()

    real_connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect(database: Any, *words: Any, **named: Any) -> sqlite3.Connection:
        if not faults.concerns(database):
            return real_connect(database, *words, **named)
        if "mode=ro" not in str(database):
            faults.statement("connect")
        return real_connect(database, *words, **({"factory": FaultyConnection} | named))

    monkeypatch.setattr(sqlite3, "connect", connect)


def _count(faults: Faults, sql: str) -> None:
    if sql.lstrip().upper().startswith(WRITES):
        faults.statement(" ".join(sql.split())[:60])
