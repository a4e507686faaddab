"""Observers of the runner, notified after the store is updated, and messages to ``STNBENCH_NOTIFY``."""

import http.client
import json
import logging
import os
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from typing_extensions import override

from stnbench.core.text import hide_passwords, printable
from stnbench.engines.base import Slot
from stnbench.spec.result import EpochRecord, Failure, FailureKind, TrialResult
from stnbench.spec.states import AttemptState, TrialState
from stnbench.store.records import AttemptRecord, PlannedTrial

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
