"""Observers of the runner, notified after the store is updated, and messages to ``STNBENCH_NOTIFY``."""

import dataclasses
import http.client
import json
import logging
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from typing_extensions import override

from stnbench.core.text import hide_passwords, printable
from stnbench.engines import Slot
from stnbench.spec.result import AttemptState, EpochRecord, Failure, FailureKind, TrialResult, TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.store.store import Store
from stnbench.store.tables import AttemptRecord, Outcome, PlannedTrial, TrialRecord
from stnbench.tracking import AttemptView, ConfigurationView, Tracker, view_digest

# Notifications by the runner, sent after the store is updated.


_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningAttempt:
    """An attempt that runs, with its epochs so far."""

    trial: PlannedTrial
    record: AttemptRecord
    slot: Slot
    epochs: tuple[EpochRecord, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedAttempt:
    """An attempt that has ended; ``result`` is set for a complete one, ``failure`` for a failed one."""

    attempt: RunningAttempt
    state: AttemptState
    trial_state: TrialState
    finished_at: datetime
    result: TrialResult | None = None
    failure: Failure | None = None


class Observer:
    """Base class of observers, whose methods the runner's thread calls; they do nothing by default.

    An observer must be quick and must not raise.
    """

    def planned(self, trials: Sequence[PlannedTrial], states: Sequence[TrialState]) -> None:
        """Handle newly planned trials, in order, and the state of each before anything runs."""

    def launched(self, attempt: RunningAttempt) -> None:
        """Handle an attempt that has begun."""

    def worked(self, attempt: RunningAttempt, parts: int) -> None:
        """Handle ``parts`` further steps or batches of an attempt."""

    def epoch_ended(self, attempt: RunningAttempt) -> None:
        """Handle the end of an epoch, the last of the attempt's epochs."""

    def noted(self, attempt: RunningAttempt, message: str) -> None:
        """Handle a message of an attempt for the user; the attempt continues."""

    def ended(self, end: EndedAttempt) -> None:
        """Handle the end of an attempt, in any state."""

    def changed(self, trial_ids: Sequence[str], state: TrialState) -> None:
        """Handle a request of a user to give up waiting trials, or to run trials again."""

    def resized(self, slots: int) -> None:
        """Handle a new number of slots."""

    def told(self, message: str) -> None:
        """Handle a message about a user's request, or about something that delays the sweep."""

    def stopping(self, reason: str) -> None:
        """Handle an early end of the sweep; running attempts are being stopped."""

    def ticked(self) -> None:
        """Handle the passing of time, for periodic work."""


class LogObserver(Observer):
    """Observer that logs planned, begun and ended trials with the reasons."""

    def planned(self, trials: Sequence[PlannedTrial], states: Sequence[TrialState]) -> None:
        """Log the number of planned and of complete trials."""
        complete = sum(state is TrialState.COMPLETE for state in states)
        _LOGGER.info("planned %d trials, %d complete already", len(trials), complete)

    def launched(self, attempt: RunningAttempt) -> None:
        """Log the attempt and its slot."""
        _LOGGER.info("begin %s in %s", _named(attempt), attempt.slot.name)

    def epoch_ended(self, attempt: RunningAttempt) -> None:
        """Log the last epoch at debug level, for ``STNBENCH_LOG=debug``."""
        last = attempt.epochs[-1]
        accuracy = last.validation_accuracy
        _LOGGER.debug("epoch %d of %s: validation %.4f", last.epoch, _named(attempt), accuracy)

    def noted(self, attempt: RunningAttempt, message: str) -> None:
        """Log the message as a warning."""
        _LOGGER.warning("%s: %s", _named(attempt), message)

    def ended(self, end: EndedAttempt) -> None:
        """Log the state, and the failure with its message."""
        if end.failure is None:
            _LOGGER.info("end %s: %s", _named(end.attempt), end.state.value)
        else:
            kind, message = end.failure.kind.value, end.failure.message
            _LOGGER.warning("end %s: %s (%s: %s)", _named(end.attempt), end.state.value, kind, message)

    def told(self, message: str) -> None:
        """Log the message."""
        _LOGGER.info("%s", message)

    def stopping(self, reason: str) -> None:
        """Log the reason."""
        _LOGGER.warning("stopping: %s", reason)


def _named(attempt: RunningAttempt) -> str:
    record = attempt.record
    return printable(f"{record.trial_id}/{record.number:03d} ({attempt.trial.label}, seed {attempt.trial.spec.seed})")


# Remote notification: ``STNBENCH_NOTIFY=URL`` receives a line at the end of a sweep and when something is wrong.
#
# The body is JSON that Slack (``text``), Discord (``content``) and most other webhooks accept; a topic of ntfy gets the
# plain line. A thread sends each message once, within a few seconds at most: a sweep never waits for it and never fails
# because of it. The address is a secret and is in no message.


VARIABLE: Final = "STNBENCH_NOTIFY"

EVERY_FAILURES: Final = 5
"""Interval of notifications about failed trials: the first, and then every ``EVERY_FAILURES``-th."""

TIMEOUT_S: Final = 5.0
LENGTH_MAX: Final = 1500
"""Maximum length of a message in characters; Discord accepts 2,000."""

Send = Callable[[str, str], None]


class Notifier(Observer):
    """Observer that sends lines about one sweep to a webhook.

    Args:
        sweep: name of the sweep.
        url: address of the webhook.
        warn: receives one warning, without the address, if nothing can be sent.
        send: sends a line to the address.
    """

    def __init__(self, sweep: str, url: str, warn: Callable[[str], None], send: Send | None = None) -> None:
        self._sweep = printable(sweep)
        self._url = url
        self._warn = warn
        self._send = send or post
        self._failed = 0
        self._troubled: set[FailureKind] = set()
        self._waiting: queue.Queue[str | None] = queue.Queue(maxsize=100)
        self._thread = threading.Thread(target=self._work, name="notifier", daemon=True)
        self._thread.start()

    @override
    def ended(self, end: EndedAttempt) -> None:
        if end.failure is None:
            return
        label = f"{end.attempt.trial.label} · seed {end.attempt.trial.spec.seed}"
        told = f"{label}: {end.failure.kind}, {end.failure.message}"
        if end.trial_state is TrialState.FAILED:
            self._failed += 1
            if self._failed % EVERY_FAILURES == 1:
                self.tell(f"{self._failed} failed, the last one {told}")
        elif end.failure.kind is FailureKind.INFRASTRUCTURE and end.failure.kind not in self._troubled:
            self._troubled.add(end.failure.kind)
            self.tell(f"waits for the machine: {told}")

    @override
    def stopping(self, reason: str) -> None:
        self.tell(f"stops early: {reason}")

    def tell(self, message: str) -> None:
        """Queue a line; drop it if the queue is full."""
        line = printable(hide_passwords(f"{self._sweep}: {message}"))[:LENGTH_MAX]
        if not self._waiting.full():
            self._waiting.put_nowait(line)

    def close(self) -> None:
        """Send the queued lines, waiting a few seconds at most."""
        if not self._waiting.full():
            self._waiting.put_nowait(None)
        self._thread.join(timeout=2 * TIMEOUT_S)

    def _work(self) -> None:
        has_warned = False
        while (line := self._waiting.get()) is not None:
            try:
                self._send(self._url, line)
            except Exception as error:  # noqa: BLE001 - training continues after any error of the network
                if not has_warned:
                    self._warn(f"{VARIABLE}: no message could be sent ({_without_address(error)})")
                has_warned = True


def open_notifiers(sweep: str, *, warn: Callable[[str], None]) -> list[Notifier]:
    """Return the notifier for ``STNBENCH_NOTIFY``; an empty list if it is not set."""
    url = os.environ.get(VARIABLE, "").strip()
    return [Notifier(sweep, url, warn)] if url else []


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirect handler that follows no redirects, so that a message is sent to one address only."""

    @override
    def redirect_request(self, *_arguments: object, **_options: object) -> None:
        return None


def post(url: str, line: str) -> None:
    """Send a line to a webhook.

    Raises:
        ValueError: if the URL is not a web address.
        OSError: if the message is not accepted.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("it is no address that begins with https://")
    if parts.hostname == "ntfy.sh" or parts.hostname.startswith("ntfy."):
        data, kind = line.encode(), "text/plain; charset=utf-8"
    else:
        data, kind = json.dumps({"text": line, "content": line, "message": line}).encode(), "application/json"
    request = urllib.request.Request(url, data=data, method="POST")  # noqa: S310 - its scheme was looked at
    request.add_header("Content-Type", kind)
    request.add_header("User-Agent", "stnbench")
    opener = urllib.request.build_opener(_NoRedirects())
    with opener.open(request, timeout=TIMEOUT_S):
        return


def _without_address(error: Exception) -> str:
    """Return a description of an error without the messages of libraries that repeat the address."""
    match error:
        case urllib.error.HTTPError(code=code):
            return f"the answer was {code}"
        case urllib.error.URLError(reason=OSError() as reason):
            return reason.strerror or type(reason).__name__
        case ValueError() if str(error).startswith("it is no address"):
            return str(error)
        case http.client.HTTPException() | OSError() | ValueError():
            return type(error).__name__
        case _:
            return type(error).__name__


# Synchronisation with a tracker in a thread, with best effort; only the store is authoritative.
#
# Views are queued and only the newest of each attempt is shown; a tracker that fails causes a warning, never the loss
# of a trial. Digests of the shown views are returned to the caller's thread, which alone writes the store; so a later
# run knows which views are left to show, and starts no tracker if there are none.


# Views of attempts for a tracker, made from a running attempt or from the store.


def running_view(sweep: str, attempt: RunningAttempt) -> AttemptView:
    """Return the view of a running attempt."""
    spec = attempt.trial.spec
    view = _view(sweep, attempt.trial, attempt.record, trial_id=spec.trial_id, config_id=spec.config_id)
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


def view_key(view: AttemptView | ConfigurationView) -> str:
    """Return the key of a view: an attempt's token, or the sweep and the configuration's id."""
    return view.token if isinstance(view, AttemptView) else f"{view.sweep}/{view.config_id}"


def _stored_view(trial: TrialRecord, record: AttemptRecord, outcome: Outcome | None) -> AttemptView:
    return dataclasses.replace(
        _view(trial.sweep, trial, record, trial_id=trial.trial_id, config_id=trial.config_id),
        state=record.state,
        finished_at_ms=_milliseconds(record.finished_at) if record.finished_at else None,
        validation=outcome.validation if outcome else None,
        test=outcome.test if outcome else None,
        cost=outcome.cost if outcome else None,
        environment=outcome.environment if outcome else None,
        failure=record.failure,
    )


def _view(
    sweep: str, trial: PlannedTrial | TrialRecord, record: AttemptRecord, *, trial_id: str, config_id: str
) -> AttemptView:
    """Return the facts of an attempt at its start; ids are the store's, since a later version may compute others."""
    return AttemptView(
        sweep=sweep,
        trial_id=trial_id,
        config_id=config_id,
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


View = AttemptView | ConfigurationView


class TrackerSync(Observer):
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
                self._thread = threading.Thread(target=self._work, name="tracker-sync", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def sync(self, store: Store, tracker_name: str, configs: Iterable[ConfigurationView], timeout_s: float) -> bool:
        """Show everything in the store that the tracker has not shown, and record in the store the views shown by now.

        Return False if the tracker failed or took longer than ``timeout_s``; the next sync continues from there.
        """
        seen = store.mirrored(tracker_name) | self._collect()
        views: list[View] = [*stored_views(store, self._sweep.name), *configs]
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
        self._warn(
            f"the synchronisation with MLflow stopped ({reason}); nothing is lost, repeat it with: "
            "python -m stnbench.mirror"
        )


def _show(tracker: Tracker, view: View) -> None:
    if isinstance(view, AttemptView):
        tracker.show_attempt(view)
    else:
        tracker.show_configuration(view)
