"""Orchestrators that share a store on a server: who may run which sweep, who has which trial, and who is gone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fake_trials import Task, fake_result, fake_spec
from narrowed import known
from postgres import connected, database, end_connections, needs_postgres
from sqlalchemy import text
from tiny_sweeps import SLOT, ListPlanner, without_training
from typing_extensions import override

from stnbench.core.errors import StoreBusyError
from stnbench.core.files import RunsLayout
from stnbench.engines.worker import InlineEngine
from stnbench.orchestration.asking import RunOptions, RunSummary
from stnbench.orchestration.claims import CLAIM_GRACE_S, Claims, ProcessIdentity, is_held, orchestrator_lock
from stnbench.orchestration.observer import EndedAttempt, Observer, RunningAttempt
from stnbench.orchestration.runner import Runner
from stnbench.orchestration.session import SessionOptions, open_session
from stnbench.spec.result import AttemptState, Failure, FailureKind, TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.file import Holder
from stnbench.store.store import Store
from stnbench.store.tables import AttemptRecord, AttemptStart

pytestmark = pytest.mark.slow

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOST = Failure(kind=FailureKind.KILLED, message="gone")
SHARED, OWN = fake_spec(Task.FINISH, seed=1), fake_spec(Task.FINISH, seed=2)
HERE = ProcessIdentity(host="box", pid=7, boot_id="b", session="ours")


def sweep(name: str) -> SweepSpec:
    """A sweep of fake trials."""
    return SweepSpec(name=name, question="?", baselines=False)


def of(name: str) -> Holder:
    """The process that runs a sweep."""
    return Holder(title=f"process of {name}", session=f"session{name}", sweep=name)


@pytest.fixture
def url() -> Iterator[str]:
    """A store on a server."""
    with database() as made:
        Store.open(made, writable=True).close()
        yield made


@needs_postgres
def test_two_sweeps_write_one_store_and_a_third_alone_writes_neither(url: str) -> None:
    """The same sweep is refused by name, one that must be alone too; sessions are live as long as they are open."""
    with (
        Store.open(url, writable=True, holder=of("a")) as first,
        Store.open(url, writable=True, holder=of("b")) as second,
    ):
        first.set_mirrored("t", {"x": "1"})
        second.set_mirrored("t", {"y": "2"})
        assert first.mirrored("t") == {"x": "1", "y": "2"}
        assert first.is_shared
        with pytest.raises(StoreBusyError, match=r"the sweep a runs already on .*\(process of a\)"):
            Store.open(url, writable=True, holder=Holder(title="x", session="x", sweep="a"))
        with pytest.raises(StoreBusyError, match=r"another sweep runs on .*\(process of [ab]\)"):
            Store.open(url, writable=True, holder=Holder(title="merging"))
        assert second.live_sessions({"sessiona", "sessionb", "sessionc"}) == {"sessiona", "sessionb"}
    with Store.open(url, writable=True, holder=Holder(title="merging")) as alone:
        assert not alone.is_shared
        assert alone.live_sessions({"sessiona"}) == set()
        with pytest.raises(StoreBusyError, match="another process alone writes") as caught:
            Store.open(url, writable=True, holder=of("a"))
        assert caught.value.is_transient


@needs_postgres
def test_sweeps_of_an_older_version_are_not_upgraded_under(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one runs, a newer stnbench that would change the tables is refused; alone, it changes them."""
    monkeypatch.setattr("stnbench.store.postgres.RETRY_S", 0.0)
    with Store.open(url, writable=True, holder=of("a")):
        with connected(url) as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '0006'"))
        with pytest.raises(StoreBusyError, match=r"sweeps of an older stnbench run on .*\(process of a\)"):
            Store.open(url, writable=True, holder=of("b"))


@needs_postgres
def test_a_lost_connection_is_made_again_before_others_believe_its_process_gone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right is kept by looking after it every few seconds, also while nothing is written."""
    monkeypatch.setattr("stnbench.store.store.HOLD_EVERY_S", 0.0)
    with Store.open(url, writable=True, holder=of("a")) as store:
        end_connections(url)
        assert store.live_sessions({"sessiona"}) == set()
        store.check()
        assert store.live_sessions({"sessiona"}) == {"sessiona"}


def attempt(token: str, **changes: Any) -> AttemptRecord:
    """A running attempt of a process."""
    facts: dict[str, Any] = {"host": "box", "pid": 1, "boot_id": "b"} | changes
    return AttemptRecord(
        trial_id="t",
        number=1,
        token=token,
        state=AttemptState.RUNNING,
        slot="s",
        started_at=NOW,
        finished_at=None,
        failure=None,
        **facts,
    )


def test_who_is_live_at_the_server_is_there_whatever_the_process_table_says() -> None:
    """It may be in a container, whose processes cannot be seen."""
    claims = Claims(HERE, is_running=lambda _: False)
    assert claims.gone([attempt("other-1")], {"other"}, 0.0) == []


@pytest.mark.parametrize(
    ("changes", "is_running", "is_gone"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"boot_id": "earlier"}, True, True),
        ({"host": "elsewhere"}, False, False),
    ],
)
def test_a_process_that_is_not_live_is_gone_at_once_where_its_end_is_seen(
    changes: dict[str, str], is_running: bool, is_gone: bool
) -> None:
    """On this host it has ended, or the host was booted again; on another one only time can tell."""
    claims = Claims(HERE, is_running=lambda _: is_running)
    claim = attempt("other-1", **changes)
    assert claims.gone([claim], set(), 0.0) == [claim] * is_gone
    assert claims.gone([claim], set(), CLAIM_GRACE_S + 1) == [claim]


def test_a_process_that_is_seen_again_was_not_gone() -> None:
    """The time without it begins anew; and nobody is gone to itself."""
    claims = Claims(HERE, is_running=lambda _: True)
    claim = attempt("other-1")
    assert claims.gone([claim], set(), 0.0) == []
    assert claims.gone([claim], {"other"}, 80.0) == []
    assert claims.gone([claim], set(), 100.0) == []
    assert claims.gone([claim], set(), 101.0 + CLAIM_GRACE_S) == [claim]
    assert claims.gone([attempt("ours-1")], set(), 0.0) == claims.gone([attempt("ours-1")], set(), 1000.0) == []


def test_sweeps_of_a_store_on_a_server_share_a_runs_folder(tmp_path: Path) -> None:
    """Each holds a lock of its own; where the store is a file there is one lock, whatever the sweep."""
    shared = RunsLayout(tmp_path, store_url="postgresql://host/db")
    with orchestrator_lock(shared, HERE, sweep="a"), orchestrator_lock(shared, HERE, sweep="b"):
        assert is_held(shared, "a")
        assert not is_held(shared, "c")
        with (
            pytest.raises(StoreBusyError, match=r"the sweep a runs already on .*process 7 on box"),
            orchestrator_lock(shared, HERE, sweep="a"),
        ):
            pass
    with (
        orchestrator_lock(RunsLayout(tmp_path), HERE, sweep="a"),
        pytest.raises(StoreBusyError, match="another sweep runs"),
        orchestrator_lock(RunsLayout(tmp_path), HERE, sweep="b"),
    ):
        pass


@dataclass
class Other(Observer):
    """The orchestrator of another sweep, which acts while ours runs."""

    store: Store
    takes_at_epoch: int = 0
    frees: bool = False
    ends: list[EndedAttempt] = field(default_factory=list)
    changes: list[tuple[str, TrialState]] = field(default_factory=list)

    def claim(self, spec: TrialSpec) -> None:
        """Begin an attempt."""
        start = AttemptStart(
            trial_id=spec.trial_id, token="sessionb-1", slot="s", host="far", pid=1, boot_id="b", started_at=NOW
        )
        self.store.save_sweep(sweep("b"), ListPlanner((spec,)).ask(), NOW)
        self.store.start_attempt(start)

    @override
    def epoch_ended(self, attempt: RunningAttempt) -> None:
        if attempt.record.trial_id == SHARED.trial_id and attempt.epochs[-1].epoch == self.takes_at_epoch:
            self.takes_at_epoch = 0
            self.store.end_attempt(attempt.record.token, AttemptState.LOST, LOST, NOW, trial_state=TrialState.PLANNED)
            self.claim(SHARED)

    @override
    def ended(self, end: EndedAttempt) -> None:
        self.ends.append(end)

    @override
    def changed(self, trial_ids: "tuple[str, ...] | list[str]", state: TrialState) -> None:  # type: ignore[override]
        self.changes += [(trial_id, state) for trial_id in trial_ids]

    @override
    def ticked(self) -> None:
        running = {one.token for one in self.store.running_attempts()}
        if self.ends and "sessionb-1" in running and not self.takes_at_epoch:
            if self.frees:
                self.store.end_attempt("sessionb-1", AttemptState.STOPPED, None, NOW, trial_state=TrialState.PLANNED)
            else:
                self.store.complete_attempt("sessionb-1", fake_result(SHARED, "sessionb-1"), NOW)


def run(url: str, tmp_path: Path, other: Other) -> RunSummary:
    """Run the sweep a beside the other one."""
    layout = RunsLayout(tmp_path / "runs", store_url=url)
    with open_session(layout, SessionOptions(sweep="a")) as session:
        runner = Runner(
            sweep=sweep("a"),
            planner=ListPlanner((SHARED, OWN)),
            store=session.store,
            engine=InlineEngine(SLOT),
            layout=layout,
            identity=session._identity,
            options=RunOptions(data_root=tmp_path),
            observers=[other],
        )
        return runner.run()


@pytest.fixture
def other(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Other]:
    """The other orchestrator, with nothing done yet."""
    without_training(monkeypatch)
    monkeypatch.setattr("stnbench.orchestration.claims.ELSEWHERE_EVERY_S", 0.0)
    with Store.open(url, writable=True, holder=of("b")) as store:
        yield Other(store)


def attempts_of(store: Store, spec: TrialSpec) -> list[tuple[str, str]]:
    """Session kind and state of each attempt of a trial."""
    found = store.attempts_of_trial(spec.trial_id)
    return [("b" if one.token.startswith("sessionb") else "a", one.state.value) for one in found]


@needs_postgres
def test_a_trial_that_another_sweep_runs_is_adopted_when_it_is_complete(other: Other, url: str, tmp_path: Path) -> None:
    """Ours goes on with its own trials, waits, and takes the result; the trial ran once."""
    other.claim(SHARED)
    summary = run(url, tmp_path, other)
    assert (summary.complete, summary.launched) == (2, 1)
    assert attempts_of(other.store, SHARED) == [("b", "complete")]
    assert other.changes == [(SHARED.trial_id, TrialState.COMPLETE)]


@needs_postgres
def test_a_trial_that_another_sweep_gives_back_is_run_here(other: Other, url: str, tmp_path: Path) -> None:
    """The other one was stopped by its user."""
    other.frees = True
    other.claim(SHARED)
    assert run(url, tmp_path, other).complete == 2
    assert attempts_of(other.store, SHARED) == [("b", "stopped"), ("a", "complete")]


@needs_postgres
def test_a_trial_of_a_sweep_that_died_is_free(other: Other, url: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Its session is not live, and after a while it is taken to be gone: its attempt is lost, the trial runs here."""
    monkeypatch.setattr(Claims.__init__, "__defaults__", (0.0, *known(Claims.__init__.__defaults__)[1:]))
    other.claim(SHARED)
    other.store.close()
    with Store.open(url, writable=True, holder=of("c")) as store:
        assert run(url, tmp_path, Other(store)).complete == 2
        assert attempts_of(store, SHARED) == [("b", "lost"), ("a", "complete")]


@needs_postgres
@pytest.mark.parametrize("epoch", [1, 2])
def test_an_orchestrator_whose_trial_was_taken_over_lets_it_go(
    epoch: int, other: Other, url: str, tmp_path: Path
) -> None:
    """It was cut off for so long that another one took the trial: what it reports later is refused, and it waits."""
    other.takes_at_epoch = epoch
    summary = run(url, tmp_path, other)
    assert summary.complete == 2
    assert attempts_of(other.store, SHARED) == [("a", "lost"), ("b", "complete")]
    assert [end.state for end in other.ends if end.attempt.record.trial_id == SHARED.trial_id] == [AttemptState.LOST]
