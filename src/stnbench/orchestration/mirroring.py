"""The mirror, a thread that shows a sweep in a tracker with best effort; only the store is authoritative.

Views are queued and only the newest of each attempt is shown; a tracker that fails causes a warning, never the loss of
a trial. Digests of the shown views are returned to the caller's thread, which alone writes the store; so a later run
knows which views are left to show, and starts no tracker if there are none.
"""

import dataclasses
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime

from typing_extensions import override

from stnbench.orchestration.observer import EndedAttempt, Observer, RunningAttempt
from stnbench.spec.states import AttemptState
from stnbench.spec.sweep import SweepSpec
from stnbench.store.records import AttemptRecord, Outcome, PlannedTrial, TrialRecord
from stnbench.store.store import Store
from stnbench.tracking.base import AttemptView, CellView, Tracker, view_digest

# Views of attempts for a tracker, made from a running attempt or from the store.


def running_view(sweep: str, attempt: RunningAttempt) -> AttemptView:
    """Return the view of a running attempt."""
    spec = attempt.trial.spec
    view = _view(sweep, attempt.trial, attempt.record, trial_id=spec.trial_id, cell_id=spec.cell_id)
    return dataclasses.replace(view, epochs=attempt.epochs)


def ended_view(sweep: str, end: EndedAttempt) -> AttemptView:
    """Return the view of an attempt that has just ended, equal to the one made from the store later."""
    result = end.result
    return dataclasses.replace(
        running_view(sweep, end.attempt),
        state=end.state,
        finished_at_ms=_milliseconds(end.finished_at),
        epochs=result.epochs if result else end.attempt.epochs,
        validation=result.validation if result else None,
        test=result.test if result else None,
        cost=result.cost if result else None,
        environment=result.environment if result else None,
        failure=end.failure,
    )


def stored_views(store: Store, sweep: str) -> list[AttemptView]:
    """Return a view of every attempt of a sweep in the store, in order."""
    trials = {trial.trial_id: trial for trial in store.sweep_trials(sweep)}
    outcomes = store.outcomes(sweep, predictions=True)
    epochs = store.epochs_of_sweep(sweep)
    views = []
    for record in store.attempts_of_sweep(sweep):
        own = tuple(item.record for item in epochs.get(record.trial_id, ()) if item.attempt == record.number)
        outcome = outcomes.get(record.trial_id)
        made_it = outcome is not None and outcome.attempt == record.number
        view = _stored_view(trials[record.trial_id], record, outcome if made_it else None)
        views.append(dataclasses.replace(view, epochs=own))
    return views


def view_key(view: AttemptView | CellView) -> str:
    """Return the key of a view: an attempt's token, or the sweep and the configuration's id."""
    return view.token if isinstance(view, AttemptView) else f"{view.sweep}/{view.cell_id}"


def _stored_view(trial: TrialRecord, record: AttemptRecord, outcome: Outcome | None) -> AttemptView:
    return dataclasses.replace(
        _view(trial.sweep, trial, record, trial_id=trial.trial_id, cell_id=trial.cell_id),
        state=record.state,
        finished_at_ms=_milliseconds(record.finished_at) if record.finished_at else None,
        validation=outcome.validation if outcome else None,
        test=outcome.test if outcome else None,
        cost=outcome.cost if outcome else None,
        environment=outcome.environment if outcome else None,
        failure=record.failure,
    )


def _view(
    sweep: str, trial: PlannedTrial | TrialRecord, record: AttemptRecord, *, trial_id: str, cell_id: str
) -> AttemptView:
    """Return what is known of an attempt when it starts; ids are stored, since a later version may count others."""
    return AttemptView(
        sweep=sweep,
        trial_id=trial_id,
        cell_id=cell_id,
        label=trial.label,
        axes=trial.point.labels,
        is_baseline=trial.is_baseline,
        spec=trial.spec,
        number=record.number,
        token=record.token,
        state=AttemptState.RUNNING,
        started_at_ms=_milliseconds(record.started_at),
        finished_at_ms=None,
    )


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


View = AttemptView | CellView


class Mirror(Observer):
    """Observer that shows views in a tracker, which the thread opens for the first view."""

    def __init__(self, sweep: SweepSpec, open_tracker: Callable[[], Tracker], warn: Callable[[str], None]) -> None:
        self._sweep = sweep
        self._open_tracker = open_tracker
        self._warn = warn
        self._waiting: OrderedDict[str, View] = OrderedDict()
        self._shown: dict[str, str] = {}
        self._changed = threading.Condition()
        self._is_busy = False
        self._is_closing = False
        self._failure = ""
        self._thread: threading.Thread | None = None

    @property
    def has_failed(self) -> bool:
        """Return whether the tracker failed, so that nothing more is shown."""
        with self._changed:
            return bool(self._failure)

    @override
    def launched(self, attempt: RunningAttempt) -> None:
        self.show([running_view(self._sweep.name, attempt)])

    @override
    def epoch_ended(self, attempt: RunningAttempt) -> None:
        self.show([running_view(self._sweep.name, attempt)])

    @override
    def ended(self, end: EndedAttempt) -> None:
        self.show([ended_view(self._sweep.name, end)])

    def show(self, views: Iterable[View]) -> None:
        """Queue views; a newer view of the same attempt replaces a waiting one."""
        with self._changed:
            for view in views:
                self._waiting[view_key(view)] = view
            if self._waiting and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def sync(self, store: Store, tracker_name: str, cells: Iterable[CellView], timeout_s: float) -> bool:
        """Show everything in the store that the tracker has not shown, and record in the store the views shown by now.

        Return False if the tracker failed or took longer than ``timeout_s``; the next sync continues from there.
        """
        seen = store.mirrored(tracker_name) | self._collect()
        views: list[View] = [*stored_views(store, self._sweep.name), *cells]
        self.show(view for view in views if seen.get(view_key(view)) != view_digest(view))
        is_done = self._drain(timeout_s)
        shown = self._collect()
        if shown:
            store.set_mirrored(tracker_name, shown)
        if not is_done:
            self._warn(f"MLflow does not show everything yet; go on with: python -m stnbench.mirror {self._sweep.name}")
        return is_done and not self._failure

    def close(self) -> None:
        """End the thread; views that still wait are left to the next sync."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _collect(self) -> dict[str, str]:
        with self._changed:
            return dict(self._shown)

    def _drain(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while (self._waiting or self._is_busy) and not self._failure:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return False
                self._changed.wait(left_s)
        return True

    def _next(self) -> View | None:
        with self._changed:
            while not self._waiting and not self._is_closing:
                self._changed.wait()
            if self._is_closing or not self._waiting:
                return None
            self._is_busy = True
            return self._waiting.popitem(last=False)[1]

    def _work(self) -> None:
        try:
            tracker = self._open_tracker()
            tracker.open_sweep(self._sweep)
            while (view := self._next()) is not None:
                _show(tracker, view)
                with self._changed:
                    self._shown[view_key(view)] = view_digest(view)
                    self._is_busy = False
                    self._changed.notify_all()
            tracker.close()
        except Exception as error:  # noqa: BLE001 - a tracker may fail in any way, and training goes on without it
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failure = f"{type(error).__name__}: {error}"
            self._is_busy = False
            self._changed.notify_all()
        reason = self._failure.splitlines()[0][:300]
        self._warn(f"the mirror stopped ({reason}); nothing is lost, replay it with: python -m stnbench.mirror")


def _show(tracker: Tracker, view: View) -> None:
    if isinstance(view, AttemptView):
        tracker.show_attempt(view)
    else:
        tracker.show_cell(view)
