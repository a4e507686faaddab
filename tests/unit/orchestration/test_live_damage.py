"""Files are cut, flipped and removed while a tiny sweep runs; the same command ends with equal results, or one line.

Caches of images and checkpoints are read by the trial itself: ``tests/unit/trials/test_run.py`` changes them while it
trains, ``tests/unit/trials/test_damage.py`` at rest. Here are the files that the orchestrator reads and writes.
"""

import functools
import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_trials import Task, fake_spec, run_fake_trial
from tiny_sweeps import run_tiny, scores_of, without_training

from stnbench.core import command
from stnbench.core.files import RunsLayout
from stnbench.orchestration.patience import StoreWait
from stnbench.orchestration.recovery import restore_store
from stnbench.trials.files import write_probabilities

pytestmark = [
    pytest.mark.slow,
    pytest.mark.thorough,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
TRIALS = tuple(fake_spec(Task.FINISH, seed=seed, epochs=1) for seed in (1, 2, 3))
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there


@pytest.fixture(autouse=True)
def brief_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that stays away is waited for briefly."""
    brief = functools.partial(StoreWait, limit_s=0.02, pause_s=0.005)
    monkeypatch.setattr("stnbench.orchestration.session.StoreWait", brief)


Damage = Callable[[Path], None]


def cut(path: Path) -> None:
    """Half of the file is gone, in place."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Nothing is left in it, as after a power cut."""
    with path.open("r+b") as file:
        file.truncate(0)


def flip(path: Path) -> None:
    """A bit of a byte in the middle is turned over, in place."""
    with path.open("r+b") as file:
        place = path.stat().st_size // 2
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 4]) if byte else b"")


def overwrite(path: Path) -> None:
    """Something else stands in it."""
    with path.open("r+b") as file:
        file.write(b"\0" * min(4096, path.stat().st_size))


def remove(path: Path) -> None:
    """It is gone."""
    path.unlink()


DAMAGES: tuple[Damage, ...] = (cut, empty, flip, overwrite, remove)

FILES: dict[str, Callable[[RunsLayout], Path]] = {
    "spec": lambda layout: layout.attempt(TRIALS[0].trial_id, 1) / "spec.json",
    "result": lambda layout: layout.attempt(TRIALS[0].trial_id, 1) / "result.json",
    "checkpoint": lambda layout: layout.attempt(TRIALS[0].trial_id, 1) / "checkpoint.pt",
    "probabilities": lambda layout: layout.attempt(TRIALS[0].trial_id, 1) / "probabilities_validation.npy",
    "store": lambda layout: layout.root / "stnbench.db",
    "write-ahead log": lambda layout: layout.root / "stnbench.db-wal",
    "shared memory": lambda layout: layout.root / "stnbench.db-shm",
    "lock": lambda layout: layout.orchestrator_lock,
    "holder": lambda layout: layout.orchestrator_lock.with_suffix(".holder"),
    "history": lambda layout: layout.history,
}


@pytest.fixture
def layout() -> Iterator[RunsLayout]:
    """A runs folder in memory where there is one."""
    where = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="stnbench-test-", dir=where) as folder:
        yield RunsLayout(Path(folder) / "runs")


def run_with(monkeypatch: pytest.MonkeyPatch, layout: RunsLayout, happens: dict[int, Callable[[], None]]) -> str:
    """Run the sweep; what happens, by the number of the attempt, does so before it begins.

    Returns:
        The line with which the command ends; empty if it ends well.
    """
    begun = iter(range(1, 100))

    def run(*words: Any, folder: Path, **named: Any) -> object:
        happens.get(next(begun), lambda: None)()
        folder.mkdir(parents=True, exist_ok=True)
        write_probabilities(folder, "validation", np.full((4, 2), 0.5, np.float16))
        return run_fake_trial(*words, folder=folder, **named)

    without_training(monkeypatch, run)
    try:
        run_tiny(layout, TRIALS)
    except Exception as error:
        said = command._foreseen(error)
        if said is None:
            raise
        return said
    finally:
        gc.collect()
    return ""


@pytest.fixture
def whole(layout: RunsLayout, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a sweep says that nothing disturbs; the folder is empty again."""
    assert run_with(monkeypatch, layout, {}) == ""
    scores = scores_of(layout)
    shutil.rmtree(layout.root)
    return scores


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_damaged_while_a_sweep_runs(
    file: str, layout: RunsLayout, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first and the second trial: afterwards the same command gives equal results, or says one line.

    Where the line is of a damaged store, one that is made again from the files beside it goes on to equal results.
    """
    wrong: list[str] = []
    for damage in DAMAGES:
        touched: list[bool] = []

        def happen(damage: Damage = damage, touched: list[bool] = touched) -> None:
            path = FILES[file](layout)
            touched.append(path.exists())
            if path.exists():
                damage(path)

        first = run_with(monkeypatch, layout, {2: happen})
        second = run_with(monkeypatch, layout, {})
        if second:
            restore_store(layout, now=datetime.now(UTC))
            third = run_with(monkeypatch, layout, {})
            if third:
                wrong.append(f"{damage.__name__}: '{first}', then '{second}', and made again '{third}'")
        if scores_of(layout) != whole:
            wrong.append(f"{damage.__name__}: other results, after '{first}' and '{second}'")
        if not touched:
            wrong.append(f"{damage.__name__}: nothing happened")
        shutil.rmtree(layout.root)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_result_that_is_damaged_before_it_is_read(
    damage: Damage, layout: RunsLayout, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt is lost and its trial runs again, in the same sweep."""
    left = iter([damage])

    def run(*words: Any, folder: Path, **named: Any) -> object:
        result = run_fake_trial(*words, folder=folder, **named)
        next(left, lambda _: None)(folder / "result.json")
        return result

    without_training(monkeypatch, run)
    summary = run_tiny(layout, TRIALS)
    assert (summary.complete, summary.failed, summary.launched) == (3, 0, 4)
    assert {key: scores_of(layout)[key] for key in ("trials", "scores", "epochs")} == {
        key: whole[key] for key in ("trials", "scores", "epochs")
    }
