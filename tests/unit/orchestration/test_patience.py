"""A store that does not answer for a while costs time and nothing else."""

import contextlib
import inspect
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fake_trials import Task, fake_result, fake_spec
from postgres import database, end_connections, needs_postgres
from sqlalchemy import Connection

from stnbench.core.errors import StoreBusyError, StoreError
from stnbench.orchestration.patience import REPEATABLE, PatientStore, StoreWait, open_patiently
from stnbench.spec.control import ControlRecord, ControlRequest, Effect, Pause
from stnbench.spec.result import AttemptState, Failure, FailureKind, TrialState
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.store.engine import Database
from stnbench.store.store import Store
from stnbench.store.tables import AttemptStart, PlannedTrial

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = fake_spec(Task.FINISH)
SWEEP = SweepSpec(name="test", question="Does it wait?")
START = AttemptStart(trial_id=SPEC.trial_id, token="s-1", slot="cpu0", host="h", pid=1, boot_id="b", started_at=NOW)


class FakeTime:
    """A clock that goes on by what is slept."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.said: list[str] = []

    def sleep(self, duration_s: float) -> None:
        """Let time pass."""
        self.now_s += duration_s

    def wait(self, **options: object) -> StoreWait:
        """A wait on this clock."""
        return StoreWait(say=self.said.append, clock_s=lambda: self.now_s, sleep=self.sleep, **options)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> FakeTime:
    """Time that passes when somebody sleeps."""
    return FakeTime()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PatientStore]:
    """A store with one planned trial."""
    with PatientStore.open(tmp_path / "stnbench.db", writable=True, busy_timeout_s=0.05) as made:
        made.save_sweep(SWEEP, [PlannedTrial(spec=SPEC, point=Point(labels=()), label="x")], NOW)
        yield made


def cut(store: PatientStore, monkeypatch: pytest.MonkeyPatch, method: str, *, committed: bool, times: int = 1) -> None:
    """Let the connection be lost in a transaction so often, before or after it was committed."""
    original, left = getattr(Store, method), [times]

    def lose(self: Store, *given: object, **named: object) -> object:
        if left[0]:
            left[0] -= 1
            if committed:
                original(self, *given, **named)
            raise StoreError("the connection to the store was lost", is_transient=True)
        return original(self, *given, **named)

    monkeypatch.setattr(Store, method, lose)


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("times", [1, 3])
def test_a_transaction_that_was_cut_off_is_done_once(
    committed: bool, times: int, store: PatientStore, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was committed or not: an attempt begins, ends and completes once, a request is recorded once."""
    store.wait = clock.wait()
    cut(store, monkeypatch, "start_attempt", committed=committed, times=1 if committed else times)
    assert store.start_attempt(START).number == 1
    cut(store, monkeypatch, "end_attempt", committed=committed, times=1 if committed else times)
    failure = Failure(kind=FailureKind.KILLED, message="killed")
    store.end_attempt("s-1", AttemptState.FAILED, failure, NOW, trial_state=TrialState.FAILED)
    cut(store, monkeypatch, "replan", committed=committed, times=1 if committed else times)
    assert store.replan([SPEC.trial_id]) == 1
    second = AttemptStart(
        trial_id=SPEC.trial_id, token="s-2", slot="cpu0", host="h", pid=1, boot_id="b", started_at=NOW
    )
    assert store.start_attempt(second).number == 2
    request = ControlRequest(request_id="1", sweep=SWEEP.name, action=Pause(), asked_at="", asked_by="")
    record = ControlRecord(request=request, applied_at=NOW, is_refused=False, outcome="paused", effect=Effect())
    cut(store, monkeypatch, "add_control", committed=committed, times=1 if committed else times)
    assert store.add_control(record)
    assert store.controls(SWEEP.name) == [record]
    cut(store, monkeypatch, "complete_attempt", committed=committed, times=1 if committed else times)
    store.complete_attempt("s-2", fake_result(SPEC, "s-2"), NOW)

    states = [attempt.state for attempt in store.attempts_of_trial(SPEC.trial_id)]
    assert states == [AttemptState.FAILED, AttemptState.COMPLETE]
    assert sum("answers again" in line for line in clock.said) == 5


def test_minutes_are_waited_and_told_of(clock: FakeTime) -> None:
    """A writer that is busy for five minutes costs five minutes; every half minute a line says so."""

    def call() -> str:
        if clock.now_s < 300:
            raise StoreBusyError("the store is being written", is_transient=True)
        return "done"

    assert clock.wait().until_done(call) == "done"
    assert len(clock.said) == 11
    assert clock.said[-1] == "the store answers again, after 300 s"


def test_a_wait_has_an_end(clock: FakeTime) -> None:
    """After ten minutes the error is the caller's; ten seconds after somebody asks for an end as well."""

    def call() -> str:
        raise StoreBusyError("the store is being written", is_transient=True)

    with pytest.raises(StoreBusyError):
        clock.wait().until_done(call)
    assert 600 <= clock.now_s <= 602
    began_s = clock.now_s
    with pytest.raises(StoreBusyError):
        clock.wait(is_asked_to_stop=lambda: clock.now_s > began_s + 50).until_done(call)
    assert 60 <= clock.now_s - began_s <= 62


def test_what_waiting_cannot_mend_is_raised_at_once(clock: FakeTime) -> None:
    """A damaged store, or another orchestrator's."""

    def call() -> str:
        raise StoreError("the store is damaged")

    with pytest.raises(StoreError):
        clock.wait().until_done(call)
    assert (clock.now_s, clock.said) == (0.0, [])


@pytest.mark.slow
def test_another_writer_of_the_file_is_waited_for(store: PatientStore, tmp_path: Path) -> None:
    """A second program that is in a transaction costs a pause, of which a line tells."""
    said: list[str] = []
    other = sqlite3.connect(tmp_path / "stnbench.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(1.0, lambda: other.execute("ROLLBACK"))
    release.start()
    store.wait = StoreWait(say=said.append, pause_s=0.05)
    assert store.start_attempt(START).number == 1
    assert "being written by another process" in said[0]
    assert "answers again" in said[-1]
    release.join()
    other.close()


def test_a_store_that_is_written_when_it_is_opened_is_waited_for(clock: FakeTime, tmp_path: Path) -> None:
    """But a server that cannot be reached then may be another one than was meant."""

    def open_store() -> PatientStore:
        if clock.now_s < 60:
            raise StoreBusyError("the store is being written", is_transient=True)
        return PatientStore.open(tmp_path / "stnbench.db", writable=True)

    open_patiently(open_store, clock.wait()).close()
    assert clock.now_s >= 60

    def refuse() -> PatientStore:
        raise StoreError("the store cannot be reached", is_transient=True)

    with pytest.raises(StoreError, match="cannot be reached"):
        open_patiently(refuse, clock.wait())


def test_every_method_that_asks_the_store_is_patient() -> None:
    """A method that is added to the store is added here, or said to need no waiting."""
    own = {name for name, _ in inspect.getmembers(PatientStore, inspect.isfunction) if not name.startswith("_")}
    patient = {*REPEATABLE, "start_attempt", "complete_attempt", "end_attempt", "replan", "add_control"}
    assert own - patient == {"close", "exists", "check_whole", "back_up", "rows", "fill", "merge"}


@needs_postgres
@pytest.mark.parametrize("moment", ["between", "begun", "done"])
@pytest.mark.parametrize("method", ["start_attempt", "complete_attempt", "end_attempt", "add_epoch"])
def test_a_backend_of_postgresql_that_is_terminated_costs_a_pause(
    method: str, moment: str, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By pg_terminate_backend, between two transactions or within one: it is waited for, and the work is done once."""
    with database() as url, PatientStore.open(url, writable=True) as store:
        store.save_sweep(SWEEP, [PlannedTrial(spec=SPEC, point=Point(labels=()), label="x")], NOW)
        store.wait = clock.wait()
        result = fake_result(SPEC, token="s-1")
        works: dict[str, Callable[[], object]] = {
            "start_attempt": lambda: store.start_attempt(START),
            "add_epoch": lambda: store.add_epoch("s-1", result.epochs[0]),
            "end_attempt": lambda: store.end_attempt(
                "s-1", AttemptState.STOPPED, None, NOW, trial_state=TrialState.PLANNED
            ),
            "complete_attempt": lambda: store.complete_attempt("s-1", result, NOW),
        }
        if method != "start_attempt":
            works["start_attempt"]()
        original = Database.transaction
        ended: list[int] = []

        @contextlib.contextmanager
        def cut(self: Database) -> Iterator[Connection]:
            with original(self) as connection:
                if not ended and moment == "begun":
                    ended.append(end_connections(url))
                yield connection
                if not ended and moment == "done":
                    ended.append(end_connections(url))

        if moment == "between":
            ended.append(end_connections(url))
        else:
            monkeypatch.setattr(Database, "transaction", cut)
        works[method]()

        assert len(ended) == 1
        assert ended[0] >= 1
        if moment != "between":  # where nothing was under way the connection is made again without a word
            assert clock.said[0].startswith("waiting for the store")
            assert "answers again" in clock.said[-1]
        (attempt,) = store.attempts_of_trial(SPEC.trial_id)
        states = {"complete_attempt": AttemptState.COMPLETE, "end_attempt": AttemptState.STOPPED}
        assert (attempt.number, attempt.state) == (1, states.get(method, AttemptState.RUNNING))
        epochs = {"add_epoch": 1, "complete_attempt": len(result.epochs)}
        assert len(store.epochs_of_trial(SPEC.trial_id)) == epochs.get(method, 0)
