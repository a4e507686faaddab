"""MLflow's database, made once, and its server as a child of this process on 127.0.0.1."""

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

from stnbench.core.paths import SQLITE_PREFIX, sqlite_path, sqlite_uri

# Opening MLflow: quietly, off the network, and its database made once.


if TYPE_CHECKING:
    from mlflow import MlflowClient

NEEDED_TABLES = frozenset({"alembic_version", "experiments", "experiment_tags", "runs", "metrics", "params", "tags"})
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Read by MLflow from the environment when it is imported; what a person has set there stays."""

ARTIFACTS_SCHEME = "mlflow-artifacts"

_DEFAULT_EXPERIMENT = "0"
"""MLflow makes it, for runs that name no experiment; ours all do, and it would stand there empty."""


def initialise(tracking_uri: str) -> None:
    """Make MLflow's database, or check that this MLflow can use it.

    Called once by one process before any other: processes that make it together break it. A SQLite database is put into
    write-ahead logging, so that MLflow's pages and a sweep do not wait for each other.
    Raises: mlflow.exceptions.MlflowException when the database is another MLflow version's; it names the command that
        upgrades it.
    """
    if not tracking_uri.startswith(SQLITE_PREFIX):
        open_client(tracking_uri)
        return
    database = sqlite_path(tracking_uri)
    if not database.exists():
        _make_database(database)
    open_client(tracking_uri)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def set_aside_damaged(tracking_uri: str) -> Path | None:
    """Move MLflow's database out of the way where it is damaged, or was never whole; where it lies then, or None.

    It is a view of the store: a new one is made in its place, and everything is shown again. A database that cannot be
    looked at now, because it is locked for example, is left. Imports nothing of MLflow.
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
"""Folders of artifacts, by the address of the database whose runs they belong to."""


def keep_artifacts_in(folder: Path, tracking_uri: str) -> str:
    """Let artifacts of a database's runs be read and written in a folder; the address below which they lie.

    It is that of MLflow's own artifact server, which says nothing of where the folder is: so a runs folder that was
    copied or moved shows its artifacts. MLflow's server finds them by ``--artifacts-destination``, and this process,
    which has none, by what is told here.
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
    """Return where artifacts of an address lie below a folder. Raises: ValueError for one that leads out of it."""
    parts = [unquote(part) for part in urlsplit(artifact_uri).path.split("/") if part]
    if any(part in {".", ".."} or "/" in part or "\0" in part for part in parts):
        raise ValueError(f"no address of an artifact: {artifact_uri}")
    return folder.joinpath(*parts)


def open_client(tracking_uri: str) -> "MlflowClient":
    """MLflow's client of a database or server. The first one imports MLflow."""
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri)


def _make_database(database: Path) -> None:
    """Make the database beside its place and move it there whole: MLflow cannot use one that was half made.

    It takes seconds, in which a sweep may well be killed.
    """
    with tempfile.TemporaryDirectory(prefix=f".{database.name}.", dir=database.parent) as folder:
        half_made = Path(folder) / database.name
        open_client(sqlite_uri(half_made)).delete_experiment(_DEFAULT_EXPERIMENT)
        half_made.replace(database)


# MLflow's own server as a child of this process: its pages on 127.0.0.1, and nothing of it left when we end.


GRACE_S: Final = 5.0
"""How long the server may take to end before it is killed."""

_WATCH: Final = """
import os, signal, sys
sys.stdin.buffer.read()
try:
    os.killpg(int(sys.argv[1]), signal.SIGKILL)
except OSError:
    pass
"""
"""A process that waits for the end of its pipe, which comes when we end however we do, and ends the server's group."""


def server_environment(tracking_uri: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the server.

    The database's address, which may hold a password, is in it and not on the command line, where every user of the
    machine could read it. Of the jobs that MLflow's server offers, stnbench uses none.
    """
    own = {"MLFLOW_BACKEND_STORE_URI": tracking_uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return {**environment, **own}


def serve(tracking_uri: str, artifacts: Path, port: int) -> int:
    """Serve MLflow's pages until the server ends, Ctrl-C, SIGTERM or SIGHUP; the exit code.

    Raises: KeyboardInterrupt after Ctrl-C.
    """
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", *words, "--artifacts-destination", str(artifacts)]
    with _signals() as received:
        return _run(command, server_environment(tracking_uri, os.environ), received)


def _run(command: Sequence[str], environment: Mapping[str, str], received: list[int]) -> int:
    # A session of its own: the server's processes are one group, which signals reach and which can be ended whole.
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
    """End the server and what it started: asked first, killed after a grace period."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=GRACE_S)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that ask this process to end, instead of ending."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
