"""The far end of a slot executes attempts in scratch folders and sends their files along, whatever carries them."""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
from fake_trials import Task, fake_spec

from stnbench.core.errors import EngineError
from stnbench.core.files import AttemptLayout
from stnbench.core.identity import RESULTS_VERSION
from stnbench.engines import (
    Ending,
    EngineEvent,
    Epoch,
    Failed,
    Finished,
    Launch,
    Lost,
    Pulse,
    Stopped,
    decode,
    encode,
)
from stnbench.engines.remote import Parcel, SlotHost, _read_files, earlier_files, write_files

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

SUPPORT = Path(__file__).parents[2] / "support"
FAKE_WORKER = (sys.executable, str(SUPPORT / "fake_worker.py"))
NOWHERE = Launch(spec=fake_spec(Task.FINISH), token="a", folder="/nowhere/attempt", data_root="/nowhere/data")
"""An attempt whose folders exist on the orchestrator's machine only."""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlotHost]:
    """A host of a CPU slot with fake trials, whose scratch folder is a test's."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = SlotHost("node-cpu0", threads=1, is_cuda=False, command=FAKE_WORKER, reply_s=0.1)
    yield made
    made.close()


def task(name: Task, token: str = "a") -> bytes:
    """An attempt of this task, as it is sent."""
    return encode(replace(NOWHERE, spec=fake_spec(name), token=token))


def until_end(host: SlotHost, first: Parcel, timeout_s: float = 20.0) -> tuple[list[EngineEvent], dict[str, bytes]]:
    """Events up to the end of the attempt that has begun, and the files that came with it."""
    (lines, files), events = first, list[EngineEvent]()
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        events += [event for event in map(decode, lines) if isinstance(event, EngineEvent)]
        if events and isinstance(events[-1], Ending):
            break
        lines, files = host.poll()
    return events, files


def test_the_files_of_an_attempt_come_with_its_end(host: SlotHost, tmp_path: Path) -> None:
    """The orchestrator's folder is never touched, and nothing stays on the node."""
    events, files = until_end(host, host.begin(encode(NOWHERE), {}))

    assert [type(event) for event in events if not isinstance(event, Pulse)] == [Epoch, Epoch, Finished]
    assert sorted(files) == ["checkpoint.pt", "output.log", "result.json", "spec.json"]
    assert b'"token":"a"' in files["result.json"].replace(b" ", b"")
    assert list(tmp_path.glob("stnbench-slot-*/attempt")) == []


def test_a_worker_that_dies_leaves_what_it_had_written(host: SlotHost) -> None:
    """A result that reached the node's disk is not lost with its worker, and the slot works again."""
    events, files = until_end(host, host.begin(task(Task.DIE_AFTER_RESULT), {}))

    assert isinstance(events[-1], Lost)
    assert "SIGKILL" in events[-1].reason
    assert "result.json" in files
    again, _ = until_end(host, host.begin(task(Task.FINISH, "b"), {}))
    assert again[-1] == Finished(token="b")


def test_probabilities_travel_with_the_end_of_an_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with its checkpoints on the way: they are written once."""
    for name in ("checkpoint.pt", "probabilities_validation.npy", "probabilities_test.npy", "other.npy"):
        (tmp_path / name).write_bytes(name.encode())

    layout = AttemptLayout(tmp_path)
    assert list(_read_files(layout, only_checkpoint=True)) == ["checkpoint.pt"]
    assert sorted(_read_files(layout, only_checkpoint=False)) == [
        "checkpoint.pt",
        "probabilities_test.npy",
        "probabilities_validation.npy",
    ]


def test_a_slot_runs_one_attempt_that_can_be_stopped(host: SlotHost) -> None:
    """A second one is refused without harm to the first."""
    first = host.begin(task(Task.WAIT), {})
    with pytest.raises(EngineError, match="already runs attempt a"):
        host.begin(task(Task.FINISH, "b"), {})
    host.stop("a")

    assert until_end(host, first)[0][-1] == Stopped(token="a")


def test_a_killed_attempt_is_lost(host: SlotHost) -> None:
    """Its worker ends, and the host says so."""
    first = host.begin(task(Task.WAIT), {})
    host.kill("a")

    assert isinstance(until_end(host, first)[0][-1], Lost)


def test_what_an_attempt_goes_on_from_lies_where_it_looks_for_it(host: SlotHost, tmp_path: Path) -> None:
    """The latest whole checkpoint and its snapshots travel to the node; without one an attempt begins anew."""
    earlier, damaged = tmp_path / "earlier", tmp_path / "damaged"
    earlier.mkdir()
    damaged.mkdir()
    (earlier / "snapshots.npy").write_bytes(b"pictures")
    launch = replace(NOWHERE, spec=fake_spec(Task.WAIT), resume_from=(str(damaged), str(earlier)))
    (damaged / "checkpoint.pt").write_bytes(b"PK cut short")
    assert earlier_files(launch) == ({}, [damaged / "checkpoint.pt"])
    with ZipFile(earlier / "checkpoint.pt", "w") as archive:
        archive.writestr("weights", b"weights")
    weights = (earlier / "checkpoint.pt").read_bytes()
    host.begin(encode(launch), earlier_files(launch)[0])

    (there,) = tmp_path.glob("stnbench-slot-*/earlier")
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {
        "checkpoint.pt": weights,
        "snapshots.npy": b"pictures",
    }
    assert earlier_files(NOWHERE) == ({}, [])
    assert earlier_files(replace(NOWHERE, resume_from=("/nowhere/earlier",))) == ({}, [])


def test_a_running_attempt_sends_its_checkpoint_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is lost later costs what came after the last one sent; in between epochs come without it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    now = [0.0]
    host = SlotHost("n", threads=1, is_cuda=False, command=FAKE_WORKER, reply_s=0.1, clock=lambda: now[0])
    host.begin(task(Task.WAIT), {})
    (folder,) = tmp_path.glob("stnbench-slot-*/attempt")
    (folder / "checkpoint.pt").write_bytes(b"weights")
    epoch = until_end_of_epoch()
    monkeypatch.setattr(host._engine, "poll", lambda _: [epoch])
    early = host.poll()
    now[0] = 31.0
    due, after = host.poll(), host.poll()
    monkeypatch.undo()
    host.close()

    assert [files for _, files in (early, due, after)] == [{}, {"checkpoint.pt": b"weights"}, {}]


def until_end_of_epoch() -> Epoch:
    """The event of a first epoch."""
    from fake_trials import fake_result

    return Epoch(token="a", record=fake_result(NOWHERE.spec, "a").epochs[0])


def test_a_host_says_where_it_is(host: SlotHost) -> None:
    """Its device and the meaning that its code gives results are checked before it gets an attempt."""
    import json
    import os

    described = json.loads(host.describe())

    assert (described["device"], described["pid"]) == ("cpu", os.getpid())
    assert described["memory_mib"] > 0
    assert described["results_version"] == RESULTS_VERSION


def test_a_gpu_slot_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that was to run on a GPU does not run on a CPU instead."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(EngineError, match="cannot see"):
        SlotHost("n", threads=1, is_cuda=True)


def test_nothing_is_left_of_a_closed_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker has ended and the scratch folder is gone, also in the middle of an attempt."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    host = SlotHost("n", threads=1, is_cuda=False, command=FAKE_WORKER, reply_s=0.1)
    host.begin(task(Task.WAIT), {})
    host.close()

    assert list(tmp_path.iterdir()) == []


def test_a_launch_that_is_none_is_refused(host: SlotHost) -> None:
    """Only attempts begin."""
    with pytest.raises(EngineError, match="not an attempt"):
        host.begin(encode(Stopped(token="a")), {})


def test_the_result_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a result is, its attempt's other files are as well; a file that no attempt has is not written anywhere."""
    written: list[str] = []
    monkeypatch.setattr("stnbench.engines.remote.write_atomic", lambda path, _: written.append(path.name))
    names = ["spec.json", "checkpoint.pt", "snapshots.npy", "probabilities_validation.npy", "probabilities_test.npy"]
    write_files(tmp_path, dict.fromkeys(["result.json", *reversed(names)], b""))

    assert written == [*names, "result.json"]
    with pytest.raises(EngineError, match="no attempt has"):
        write_files(tmp_path, {"../elsewhere": b""})


def test_a_trial_that_fails_there_fails_here(host: SlotHost) -> None:
    """Its traceback travels."""
    events, _ = until_end(host, host.begin(task(Task.FAIL), {}))

    assert isinstance(events[-1], Failed)
    assert "fake_trials.py" in events[-1].failure.traceback
