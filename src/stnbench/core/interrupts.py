"""Ctrl-C, SIGTERM and SIGHUP: what they do to a command, said in one line and never as a traceback."""

import contextlib
import os
import signal
import threading
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


def raise_interrupted(number: int, _frame: FrameType | None) -> None:
    """Raise Interrupted where the program is."""
    raise Interrupted(number)


def leave_at_once(number: int, _frame: FrameType | None) -> None:
    """Leave the process with a line: for the time in which modules are imported, which bear no exception anywhere."""
    with contextlib.suppress(OSError):
        os.write(2, f"interrupted by {signal.Signals(number).name} before anything began\n".encode())
    os._exit(EXIT_CODE_BASE + number)


@contextlib.contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Let ending signals go to a handler for the block; nothing in a thread, where signals never arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in ending_signals()}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
