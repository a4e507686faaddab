"""Usable cores, progress reports and signals of the process, and mapped files that are cut short."""

import contextlib
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar

from stnbench.core.text import printable

# Number of CPU cores that this process may use.


def available_cores() -> int:
    """Return the number of cores this process may run on, as limited by containers and ``taskset``."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def since_boot_s() -> float:
    """Return the seconds since the machine was started, or since another fixed moment of this boot.

    Setting the wall clock does not change it. On Linux, time in which the machine is suspended counts as well.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


# Progress of long work: loops report it, and whoever is responsible for them listens.
#
# A loop calls :func:`advance` after each part of its work, which costs almost nothing without a listener. Workers
# forward the reports to their engine, which detects hanging processes; the preparation of data sets shows them to the
# user.


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Advance:
    """Progress of a long piece of work.

    Attributes:
        work: what is done, as shown to the user, such as ``drawing digits``.
        done: the number of parts that are done.
        total: the number of all parts; 0 if it is unknown.
    """

    work: str
    done: int
    total: int


Listener = Callable[[Advance], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def advance(work: str, done: int, total: int = 0) -> None:
    """Report progress to the listener, if there is one.

    Args:
        work: name of the work.
        done: number of parts that are done.
        total: number of parts; 0 if it is unknown.
    """
    listener = _listener.get()
    if listener is not None:
        listener(Advance(work=work, done=done, total=total))


def advancing(parts: Iterable[T], work: str, total: int = 0) -> Iterator[T]:
    """Yield the parts; each request for the next part reports the number of parts already done."""
    for index, part in enumerate(parts):
        advance(work, index, total)
        yield part


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Pass the progress reports of the block, in its thread, to a listener."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


# Ctrl-C, SIGTERM and SIGHUP end a command with one line, never with a traceback.


Handler = Callable[[int, FrameType | None], object]

EXIT_CODE_BASE: Final = 128
"""Shells report a command ended by a signal as 128 plus the signal's number."""


class Interrupted(KeyboardInterrupt):
    """Exception raised by a signal that asks the command to end.

    Args:
        number: number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """Return the exit code that a shell would report."""
        return EXIT_CODE_BASE + self.number


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end a command: SIGINT, SIGTERM, and SIGHUP unless it is ignored, as under ``nohup``."""
    asked = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        asked.append(hangup)
    return tuple(asked)


SAME_PRESS_S: Final = 1.0
"""Interval in seconds within which further signals count as the same request."""


def raise_interrupted(number: int, _frame: FrameType | None) -> None:
    """Raise Interrupted once, at the current point of the program.

    A second exception would be raised while the first is handled and end the process with a traceback. Therefore
    further signals are ignored for ``SAME_PRESS_S``; after that, a signal leaves the process immediately.
    """
    on_the_way_out = _OnTheWayOut(time.monotonic())
    for other in ending_signals():
        signal.signal(other, on_the_way_out)
    raise Interrupted(number)


class _OnTheWayOut:
    """Handler of signals after the first one, which arrived at ``began_s``."""

    def __init__(self, began_s: float) -> None:
        self._began_s = began_s

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._began_s > SAME_PRESS_S:
            leave_at_once(number, frame)


def ignore_further() -> None:
    """Ignore further ending signals if one has already ended the command.

    While Python exits, it restores the system's handling of signals that are not ignored; a signal at that time would
    end the process with another exit code.
    """
    for number in ending_signals():
        if isinstance(signal.getsignal(number), _OnTheWayOut):
            signal.signal(number, signal.SIG_IGN)


def leave_at_once(number: int, _frame: FrameType | None) -> None:
    """Print a line and leave the process immediately, for places where no exception may be raised, such as imports."""
    with contextlib.suppress(OSError):
        os.write(2, f"interrupted by {signal.Signals(number).name}, at once\n".encode())
    os._exit(EXIT_CODE_BASE + number)


@contextlib.contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Send ending signals to a handler within the block; do nothing outside the main thread, where none arrive.

    A handler that has installed another one, as ``raise_interrupted`` does, is not undone.
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


# A file that is cut short while it is mapped: the system ends whoever reads the missing part with SIGBUS. SQLite maps
# the file ``-shm`` beside a store, and NumPy the images of a data set. Python's own handlers of signals run only after
# the instruction that failed, which fails again, so the handler is called by the system itself.


_CANNOT_GO_ON: Final = 2
_handlers: list[object] = []
"""Handlers that the system calls: they must live as long as the process."""


def explain_lost_maps() -> None:
    """End this process with one line and exit code 2, instead of SIGBUS, when it reads a lost part of a mapped file."""
    number = getattr(signal, "SIGBUS", None)
    if number is None or _handlers:
        return
    import ctypes  # needed for this alone

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(_leave_lost_map)
    system = ctypes.CDLL(None)
    system.signal.argtypes, system.signal.restype = (ctypes.c_int, type(handler)), ctypes.c_void_p
    system.signal(number, handler)
    _handlers.append(handler)


def _leave_lost_map(_number: int) -> None:
    try:
        problem = "; ".join(f"{path} was cut short while it was used" for path in lost_maps())
    except OSError:
        problem = ""
    line = (
        f"error: {problem or 'a file cannot be read any more (SIGBUS)'}: see to its disk and run the same command again"
    )
    os.write(2, f"{printable(line)}\n".encode(errors="replace"))
    os._exit(_CANNOT_GO_ON)


def lost_maps(maps: Path = Path("/proc/self/maps")) -> list[Path]:
    """Return the files of which this process maps more than there is.

    Args:
        maps: the list of mapped files, as Linux shows it; where there is none, nothing is found.
    """
    lost: dict[Path, None] = {}
    for line in os.fsdecode(maps.read_bytes()).splitlines() if maps.exists() else ():
        place, rights, offset, _, _, *name = line.split(maxsplit=5)
        if not name or not rights.endswith("s"):  # programs and libraries are mapped privately, with gaps
            continue
        first, _, last = place.partition("-")
        path = Path(name[0])
        with contextlib.suppress(OSError):
            size = -(-path.stat().st_size // mmap.PAGESIZE) * mmap.PAGESIZE
            if size < int(offset, 16) + int(last, 16) - int(first, 16):
                lost[path] = None
    return list(lost)
