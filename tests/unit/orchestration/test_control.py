"""Requests to a running sweep: each is carried out once, by the orchestrator alone, and outlives it."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_trials import Task, fake_spec
from tiny_sweeps import SLOT, SWEEP, TRIALS, ListPlanner, QuickClock, opened, without_training
from typing_extensions import override

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.files import RunsLayout
from stnbench.engines import Engine, Slot
from stnbench.engines.worker import InlineEngine
from stnbench.orchestration.asking import RunOptions, RunSummary
from stnbench.orchestration.claims import ProcessIdentity
from stnbench.orchestration.control import Decision, Inbox, decide, find_target, send_request
from stnbench.orchestration.observer import EndedAttempt, Observer, RunningAttempt
from stnbench.orchestration.runner import Runner
from stnbench.orchestration.session import SessionOptions, open_session
from stnbench.spec.control import (
    Action,
    AddSeeds,
    ControlRecord,
    ControlRequest,
    Controls,
    Effect,
    Pause,
    Resume,
    Retry,
    SetSlots,
    Stop,
    controls_after,
)
from stnbench.spec.planner import RacingPlannerSpec, UntilDecidedPlannerSpec
from stnbench.spec.result import AttemptState, TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store

pytestmark = pytest.mark.slow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIRST, SECOND = "cell 10000", "cell 10001"


class Death(BaseException):
    """The process is killed."""


class Person(Observer):
    """Asks for things when the sweep has come so far.

    Args:
        layout: of the runs folder.
        asked: what is asked by the number of attempts that have begun, and ended.
    """

    def __init__(
        self,
        layout: RunsLayout,
        *,
        on_launch: dict[int, Sequence[Action]] | None = None,
        on_end: dict[int, Sequence[Action]] | None = None,
        on_tick: Callable[[int], Sequence[Action]] = lambda _: (),
    ) -> None:
        self._folder = layout.control
        self._on_launch = on_launch or {}
        self._on_end = on_end or {}
        self._on_tick = on_tick
        self.launches: list[str] = []
        self.ends: list[EndedAttempt] = []
        self.ticks = 0
        self.asked = 0
        self.at = NOW
        self.messages: list[str] = []
        self.slots: list[int] = []
        self.changes: list[tuple[tuple[str, ...], TrialState]] = []

    def ask(self, *actions: Action) -> None:
        """Leave requests, a second apart."""
        for action in actions:
            self.asked += 1
            send_request(self._folder, SWEEP.name, action, at=self.at + timedelta(seconds=self.asked), program="test")

    @override
    def launched(self, attempt: RunningAttempt) -> None:
        self.launches.append(attempt.trial.spec.trial_id)
        self.ask(*self._on_launch.get(len(self.launches), ()))

    @override
    def ended(self, end: EndedAttempt) -> None:
        self.ends.append(end)
        self.ask(*self._on_end.get(len(self.ends), ()))

    @override
    def ticked(self) -> None:
        self.ticks += 1
        self.ask(*self._on_tick(self.ticks))

    @override
    def told(self, message: str) -> None:
        self.messages.append(message)

    @override
    def resized(self, slots: int) -> None:
        self.slots.append(slots)

    @override
    def changed(self, trial_ids: Sequence[str], state: TrialState) -> None:
        self.changes.append((tuple(trial_ids), state))


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts run in this process and train nothing."""
    without_training(monkeypatch)


@pytest.fixture
def layout(tmp_path: Path) -> RunsLayout:
    """The runs folder of a test."""
    return RunsLayout(tmp_path / "runs")


def run(
    layout: RunsLayout,
    *observers: Observer,
    specs: tuple[TrialSpec, ...] = TRIALS,
    engine: Engine | None = None,
) -> RunSummary:
    """Run the sweep to its end."""
    with open_session(layout, SessionOptions(engine="inline")) as session:
        runner = Runner(
            sweep=SWEEP,
            planner=ListPlanner(specs),
            store=session.store,
            engine=engine or InlineEngine(SLOT),
            layout=layout,
            identity=ProcessIdentity.current(),
            options=RunOptions(data_root=layout.root),
            observers=observers,
            clock_s=QuickClock(),
        )
        return runner.run()


def states(layout: RunsLayout) -> dict[tuple[str, int], TrialState]:
    """Where each trial of the sweep stands, by label and seed."""
    with opened(layout) as store:
        return {(trial.label, trial.seed): trial.state for trial in store.sweep_trials(SWEEP.name)}


def records(layout: RunsLayout) -> list[ControlRecord]:
    """What was asked of the sweep."""
    with opened(layout) as store:
        return store.controls(SWEEP.name)


def test_a_paused_sweep_launches_nothing_until_it_is_resumed(layout: RunsLayout) -> None:
    """The trial that runs goes on to its end; after the pause nothing begins for as long as it lasts."""
    person = Person(layout, on_launch={1: [Pause()]}, on_tick=lambda tick: [Resume()] if tick == 50 else [])
    launched_at: list[int] = []

    class Watch(Observer):
        @override
        def launched(self, attempt: RunningAttempt) -> None:
            launched_at.append(person.ticks)

    summary = run(layout, person, Watch())

    assert summary.complete == len(TRIALS)
    assert person.ends[0].state is AttemptState.COMPLETE
    assert [tick for tick in launched_at if 1 < tick < 50] == []
    assert len([tick for tick in launched_at if tick >= 50]) == len(TRIALS) - len([t for t in launched_at if t <= 1])
    assert [record.request.action.kind for record in records(layout)] == ["pause", "resume"]
    assert any("paused" in message for message in person.messages)


def test_a_configuration_that_is_stopped_runs_no_trial_any_more(layout: RunsLayout) -> None:
    """Its waiting trials are pruned, the other configuration is complete, and the next run leaves it so."""
    person = Person(layout)
    person.ask(Stop(target=SECOND))

    run(layout, person)

    expected = {(FIRST, 1): "complete", (FIRST, 2): "complete", (SECOND, 1): "pruned", (SECOND, 2): "pruned"}
    assert states(layout) == expected
    again = Person(layout)
    assert run(layout, again).pruned == 2
    assert again.launches == []
    assert states(layout) == expected


def test_one_trial_alone_can_be_stopped(layout: RunsLayout) -> None:
    """``LABEL#SEED`` leaves the configuration's other seeds alone."""
    person = Person(layout)
    person.ask(Stop(target=f"{SECOND}#2"))
    run(layout, person)

    assert [key for key, state in states(layout).items() if state is TrialState.PRUNED] == [(SECOND, 2)]


def test_what_was_stopped_is_run_after_a_retry(layout: RunsLayout) -> None:
    """A retry takes the stop back, in the run that gave it up as in a later one."""
    for later in (False, True):
        place = RunsLayout(layout.root.with_name(f"later-{later}"))
        person = Person(place, on_end={} if later else {1: [Retry(target=SECOND)]})
        person.ask(Stop(target=SECOND))
        run(place, person)
        if later:
            again = Person(place)
            again.at = NOW + timedelta(hours=1)
            again.ask(Retry(target=SECOND))
            run(place, again)
        assert set(states(place).values()) == {TrialState.COMPLETE}


def test_failed_trials_are_retried_while_the_sweep_runs(layout: RunsLayout) -> None:
    """``retry all`` plans every failed trial again; each gets one more attempt."""
    specs = (fake_spec(Task.FAIL, config=5), *TRIALS)
    person = Person(layout, on_end={2: [Retry(target="all")]})
    run(layout, person, specs=specs)

    with opened(layout) as store:
        assert [attempt.state for attempt in store.attempts_of_trial(specs[0].trial_id)] == [AttemptState.FAILED] * 2
    assert ((specs[0].trial_id,), TrialState.PLANNED) in person.changes


def test_added_seeds_are_trained_now_and_belong_to_the_sweep_from_then_on(layout: RunsLayout) -> None:
    """Every configuration gets them; started again, the sweep has them still and trains none twice."""
    person = Person(layout, on_end={1: [AddSeeds(count=2)]})
    run(layout, person)

    first = max(SWEEP.seeds) + 1
    assert {seed for label, seed in states(layout) if label == SECOND} == {1, 2, first, first + 1}
    assert set(states(layout).values()) == {TrialState.COMPLETE}
    again = Person(layout)
    assert run(layout, again).launched == 0
    assert len(states(layout)) == len({*states(layout)})


def test_seeds_added_later_are_not_for_a_configuration_that_was_stopped(layout: RunsLayout) -> None:
    """A stop is about the configuration, also about its trials to come."""
    person = Person(layout, on_end={1: [AddSeeds(count=1)]})
    person.ask(Stop(target=SECOND))
    run(layout, person)

    assert {state for (label, _), state in states(layout).items() if label == SECOND} == {TrialState.PRUNED}
    assert {state for (label, _), state in states(layout).items() if label == FIRST} == {TrialState.COMPLETE}


class ManySlots(InlineEngine):
    """As inline, one attempt at a time, but says to have as many slots as are asked for."""

    def __init__(self) -> None:
        super().__init__(SLOT)
        self.count = 1

    @override
    def resize(self, count: int) -> Sequence[Slot]:
        self.count = min(count, 3)
        return [SLOT, *(Slot(name=f"cpu{n}", device="cpu", threads=1) for n in range(1, self.count))][:count]


def test_slots_hold_for_runs_that_are_started_alike(layout: RunsLayout) -> None:
    """The number is offered again by the next run, unless that is started with another one."""
    person = Person(layout)
    person.ask(SetSlots(count=1))
    run(layout, person, engine=ManySlots())
    [record] = records(layout)

    assert (record.effect.slots, record.effect.slots_before) == (1, 1)
    again = Person(layout)
    run(layout, again, engine=ManySlots())
    assert again.slots == [1]


def test_a_request_that_fits_nothing_is_refused_and_says_why(layout: RunsLayout) -> None:
    """It changes nothing, and the record says so."""
    person = Person(layout)
    person.ask(Stop(target="cell 1000"), Retry(target="all"))
    assert run(layout, person).complete == len(TRIALS)

    refused = records(layout)
    assert [record.is_refused for record in refused] == [True, True]
    assert "did you mean" in refused[0].outcome


@pytest.mark.thorough
@pytest.mark.parametrize("when", ["before the record", "after the record"])
@pytest.mark.parametrize("action", [Pause(), Stop(target=SECOND), AddSeeds(count=1), Stop(target=f"{FIRST}#2")])
def test_a_request_is_carried_out_once_whenever_the_orchestrator_is_killed(
    layout: RunsLayout, monkeypatch: pytest.MonkeyPatch, action: Action, when: str
) -> None:
    """Killed around the record, the next run does what was asked, once: one record, no file, the same states."""
    whole = RunsLayout(layout.root.with_name("whole"))
    for place, dies in ((whole, False), (layout, True)):
        person = Person(place)
        person.ask(action)
        with monkeypatch.context() as patched:
            if dies:
                target = Inbox if when == "after the record" else Store
                name = "remove" if when == "after the record" else "add_control"
                patched.setattr(target, name, _die)
                with pytest.raises(Death):
                    run(place, person)
        late = Person(place, on_tick=lambda tick: [Resume()] if tick == 20 else [])
        run(place, late)

    assert states(layout) == states(whole)
    assert [record.request.action for record in records(layout)] == [action, Resume()] or not isinstance(action, Pause)
    assert sum(record.request.action == action for record in records(layout)) == 1
    assert list(layout.control.iterdir()) == []


def _die(*_: object, **__: object) -> None:
    raise Death


def test_a_paused_sweep_is_paused_when_it_is_started_again(layout: RunsLayout) -> None:
    """It says by whom, and goes on when it is resumed."""
    person = Person(layout, on_end={1: [Pause()]}, on_tick=lambda tick: _stop(tick, 30))
    with pytest.raises(Death):
        run(layout, person)
    ended = sum(state is TrialState.COMPLETE for state in states(layout).values())
    again = Person(layout, on_tick=lambda tick: [Resume()] if tick == 30 else [])
    run(layout, again)

    assert 1 <= ended < len(TRIALS)
    assert "stnbench control tiny resume" in again.messages[0]
    assert set(states(layout).values()) == {TrialState.COMPLETE}


def _stop(tick: int, at: int) -> Sequence[Action]:
    if tick == at:
        raise Death
    return ()


def test_requests_for_another_sweep_wait_for_it(layout: RunsLayout) -> None:
    """They are neither carried out nor lost."""
    asked: list[Action] = [Pause(), Resume()]
    for number, action in enumerate(asked):  # the clock is set back in between
        send_request(layout.control, "another", action, at=NOW - timedelta(days=number), program="test")
    waiting = Inbox(layout.control, warn=pytest.fail).waiting("another")
    assert [request.action for request in waiting] == [Pause(), Resume()]
    for request in waiting:
        Inbox(layout.control, warn=pytest.fail).remove(request)
    send_request(layout.control, "other", Pause(), at=NOW, program="test")
    run(layout)
    assert records(layout) == []
    assert [request.sweep for request in Inbox(layout.control, warn=pytest.fail).waiting("other")] == ["other"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe",
        json.dumps({"kind": "pause"}).encode(),
        b'{"action":{"kind":"stop","target":""},"asked_at":"2026-01-01","asked_by":"x","request_id":"x","sweep":"tiny"}',
        b'{"action":{"kind":"pause"},"asked_at":"never","asked_by":"x","request_id":"x","sweep":"tiny"}',
        b'{"action":{"kind":"pause"},"asked_at":"2026-01-01","asked_by":"x","request_id":"y","sweep":"tiny"}',
        b'{"action":{"kind":"slots","count":0},"asked_at":"2026-01-01","asked_by":"x","request_id":"x","sweep":"tiny"}',
        b'{"action":{"kind":"seeds","count":1e9},"asked_at":"2026-01-01","asked_by":"","request_id":"x","sweep":"tiny"}',
    ],
)
def test_a_file_that_asks_nothing_is_set_aside(tmp_path: Path, data: bytes) -> None:
    """It is told of once, and stays for a person to look at."""
    (tmp_path / "x.json").write_bytes(data)
    warnings: list[str] = []
    inbox = Inbox(tmp_path, warn=warnings.append)
    assert [inbox.waiting("tiny"), inbox.waiting("tiny")] == [[], []]

    assert [path.name for path in tmp_path.iterdir()] == ["x.refused"]
    assert len(warnings) == 1
    assert "x.json" in warnings[0]


def test_a_sweep_goes_on_beside_a_file_that_asks_nothing(layout: RunsLayout) -> None:
    """And tells of it."""
    layout.control.mkdir(parents=True)
    (layout.control / "x.json").write_bytes(b"{")
    person = Person(layout)
    assert run(layout, person).complete == len(TRIALS)
    assert len([message for message in person.messages if "set aside" in message]) == 1


def test_the_planners_that_choose_seeds_get_none_from_a_person() -> None:
    """What they promise rests on the seeds that they chose."""
    for planner in (RacingPlannerSpec(), UntilDecidedPlannerSpec()):
        sweep = SweepSpec(name="tiny", question="?", planner=planner)
        decision = decide(AddSeeds(count=1), sweep=sweep, trials=[], running=set(), controls=Controls(), slots=(1, 1))
        assert decision.is_refused
        assert "max_seeds" in decision.outcome


def test_a_pause_says_how_many_trials_go_on() -> None:
    """And a second one changes nothing."""
    asked: dict[str, Any] = {"sweep": SWEEP, "trials": [], "running": {"a", "b"}, "slots": (1, 1)}
    assert decide(Pause(), controls=Controls(), **asked) == Decision(
        outcome="paused: no trial is started; 2 running trials to go on to the end"
    )
    request = ControlRequest(request_id="1", sweep="tiny", action=Pause(), asked_at="", asked_by="")
    assert decide(Pause(), controls=Controls(paused_by=request), **asked).outcome == "paused already"


def test_names_mean_configurations_seeds_and_ids(layout: RunsLayout) -> None:
    """A label is a whole configuration; anything unknown offers the nearest."""
    run(layout)
    with opened(layout) as store:
        trials = store.sweep_trials(SWEEP.name)
    both, is_whole = find_target(trials, FIRST, sweep="tiny")
    assert ([trial.seed for trial in both], is_whole) == ([1, 2], True)
    assert find_target(trials, f"{FIRST}#2", sweep="tiny") == ([both[1]], False)
    assert find_target(trials, both[0].trial_id[:8], sweep="tiny") == ([both[0]], False)
    for unknown in ("cell 9", f"{FIRST}#3", "cel", "zzzzzz"):
        with pytest.raises(UnknownNameError):
            find_target(trials, unknown, sweep="tiny")
    with pytest.raises(SpecError):
        find_target([*trials, *trials], both[0].trial_id[:8], sweep="tiny")


def record(number: int, action: Action, *, refused: bool = False, **effect: object) -> ControlRecord:
    """A request that was carried out."""
    request = ControlRequest(request_id=str(number), sweep="tiny", action=action, asked_at="", asked_by="me")
    made = Effect(**effect)  # type: ignore[arg-type]
    return ControlRecord(request=request, applied_at=NOW, is_refused=refused, outcome="", effect=made)


def test_requests_add_up_in_their_order() -> None:
    """Refused ones count for nothing, and the last word on a trial holds."""
    asked = [
        record(1, Pause()),
        record(2, Stop(target="a"), trials=("t1", "t2"), configs=("c",)),
        record(3, AddSeeds(count=2)),
        record(4, AddSeeds(count=5), refused=True),
        record(5, Retry(target="a#1"), trials=("t1",)),
        record(6, AddSeeds(count=1)),
        record(7, SetSlots(count=4), slots=3, slots_before=2),
    ]
    after = controls_after(asked)

    assert (after.is_paused, after.further_seeds, after.slots, after.slots_started) == (True, 3, 3, 2)
    assert [after.gives_up(trial, "c") for trial in ("t1", "t2", "t3")] == [False, True, True]
    assert not after.gives_up("t3", "another")
    assert not controls_after([*asked, record(8, Resume())]).is_paused
    retried = controls_after([*asked, record(9, Retry(target="a"), trials=("t2",), configs=("c",))])
    assert not any(retried.gives_up(trial, "c") for trial in ("t1", "t2", "t3"))
