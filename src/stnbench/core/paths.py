"""Names of the folders and files of a run, and paths that users write."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from stnbench.core.errors import SpecError, StoreError

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
