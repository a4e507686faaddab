"""The mirror shows everything in the end, and never gets in the way."""

import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from fake_trials import Task, fake_result, fake_spec
from typing_extensions import override

from stnbench.engines import Slot
from stnbench.orchestration.observer import EndedAttempt, RunningAttempt, TrackerSync, ended_view, stored_views
from stnbench.spec.result import AttemptState, TrialState
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.store.store import Store
from stnbench.store.tables import AttemptStart, PlannedTrial
from stnbench.tracking import AttemptView, ConfigurationView, Picture, Tracker

NOW = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)
SWEEP = SweepSpec(name="test", question="Is it shown?")


class RecordingTracker(Tracker):
    """Remembers the last view of everything; fails on the ``fail_at``-th."""

    def __init__(self, fail_at: int = 0) -> None:
        self.views: dict[str, AttemptView | ConfigurationView] = {}
        self.calls = 0
        self.fail_at = fail_at
        self.is_closed = threading.Event()

    @override
    def open_sweep(self, sweep: SweepSpec) -> None:
        assert sweep == SWEEP

    @override
    def show_attempt(self, view: AttemptView) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise ConnectionError("the server is gone")
        self.views[view.token] = view

    @override
    def show_configuration(self, view: ConfigurationView) -> None:
        self.views[view.config_id] = view

    @override
    def show_pictures(self, view: AttemptView | ConfigurationView, pictures: Iterable[Picture]) -> int:
        return 0

    @override
    def close(self) -> None:
        self.is_closed.set()


def complete_one(store: Store) -> EndedAttempt:
    """A trial that has just completed, in the store and as observers are told."""
    spec = fake_spec(Task.FINISH)
    trial = PlannedTrial(spec=spec, point=Point(labels=()), label="a cell")
    store.save_sweep(SWEEP, [trial], NOW)
    start = AttemptStart(trial_id=spec.trial_id, token="t-1", slot="cpu0", host="h", pid=1, boot_id="b", started_at=NOW)
    record = store.start_attempt(start)
    result = fake_result(spec, "t-1")
    store.complete_attempt("t-1", result, NOW)
    slot = Slot(name="cpu0", device="cpu", threads=1)
    attempt = RunningAttempt(trial=trial, record=record, slot=slot, epochs=result.epochs)
    return EndedAttempt(
        attempt=attempt,
        state=AttemptState.COMPLETE,
        trial_state=TrialState.COMPLETE,
        finished_at=NOW,
        result=result,
    )


def test_a_live_view_is_what_the_store_says_later(tmp_path: Path) -> None:
    """So what was shown live is not shown again at the end."""
    with Store.open(tmp_path / "s.db", writable=True) as store:
        end = complete_one(store)

        assert stored_views(store, "test") == [ended_view("test", end)]


def test_a_sync_shows_what_is_missing_and_the_next_nothing(tmp_path: Path) -> None:
    """What was shown is noted in the store; a later mirror with nothing to show opens no tracker."""
    tracker = RecordingTracker()
    opened = []

    def open_tracker() -> Tracker:
        opened.append(1)
        return tracker

    with Store.open(tmp_path / "s.db", writable=True) as store:
        complete_one(store)
        mirror = TrackerSync(SWEEP, open_tracker, warn=print)
        assert mirror.sync(store, "here", (), timeout_s=10)
        mirror.close()
        assert tracker.is_closed.wait(5)
        assert set(tracker.views) == {"t-1"}

        assert TrackerSync(SWEEP, open_tracker, warn=print).sync(store, "here", (), timeout_s=10)
        assert len(opened) == 1
        assert TrackerSync(SWEEP, open_tracker, warn=print).sync(store, "elsewhere", (), timeout_s=10)
        assert len(opened) == 2


def test_a_tracker_that_fails_costs_a_warning(tmp_path: Path) -> None:
    """The failure is said once, with the command that replays; the next sync shows what is missing."""
    warnings: list[str] = []
    with Store.open(tmp_path / "s.db", writable=True) as store:
        end = complete_one(store)
        broken = TrackerSync(SWEEP, lambda: RecordingTracker(fail_at=1), warn=warnings.append)
        broken.launched(end.attempt)
        assert not broken.sync(store, "here", (), timeout_s=10)
        broken.ended(end)
        broken.close()
        assert len(warnings) == 1
        assert "the server is gone" in warnings[0]
        assert "stnbench.mirror" in warnings[0]

        tracker = RecordingTracker()
        assert TrackerSync(SWEEP, lambda: tracker, warn=warnings.append).sync(store, "here", (), timeout_s=10)
        assert set(tracker.views) == {"t-1"}


def test_a_tracker_that_hangs_does_not_hold_the_sweep(tmp_path: Path) -> None:
    """The end of a sweep waits for the tracker so long and no longer."""
    release = threading.Event()

    class Hanging(RecordingTracker):
        """Answers when it is released."""

        @override
        def show_attempt(self, view: AttemptView) -> None:
            release.wait(10)

    with Store.open(tmp_path / "s.db", writable=True) as store:
        complete_one(store)
        mirror = TrackerSync(SWEEP, Hanging, warn=print)

        assert not mirror.sync(store, "here", (), timeout_s=0.2)
        assert store.mirrored("here") == {}
        release.set()
        mirror.close()
