"""Tell a person elsewhere: ``STNBENCH_NOTIFY=URL`` is sent a line at the end of a sweep and when something is wrong.

The body is JSON that Slack (``text``), Discord (``content``) and most other webhooks take; a topic of ntfy gets the
line itself. A thread sends, each message once and for a few seconds at most: a sweep never waits for it and never fails
of it. The address is a secret and stands in no message.
"""

import http.client
import json
import os
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from typing_extensions import override

from stnbench.core.passwords import hide_passwords
from stnbench.core.text import printable
from stnbench.orchestration.observer import EndedAttempt, Observer
from stnbench.spec.result import FailureKind
from stnbench.spec.states import TrialState

VARIABLE: Final = "STNBENCH_NOTIFY"

EVERY_FAILURES: Final = 5
"""The first trial that fails is told of, and then every so many."""

TIMEOUT_S: Final = 5.0
LENGTH_MAX: Final = 1500
"""Characters of a message; Discord takes 2,000."""

Send = Callable[[str, str], None]


class Notifier(Observer):
    """Sends lines about one sweep.

    Args:
        sweep: its name.
        url: where to.
        warn: told once, without the address, where nothing can be sent.
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
        """Queue a line; one too many is dropped."""
        line = printable(hide_passwords(f"{self._sweep}: {message}"))[:LENGTH_MAX]
        if not self._waiting.full():
            self._waiting.put_nowait(line)

    def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        if not self._waiting.full():
            self._waiting.put_nowait(None)
        self._thread.join(timeout=2 * TIMEOUT_S)

    def _work(self) -> None:
        has_warned = False
        while (line := self._waiting.get()) is not None:
            try:
                self._send(self._url, line)
            except Exception as error:  # noqa: BLE001 - whatever a network does, training goes on
                if not has_warned:
                    self._warn(f"{VARIABLE}: no message could be sent ({_without_address(error)})")
                has_warned = True


def open_notifiers(sweep: str, *, warn: Callable[[str], None]) -> list[Notifier]:
    """The notifier that ``STNBENCH_NOTIFY`` asks for; none where it is not set."""
    url = os.environ.get(VARIABLE, "").strip()
    return [Notifier(sweep, url, warn)] if url else []


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """What is sent to one address is sent to no other."""

    @override
    def redirect_request(self, *_arguments: object, **_options: object) -> None:
        return None


def post(url: str, line: str) -> None:
    """Send a line to a webhook.

    Raises: ValueError for what is no address of the web; OSError where it is not taken.
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
    """What went wrong, without the words of libraries that repeat the address."""
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
