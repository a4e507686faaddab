"""How every command ends: exit code 0, 1, 2 or 3, and one clear line instead of a traceback for what was foreseen."""

import contextlib
import errno
import gc
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from stnbench.core.errors import InternalError, StnbenchError
from stnbench.core.interrupts import Interrupted, handling, ignore_further, raise_interrupted
from stnbench.core.logs import LOGGER, open_log
from stnbench.core.output import lasting_output
from stnbench.core.passwords import hide_passwords
from stnbench.core.paths import RUNS_VARIABLE, RunsLayout
from stnbench.core.streams import forgive_encoding
from stnbench.core.text import printable

DONE, SOME_FAILED, CANNOT_START, BUG = 0, 1, 2, 3
INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""

DEBUG_FLAG = "--debug"
"""Shows the traceback of every error, also of those that are one line otherwise, and logs everything."""

GARBAGE_THRESHOLDS = (50_000, 20, 20)
"""Hardly anything here is cyclic garbage: looking for it less often takes a tenth off large reports and plans."""

_OF_THE_MACHINE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space: the quota is used up",
    errno.EROFS: f"the file system is read-only; set {RUNS_VARIABLE} or STNBENCH_DATA to a folder you can write",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the file server",
    errno.ETIMEDOUT: "check the file server or the network",
    errno.ENOLCK: f"its file system has no locks: set {RUNS_VARIABLE} and STNBENCH_DATA to a local folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the machine has too many open files",
    errno.ENOMEM: "free some memory",
    errno.EAGAIN: "raise the limit of processes (ulimit -u)",
    errno.ENAMETOOLONG: "use shorter names, or a folder nearer to the root",
}
"""What the machine may refuse at any call, and the remedy: no bug of ours."""


def run_command(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``main`` with the arguments of the command line and leave the process with its exit code.

    A StnbenchError, and what the machine refuses (a full disk, a missing permission), becomes ``error: ...`` on
    standard error and exit code 2; with ``--debug`` its traceback comes first. Any other exception, and an
    InternalError, is a bug: its traceback, a line that says how to report it, and exit code 3. Ctrl-C, SIGTERM and
    SIGHUP end it with a line and 130, 143 or 129. A reader that has gone away (``| head``, a closed terminal) changes
    nothing but that nobody reads on: the work is done, and the exit code says how. The log of the runs folder has all.
    """
    with lasting_output(), handling(raise_interrupted):
        code = _run(main, arguments)
    ignore_further()
    sys.exit(code)


def _run(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None) -> int:
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    forgive_encoding()
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG_FLAG in given
    given = [argument for argument in given if argument != DEBUG_FLAG]
    began_s = time.monotonic()
    code = BUG
    try:
        open_log(debug=debug)
        LOGGER.info("begin: %s", hide_passwords(" ".join(map(repr, [*sys.argv[:1], *given]))))
        code = main(given)
        sys.stdout.flush()
    except SystemExit as leaving:  # argparse has printed the help
        code = leaving.code if isinstance(leaving.code, int) else DONE
    except KeyboardInterrupt as interrupt:
        code = interrupt.exit_code if isinstance(interrupt, Interrupted) else INTERRUPTED
        print(f"interrupted by {interrupt}" if str(interrupt) else "interrupted", file=sys.stderr)
    except Exception as error:  # noqa: BLE001 - the last place that can say what happened
        code = _say(error, debug=debug)
    finally:
        LOGGER.info("end: exit code %s after %.1f s", code, time.monotonic() - began_s)
    return code


def one_line(text: str) -> str:
    """Return the text without line breaks and without what steers a terminal."""
    return printable(text)


def _say(error: Exception, *, debug: bool) -> int:
    """Print an error; the exit code."""
    line = _foreseen(error)
    shown = hide_passwords("".join(traceback.format_exception(error)))
    if line is None:
        LOGGER.critical("a bug of stnbench", exc_info=error)
    else:
        LOGGER.error(hide_passwords(line), exc_info=error)
    with contextlib.suppress(OSError):  # standard error may lie on the very disk that is full
        if debug or line is None:
            print(shown, file=sys.stderr, end="")
        print(_bug_line(error) if line is None else f"error: {one_line(hide_passwords(line))}", file=sys.stderr)
    return BUG if line is None else CANNOT_START


def _foreseen(error: Exception) -> str | None:
    """What to tell of an error that is no bug of stnbench; None for one that is."""
    if isinstance(error, InternalError):
        return None
    if isinstance(error, StnbenchError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory: free some, or ask for less at once"
    remedy = _OF_THE_MACHINE.get(error.errno or 0) if isinstance(error, OSError) else None
    return None if remedy is None else f"{error}: {remedy}"


def _bug_line(error: Exception) -> str:
    """What follows the traceback of a bug."""
    from stnbench import __version__

    with_log = ""
    with contextlib.suppress(StnbenchError):
        log = RunsLayout.from_environment().command_log
        with_log = f", with the end of {log}" if log.exists() else ""
    where = f"stnbench {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return (
        f"error: {type(error).__name__}: this is a bug of stnbench, not of your input: please report it with the lines "
        f"above{with_log} ({where})"
    )


def tell_doing(what: str) -> None:
    """Tell a person at a terminal what takes the next seconds; a log has lines for what has happened alone."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            print(f"{what} ...", file=sys.stderr, flush=True)
