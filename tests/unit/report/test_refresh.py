"""The page under ``reports/`` while a sweep runs: written when something is new, never in the way."""

import threading
from pathlib import Path

import pytest
from stored_sweeps import runs, sizes, store

from stnbench.core.errors import FolderError
from stnbench.core.files import RunsLayout
from stnbench.report.output import SHARE, ReportRefresher
from stnbench.spec.result import TrialState
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store

__all__ = ["runs", "sizes", "store"]


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """A clock at zero."""
    return Clock()


def test_it_writes_when_something_is_new_and_a_minute_has_passed(tmp_path: Path, clock: Clock) -> None:
    """Not before, not twice for the same, and after a slow write not before twenty times as long."""
    written: list[float] = []

    def write(layout: RunsLayout, sweep: str, out: Path) -> None:
        written.append(clock.now_s)
        clock.now_s += 10.0

    it = ReportRefresher(RunsLayout(tmp_path), "s", pytest.fail, clock_s=clock, write=write)
    for now_s, is_new in ((59.0, True), (61.0, False), (200.0, False), (202.0, True), (262.0, False), (270.0, False)):
        clock.now_s = now_s
        if is_new:
            it.changed((), TrialState.PLANNED)
        it.ticked()
        it.close()
    assert written == [61.0]
    clock.now_s = 71.0 + 10.0 / SHARE + 1.0
    it.ticked()
    it.close()
    assert written == [61.0, 272.0]


def test_a_page_that_is_being_written_is_not_waited_for(tmp_path: Path, clock: Clock) -> None:
    """The sweep goes on; its end waits."""
    go_on, begun = threading.Event(), threading.Event()
    written: list[str] = []

    def write(layout: RunsLayout, sweep: str, out: Path) -> None:
        begun.set()
        go_on.wait(20)
        written.append(sweep)

    it = ReportRefresher(RunsLayout(tmp_path), "s", pytest.fail, clock_s=clock, write=write)
    for now_s in (100.0, 1000.0, 2000.0):
        clock.now_s = now_s
        it.changed((), TrialState.PLANNED)
        it.ticked()
    assert begun.wait(20)
    assert written == []
    go_on.set()
    it.close()
    assert written == ["s"]


def test_a_report_that_cannot_be_written_is_told_of_once(tmp_path: Path, clock: Clock) -> None:
    """And not tried again: the end of the sweep does, and says why."""
    said: list[str] = []

    def write(layout: RunsLayout, sweep: str, out: Path) -> None:
        raise FolderError("no room", remedy="make some")

    it = ReportRefresher(RunsLayout(tmp_path), "s", said.append, clock_s=clock, write=write)
    for now_s in (100.0, 1000.0):
        clock.now_s = now_s
        it.changed((), TrialState.PLANNED)
        it.ticked()
        it.close()
    assert len(said) == 1
    assert "no room" in said[0]


def test_it_writes_the_report_that_the_end_writes(
    store: Store, sizes: list[TrialSpec], runs: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page, Markdown and CSV, beside a store that is open to write."""
    monkeypatch.setenv("STNBENCH_RUNS", str(runs))
    it = ReportRefresher(RunsLayout(runs), "sizes", pytest.fail, out=tmp_path / "reports", clock_s=clock)
    it.changed((), TrialState.PLANNED)
    clock.now_s = 61.0
    it.ticked()
    it.close()
    assert {path.name for path in (tmp_path / "reports" / "sizes").iterdir()} >= {"index.html", "leaderboard.md"}
