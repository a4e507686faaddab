"""MLflow's own server as a child of this process: its pages on 127.0.0.1, and nothing of it left when we end."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

GRACE_S: Final = 5.0
"""How long the server may take to end before it is killed."""

_WATCH: Final = """
import os, signal, sys
sys.stdin.buffer.read()
try:
    os.killpg(int(sys.argv[1]), signal.SIGKILL)
except OSError:
    pass
"""
"""A process that waits for the end of its pipe, which comes when we end however we do, and ends the server's group."""


def server_environment(tracking_uri: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the server.

    The database's address, which may hold a password, is in it and not on the command line, where every user of the
    machine could read it. Of the jobs that MLflow's server offers, stnbench uses none.
    """
    own = {"MLFLOW_BACKEND_STORE_URI": tracking_uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return {**environment, **own}


def serve(tracking_uri: str, artifacts: Path, port: int) -> int:
    """Serve MLflow's pages until the server ends, Ctrl-C, SIGTERM or SIGHUP; the exit code.

    Raises: KeyboardInterrupt after Ctrl-C.
    """
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", *words, "--artifacts-destination", str(artifacts)]
    with _signals() as received:
        return _run(command, server_environment(tracking_uri, os.environ), received)


def _run(command: Sequence[str], environment: Mapping[str, str], received: list[int]) -> int:
    # A session of its own: the server's processes are one group, which signals reach and which can be ended whole.
    server = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603 - our own command line
    watch = subprocess.Popen(  # noqa: S603 - our own program, no input of others
        [sys.executable, "-c", _WATCH, str(server.pid)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        while not received:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return server.wait(timeout=0.2)
    finally:
        _end(server)
        if watch.stdin is not None:
            watch.stdin.close()
        watch.wait()
    if received[0] == signal.SIGINT:
        raise KeyboardInterrupt
    return 128 + received[0]


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End the server and what it started: asked first, killed after a grace period."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=GRACE_S)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that ask this process to end, instead of ending."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
