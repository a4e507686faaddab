"""The process itself: usable cores, signs of life, and signals."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType
from typing import Final, TypeVar

# How many CPU cores this process may use.


def available_cores() -> int:
    """Cores this process may run on, which containers and ``taskset`` make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Signs of life of long work: loops say how far they have come, and whoever is responsible for them listens.
#
# A loop calls :func:`advance` after each part of its work, which costs next to nothing where nobody listens. A worker
# tells its engine, so that a process that hangs can be told from one that works; the preparation of data sets tells a
# person.


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Advance:
    """Part ``done`` of ``total`` of some work is done; ``total`` is 0 where it is not known."""

    work: str
    done: int
    total: int


Listener = Callable[[Advance], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def advance(work: str, done: int, total: int = 0) -> None:
    """Say that some work has come further."""
    listener = _listener.get()
    if listener is not None:
        listener(Advance(work=work, done=done, total=total))


def advancing(parts: Iterable[T], work: str, total: int = 0) -> Iterator[T]:
    """The parts one after the other; each that is asked for says that the one before is done."""
    for index, part in enumerate(parts):
        advance(work, index, total)
        yield part


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear of the work that is done in the block, in its thread."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


# Ctrl-C, SIGTERM and SIGHUP: what they do to a command, said in one line and never as a traceback.


Handler = Callable[[int, FrameType | None], object]

EXIT_CODE_BASE: Final = 128
"""Shells report a command that a signal has ended as 128 and the signal's number."""


class Interrupted(KeyboardInterrupt):
    """A signal asks the command to end at once.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell would report."""
        return EXIT_CODE_BASE + self.number


def ending_signals() -> tuple[signal.Signals, ...]:
    """The signals that end a command: SIGINT, SIGTERM, and SIGHUP unless it is ignored, as under ``nohup``."""
    asked = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        asked.append(hangup)
    return tuple(asked)


SAME_PRESS_S: Final = 1.0
"""Signals that follow the first one so soon are taken for the same wish."""


def raise_interrupted(number: int, _frame: FrameType | None) -> None:
    """Raise Interrupted where the program is, once.

    A second signal would otherwise be raised inside whatever handles the first, and end the process with its traceback.
    Within a second it changes nothing; after that it leaves the process at once.
    """
    on_the_way_out = _OnTheWayOut(time.monotonic())
    for other in ending_signals():
        signal.signal(other, on_the_way_out)
    raise Interrupted(number)


class _OnTheWayOut:
    """The handler of signals after the first one, which came at ``began_s``."""

    def __init__(self, began_s: float) -> None:
        self._began_s = began_s

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._began_s > SAME_PRESS_S:
            leave_at_once(number, frame)


def ignore_further() -> None:
    """Ignore ending signals from here on, where one has ended the command: nothing is left but to leave the process.

    Python gives signals back to the system while it ends, unless they are ignored; one that came then would end the
    process by itself, and its exit code would be another one.
    """
    for number in ending_signals():
        if isinstance(signal.getsignal(number), _OnTheWayOut):
            signal.signal(number, signal.SIG_IGN)


def leave_at_once(number: int, _frame: FrameType | None) -> None:
    """Leave the process with a line: where no exception may be raised, as while modules are imported."""
    with contextlib.suppress(OSError):
        os.write(2, f"interrupted by {signal.Signals(number).name}, at once\n".encode())
    os._exit(EXIT_CODE_BASE + number)


@contextlib.contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Let ending signals go to a handler for the block; nothing in a thread, where signals never arrive.

    A handler that has put another one in its place, as ``raise_interrupted`` does, decides for good.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in ending_signals()}
    try:
        yield
    finally:
        for number, earlier in before.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, earlier)
