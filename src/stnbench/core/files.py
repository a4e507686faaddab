"""Files that are whole or absent, and folders that can be written."""

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
"""Refusals of a lock that say nothing of the file system."""


ARRAY_ERRORS: Final = (OSError, ValueError, EOFError, TypeError, SyntaxError, MemoryError, TokenError)
"""What numpy raises for a file of arrays that cannot be read: a damaged header is parsed as Python's text."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write so that a reader sees the old file or the new one, and a power cut leaves one of them.

    A temporary file in the same folder is written, synced and renamed; the folder is synced as well.
    Raises: OSError, for example when the disk is full; the old file then stands and the temporary one is gone.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:  # unlike tempfile's, readable by whom the user's umask lets read
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
    """Make renames in the folder survive a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def writable_folder(folder: Path, purpose: str, *, remedy: str) -> Path:
    """The folder, made if it is missing, after a file was written and removed in it.

    Raises: FolderError naming the folder, its purpose and the remedy.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        problem = f"the folder {folder} for {purpose} cannot be written ({error.strerror or error})"
        raise FolderError(problem, remedy=remedy) from error


def lock_error(folder: Path, error: OSError | NotImplementedError, variable: str) -> FolderError:
    """What to raise where a lock in a folder is refused; ``variable`` moves the folder."""
    said = getattr(error, "strerror", None) or error
    if getattr(error, "errno", None) in _MAY_NOT_LOCK:
        return FolderError(f"no lock can be taken in {folder} ({said})", remedy=f"set {variable} to one you can write")
    problem = f"the file system of {folder} has no locks ({said})"
    return FolderError(problem, remedy=f"set {variable} to a folder on a local disk")


def write_all(handle: int, data: bytes) -> None:
    """Write every byte to a file descriptor, however the system cuts them up.

    Raises: OSError, for example BrokenPipeError when the reader is gone.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def tail(path: Path, limit: int = 2000, *, start: int = 0) -> str:
    """The last ``limit`` bytes of a text file, from a line's start where possible; empty where there is no file.

    What lies before the byte ``start`` is left out.
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
    """The size of a file in bytes; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
