"""The worker process: ``python -m stnbench.engines.worker``.

It imports torch once, then executes attempts until its engine ends.

Messages arrive on standard input and leave on a private copy of standard output; all other output goes to the log of
the running attempt, or else to that of the slot. A worker that dies of a signal leaves the stack of each thread there.
When standard input closes the engine is gone, however it died, and the worker ends at once: no orphan keeps a GPU.
"""

import argparse
import contextlib
import faulthandler
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from stnbench.core.files import write_all
from stnbench.core.paths import AttemptLayout
from stnbench.engines.base import EngineEvent, Launch, Stop, decode, encode
from stnbench.engines.inline import execute

STDOUT, STDERR = 1, 2

ORPHANED = 3
"""Exit code of a worker whose engine is gone."""


class _Inbox:
    """Inbox of messages from the engine, read by a separate thread so that a running attempt can be stopped."""

    def __init__(self) -> None:
        self.launches: queue.SimpleQueue[Launch] = queue.SimpleQueue()
        self._stopped: set[str] = set()
        threading.Thread(target=self._read, daemon=True, name="inbox").start()

    def is_stopped(self, token: str) -> bool:
        return token in self._stopped

    def _read(self) -> None:
        for line in sys.stdin.buffer:
            message = decode(line)
            if isinstance(message, Stop):
                self._stopped.add(message.token)
            elif isinstance(message, Launch):
                self.launches.put(message)
        # No clean-up: the result is written atomically, and an orphan must not outlive its engine.
        os._exit(ORPHANED)


def main(arguments: Sequence[str]) -> None:
    """Execute attempts until standard input closes."""
    parser = argparse.ArgumentParser(prog="stnbench.engines.worker", description="Executes attempts for an engine.")
    parser.add_argument("--device", required=True, help="cpu or cuda:0")
    parser.add_argument("--threads", type=int, required=True, help="CPU threads this worker may use")
    options = parser.parse_args(arguments)

    outbox = os.dup(STDOUT)
    os.set_inheritable(outbox, False)  # noqa: FBT003 - positional by signature
    os.dup2(STDERR, STDOUT)
    faulthandler.enable(file=STDERR)
    lock = threading.Lock()

    def send(event: EngineEvent) -> None:
        with lock:
            write_all(outbox, encode(event))

    inbox = _Inbox()
    import stnbench.trials.run  # noqa: F401 - torch, once per worker, while the engine does other work

    while True:
        launch = inbox.launches.get()
        with _output_to(AttemptLayout(Path(launch.folder)).log):
            execute(
                launch,
                device=options.device,
                threads=options.threads,
                send=send,
                should_stop=lambda token=launch.token: inbox.is_stopped(token),  # type: ignore[misc]
            )


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Redirect standard output and error of this process and its children to a file for the block.

    If the file cannot be opened they are not redirected: the attempt itself will report the problem.
    """
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError:
        yield
        return
    before = os.dup(STDERR)
    try:
        for descriptor in (STDOUT, STDERR):
            os.dup2(handle, descriptor)
        os.close(handle)
        faulthandler.register(signal.SIGTERM, file=STDERR, chain=True)  # how an engine ends an attempt that hangs
        yield
    finally:
        faulthandler.unregister(signal.SIGTERM)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        for descriptor in (STDOUT, STDERR):
            os.dup2(before, descriptor)
        os.close(before)


if __name__ == "__main__":
    main(sys.argv[1:])
