"""``python -m stnbench.status``."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from made_up_results import NOW, Filler, planned, result, transformed

from stnbench.cli.status import is_gone, main, read_status, status_lines
from stnbench.core.errors import StoreError, UnknownNameError
from stnbench.core.files import RunsLayout
from stnbench.orchestration.claims import ProcessIdentity, orchestrator_lock, read_holder
from stnbench.spec.result import AttemptState, Failure, FailureKind, TrialState
from stnbench.store.store import Store
from stnbench.store.tables import AttemptRecord

HERE = ProcessIdentity.current()
SPECS = [transformed(size) for size in range(1, 6)]
ATTEMPT = AttemptRecord(
    trial_id="t",
    number=1,
    token="t",
    state=AttemptState.RUNNING,
    slot="gpu0",
    host=HERE.host,
    pid=HERE.pid,
    boot_id=HERE.boot_id,
    started_at=datetime.now(UTC),
    finished_at=None,
    failure=None,
)
NAN = Failure(kind=FailureKind.DIVERGED, message="the loss is nan", traceback="Traceback\n  one\n\n  two\nthree\n")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs folder of the command."""
    monkeypatch.setenv("STNBENCH_RUNS", str(tmp_path))
    return tmp_path


@pytest.fixture
def store(runs: Path) -> Iterator[Store]:
    """An empty store, open to write."""
    with Store.open(runs / "stnbench.db", writable=True) as store:
        yield store


@pytest.fixture
def filler(store: Store) -> Filler:
    """A sweep of five trials that this process runs."""
    filler = Filler(
        store, host=HERE.host, pid=HERE.pid, boot_id=HERE.boot_id, started_at=datetime.now(UTC) - timedelta(seconds=75)
    )
    return filler.save([planned(spec) for spec in SPECS])


def test_every_trial_is_counted_once(store: Store, filler: Filler, capsys: pytest.CaptureFixture[str]) -> None:
    """One of each state, in the documented keys; the exit code says that one failed."""
    filler.complete(SPECS[0], 1900)
    filler.fail(SPECS[1], NAN)
    filler.start(SPECS[2])
    assert main(["--json"]) == 1
    (sweep,) = json.loads(capsys.readouterr().out)["sweeps"]
    keys = ("trials", "complete", "running", "planned", "failed", "pruned", "lost")
    assert sweep["sweep"] == "sizes"
    assert {key: sweep[key] for key in keys} == dict(zip(keys, (5, 1, 1, 2, 1, 0, 0), strict=True))


def test_nothing_failed_is_code_0(filler: Filler, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep that has not begun has not failed."""
    assert main(["sizes"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("sizes: How large must it be?\n  5 trials: 0 complete, 5 planned\n  No trial has started")


def test_running_trial_tells_its_last_epoch(store: Store, filler: Filler) -> None:
    """Label, seed, epoch, accuracy, time and slot of what runs now, by its newest attempt."""
    filler.fail(SPECS[0], NAN, state=TrialState.PLANNED)
    token = filler.start(SPECS[0])
    for record in result(SPECS[0], token, 1900).epochs[:3]:
        store.add_epoch(token, record)
    now = filler.started_at + timedelta(seconds=75)
    (sweep,) = read_status(store, None, now=now, here=HERE)
    (trial,) = sweep.running_trials
    assert (trial.label, trial.seed, trial.attempt, trial.epoch, trial.epochs) == ("1,1,1", 1, 2, 3, 10)
    assert (trial.validation_accuracy, trial.elapsed_s) == (0.95, 75.0)
    expected = "  running  1,1,1 · seed 1: epoch 3/10, validation 95.00 %, 1 min 15 s in gpu0, attempt 2"
    assert expected in list(status_lines([sweep]))


def test_failure_shows_kind_message_and_last_lines(store: Store, filler: Filler) -> None:
    """Trials that failed alike are one block with the end of the first traceback; each is there in the records."""
    for spec in SPECS[:3]:
        filler.fail(spec, NAN)
    filler.fail(SPECS[3], Failure(kind=FailureKind.KILLED, message="signal 9", last_output="epoch 3\n"))
    (sweep,) = read_status(store, "sizes", now=NOW, here=HERE)
    assert [failure.trial_id for failure in sweep.failures] == [spec.trial_id for spec in SPECS[:4]]
    assert list(status_lines([sweep]))[2:] == [
        f"  failed   1,1,1 · seed 1 ({SPECS[0].trial_id}), and 2 more",
        "    diverged: the loss is nan",
        "    | one",
        "    | two",
        "    | three",
        f"  failed   4,4,4 · seed 1 ({SPECS[3].trial_id})",
        "    killed: signal 9",
        "    | epoch 3",
    ]


def test_failures_cannot_steer_the_terminal(store: Store, filler: Filler) -> None:
    """Escape codes in messages and tracebacks are shown and have no effect."""
    filler.fail(SPECS[0], Failure(kind=FailureKind.BUG, message="\x1b[2Jgone\nsecond", traceback="\x1b]0;title\x07"))
    (sweep,) = read_status(store, None, now=NOW, here=HERE)
    assert "\x1b" not in "".join(status_lines([sweep]))
    assert "    bug: \\x1b[2Jgone second" in list(status_lines([sweep]))


def test_trial_of_a_dead_orchestrator_is_lost(store: Store, filler: Filler) -> None:
    """After ``kill -9`` the store still says running; the process is gone, and status says how to go on."""
    dead = subprocess.Popen([sys.executable, "-c", ""])  # a number that was a process and is none
    dead.wait()
    filler.pid = dead.pid
    filler.start(SPECS[0])
    (sweep,) = read_status(store, None, now=NOW, here=HERE)
    assert (sweep.running, sweep.lost, sweep.running_trials) == (0, 1, ())
    assert any("run the same command again" in line for line in status_lines([sweep]))


def test_a_process_is_gone_after_a_boot_or_with_its_number_unused() -> None:
    """This process runs its own attempt; one of another boot does not, nor one whose number nobody has."""
    assert not is_gone(ATTEMPT, HERE)
    assert is_gone(replace(ATTEMPT, boot_id="another"), HERE)
    assert is_gone(replace(ATTEMPT, pid=2**22), HERE)


@pytest.mark.parametrize("jump_s", [-3 * 365 * 86400.0, -90.0, 90.0, 86400.0])
def test_a_clock_that_is_set_makes_no_process_gone(jump_s: float) -> None:
    """Neither does daylight saving, a time service or a resumed virtual machine; nor with the holder known."""
    moved = replace(ATTEMPT, started_at=ATTEMPT.started_at + timedelta(seconds=jump_s), token=f"{HERE.session}-1")
    assert not is_gone(moved, HERE)
    assert not is_gone(moved, HERE, holder=HERE)


def test_a_number_used_again_is_told_by_the_holder_of_the_lock() -> None:
    """The holder wrote when it began since boot, and which session it is: another process of its number is not it."""
    own = replace(ATTEMPT, token=f"{HERE.session}-1")
    assert is_gone(own, HERE, holder=replace(HERE, start_ticks=HERE.start_ticks + 1))
    assert is_gone(replace(ATTEMPT, token="another session-1"), HERE, holder=HERE)
    assert not is_gone(replace(ATTEMPT, token="another session-1"), HERE, holder=replace(HERE, boot_id="earlier"))


def test_the_holder_of_the_lock_says_who_it_is(runs: Path) -> None:
    """Read by others while it is held; a holder of the version before says its number alone."""
    layout = RunsLayout(runs)
    with orchestrator_lock(layout, HERE):
        assert read_holder(layout) == HERE
        assert HERE.is_alive()
    assert read_holder(layout) is None
    layout.orchestrator_lock.with_suffix(".holder").write_text("process 1 on here\n")
    assert read_holder(layout) is None


def test_nothing_is_known_of_another_host() -> None:
    """An attempt of another host counts as running, whatever its number means here."""
    assert not is_gone(replace(ATTEMPT, host="elsewhere", pid=2**22, boot_id="another"), HERE)


def test_one_sweep_can_be_asked_for(store: Store, filler: Filler, capsys: pytest.CaptureFixture[str]) -> None:
    """Another sweep's failures are neither shown nor counted."""
    other = Filler(store, "other", started_at=NOW - timedelta(days=9000)).save([planned(transformed(9))])
    other.fail(transformed(9), NAN)
    assert main(["sizes"]) == 0
    assert "other" not in capsys.readouterr().out
    assert main([]) == 1
    assert [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith(" ")] == [
        "sizes: How large must it be?",
        "other: How large must it be?",
    ]


def test_unknown_sweep_offers_the_nearest(filler: Filler) -> None:
    """A wrong name is an error that names what there is."""
    with pytest.raises(UnknownNameError, match="did you mean sizes"):
        main(["size"])


def test_missing_store_is_an_error(runs: Path) -> None:
    """Without a store there is no status, and nothing is made."""
    with pytest.raises(StoreError, match="run a sweep first"):
        main([])
    assert list(runs.iterdir()) == []


def test_store_without_sweeps(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty store is said to be one."""
    assert main([]) == 0
    assert capsys.readouterr().out == "the store has no sweeps yet\n"


@pytest.mark.slow
def test_command_is_light_and_fails_in_one_line(tmp_path: Path) -> None:
    """No pandas, torch, MLflow, Hydra or numpy at the start; without a store one line and exit code 2."""
    code = "import sys, stnbench.status\nprint(sorted(set(sys.argv[1:]) & set(sys.modules)))"
    heavy = ["pandas", "torch", "mlflow", "hydra", "numpy", "scipy", "rich", "optuna", "alembic", "matplotlib"]
    started = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    environment = {**os.environ, "STNBENCH_RUNS": str(tmp_path / "nowhere")}
    command = [sys.executable, "-m", "stnbench.status"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert started.stdout == "[]\n"
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: there is no store at")
