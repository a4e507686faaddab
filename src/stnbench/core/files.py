"""Atomic writes, checks that folders can be written, and small file helpers."""

import contextlib
import errno
import os
import secrets
import tempfile
from pathlib import Path
from tokenize import TokenError
from typing import Final

from stnbench.core.errors import FolderError

_MAY_NOT_LOCK = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EMFILE})
"""Error codes of a refused lock that do not mean that the file system has no locks."""


ARRAY_ERRORS: Final = (OSError, ValueError, EOFError, TypeError, SyntaxError, MemoryError, TokenError)
"""Exceptions of NumPy for a file of arrays that cannot be read; a damaged header is parsed as Python source."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader, also after a power cut, finds the old file or the new one.

    A temporary file in the same folder is written, synced and renamed; the folder is synced as well.

    Raises:
        OSError: if the file cannot be written, for example on a full disk; the old file is kept and the temporary
            one removed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:  # readable as the user's umask permits, unlike tempfile's
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync a folder so that renames in it survive a power cut; does nothing outside POSIX systems."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def writable_folder(folder: Path, purpose: str, *, remedy: str) -> Path:
    """Return the folder after checking that a file can be written in it; a missing folder is created.

    Args:
        folder: the folder.
        purpose: what the folder is for, for the message.
        remedy: what the reader can do, for the message.

    Raises:
        FolderError: if no file can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        problem = f"the folder {folder} for {purpose} cannot be written ({error.strerror or error})"
        raise FolderError(problem, remedy=remedy) from error


def lock_error(folder: Path, error: OSError | NotImplementedError, variable: str) -> FolderError:
    """Return the error to raise if a lock in a folder is refused.

    Args:
        folder: the folder of the lock.
        error: the refusal.
        variable: the environment variable that moves the folder.
    """
    said = getattr(error, "strerror", None) or error
    if getattr(error, "errno", None) in _MAY_NOT_LOCK:
        return FolderError(f"no lock can be taken in {folder} ({said})", remedy=f"set {variable} to one you can write")
    problem = f"the file system of {folder} has no locks ({said})"
    return FolderError(problem, remedy=f"set {variable} to a folder on a local disk")


def write_all(handle: int, data: bytes) -> None:
    """Write all bytes to a file descriptor, in as many calls as the system needs.

    Raises:
        OSError: if a write fails, for example BrokenPipeError if the reader has gone.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def tail(path: Path, limit: int = 2000, *, start: int = 0) -> str:
    """Return the last ``limit`` bytes of a text file, from the start of a line where possible.

    Args:
        path: the file; the result is empty if it cannot be read.
        limit: number of bytes.
        start: offset in bytes before which nothing is read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END) - start
            file.seek(start + max(0, size - limit))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return text if size <= limit else text.partition("\n")[2] or text


def size_of(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it cannot be read."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
