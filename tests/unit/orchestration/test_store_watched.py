"""A store that is removed, replaced, cut or overwritten while a sweep runs ends it, with a line and no false news."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_trials import Task, fake_spec, run_fake_trial
from tiny_sweeps import TRIALS, run_tiny, scores_of, without_training

from stnbench.cli.store import main
from stnbench.core.errors import StoreError
from stnbench.core.files import RunsLayout
from stnbench.spec.trial import TrialSpec
from stnbench.store import file as store_file
from stnbench.store.file import StoreFile
from stnbench.store.store import Store

pytestmark = pytest.mark.slow


def replace_by_a_copy(path: Path) -> None:
    """Put a copy in its place, as an editor or a synchroniser does."""
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)


def remove_all(path: Path) -> None:
    """Remove the file and those beside it."""
    for part in ("", "-wal", "-shm"):
        path.with_name(path.name + part).unlink()


def overwrite(path: Path) -> None:
    """Write something else over it, in place."""
    with path.open("r+b") as file:
        file.write(os.urandom(1 << 16))


def swap_folder(path: Path) -> None:
    """Move the whole runs folder away and put an empty one there."""
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.mkdir()


ATTACKS: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "all removed": remove_all,
    "log removed": lambda path: path.with_name(path.name + "-wal").unlink(),
    "index removed": lambda path: path.with_name(path.name + "-shm").unlink(),
    "cut": lambda path: os.truncate(path, 5000),
    "emptied": lambda path: os.truncate(path, 0),
    "replaced": replace_by_a_copy,
    "overwritten": overwrite,
    "text": lambda path: path.write_text("x" * (1 << 17)),
    "log emptied": lambda path: os.truncate(path.with_name(path.name + "-wal"), 0),
    "index emptied": lambda path: os.truncate(path.with_name(path.name + "-shm"), 0),
    "index cut": lambda path: os.truncate(path.with_name(path.name + "-shm"), 16 << 10),
    "folder moved": swap_folder,
}


def error_of_run(layout: RunsLayout) -> str | None:
    """What a run says that ends with an error of the store; None where it ends well."""
    try:
        run_tiny(layout, ALL)
    except StoreError as error:
        return str(error)
    return None


MADE_AGAIN = ("log emptied", "index emptied", "index cut")
HEALED = ("cut", "emptied", "overwritten", "text")
ALL = (*TRIALS, fake_spec(Task.FINISH, config=9))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> RunsLayout:
    """A run that nobody disturbs, of all trials; beside it one of all but the last."""
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        without_training(patch)
        patch.delenv("STNBENCH_STORE", raising=False)
        run_tiny(RunsLayout(folder / "clean"), ALL)
        run_tiny(RunsLayout(folder / "old"))
    return RunsLayout(folder / "clean")


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunsLayout:
    """An empty runs folder, with a store that is looked into at every step."""
    without_training(monkeypatch)
    monkeypatch.setattr(store_file, "CONTENT_CHECK_S", 0.0)
    monkeypatch.setenv("STNBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("STNBENCH_STORE", raising=False)
    return RunsLayout(tmp_path / "runs")


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_store_that_is_attacked_in_mid_run_ends_it(
    layout: RunsLayout, clean: RunsLayout, monkeypatch: pytest.MonkeyPatch, attack: str, *, is_old: bool
) -> None:
    """A new store or one of an earlier run: a StoreError (exit code 2); afterwards nothing is missing in the end.

    A store that was made in this run is still whole in the log beside it: damage in place heals. An index that is cut
    is made again from the log.
    """
    if is_old:
        shutil.copytree(clean.root.with_name("old"), layout.root)
    victim = ALL[-1] if is_old else ALL[0]

    def run_and_attack(spec: TrialSpec, **rest: Any) -> object:
        result = run_fake_trial(spec, **rest)
        if spec == victim:
            ATTACKS[attack](path)
        return result

    path = layout.root / "stnbench.db"
    without_training(monkeypatch, run_and_attack)
    found = error_of_run(layout)
    if found is None:
        assert attack in MADE_AGAIN or (attack in HEALED and not is_old)
        assert scores_of(layout) == scores_of(clean)
    else:
        assert "stnbench.db" in found
        assert "\n" not in found
    without_training(monkeypatch)
    if attack == "folder moved":
        shutil.rmtree(layout.root)
        layout.root.with_name("moved").rename(layout.root)
    found = error_of_run(layout)
    if found is not None:
        assert "store rebuild" in found
        assert main(["rebuild"]) == 0
        run_tiny(layout, ALL)
    assert scores_of(layout) == scores_of(clean)


def test_a_store_that_nobody_touches_is_left_alone(layout: RunsLayout) -> None:
    """Looking into it at every step changes nothing and finds nothing."""
    assert run_tiny(layout).complete == len(TRIALS)
    assert run_tiny(layout).launched == 0


def test_another_store_in_its_place_is_noticed_at_the_end(layout: RunsLayout) -> None:
    """A whole store with other attempts, written over the file in place, is not what was committed."""
    run_tiny(layout, TRIALS[:1])
    assert isinstance(layout.store, Path)
    before = layout.store.read_bytes()
    run_tiny(layout, TRIALS[:2])
    watched = StoreFile(layout.store)
    watched.check_whole({"complete": 2})
    layout.store.write_bytes(before)
    with pytest.raises(StoreError, match="replaced by another"):
        watched.check_whole({"complete": 2})


def test_a_busy_store_is_not_called_damaged(layout: RunsLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer in between is no damage."""
    monkeypatch.setattr(store_file, "BUSY_TIMEOUT_S", 0.05)
    run_tiny(layout, TRIALS[:1])
    assert isinstance(layout.store, Path)
    with Store.open(layout.store, writable=True) as store:
        other = sqlite3.connect(layout.store, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        store.check()
        other.execute("ROLLBACK")
        other.close()


def test_a_large_store_is_read_in_part(layout: RunsLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large file the first pages tell every few seconds; the whole is read at the end."""
    run_tiny(layout, TRIALS[:1])
    monkeypatch.setattr(store_file, "QUICK_CHECK_MAX_BYTES", 1)
    assert isinstance(layout.store, Path)
    with Store.open(layout.store, writable=True) as store:
        store.check()
        overwrite(layout.store)
        with pytest.raises(StoreError, match="damaged"):
            store.check()
