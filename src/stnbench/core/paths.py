"""Where things lie: the one place that knows the names of folders and files of a run."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from stnbench.core.errors import SpecError, StoreError

RUNS_VARIABLE = "STNBENCH_RUNS"
STORE_VARIABLE = "STNBENCH_STORE"
DATA_VARIABLE = "STNBENCH_DATA"


@dataclass(frozen=True, slots=True)
class RunsLayout:
    """Every path below the runs folder, and the store, which may be elsewhere.

    ``store_url`` is the URL of a database server that holds the store instead of a file; it may contain a password.
    """

    root: Path
    store_url: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls) -> "RunsLayout":
        """``$STNBENCH_RUNS``, or ``runs/`` in the working directory, with the store at ``$STNBENCH_STORE``.

        Raises: StoreError when the latter is no URL of PostgreSQL; SpecError for a home folder that is not known.
        """
        url = os.environ.get(STORE_VARIABLE, "")
        if url and not url.startswith("postgres"):
            kind = f"begins with '{url.partition('://')[0]}://'" if "://" in url else "is no URL"
            remedy = f"give postgresql://user@host/database; a store that is a file moves with {RUNS_VARIABLE}"
            raise StoreError(f"{STORE_VARIABLE} {kind}", remedy=remedy)
        return cls(_folder(RUNS_VARIABLE, "runs"), store_url=url)

    @property
    def store(self) -> Path | str:
        """The only truth about trials: a SQLite file, or the URL of a server."""
        return self.store_url or self.root / "stnbench.db"

    @property
    def trials(self) -> Path:
        """One folder a trial, and the history of the store."""
        return self.root / "trials"

    @property
    def history(self) -> Path:
        """Every row of a store that is a file, but for those that come from results: to make it again."""
        return self.trials / "history.jsonl"

    @property
    def sources(self) -> Path:
        """Which code trained what: one record a run of a sweep, and what differed from its commit, each once."""
        return self.root / "sources"

    @property
    def backups(self) -> Path:
        """Copies of a store that is a file: before its revision was raised, and of the last hours."""
        return self.root / "backups"

    @property
    def orchestrator_lock(self) -> Path:
        """Held by the one process that writes this folder, and its store."""
        return self.root / "orchestrator.lock"

    @property
    def control(self) -> Path:
        """Requests that people have for the orchestrator, one file each (``orchestration/control.py``)."""
        return self.root / "control"

    @property
    def mlflow_store(self) -> Path:
        """MLflow's database, a view of the store."""
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """MLflow's artifacts."""
        return self.root / "mlartifacts"

    @property
    def logs(self) -> Path:
        """Output of the workers while they run no attempt, one file a slot."""
        return self.root / "logs"

    @property
    def command_log(self) -> Path:
        """What commands log (``core/command.py``)."""
        return self.logs / "stnbench.log"

    @property
    def slurm_spool(self) -> Path:
        """Where the slurm engine and its jobs work together; on a disk that all nodes share."""
        return self.root / "slurm"

    def slot_choice(self, host: str) -> Path:
        """How many slots a machine works fastest with, as it was measured."""
        return self.root / "machines" / f"{host}.json"

    def attempt(self, trial: str, number: int) -> Path:
        """The folder of one attempt of one trial."""
        return self.root / "trials" / trial / f"{number:03d}"

    def trial(self, trial: str) -> Path:
        """The folder of a trial: one folder an attempt inside."""
        return self.root / "trials" / trial


@dataclass(frozen=True, slots=True)
class AttemptLayout:
    """Every file of one attempt's folder."""

    folder: Path

    @property
    def result(self) -> Path:
        """The finished result, complete or absent."""
        return self.folder / "result.json"

    @property
    def checkpoint(self) -> Path:
        """The last state of training, from which the trial can go on."""
        return self.folder / "checkpoint.pt"

    @property
    def spec(self) -> Path:
        """The trial's specification, for a reader without the store."""
        return self.folder / "spec.json"

    @property
    def log(self) -> Path:
        """What the attempt's process wrote to standard output and error while it ran."""
        return self.folder / "output.log"

    @property
    def snapshots(self) -> Path:
        """What the transformers did to a few images while the network learnt; absent where it has none."""
        return self.folder / "snapshots.npy"

    def probabilities(self, split: str) -> Path:
        """The class probabilities of every image of a split that the finished network was scored on."""
        return self.folder / f"probabilities_{split}.npy"


def data_root() -> Path:
    """``$STNBENCH_DATA``, or ``data/`` in the working directory.

    Raises: SpecError for a home folder that is not known.
    """
    return _folder(DATA_VARIABLE, "data")


SQLITE_PREFIX = "sqlite:///"


def sqlite_uri(path: Path) -> str:
    """Return the address of a SQLite file, in which what an address gives a meaning to is quoted."""
    return SQLITE_PREFIX + "".join(_QUOTED.get(letter, letter) for letter in str(path))


def sqlite_path(uri: str) -> Path:
    """Return the file of a SQLite address, as ``sqlite_uri`` wrote it.

    Raises: ValueError for another address.
    """
    if not uri.startswith(SQLITE_PREFIX):
        raise ValueError(f"no address of a SQLite file: {uri}")
    return Path(unquote(uri.removeprefix(SQLITE_PREFIX)))


_QUOTED = {letter: quote(letter, safe="") for letter in "%?#"}


def user_path(text: str, name: str) -> Path:
    """Return a path that a person wrote, absolute; ``~`` and ``~user`` are home folders.

    A shell expands ``~`` only where it sees it: not in env files, services, job scripts or behind ``--option=``.
    Taken literally, it would make a folder that is called ``~``.

    Args:
        text: the path.
        name: of the variable or key that holds it, for messages.

    Raises:
        SpecError: for a home folder that is not known, and for a path with a null byte.
    """
    if "\0" in text:
        raise SpecError(f"{name} has a null byte", remedy="give a path without it")
    try:
        path = Path(text).expanduser() if text.startswith("~") else Path(text)
        return path.resolve()
    except (RuntimeError, OSError) as error:
        raise SpecError(f"{name} is '{text}', which is no path here ({error})", remedy="write it from / on") from error


def _folder(variable: str, default: str) -> Path:
    return user_path(os.environ.get(variable) or default, variable)
