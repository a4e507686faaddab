"""What killed processes leave behind is removed at the next start, and nothing else."""

import errno
import itertools
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fake_trials import Task, fake_result, fake_spec
from filelock import FileLock
from tiny_sweeps import SWEEP, TRIALS, ListPlanner, opened, run_tiny, without_training

from stnbench.core.errors import FolderError, StoreBusyError
from stnbench.core.files import AttemptLayout, RunsLayout
from stnbench.orchestration.claims import ProcessIdentity, orchestrator_lock, read_holder, recover, start_ticks
from stnbench.orchestration.recovery import remove_leftovers, resumable
from stnbench.spec.codec import to_json
from stnbench.spec.result import AttemptState, Failure, FailureKind, TrialState
from stnbench.store.store import Store
from stnbench.store.tables import AttemptStart

pytestmark = pytest.mark.slow

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOST = Failure(kind=FailureKind.KILLED, message="gone")
IDENTITY = ProcessIdentity(host="box", pid=7, boot_id="b", session="s")


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunsLayout:
    """A runs folder in which a sweep has run to its end."""
    without_training(monkeypatch)
    made = RunsLayout(tmp_path / "runs")
    run_tiny(made)
    return made


def test_half_written_files_are_removed_and_nothing_else(layout: RunsLayout) -> None:
    """MLflow's half databases and every temporary name go; what was there before stays as it was."""
    before = {path: path.is_dir() for path in layout.root.rglob("*")}
    attempt = layout.attempt(TRIALS[0].trial_id, 1)
    (layout.root / ".mlflow.db.k3x9").mkdir()
    (layout.root / ".mlflow.db.k3x9" / "mlflow.db").write_bytes(b"half")
    (layout.root / "machines").mkdir(exist_ok=True)
    (layout.root / "machines" / ".box.json.0a.tmp").touch()
    for name in (".spec.json.12ab.tmp", ".result.json.34cd.tmp", ".checkpoint.pt.56ef.tmp"):
        (attempt / name).write_bytes(b"half")
    (layout.root / "notes.tmp").write_text("a user's own")

    assert remove_leftovers(layout) == 5

    left = {path: path.is_dir() for path in layout.root.rglob("*")}
    assert left == before | {layout.root / "notes.tmp": False, layout.root / "machines": True}


def test_checkpoints_of_lost_attempts_go_once_their_trial_is_complete(layout: RunsLayout) -> None:
    """Those that a trial may go on from stay, and so does the one of the attempt that completed it."""
    done, open_ = fake_spec(Task.FINISH, config=5), fake_spec(Task.FINISH, config=6)
    assert isinstance(layout.store, Path)
    with Store.open(layout.store, writable=True) as store:
        store.save_sweep(SWEEP, ListPlanner((done, open_)).ask(), NOW)
        for spec, ends in ((done, "lost lost complete"), (open_, "lost lost")):
            for number, end in enumerate(ends.split(), start=1):
                token = f"{spec.trial_id}-{number}"
                store.start_attempt(
                    AttemptStart(
                        trial_id=spec.trial_id, token=token, slot="s", host="h", pid=1, boot_id="b", started_at=NOW
                    )
                )
                folder = layout.attempt(spec.trial_id, number)
                folder.mkdir(parents=True)
                AttemptLayout(folder).checkpoint.write_bytes(b"weights")
                store.add_epoch(token, fake_result(spec, token).epochs[0])
                if end == "complete":
                    store.complete_attempt(token, fake_result(spec, token), NOW)
                else:
                    store.end_attempt(token, AttemptState.LOST, LOST, NOW, trial_state=TrialState.PLANNED)
        recover(store, layout, NOW)

    def kept(trial_id: str) -> list[str]:
        return sorted(path.parent.name for path in layout.trial(trial_id).glob("*/checkpoint.pt"))

    assert kept(done.trial_id) == ["003"]
    assert kept(open_.trial_id) == ["001", "002"]
    assert all(kept(spec.trial_id) == ["001"] for spec in TRIALS)

    def folders(warnings: list[str]) -> list[str]:
        with opened(layout) as store:
            return [Path(it).name for it in resumable(store, layout, open_, 3, warn=warnings.append)]

    for removed, left, starts_from in (("", ["002", "001"], ""), ("002", ["001"], "an earlier"), ("001", [], "start")):
        AttemptLayout(layout.trial(open_.trial_id) / removed).checkpoint.unlink(missing_ok=True)
        warnings: list[str] = []
        assert folders(warnings) == left
        assert [removed in it and starts_from in it for it in warnings[-1:]] == [True] * (removed != "")


def test_durations_do_not_follow_a_wall_clock_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set a day forward and back at every look, while attempts run: none takes a day, or less than nothing."""
    real, days = time.time, itertools.cycle((0, 1, -1))
    monkeypatch.setattr(time, "time", lambda: real() + 86_400 * next(days))
    without_training(monkeypatch)
    layout, here = RunsLayout(tmp_path), ProcessIdentity.current()
    began = here.now()
    run_tiny(layout)
    took_s = (here.now() - began).total_seconds()
    with opened(layout) as store:
        durations_s = [attempt.duration_s for attempt in store.attempts_of_sweep(SWEEP.name)]
    assert len(durations_s) == len(TRIALS)
    assert all(it is not None and 0 <= it <= took_s for it in durations_s)
    assert 0 < took_s < 3600
    assert abs(replace(here, booted_at_s=None).now().timestamp() - real()) < 3 * 86_400


def test_who_holds_the_lock_is_named(layout: RunsLayout) -> None:
    """A second process is told whom to wait for, also where that cannot be read."""
    with orchestrator_lock(layout, IDENTITY):
        with pytest.raises(StoreBusyError, match="process 7 on box"), orchestrator_lock(layout, IDENTITY):
            pass
        layout.orchestrator_lock.with_suffix(".holder").write_bytes(b"\xff\xfe")
        with pytest.raises(StoreBusyError, match="another sweep runs"), orchestrator_lock(layout, IDENTITY):
            pass


def unlock_by_hand(lock: Path, holder: Path) -> None:
    """Do what a user or a program that tidies up does."""
    del holder
    lock.unlink()


def replace_lock(lock: Path, holder: Path) -> None:
    """Do what a synchroniser does."""
    del holder
    copy = lock.with_name("copy")
    copy.write_bytes(lock.read_bytes())
    copy.replace(lock)


def spoil_holder(lock: Path, holder: Path) -> None:
    """Leave the lock alone, and a letter of the holder's record is another one."""
    del lock
    holder.write_text(holder.read_text().replace('"pid"', '"pit"'))


@pytest.mark.parametrize(("damage", "is_lost"), [(unlock_by_hand, True), (replace_lock, True), (spoil_holder, False)])
def test_a_lock_is_kept_whatever_happens_to_its_files(
    damage: Callable[[Path, Path], None], *, is_lost: bool, layout: RunsLayout
) -> None:
    """A removed or replaced lock file is locked anew, so that no second sweep begins; its holder is named again."""
    here = ProcessIdentity.current()
    with orchestrator_lock(layout, here) as lock:
        damage(lock.path, lock.holder)
        assert lock.keep() is is_lost
        assert not lock.keep()
        assert read_holder(layout) == here
        with pytest.raises(StoreBusyError, match=here.title), orchestrator_lock(layout, here):
            pass
    with orchestrator_lock(layout, IDENTITY):
        pass


def test_a_sweep_whose_lock_file_is_gone_still_runs(layout: RunsLayout) -> None:
    """A second one is refused while its holder lives, and a sweep ends whose lock another process has by then."""
    with subprocess.Popen(["sleep", "60"]) as other:
        holder = replace(ProcessIdentity.current(), pid=other.pid, start_ticks=start_ticks(other.pid))
        layout.orchestrator_lock.with_suffix(".holder").write_text(f"{holder.title}\n{to_json(holder)}\n")
        with pytest.raises(StoreBusyError, match=holder.title), orchestrator_lock(layout, ProcessIdentity.current()):
            pass
        other.kill()
    with orchestrator_lock(layout, ProcessIdentity.current()) as ours:
        unlock_by_hand(ours.path, ours.holder)
        with orchestrator_lock(layout, IDENTITY), pytest.raises(StoreBusyError, match="process 7 on box"):
            ours.keep()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO, errno.ENOLCK, errno.ENOSYS])
def test_a_lock_that_cannot_be_taken_is_one_line(
    layout: RunsLayout, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A read-only or full disk, or one without locks, is named with the remedy."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    says = r"(has no locks|no lock can be taken in).*STNBENCH_RUNS"
    with pytest.raises(FolderError, match=says), orchestrator_lock(layout, IDENTITY):
        pass


def test_a_disk_that_turns_read_only_hides_no_cause(layout: RunsLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the holder's name cannot be removed in the end, the error of the block is the one that is told."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    def work() -> None:
        with orchestrator_lock(layout, IDENTITY):
            monkeypatch.setattr(Path, "unlink", refuse)
            raise StoreBusyError("the cause")

    with pytest.raises(StoreBusyError, match="the cause"):
        work()
    monkeypatch.undo()
    with orchestrator_lock(layout, IDENTITY):
        pass
