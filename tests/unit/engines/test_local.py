"""The local engine survives what happens to processes."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fake_trials import Task, fake_spec

from stnbench.engines import Ending, EngineEvent, Failed, Finished, Launch, Lost, Pulse, Slot
from stnbench.engines.local import LocalEngine, worker_environment
from stnbench.spec.result import FailureKind

pytestmark = pytest.mark.slow

SUPPORT = Path(__file__).parents[2] / "support"
FAKE_WORKER = (sys.executable, str(SUPPORT / "fake_worker.py"))
SLOTS = [Slot(name=f"cpu{index}", device="cpu", threads=1) for index in range(2)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    """Two slots with fake trials."""
    made = LocalEngine(SLOTS, tmp_path / "logs", command=FAKE_WORKER, grace_s=1.0)
    yield made
    made.close()


def launch(tmp_path: Path, task: Task, token: str) -> Launch:
    """An attempt in a folder of its own."""
    folder = tmp_path / token
    folder.mkdir()
    return Launch(spec=fake_spec(task), token=token, folder=str(folder), data_root=str(tmp_path))


def endings(engine: LocalEngine, count: int, timeout_s: float = 20.0) -> dict[str, EngineEvent]:
    """The endings of so many attempts, by token."""
    found: dict[str, EngineEvent] = {}
    deadline = time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < deadline:
        for event in engine.poll(0.1):
            if isinstance(event, Ending):
                assert event.token not in found, "an attempt ended twice"
                found[event.token] = event
    return found


def test_a_worker_that_dies_loses_its_attempt_and_is_replaced(engine: LocalEngine, tmp_path: Path) -> None:
    """A killed process is reported with its signal; the slot works again with a new process."""
    engine.submit(SLOTS[0], launch(tmp_path, Task.DIE, "a"))
    lost = endings(engine, 1)["a"]

    assert isinstance(lost, Lost)
    assert "SIGKILL" in lost.reason
    engine.submit(SLOTS[0], launch(tmp_path, Task.FINISH, "b"))
    assert endings(engine, 1) == {"b": Finished(token="b")}


def test_a_worker_is_warm_for_its_next_trial(engine: LocalEngine, tmp_path: Path) -> None:
    """One process serves many trials of a slot."""
    pids = set()
    for token in ("a", "b", "c"):
        engine.submit(SLOTS[0], launch(tmp_path, Task.FINISH, token))
        pids |= {worker.pid for worker in engine._workers.values()}
        endings(engine, 1)

    assert len(pids) == 1


def pids(engine: LocalEngine) -> dict[str, int]:
    """The process of each slot that has one."""
    return {name: worker.pid for name, worker in engine._workers.items()}


@pytest.mark.parametrize(
    ("task", "device", "is_ended"),
    [
        (Task.SPOIL_DEVICE, "cpu", True),
        (Task.OUT_OF_MEMORY, "cpu", True),
        (Task.FAIL, "cpu", False),
        (Task.FAIL, "0", True),
        (Task.FINISH, "0", False),
    ],
)
def test_a_worker_whose_device_may_be_spoilt_is_replaced(
    tmp_path: Path, task: Task, device: str, is_ended: bool
) -> None:
    """After an error of CUDA or of memory, and after a bug on a GPU, the next attempt gets a fresh process."""
    slot = Slot(name="slot", device=device, threads=1)
    engine = LocalEngine([slot], tmp_path / "logs", command=FAKE_WORKER, grace_s=1.0)
    engine.submit(slot, launch(tmp_path, task, "a"))
    before = pids(engine)["slot"]
    ending = endings(engine, 1)["a"]
    engine.submit(slot, launch(tmp_path, Task.FINISH, "b"))
    after = pids(engine)["slot"]
    assert endings(engine, 1) == {"b": Finished(token="b")}
    engine.close()

    assert isinstance(ending, Finished if task is Task.FINISH else Failed)
    assert (before != after) == is_ended
    assert psutil.pid_exists(before) is False


def test_an_idle_worker_is_released_and_one_at_work_is_not(engine: LocalEngine, tmp_path: Path) -> None:
    """Its memory is free when the call returns; the slot works again with a new process."""
    engine.submit(SLOTS[0], launch(tmp_path, Task.FINISH, "a"))
    engine.submit(SLOTS[1], launch(tmp_path, Task.SLEEP, "b"))
    before = pids(engine)
    assert endings(engine, 1) == {"a": Finished(token="a")}
    for slot in SLOTS:
        engine.release(slot)
    assert pids(engine) == {"cpu1": before["cpu1"]}
    assert psutil.pid_exists(before["cpu0"]) is False
    assert endings(engine, 1) == {"b": Finished(token="b")}
    engine.submit(SLOTS[0], launch(tmp_path, Task.FINISH, "c"))
    assert endings(engine, 1) == {"c": Finished(token="c")}


def test_killing_an_attempt_ends_it_alone(engine: LocalEngine, tmp_path: Path) -> None:
    """The neighbour in the other slot goes on."""
    engine.submit(SLOTS[0], launch(tmp_path, Task.WAIT, "a"))
    engine.submit(SLOTS[1], launch(tmp_path, Task.SLEEP, "b"))
    engine.kill("a")
    found = endings(engine, 2)

    assert isinstance(found["a"], Lost)
    assert found["b"] == Finished(token="b")


def test_a_worker_that_talks_nonsense_is_ended(engine: LocalEngine, tmp_path: Path) -> None:
    """A broken protocol costs the attempt, not the sweep."""
    engine.submit(SLOTS[0], launch(tmp_path, Task.TALK_NONSENSE, "a"))
    lost = endings(engine, 1)["a"]

    assert isinstance(lost, Lost)
    assert "no message" in lost.reason


def test_the_last_words_of_a_killed_attempt_are_its_own(engine: LocalEngine, tmp_path: Path) -> None:
    """Whatever was in the slot's log, or in a file where the attempt's is to be, is not taken for them."""
    (tmp_path / "logs" / "cpu0.log").write_text("planted in the log of the slot\n")
    for token in ("a", "b"):
        attempt = launch(tmp_path, Task.LAST_WORDS, token)
        (tmp_path / token / "output.log").write_text("planted in the folder\n")
        engine.submit(SLOTS[0], attempt)
        lost = endings(engine, 1)[token]

        assert isinstance(lost, Lost)
        assert lost.last_output == f"the last words of {token}\n"
    engine.submit(SLOTS[0], launch(tmp_path, Task.WAIT, "c"))  # it prints nothing
    while not any(isinstance(event, Pulse) for event in engine.poll(0.1)):
        pass
    with (tmp_path / "logs" / "cpu0.log").open("a") as log:
        log.write("planted while it runs\n")
    os.kill(engine._workers["cpu0"].pid, signal.SIGKILL)
    lost = endings(engine, 1)["c"]
    assert isinstance(lost, Lost)
    assert lost.last_output == ""


def test_a_worker_that_dies_before_its_attempt_begins_leaves_its_own_words(tmp_path: Path) -> None:
    """What it wrote when it started, and not what an earlier one had written; whose log it is is said."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "cpu0.log").write_text("an earlier worker\n")
    program = "import sys; sys.stdin.readline(); sys.exit('cannot import')"
    engine = LocalEngine(SLOTS[:1], logs, command=(sys.executable, "-c", program))
    engine.submit(SLOTS[0], launch(tmp_path, Task.FINISH, "a"))
    lost = endings(engine, 1)["a"]
    engine.close()

    assert isinstance(lost, Lost)
    assert lost.last_output == "(the log of slot cpu0, before the attempt opened its own)\ncannot import\n"


def test_an_attempt_that_hangs_leaves_where(engine: LocalEngine, tmp_path: Path) -> None:
    """It is ended, and its last words are the stack of its threads."""
    engine.submit(SLOTS[0], launch(tmp_path, Task.HANG, "a"))
    while not any(isinstance(event, Pulse) for event in engine.poll(0.1)):
        pass
    engine.kill("a")
    lost = endings(engine, 1)["a"]

    assert isinstance(lost, Lost)
    assert "fake_trials.py" in lost.last_output


def test_a_halted_worker_is_seen_and_killed(engine: LocalEngine, tmp_path: Path) -> None:
    """SIGTERM does not reach it; it is killed after the grace period, and the slot works again."""
    engine.submit(SLOTS[0], launch(tmp_path, Task.WAIT, "a"))
    while not any(isinstance(event, Pulse) for event in engine.poll(0.1)):
        pass
    seen = [engine.suspended]
    os.kill(engine._workers["cpu0"].pid, signal.SIGSTOP)
    while not seen[-1]:
        engine.poll(0.05)
        seen.append(engine.suspended)
    assert (seen[0], seen[-1]) == ((), ("a",))
    engine.kill("a")
    assert isinstance(endings(engine, 1)["a"], Lost)
    engine.submit(SLOTS[0], launch(tmp_path, Task.FINISH, "b"))
    assert endings(engine, 1) == {"b": Finished(token="b")}


def test_a_worker_that_not_even_a_kill_ends_is_given_up(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that waits in the kernel for a dead mount costs its attempt; the engine and its slot go on."""
    engine.submit(SLOTS[0], launch(tmp_path, Task.WAIT, "a"))
    stuck = engine._workers["cpu0"]
    monkeypatch.setattr(stuck, "signal_group", lambda number: None)
    engine.kill("a")
    lost = endings(engine, 1)["a"]
    assert isinstance(lost, Lost)
    assert "was killed and does not end" in lost.reason
    engine.submit(SLOTS[0], launch(tmp_path, Task.FINISH, "b"))
    assert endings(engine, 1) == {"b": Finished(token="b")}
    os.kill(stuck.pid, signal.SIGKILL)
    stuck._process.wait()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EAGAIN, errno.EMFILE])
def test_a_worker_that_cannot_be_started_is_the_machines_doing(
    number: int, engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room, no process and no open file left: the attempt fails of the infrastructure, which is tried again."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr("stnbench.engines.local.WorkerProcess", refuse)
        engine.submit(SLOTS[0], launch(tmp_path, Task.FINISH, "a"))
        failed = endings(engine, 1)["a"]
    assert isinstance(failed, Failed)
    assert failed.failure.kind is FailureKind.INFRASTRUCTURE
    engine.submit(SLOTS[0], launch(tmp_path, Task.FINISH, "b"))
    assert endings(engine, 1) == {"b": Finished(token="b")}


def test_a_worker_without_its_pipes_is_ended_at_once(tmp_path: Path) -> None:
    """It has nobody to talk to any more: the engine, and with it every other slot, does not wait out its grace."""
    engine = LocalEngine(SLOTS, tmp_path / "logs", command=FAKE_WORKER, grace_s=3600.0)
    engine.submit(SLOTS[0], launch(tmp_path, Task.DROP_PIPES, "a"))
    lost = endings(engine, 1)["a"]
    engine.close()

    assert isinstance(lost, Lost)
    assert "SIGTERM" in lost.reason


def test_no_worker_outlives_an_engine_that_is_killed(tmp_path: Path) -> None:
    """After kill -9 of the orchestrator its workers end by themselves, in the middle of a trial."""
    script = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(SUPPORT)!r})
        from pathlib import Path
        from fake_trials import Task, fake_spec
        from stnbench.engines import Launch, Slot
        from stnbench.engines.local import LocalEngine
        slot = Slot(name="cpu0", device="cpu", threads=1)
        engine = LocalEngine([slot], Path({str(tmp_path)!r}) / "logs", command={FAKE_WORKER!r})
        launch = Launch(spec=fake_spec(Task.WAIT), token="a", folder={str(tmp_path)!r}, data_root={str(tmp_path)!r})
        engine.submit(slot, launch)
        while not (Path({str(tmp_path)!r}) / "spec.json").exists():
            engine.poll(0.05)
        print(engine._workers["cpu0"].pid, flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as orchestrator:
        assert orchestrator.stdout is not None
        worker = psutil.Process(int(orchestrator.stdout.readline()))
        assert worker.is_running()
        orchestrator.send_signal(signal.SIGKILL)
        orchestrator.wait()
        worker.wait(timeout=5)

    assert not psutil.pid_exists(worker.pid)


def test_a_worker_sees_its_device_and_its_threads_only() -> None:
    """CUDA_VISIBLE_DEVICES is set for every worker, also to hide GPUs from a CPU slot."""
    gpu = worker_environment(Slot(name="gpu1.0", device="GPU-abc", threads=4), {"PATH": "x"})
    cpu = worker_environment(SLOTS[0], dict(os.environ))

    assert (gpu["CUDA_VISIBLE_DEVICES"], gpu["OMP_NUM_THREADS"], gpu["PATH"]) == ("GPU-abc", "4", "x")
    assert cpu["CUDA_VISIBLE_DEVICES"] == "-1"


def test_threads_spin_only_where_a_trial_has_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that share cores with other trials sleep while they wait; those of a single slot may do as they like."""
    monkeypatch.setattr("stnbench.engines.local.available_cores", lambda: 4)
    half, whole = (worker_environment(Slot(name="s", device="cpu", threads=threads), {}) for threads in (2, 4))

    assert half["OMP_WAIT_POLICY"] == "passive"
    assert "OMP_WAIT_POLICY" not in whole
