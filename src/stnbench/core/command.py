"""How every command ends: exit code 0, 1 or 2, and one clear line instead of a traceback for what we foresaw."""

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from stnbench.core.errors import StnbenchError

DONE, SOME_FAILED, CANNOT_START = 0, 1, 2
INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""

GARBAGE_THRESHOLDS = (50_000, 20, 20)
"""Hardly anything here is cyclic garbage: looking for it less often takes a tenth off large reports and plans."""


def run_command(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``main`` with the arguments of the command line and leave the process with its exit code.

    A StnbenchError becomes ``error: ...`` on standard error and exit code 2; Ctrl-C becomes 130; a reader that has gone
    away (``| head``) ends the command quietly. Any other exception is a bug and keeps its traceback.
    """
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    try:
        code = main(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except StnbenchError as error:
        with contextlib.suppress(OSError):  # the log may lie on the very disk that is full
            print(f"error: {one_line(str(error))}", file=sys.stderr)
        code = CANNOT_START
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    sys.exit(code)


def one_line(text: str) -> str:
    """The text without line breaks."""
    return " ".join(text.split())
