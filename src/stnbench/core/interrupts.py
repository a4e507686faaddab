"""Ctrl-C, SIGTERM and SIGHUP: what they do to a command, said in one line and never as a traceback."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

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
