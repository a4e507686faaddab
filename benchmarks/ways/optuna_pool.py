"""Optuna's ask and tell with a pool of processes; the study lies in SQLite."""

import sys
import tempfile
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import optuna

from ways.trial import run


def warm_up() -> None:
    """Import torch once a process."""
    import torch  # noqa: F401


def main(trials: int, duration_s: float, slots: int) -> None:
    """Keep the pool busy; a trial is told as soon as it ends."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = tempfile.mkdtemp(prefix="bench-optuna-")
    study = optuna.create_study(
        storage=f"sqlite:///{folder}/study.db", direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1)
    )
    with ProcessPoolExecutor(slots, initializer=warm_up) as pool:
        running: dict[Future[float], optuna.Trial] = {}
        for _ in range(trials):
            if len(running) == slots:
                _tell(study, running)
            trial = study.ask()
            trial.suggest_float("rate", 1e-3, 1e-1, log=True)
            running[pool.submit(run, duration_s)] = trial
        while running:
            _tell(study, running)


def _tell(study: optuna.Study, running: "dict[Future[float], optuna.Trial]") -> None:
    for done in wait(running, return_when=FIRST_COMPLETED).done:
        study.tell(running.pop(done), done.result())


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
