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
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from stnbench.core.errors import ProtocolError
from stnbench.core.files import AttemptLayout, write_all
from stnbench.core.process import listening
from stnbench.engines import (
    Engine,
    EngineEvent,
    Epoch,
    Failed,
    Finished,
    Launch,
    Note,
    Pulse,
    Slot,
    Stop,
    Stopped,
    decode,
    encode,
)

# The inline engine, which runs attempts in this process, one after the other, where a debugger can follow them.


# Execution of one attempt in this process: the only path from an engine to torch, used inside the worker.


PULSE_S = 1.0
"""Minimum seconds between two pulses of an attempt."""


@dataclass(slots=True)
class _Heart:
    """Counter of the parts of an attempt's work, which sends their number at most every ``PULSE_S`` seconds."""

    token: str
    send: Callable[[EngineEvent], None]
    clock_s: Callable[[], float] = time.monotonic
    parts: int = 0
    next_s: float = float("-inf")

    def beat(self) -> None:
        self.parts += 1
        now_s = self.clock_s()
        if now_s >= self.next_s:
            self.send(Pulse(token=self.token, parts=self.parts))
            self.parts, self.next_s = 0, now_s + PULSE_S


def execute(
    launch: Launch, *, device: str, threads: int, send: Callable[[EngineEvent], None], should_stop: Callable[[], bool]
) -> None:
    """Run the attempt and send its events; report any error as Failed.

    Raises:
        KeyboardInterrupt, SystemExit: no other exceptions.
    """
    from stnbench.training.energy import energy_meter
    from stnbench.trials.failures import classify
    from stnbench.trials.run import run_trial

    heart = _Heart(token=launch.token, send=send)

    def is_stopped() -> bool:
        heart.beat()
        return should_stop()

    try:
        with listening(lambda _: heart.beat()), energy_meter(device) as energy:
            result = run_trial(
                launch.spec,
                token=launch.token,
                folder=Path(launch.folder),
                data_root=Path(launch.data_root),
                source=Path(launch.source) if launch.source else None,
                device=device,
                threads=threads,
                resume_from=tuple(map(Path, launch.resume_from)),
                micro_batches=launch.micro_batches,
                report=lambda record: send(Epoch(token=launch.token, record=record)),
                should_stop=is_stopped,
                warn=lambda message: send(Note(token=launch.token, message=message)),
                energy=energy,
            )
    except Exception as error:  # noqa: BLE001 - every failure of a trial is a row, of whatever kind
        ended: EngineEvent = Failed(token=launch.token, failure=classify(error))
    else:
        ended = Stopped(token=launch.token) if result is None else Finished(token=launch.token)
    # Before the end is reported, so that the next trial, in this process or another, finds the memory free.
    if "torch" in sys.modules:
        from stnbench.training.device import release_memory

        release_memory(device)
    send(ended)


class InlineEngine(Engine):
    """Engine with one slot in this process.

    An attempt runs inside ``poll``, so ``stop`` can only prevent an attempt that has not begun.
    """

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._waiting: Launch | None = None
        self._stopped: set[str] = set()
        self._events: deque[EngineEvent] = deque()

    @property
    @override
    def slots(self) -> Sequence[Slot]:
        return (self._slot,)

    @override
    def submit(self, slot: Slot, launch: Launch) -> None:
        if self._waiting is not None:
            raise ProtocolError(
                f"slot {slot.name} already runs attempt {self._waiting.token}", remedy="wait for its end"
            )
        self._waiting = launch

    @override
    def poll(self, timeout_s: float) -> Sequence[EngineEvent]:
        del timeout_s
        launch, self._waiting = self._waiting, None
        if launch is not None:
            device = "cuda:0" if self._slot.is_cuda else "cpu"
            from stnbench.training.device import process_settings_kept

            with process_settings_kept():  # the process is the caller's: a notebook, a debugger, a test
                execute(
                    launch,
                    device=device,
                    threads=self._slot.threads,
                    send=self._events.append,
                    should_stop=lambda: launch.token in self._stopped,
                )
        events = tuple(self._events)
        self._events.clear()
        return events

    @override
    def stop(self, token: str) -> None:
        self._stopped.add(token)

    @override
    def kill(self, token: str) -> None:
        self._stopped.add(token)

    @override
    def close(self) -> None:
        self._waiting = None


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
