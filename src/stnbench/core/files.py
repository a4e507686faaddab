"""Atomic writes, checks that folders can be written, and small file helpers."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Final
from urllib.parse import quote, unquote

from stnbench.core.errors import DataCorruptError, FolderError, SpecError, StoreError
from stnbench.core.identity import DIGEST_LENGTH

# Names of the folders and files of a run, and paths that users write.


RUNS_VARIABLE = "STNBENCH_RUNS"
STORE_VARIABLE = "STNBENCH_STORE"
DATA_VARIABLE = "STNBENCH_DATA"


@dataclass(frozen=True, slots=True)
class RunsLayout:
    """Paths below the runs folder, and the place of the store.

    Attributes:
        root: the runs folder.
        store_url: URL of a database server that holds the store instead of a file; it may contain a password.
    """

    root: Path
    store_url: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls) -> "RunsLayout":
        """Return the layout of ``$STNBENCH_RUNS``, by default ``runs/``, with the store at ``$STNBENCH_STORE``.

        Raises:
            StoreError: if ``$STNBENCH_STORE`` is no URL of PostgreSQL.
            SpecError: if a home folder is unknown.
        """
        url = os.environ.get(STORE_VARIABLE, "")
        if url and not url.startswith("postgres"):
            kind = f"begins with '{url.partition('://')[0]}://'" if "://" in url else "is no URL"
            remedy = f"give postgresql://user@host/database; a store that is a file moves with {RUNS_VARIABLE}"
            raise StoreError(f"{STORE_VARIABLE} {kind}", remedy=remedy)
        return cls(_folder(RUNS_VARIABLE, "runs"), store_url=url)

    @property
    def store(self) -> Path | str:
        """Return the path of the store's SQLite file, or the URL of its server."""
        return self.store_url or self.root / "stnbench.db"

    @property
    def trials(self) -> Path:
        """Return the folder that holds one folder per trial and the history of the store."""
        return self.root / "trials"

    @property
    def history(self) -> Path:
        """Return the file from which, with the results, a store that is a file can be rebuilt."""
        return self.trials / "history.jsonl"

    @property
    def sources(self) -> Path:
        """Return the folder of code records: one per run of a sweep, and each difference from its commit once."""
        return self.root / "sources"

    @property
    def backups(self) -> Path:
        """Return the folder of copies of a store that is a file: before upgrades, and of the last hours."""
        return self.root / "backups"

    @property
    def orchestrator_lock(self) -> Path:
        """Return the lock that the process holds which alone writes this folder and its store; see ``lock_of``."""
        return self.root / "orchestrator.lock"

    @property
    def is_shared(self) -> bool:
        """Return whether several orchestrators may use the store at once, each for another sweep."""
        return bool(self.store_url)

    def lock_of(self, sweep: str) -> Path:
        """Return the lock of the process that runs a sweep, or, for an empty name, that alone writes the store."""
        return self.root / f"orchestrator-{sweep}.lock" if sweep and self.is_shared else self.orchestrator_lock

    @property
    def control(self) -> Path:
        """Return the folder of requests to the orchestrator, one file each (``orchestration/control.py``)."""
        return self.root / "control"

    @property
    def mlflow_store(self) -> Path:
        """Return the path of MLflow's database, a view of the store."""
        return self.root / "mlflow.db"

    @property
    def optuna_store(self) -> Path:
        """Return the path of the Optuna storage, a view of the store."""
        return self.root / "optuna.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """Return the folder of MLflow's artifacts."""
        return self.root / "mlartifacts"

    @property
    def logs(self) -> Path:
        """Return the folder of logs: of commands, and of workers while they run no attempt, one file per slot."""
        return self.root / "logs"

    @property
    def command_log(self) -> Path:
        """Return the log file of commands (``core/command.py``)."""
        return self.logs / "stnbench.log"

    @property
    def slurm_spool(self) -> Path:
        """Return the folder shared by the Slurm engine and its jobs, on a disk that all nodes can reach."""
        return self.root / "slurm"

    def slot_choice(self, host: str) -> Path:
        """Return the file with the measured best number of slots of a machine."""
        return self.root / "machines" / f"{host}.json"

    def attempt(self, trial: str, number: int) -> Path:
        """Return the folder of one attempt of a trial."""
        return self.root / "trials" / trial / f"{number:03d}"

    def trial(self, trial: str) -> Path:
        """Return the folder of a trial, which holds one folder per attempt."""
        return self.root / "trials" / trial


@dataclass(frozen=True, slots=True)
class AttemptLayout:
    """Paths of the files in one attempt's folder."""

    folder: Path

    @property
    def result(self) -> Path:
        """Return the path of the result, which is written atomically when the attempt finishes."""
        return self.folder / "result.json"

    @property
    def checkpoint(self) -> Path:
        """Return the path of the last checkpoint, from which training can be resumed."""
        return self.folder / "checkpoint.pt"

    @property
    def spec(self) -> Path:
        """Return the path of the trial's specification, for readers without the store."""
        return self.folder / "spec.json"

    @property
    def log(self) -> Path:
        """Return the path of the standard output and error of the attempt's process."""
        return self.folder / "output.log"

    @property
    def snapshots(self) -> Path:
        """Return the path of the transformers' effect on a few images during training; absent without transformers."""
        return self.folder / "snapshots.npy"

    def probabilities(self, split: str) -> Path:
        """Return the path of the finished network's class probabilities for every image of a scored split."""
        return self.folder / f"probabilities_{split}.npy"


def data_root() -> Path:
    """Return the folder ``$STNBENCH_DATA``, by default ``data/`` in the working directory.

    Raises:
        SpecError: if a home folder is unknown.
    """
    return _folder(DATA_VARIABLE, "data")


SQLITE_PREFIX = "sqlite:///"


def sqlite_uri(path: Path) -> str:
    """Return the URL of a SQLite file; characters with a meaning in URLs are quoted."""
    return SQLITE_PREFIX + "".join(_QUOTED.get(letter, letter) for letter in str(path))


def sqlite_path(uri: str) -> Path:
    """Return the file of a SQLite URL made by ``sqlite_uri``.

    Raises:
        ValueError: if the URL is none of a SQLite file.
    """
    if not uri.startswith(SQLITE_PREFIX):
        raise ValueError(f"no address of a SQLite file: {uri}")
    return Path(unquote(uri.removeprefix(SQLITE_PREFIX)))


_QUOTED = {letter: quote(letter, safe="") for letter in "%?#"}


def user_path(text: str, name: str) -> Path:
    """Return a path written by a user as an absolute path; ``~`` and ``~user`` are home folders.

    Shells do not expand ``~`` in env files, services, job scripts or after ``--option=``; taken literally, it would
    create a folder named ``~``.

    Args:
        text: the path.
        name: the variable or key that holds it, for messages.

    Raises:
        SpecError: if a home folder is unknown, or the path contains a null byte or bytes that were not decoded.
    """
    if "\0" in text:
        raise SpecError(f"{name} has a null byte", remedy="give a path without it")
    try:
        path = Path(text).expanduser() if text.startswith("~") else Path(text)
        path = path.resolve()
    except (RuntimeError, OSError) as error:
        raise SpecError(f"{name} is '{text}', which is no path here ({error})", remedy="write it from / on") from error
    require_decoded(str(path), name)
    return path


def require_decoded(text: str, name: str) -> None:
    """Raise SpecError if a name of the file system was not decoded, since it can be neither stored nor shown.

    Python keeps bytes that have no meaning in the encoding of the locale as lone surrogates.

    Args:
        text: a path or the name of a file.
        name: the variable, key or thing that it belongs to, for messages.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        problem = f"{name} is '{text}', which is no text in the encoding of this locale ({sys.getfilesystemencoding()})"
        raise SpecError(problem, remedy="use a UTF-8 locale (LC_ALL=C.UTF-8), or another name")


def _folder(variable: str, default: str) -> Path:
    return user_path(os.environ.get(variable) or default, variable)


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
        purpose: purpose of the folder, for the message.
        remedy: the next step for the reader, for the message.

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


# Digests of files that are read again only where a file may have changed.


REMEMBERED_MIN_BYTES: Final = 32 << 20
"""Digests of less are not remembered: the files are read in less than a tenth of a second."""

SETTLED_NS: Final = 2_000_000_000
"""Age in nanoseconds below which a digest is not remembered: a file may change again within its time's resolution."""


_OF_SYSTEMS: Final = frozenset(
    {"__MACOSX", "@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
"""Folders that archivers, file servers and file systems add, with copies of images in some of them."""


def is_left_behind(name: str) -> bool:
    """Return whether a path with slashes names a file that a file system, a server, an editor or an archiver added.

    macOS adds ``._name`` beside every file on foreign drives, offices add ``~$name``, Synology's servers ``@eaDir/``.
    """
    return any(part.startswith((".", "~$")) or part in _OF_SYSTEMS for part in name.split("/"))


def file_mark(path: Path | str) -> list[int]:
    """Return size, modification and change time and inode of a file, which change when it is written or replaced.

    Raises:
        DataCorruptError: if the file is not there.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - three times as fast as Path.stat, for tens of thousands of files
    except OSError as error:
        raise DataCorruptError(f"{path} cannot be read ({error})", remedy="check the file it names") from error
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def memory_of(cache: Path, place: Path) -> Path:
    """Return the file in the folder of caches that remembers the digests of the files of a folder or archive."""
    return cache / "contents" / f"{hashlib.sha256(os.fsencode(place.resolve())).hexdigest()[:DIGEST_LENGTH]}.json"


def remembered_digests(
    memory: Path,
    marks: Mapping[str, Sequence[int]],
    measure: Callable[[Sequence[str]], Iterator[str]],
    *,
    total_bytes: int,
) -> dict[str, str]:
    """Return the SHA-256 of every file by name, from memory where its mark is the remembered one.

    Args:
        memory: the file that holds marks and digests; it need not exist, nor be writable.
        marks: the mark of every file (of its archive, for members), as ``file_mark`` returns it.
        measure: yields the SHA-256 of each of the files that it is given the names of.
        total_bytes: the size of all files; nothing is remembered below ``REMEMBERED_MIN_BYTES``.

    Raises:
        Exception: those of ``measure``.
    """
    is_kept = total_bytes >= REMEMBERED_MIN_BYTES
    kept = _read_memory(memory) if is_kept else {}
    known = {name: kept[name][1] for name, mark in marks.items() if name in kept and kept[name][0] == mark}
    started_ns = time.time_ns()
    missing = [name for name in marks if name not in known]
    if missing:
        known |= dict(zip(missing, measure(missing), strict=True))
    if missing and is_kept:
        settled = {
            name: [mark, known[name]] for name, mark in marks.items() if max(mark[1:3]) < started_ns - SETTLED_NS
        }
        with contextlib.suppress(OSError):  # without a memory, the next call only takes longer
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(memory, _sealed(json.dumps(settled).encode()))
    return known


def _sealed(data: bytes) -> bytes:
    return data + b"\n" + hashlib.sha256(data).hexdigest().encode()


def _read_memory(memory: Path) -> dict[str, tuple[list[int], str]]:
    """Return the remembered marks and digests; empty if they cannot be read."""
    try:
        data = memory.read_bytes()
        text = data.rpartition(b"\n")[0]
        kept = json.loads(text) if data == _sealed(text) else {}
        return {str(name): (list(mark), str(digest)) for name, (mark, digest) in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def file_sha256(path: Path, *, follow_link: bool = False) -> str:
    """Return the SHA-256 of a file as hexadecimal digits.

    Raises:
        OSError: if it cannot be read, or is a symbolic link, which may lead anywhere, unless links are followed.
    """
    if path.is_symlink() and not follow_link:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
