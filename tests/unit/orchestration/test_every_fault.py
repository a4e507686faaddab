"""A tiny sweep at whose n-th call the system fails or the process dies, for every n; the same command makes it good."""

import errno
import functools
import gc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_trials import Task, fake_spec
from faulty_io import ERRORS, Death, Faults, inject
from quick_stores import real_migrations
from tiny_sweeps import run_tiny, scores_of, without_training

from stnbench.core import command
from stnbench.core.files import RunsLayout
from stnbench.orchestration.patience import StoreWait
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store

__all__ = ["real_migrations"]
pytestmark = [
    pytest.mark.slow,
    # What a dead process leaves open is closed by the collector, which warns.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
TRIALS = (fake_spec(Task.FINISH, seed=1, epochs=1), fake_spec(Task.FINISH, seed=2, epochs=1))
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there
DEATH = None


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of sweeps wait for no disk."""
    where = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="stnbench-test-", dir=where) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def template(memory: Path) -> Path:
    """An empty store."""
    file = memory / "empty.db"
    Store.open(file, writable=True).close()
    return file


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts run in this process, and a store that stays away is waited for briefly."""
    without_training(monkeypatch)
    brief = functools.partial(StoreWait, limit_s=0.02, pause_s=0.005)
    monkeypatch.setattr("stnbench.orchestration.session.StoreWait", brief)


def run_with(faults: Faults, trials: tuple[TrialSpec, ...]) -> str:
    """A run under faults: empty where it ends well, else what it says; a bug is an error of the test."""
    with pytest.MonkeyPatch.context() as patch:
        inject(patch, faults)
        try:
            run_tiny(RunsLayout(faults.root), trials)
        except Death:
            return "died"
        except Exception as error:
            said = command._foreseen(error)
            if said is None:
                calls = "\n".join(faults.calls[-5:])
                raise AssertionError(f"call {faults.at} ({faults.code}) ends as a bug, after\n{calls}") from error
            return said
        finally:
            gc.collect()  # connections of a dead process end
            faults.end()
    return ""


def prepared(memory: Path, template: Path | None) -> Path:
    """A runs folder, with an empty store where there is a template of one."""
    root = memory / "runs"
    shutil.rmtree(root, ignore_errors=True)
    if template is not None:
        root.mkdir()
        shutil.copy(template, root / "stnbench.db")
    return root


def fail_at_every_call(
    memory: Path,
    template: Path | None,
    codes: tuple[int | None, ...],
    *,
    trials: tuple[TrialSpec, ...] = TRIALS,
    lasting: bool = False,
    stride: int = 1,
) -> None:
    """Let each call fail in turn, with one code after the other, and run the same command again."""
    whole = Faults(prepared(memory, template))
    assert run_with(whole, trials) == ""
    assert {"open", "write", "fsync", "replace", "mkdir", "lock", "sql"} <= {call.split()[0] for call in whole.calls}
    clean = scores_of(RunsLayout(whole.root))
    wrong: list[str] = []
    for number in range(1, len(whole.calls) + 1, stride):
        root = prepared(memory, template)
        faults = Faults(root, at=number, code=codes[number % len(codes)], lasting=lasting)
        said = run_with(faults, trials)
        run_tiny(RunsLayout(root), trials)
        if scores_of(RunsLayout(root)) != clean:
            wrong.append(f"call {number}, {faults.calls[number - 1]}, {said}")
        left = [path for path in root.rglob(".*") if path.suffix == ".tmp"]
        if left:
            wrong.append(f"call {number}, {faults.calls[number - 1]} leaves {left}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.thorough
def test_a_process_that_dies_at_any_call_is_made_good(memory: Path, template: Path) -> None:
    """Its trial is complete once in the end, with equal results, and nothing half written is left.

    At every fourth call here, at every one in the slow tests.
    """
    fail_at_every_call(memory, template, (DEATH,), trials=TRIALS[:1], stride=4)


def test_a_system_that_fails_at_any_call_is_made_good(memory: Path, template: Path) -> None:
    """No space, a bad sector, a read-only disk, a missing right: a line at most, no traceback; equal in the end."""
    fail_at_every_call(memory, template, ERRORS, trials=TRIALS[:1], stride=5)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.parametrize("shift", range(len(ERRORS)))
def test_every_error_at_every_call_is_made_good(memory: Path, template: Path, shift: int) -> None:
    """Every call meets every error."""
    fail_at_every_call(memory, template, (*ERRORS[shift:], *ERRORS[:shift]), trials=TRIALS[:1])


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_death_at_every_call_of_two_trials_is_made_good(memory: Path, template: Path) -> None:
    """The one that was complete is not run again, the other one is."""
    fail_at_every_call(memory, template, (DEATH,))


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.parametrize("code", [*ERRORS, errno.EDQUOT])
def test_a_system_that_fails_from_some_call_on_is_made_good(memory: Path, template: Path, code: int) -> None:
    """A disk that stays full or read-only ends the sweep with a line, and the next one finds everything."""
    fail_at_every_call(memory, template, (code,), lasting=True, trials=TRIALS[:1], stride=4)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.usefixtures("real_migrations")
@pytest.mark.parametrize("codes", [(DEATH,), ERRORS])
def test_a_store_that_is_being_made_may_fail_at_any_call(memory: Path, codes: tuple[int | None, ...]) -> None:
    """The first sweep of a folder, whose store has to be made, as well."""
    fail_at_every_call(memory, None, codes, trials=TRIALS[:1], stride=3)
