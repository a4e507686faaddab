"""A webhook is told of what matters, and nothing waits for it or fails of it."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stnbench.orchestration.observer import EVERY_FAILURES, EndedAttempt, Notifier, post
from stnbench.spec.result import Failure, FailureKind, TrialState

SECRET = "https://hooks.example.org/services/T000/secret-of-the-hook"


def ended(kind: FailureKind, state: TrialState, message: str = "it broke") -> EndedAttempt:
    """The end of an attempt that failed."""
    trial = SimpleNamespace(label="affine\x1b[31m", spec=SimpleNamespace(seed=1))
    failure = Failure(kind=kind, message=message)
    return cast(
        "EndedAttempt", SimpleNamespace(attempt=SimpleNamespace(trial=trial), failure=failure, trial_state=state)
    )


@pytest.fixture
def server() -> Iterator[Any]:
    """A webhook on this machine that keeps what it is sent, and answers as it is told."""
    taken: list[tuple[str, bytes]] = []

    class Hook(BaseHTTPRequestHandler):
        """Keeps what it is sent."""

        def do_POST(self) -> None:
            """Take a message."""
            taken.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(made.answer)
            if made.answer == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    listening = HTTPServer(("127.0.0.1", 0), Hook)
    made = SimpleNamespace(url=f"http://127.0.0.1:{listening.server_port}/secret", taken=taken, answer=200)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield made
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_failures_trouble_and_ends_are_told() -> None:
    """The first failure and every fifth after it, a machine that is waited for once, an early end, the end."""
    sent: list[str] = []
    notifier = Notifier("sizes", SECRET, warn=pytest.fail, send=lambda url, line: sent.append(line))
    for _ in range(2 * EVERY_FAILURES):
        notifier.ended(ended(FailureKind.DIVERGED, TrialState.FAILED))
    for _ in range(3):
        notifier.ended(ended(FailureKind.INFRASTRUCTURE, TrialState.PLANNED, "no space left"))
        notifier.ended(ended(FailureKind.KILLED, TrialState.PLANNED))
    notifier.stopping("the budget of 5 s is spent")
    notifier.tell("ended")
    notifier.close()

    assert [line.partition(",")[0] for line in sent[:2]] == ["sizes: 1 failed", "sizes: 6 failed"]
    assert sent[2:] == [
        "sizes: waits for the machine: affine\\x1b[31m · seed 1: infrastructure, no space left",
        "sizes: stops early: the budget of 5 s is spent",
        "sizes: ended",
    ]


def test_a_webhook_gets_json_that_others_take(server: Any) -> None:
    """Slack reads ``text``, Discord ``content``."""
    post(server.url, "sizes: ended · 5 %")
    ((path, body),) = server.taken
    assert path == "/secret"
    assert json.loads(body)["text"] == json.loads(body)["content"] == "sizes: ended · 5 %"


@pytest.mark.parametrize("answer", [302, 403, 500])
def test_a_webhook_that_refuses_costs_one_warning_without_its_address(answer: int, server: Any) -> None:
    """A redirection is not followed: the message is for one address alone."""
    warnings: list[str] = []
    server.answer = answer
    notifier = Notifier("sizes", server.url, warn=warnings.append)
    notifier.tell("one")
    notifier.tell("two")
    notifier.close()
    assert warnings == [f"STNBENCH_NOTIFY: no message could be sent (the answer was {answer})"]
    assert {path for path, _ in server.taken} == {"/secret"}


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "secret", "http://127.0.0.1:1/secret", "https://", "http://[secret"]
)
def test_an_address_that_is_none_fails_no_sweep(url: str) -> None:
    """One warning, which does not repeat it."""
    warnings: list[str] = []
    notifier = Notifier("sizes", url, warn=warnings.append)
    notifier.tell("one")
    notifier.close()
    (warning,) = warnings
    assert "secret" not in warning
    assert "passwd" not in warning


def test_a_webhook_that_hangs_is_not_waited_for() -> None:
    """Telling returns at once, however many messages wait."""
    release = threading.Event()
    notifier = Notifier("sizes", SECRET, warn=lambda _: None, send=lambda url, line: cast("None", release.wait(60)))
    began_s = time.monotonic()
    for number in range(1000):
        notifier.tell(str(number))
    assert time.monotonic() - began_s < 30
    release.set()
