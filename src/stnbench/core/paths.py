"""Where things lie: the one place that knows the names of folders and files of a run."""

import os
from dataclasses import dataclass
from pathlib import Path

RUNS_VARIABLE = "STNBENCH_RUNS"
DATA_VARIABLE = "STNBENCH_DATA"


@dataclass(frozen=True, slots=True)
class RunsLayout:
    """Every path below the runs folder."""

    root: Path

    @classmethod
    def from_environment(cls) -> "RunsLayout":
        """``$STNBENCH_RUNS``, or ``runs/`` in the working directory."""
        return cls(Path(os.environ.get(RUNS_VARIABLE) or "runs").resolve())

    @property
    def store(self) -> Path:
        """The SQLite store, the only truth about trials."""
        return self.root / "stnbench.db"

    @property
    def orchestrator_lock(self) -> Path:
        """Held by the one process that writes the store."""
        return self.root / "orchestrator.lock"

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
        """Output of the workers, one file a slot."""
        return self.root / "logs"

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


def data_root() -> Path:
    """``$STNBENCH_DATA``, or ``data/`` in the working directory."""
    return Path(os.environ.get(DATA_VARIABLE) or "data").resolve()
