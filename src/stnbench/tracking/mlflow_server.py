"""MLflow's database, created once, and its server as a child of this process on 127.0.0.1."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from stnbench.core.files import SQLITE_PREFIX, sqlite_path, sqlite_uri

# Opening of MLflow without output and network access, and the creation of its database.


if TYPE_CHECKING:
    from mlflow import MlflowClient

NEEDED_TABLES = frozenset({"alembic_version", "experiments", "experiment_tags", "runs", "metrics", "params", "tags"})
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Variables that MLflow reads from the environment when it is imported; values set by the user are kept."""

ARTIFACTS_SCHEME = "mlflow-artifacts"

_DEFAULT_EXPERIMENT = "0"
"""MLflow's experiment for runs that name none; it is removed, since all runs of stnbench name one."""


def initialise(tracking_uri: str) -> None:
    """Create MLflow's database, or check that this version of MLflow can use it.

    It is called before anything is shown, and processes that share a runs folder wait for each other here: to create
    the database concurrently would corrupt it. A SQLite database is set to write-ahead logging, so that MLflow's pages
    and a sweep do not wait for each other.

    Raises:
        mlflow.exceptions.MlflowException: if the database is of another version of MLflow; the message names the
            command that upgrades it.
    """
    if not tracking_uri.startswith(SQLITE_PREFIX):
        open_client(tracking_uri)
        return
    database = sqlite_path(tracking_uri)
    with FileLock(database.with_name(f".{database.name}.lock")):
        if not database.exists():
            _make_database(database)
    open_client(tracking_uri)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def set_aside_damaged(tracking_uri: str) -> Path | None:
    """Move a damaged or incomplete MLflow database aside, and return its new path; None if there is none.

    It is a view of the store: a new one is created in its place, and everything is shown again. A database that cannot
    be checked now, for example because it is locked, is left in place. MLflow is not imported.
    """
    if not tracking_uri.startswith(SQLITE_PREFIX):
        return None
    database = sqlite_path(tracking_uri)
    if not database.exists() or _is_whole(database):
        return None
    aside = database.with_name(f"{database.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    for part in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            database.with_name(database.name + part).rename(aside.with_name(aside.name + part))
    return aside


def _is_whole(database: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            ((said,),) = connection.execute("PRAGMA quick_check(1)").fetchmany(1)
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF not in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
    return said == "ok" and tables >= NEEDED_TABLES


_ARTIFACTS: dict[str, Path] = {}
"""Folders of artifacts, by the URI of the database of their runs."""


def keep_artifacts_in(folder: Path, tracking_uri: str) -> str:
    """Register the folder for the artifacts of a database's runs; return the base address of the artifacts.

    The address is that of MLflow's artifact server, which is independent of the folder: so a runs folder that was
    copied or moved shows its artifacts. MLflow's server finds them by ``--artifacts-destination``, and this process,
    which has no server, by this registration.
    """
    from mlflow.store.artifact import artifact_repository_registry as registry
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    def open_repository(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> object:
        known = _ARTIFACTS.get(tracking_uri or "")
        if known is None:
            return MlflowArtifactsRepository(artifact_uri, tracking_uri, registry_uri)
        return LocalArtifactRepository(local_place(known, artifact_uri).as_uri())

    _ARTIFACTS[tracking_uri] = folder.absolute()
    known: Any = registry._artifact_repository_registry  # noqa: SLF001 - what plugins register with
    known.register(ARTIFACTS_SCHEME, open_repository)
    return f"{ARTIFACTS_SCHEME}:/"


def local_place(folder: Path, artifact_uri: str) -> Path:
    """Return the path of an artifact below a folder.

    Raises:
        ValueError: if the address leads out of the folder.
    """
    parts = [unquote(part) for part in urlsplit(artifact_uri).path.split("/") if part]
    if any(part in {".", ".."} or "/" in part or "\0" in part for part in parts):
        raise ValueError(f"no address of an artifact: {artifact_uri}")
    return folder.joinpath(*parts)


def open_client(tracking_uri: str) -> "MlflowClient":
    """Return a client of MLflow for a database or server. The first call imports MLflow."""
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri)


def _make_database(database: Path) -> None:
    """Create the database under a temporary path and move it into place: MLflow cannot use an incomplete one.

    Creation takes seconds, during which a sweep may be killed.
    """
    with tempfile.TemporaryDirectory(prefix=f".{database.name}.", dir=database.parent) as folder:
        half_made = Path(folder) / database.name
        open_client(sqlite_uri(half_made)).delete_experiment(_DEFAULT_EXPERIMENT)
        half_made.replace(database)


# MLflow's server as a child of this process, with its pages on 127.0.0.1; no process is left when this one ends.


GRACE_S: Final = 5.0
"""Seconds that the server may take to end before it is killed."""

_WATCH: Final = """
import os, signal, sys
sys.stdin.buffer.read()
try:
    os.killpg(int(sys.argv[1]), signal.SIGKILL)
except OSError:
    pass
"""
"""Program that waits for the end of its pipe, which follows any end of this process, and kills the server's group."""


def server_environment(tracking_uri: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the server.

    It holds the database's address, which may contain a password, because every user of the machine could read it on
    the command line. The job execution of MLflow's server is disabled, since stnbench does not use it.
    """
    own = {"MLFLOW_BACKEND_STORE_URI": tracking_uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return {**environment, **own}


def serve(tracking_uri: str, artifacts: Path, port: int) -> int:
    """Serve MLflow's pages until the server ends, Ctrl-C, SIGTERM or SIGHUP; return the exit code.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", *words, "--artifacts-destination", str(artifacts)]
    with _signals() as received:
        return _run(command, server_environment(tracking_uri, os.environ), received)


def _run(command: Sequence[str], environment: Mapping[str, str], received: list[int]) -> int:
    # A separate session: the server's processes are one group, which can be signalled and ended together.
    server = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603 - our own command line
    watch = subprocess.Popen(  # noqa: S603 - our own program, no input of others
        [sys.executable, "-c", _WATCH, str(server.pid)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        while not received:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return server.wait(timeout=0.2)
    finally:
        _end(server)
        if watch.stdin is not None:
            watch.stdin.close()
        watch.wait()
    if received[0] == signal.SIGINT:
        raise KeyboardInterrupt
    return 128 + received[0]


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End the server and its children: terminate first, kill after a grace period."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=GRACE_S)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that would end this process, for the block."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
