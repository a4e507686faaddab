"""The live page's server on 127.0.0.1, in a separate process beside the one that runs a sweep.

Computing a page takes no time from the process that schedules trials, and its errors end no sweep. The child detects
any end of its parent by the end of its standard input.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

import uvicorn

from stnbench.core.errors import EngineError, SpecError
from stnbench.core.files import RunsLayout
from stnbench.serve.app import Secrets, make_app

HOST: Final = "127.0.0.1"
FIRST_PORT: Final = 8321
"""Default port; the next free one is used if it is taken."""

_TRIED_PORTS: Final = 50
CHILD_FLAG: Final = "--until-input-ends"


def open_socket(port: int | None) -> socket.socket:
    """Return a socket that is bound to this machine's loopback address.

    Args:
        port: the requested port, 0 for any; with None the first free one from ``FIRST_PORT``.

    Raises:
        SpecError: if the requested port is taken.
        EngineError: if no port is free.
    """
    if port is not None:
        try:
            return _bound(port)
        except OSError as error:
            problem = f"port {port} of {HOST} cannot be used ({error.strerror or error})"
            raise SpecError(problem, remedy="give another one, or none for the next that is free") from error
    for candidate in range(FIRST_PORT, FIRST_PORT + _TRIED_PORTS):
        with contextlib.suppress(OSError):
            return _bound(candidate)
    raise EngineError(f"no port from {FIRST_PORT} on is free", remedy="give one with --port")


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((HOST, port))
    except OSError:
        made.close()
        raise
    return made


class _Server(uvicorn.Server):
    """Server of uvicorn that leaves signal handling to its caller."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signal handlers unchanged."""
        yield


def serve(
    layout: RunsLayout,
    *,
    sweep: str | None,
    port: int | None,
    until_input_ends: bool,
    say: Callable[[str], None],
) -> None:
    """Serve the live page until Ctrl-C, SIGTERM or SIGHUP; a child also until its parent has ended.

    Raises:
        SpecError or EngineError: if there is no port.
    """
    with open_socket(port) as bound:
        own_port = bound.getsockname()[1]
        known = Secrets()
        app = make_app(layout, own_port, known, sweep=sweep)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        if until_input_ends:
            threading.Thread(target=_wait_for_end, args=(server,), daemon=True).start()
        say(f"live page: http://{HOST}:{own_port}/?token={known.token}")
        with _ending(server):
            server.run(sockets=[bound])


def _wait_for_end(server: uvicorn.Server) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    server.should_exit = True


@contextlib.contextmanager
def _ending(server: uvicorn.Server) -> Iterator[None]:
    """Let signals end the server and its streams to open pages, for the block."""

    def end(_number: int, _frame: FrameType | None) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in asked}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def beside(sweep: str, port: int | None) -> Iterator[None]:
    """Serve the live page of a sweep in a child process for the block; the child prints the page's address."""
    words = [sys.executable, "-m", "stnbench", "serve", sweep, CHILD_FLAG]
    words += [] if port is None else ["--port", str(port)]
    # A separate session: Ctrl-C of the terminal is for the sweep, which ends this child after its last report.
    child = subprocess.Popen(  # noqa: S603 - our own command, no input of others
        words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        if child.stdin is not None:
            child.stdin.close()
        try:
            child.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
