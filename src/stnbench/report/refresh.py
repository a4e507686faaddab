"""Periodic updates of the report of a sweep while it runs, in a thread that does not delay the sweep."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from typing_extensions import override

from stnbench.core.paths import RunsLayout
from stnbench.orchestration.observer import EndedAttempt, Observer, RunningAttempt
from stnbench.report.output import REPORTS, read_report, write_report
from stnbench.spec.states import TrialState
from stnbench.store.records import PlannedTrial
from stnbench.store.store import Store

EVERY_S: Final = 60.0
SHARE: Final = 0.05
"""The largest share of the time that writing may take, in [0, 1]."""

CLOSE_S: Final = 30.0
"""The longest time, in seconds, that the end of a sweep waits for a page that is being written."""


class ReportRefresher(Observer):
    """An observer that writes the report of a sweep in a thread when something has changed since the last time.

    Args:
        layout: of the runs folder, whose store is read.
        sweep: the name of the sweep.
        warn: called once, with a message, if a report cannot be written; the sweep continues, and its end writes the
            report again.
        out: the folder of reports.
        every_s: the least time between two reports, in seconds.
        clock_s: returns the time in seconds, from any origin.
        write: writes the report; replaced in tests.
    """

    def __init__(
        self,
        layout: RunsLayout,
        sweep: str,
        warn: Callable[[str], None],
        *,
        out: Path = REPORTS,
        every_s: float = EVERY_S,
        clock_s: Callable[[], float] = time.monotonic,
        write: Callable[[RunsLayout, str, Path], None] | None = None,
    ) -> None:
        self._layout = layout
        self._sweep = sweep
        self._warn = warn
        self._out = out
        self._every_s = every_s
        self._clock_s = clock_s
        self._write = write or write_now
        self._next_s = clock_s() + every_s
        self._is_stale = self._has_failed = False
        self._thread: threading.Thread | None = None

    @override
    def planned(self, trials: Sequence[PlannedTrial], states: Sequence[TrialState]) -> None:
        self._is_stale = True

    @override
    def epoch_ended(self, attempt: RunningAttempt) -> None:
        self._is_stale = True

    @override
    def ended(self, end: EndedAttempt) -> None:
        self._is_stale = True

    @override
    def changed(self, trial_ids: Sequence[str], state: TrialState) -> None:
        self._is_stale = True

    @override
    def ticked(self) -> None:
        is_busy = self._thread is not None and self._thread.is_alive()
        if is_busy or self._has_failed or not self._is_stale or self._clock_s() < self._next_s:
            return
        self._is_stale = False
        self._thread = threading.Thread(target=self._refresh, name="report", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for the page that is being written, for ``CLOSE_S`` seconds at most."""
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _refresh(self) -> None:
        began_s = self._clock_s()
        try:
            self._write(self._layout, self._sweep, self._out)
        except Exception as error:  # noqa: BLE001 - a report may fail in any way, and the sweep goes on without it
            self._has_failed = True
            said = (str(error).splitlines() or [""])[0][:300]
            self._warn(f"the report is not written while the sweep runs ({type(error).__name__}: {said})")
        ended_s = self._clock_s()
        self._next_s = ended_s + max(self._every_s, (ended_s - began_s) / SHARE)


def write_now(layout: RunsLayout, sweep: str, out: Path) -> None:
    """Write the report of a sweep from the present content of the store.

    Raises: as ``report.output.write_reports``.
    """
    with Store.open(layout.store, writable=False) as store:
        write_report(read_report(store, sweep), out)
