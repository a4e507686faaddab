"""What every engine promises: each attempt ends with exactly one ending, and nothing is left behind."""

import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fake_slurm import FakeSlurm
from fake_trials import Task, fake_spec, run_fake_trial
from ray_clusters import left_of, ray_cluster

from stnbench.core.errors import EngineError
from stnbench.engines import (
    Ending,
    Engine,
    EngineEvent,
    Epoch,
    Failed,
    Finished,
    Launch,
    Lost,
    Pulse,
    Slot,
    Stopped,
)
from stnbench.engines.local import LocalEngine
from stnbench.engines.slurm import SlurmEngine
from stnbench.engines.spool import Spool
from stnbench.engines.worker import InlineEngine
from stnbench.spec.result import FailureKind
from stnbench.spec.slurm import SlurmOptions
from stnbench.trials.files import load_result

FAKE_WORKER = (sys.executable, str(Path(__file__).parents[1] / "support" / "fake_worker.py"))


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """A Ray cluster of one node with one CPU."""
    with ray_cluster(head_cpus=1) as cluster:
        yield cluster.address


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    """A scheduler whose programs come first on PATH."""
    slurm = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", slurm.path)
    yield slurm
    slurm.close()


ENGINES = (
    "inline",
    pytest.param("local", marks=pytest.mark.slow),
    *(pytest.param(name, marks=[pytest.mark.slow, pytest.mark.thorough]) for name in ("ray", "slurm")),
)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Each engine, with fake trials."""
    slot = Slot(name="cpu0", device="cpu", threads=1)
    made: Engine
    if request.param == "inline":
        stand_in = types.ModuleType("stnbench.trials.run")
        stand_in.run_trial = run_fake_trial  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "stnbench.trials.run", stand_in)
        made = InlineEngine(slot)
    elif request.param == "ray":
        address = request.getfixturevalue("ray_address")  # whose settings Ray reads when it is imported
        from stnbench.engines.ray import RayEngine

        made = RayEngine(address, command=FAKE_WORKER)
    elif request.param == "slurm":
        request.getfixturevalue("slurm")
        options = SlurmOptions(jobs=1, heartbeat="0.4s", lost_after="20s", ask_every="1s")
        made = SlurmEngine(tmp_path / "spool", options, session="contract", command=FAKE_WORKER)
    else:
        made = LocalEngine([slot], tmp_path / "logs", command=FAKE_WORKER, grace_s=1.0)
    yield made
    made.close()


def launch(tmp_path: Path, task: Task, token: str = "token-1") -> Launch:
    """An attempt in a folder of its own."""
    folder = tmp_path / token
    folder.mkdir()
    return Launch(spec=fake_spec(task), token=token, folder=str(folder), data_root=str(tmp_path))


def events_until_end(engine: Engine, timeout_s: float = 60.0) -> list[EngineEvent]:
    """Everything but signs of life up to the first ending, and whatever comes just after it."""
    events: list[EngineEvent] = []
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and not any(isinstance(event, Ending) for event in events):
        events.extend(engine.poll(0.1))
    return [event for event in [*events, *engine.poll(0.05)] if not isinstance(event, Pulse)]


def wait_until_begun(engine: Engine, token: str, timeout_s: float = 60.0) -> None:
    """Let an attempt begin that waits for room."""
    deadline = time.monotonic() + timeout_s
    while token in engine.waiting and time.monotonic() < deadline:
        assert not any(isinstance(event, Ending) for event in engine.poll(0.05))
    assert token not in engine.waiting


def test_a_trial_reports_its_epochs_in_order_and_then_its_end(engine: Engine, tmp_path: Path) -> None:
    """Epochs come before the one ending, and the result lies in the folder."""
    engine.submit(engine.slots[0], launch(tmp_path, Task.FINISH))
    events = events_until_end(engine)

    assert [event.record.epoch for event in events[:-1] if isinstance(event, Epoch)] == [1, 2]
    assert events[-1] == Finished(token="token-1")
    assert load_result(tmp_path / "token-1" / "result.json").token == "token-1"


def test_a_trial_that_raises_fails_with_its_traceback(engine: Engine, tmp_path: Path) -> None:
    """A bug of a trial is an event, and the engine goes on."""
    engine.submit(engine.slots[0], launch(tmp_path, Task.FAIL))
    events = events_until_end(engine)

    assert len(events) == 1
    assert isinstance(events[0], Failed)
    assert events[0].failure.kind is FailureKind.BUG
    assert "a fake trial fails" in events[0].failure.message
    assert "fake_trials.py" in events[0].failure.traceback

    engine.submit(engine.slots[0], launch(tmp_path, Task.FINISH, "token-2"))
    assert events_until_end(engine)[-1] == Finished(token="token-2")


def test_a_trial_that_is_stopped_says_so(engine: Engine, tmp_path: Path) -> None:
    """Stopping is not failing."""
    engine.submit(engine.slots[0], launch(tmp_path, Task.WAIT))
    wait_until_begun(engine, "token-1")
    engine.stop("token-1")

    assert events_until_end(engine) == [Stopped(token="token-1")]


def test_a_slot_holds_one_attempt(engine: Engine, tmp_path: Path) -> None:
    """A second attempt in a taken slot is refused; the first goes on."""
    engine.submit(engine.slots[0], launch(tmp_path, Task.SLEEP))
    with pytest.raises(EngineError, match="token-1"):
        engine.submit(engine.slots[0], launch(tmp_path, Task.FINISH, "token-2"))
    assert events_until_end(engine)[-1] == Finished(token="token-1")


def test_resizing_keeps_the_slots_that_stay(engine: Engine, tmp_path: Path) -> None:
    """An engine offers as many as it can have, at most as many as it is asked for, and its first attempt goes on."""
    before = tuple(engine.slots)
    engine.submit(before[0], launch(tmp_path, Task.SLEEP))
    for count in (3, 1):
        offered = tuple(engine.resize(count))
        assert 1 <= len(offered) <= count
        assert offered[0] == before[0]
        assert len({slot.name for slot in offered}) == len(offered)
    assert events_until_end(engine)[-1] == Finished(token="token-1")


def test_stop_and_kill_of_unknown_attempts_do_nothing(engine: Engine) -> None:
    """An attempt may end while the order to end it is on its way."""
    engine.stop("no-such-token")
    engine.kill("no-such-token")

    assert list(engine.poll(0.0)) == []


def test_a_killed_attempt_ends_once_and_the_slot_works_again(engine: Engine, tmp_path: Path) -> None:
    """Killing ends an attempt that would run for a minute; the inline engine can only prevent it."""
    engine.submit(engine.slots[0], launch(tmp_path, Task.WAIT))
    wait_until_begun(engine, "token-1")
    engine.kill("token-1")
    events = events_until_end(engine)

    assert [event.token for event in events] == ["token-1"]
    assert isinstance(events[0], Stopped if isinstance(engine, InlineEngine) else Lost)
    engine.submit(engine.slots[0], launch(tmp_path, Task.FINISH, "token-2"))
    assert events_until_end(engine)[-1] == Finished(token="token-2")


def test_nothing_is_left_after_close(engine: Engine, tmp_path: Path) -> None:
    """Closing ends an attempt that would run for a minute, and its process."""
    engine.submit(engine.slots[0], launch(tmp_path, Task.WAIT))
    wait_until_begun(engine, "token-1")
    started_processes = processes_of(engine)
    started = time.monotonic()
    engine.close()

    assert time.monotonic() - started < 10
    assert left_of(started_processes) == []


def processes_of(engine: Engine) -> list[psutil.Process]:
    """What an engine has started: workers, and on a cluster the hosts that have started them."""
    if isinstance(engine, InlineEngine):
        return []
    if isinstance(engine, LocalEngine):
        return [psutil.Process(worker.pid) for worker in engine._workers.values()]
    if isinstance(engine, SlurmEngine):
        pids = [seen.hello.pid for seen in Spool(engine._spool.root).hosts().values()]
    else:
        pids = [host.pid for host in engine._hosts]  # type: ignore[attr-defined]
    hosts = [psutil.Process(pid) for pid in pids]
    started = [*hosts, *(child for host in hosts for child in host.children())]
    assert len(started) == 2 * len(engine.slots)
    return started
