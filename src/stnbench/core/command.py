"""Common frame of all commands: streams, logs, exit codes, and one-line messages for expected errors."""

import codecs
import contextlib
import errno
import gc
import io
import logging
import os
import platform
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO, cast

from typing_extensions import override

from stnbench.core.errors import FormerNameWarning, InternalError, SpecError, StnbenchError, StoreError
from stnbench.core.files import RUNS_VARIABLE, RunsLayout
from stnbench.core.process import Interrupted, explain_lost_maps, handling, ignore_further, raise_interrupted
from stnbench.core.text import hide_passwords, printable

# Standard output and standard error under any locale: a character that the encoding lacks does not end a command.


HANDLER: Final = "stnbench.plain"
"""Name of the handler of encoding errors."""

_PLAIN: Final = {
    "\u2010": "-",
    "\u2011": "-",
    "\u2012": "-",
    "\u2013": "-",
    "\u2014": "-",
    "\u2212": "-",
    "\u00b7": "*",
    "\u2022": "*",
    "\u00d7": "x",
    "\u00b1": "+-",
    "\u2026": "...",
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2264": "<=",
    "\u2265": ">=",
    "\u2248": "~",
    "\u2192": "->",
    "\u2190": "<-",
    "\u0394": "d",
    "\u00b5": "u",
    "\u2500": "-",
    "\u2501": "-",
    "\u2502": "|",
    "\u2503": "|",
}
"""ASCII substitutes of characters."""


def forgive_encoding() -> None:
    """Make standard output and error replace characters that their encoding lacks: dashes by ``-``, others by ``?``.

    Lone surrogates, which no encoding contains, are written as escapes.
    """
    codecs.register_error(HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=HANDLER)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_plain(letter, error.encoding) for letter in letters), error.end


def _plain(letter: str, encoding: str) -> str:
    if "\ud800" <= letter <= "\udfff":
        return f"\\u{ord(letter):04x}"
    plain = _PLAIN.get(letter, "?")
    try:
        plain.encode(encoding)
    except UnicodeError:
        return "?"
    return plain


# Standard streams that outlast their reader: a command continues its work after its terminal or pipe has gone.


_READER_IS_GONE: Final = frozenset({errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF, errno.ECONNRESET, errno.ESTALE})
"""Error codes after ``| head`` has exited, the terminal was closed, or a redirection's file is no longer reachable."""


class LastingStream(io.TextIOBase):
    """A text stream that drops text that cannot be written.

    Once its reader has gone, its descriptor leads to the null device, also for other writers. On a full disk the text
    is lost and the next write is tried.

    Args:
        stream: the stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    @override
    def write(self, text: str, /) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    @override
    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    @property
    @override
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    @override
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    @override
    def isatty(self) -> bool:
        return self._stream.isatty()

    @override
    def fileno(self) -> int:
        return self._stream.fileno()

    @override
    def writable(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has: encoding, buffer, ...
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        if error.errno not in _READER_IS_GONE:
            return
        with contextlib.suppress(OSError, ValueError):
            handle = os.open(os.devnull, os.O_WRONLY)
            os.dup2(handle, self._stream.fileno())
            os.close(handle)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Make standard output and error outlast their readers within the block; closed streams lead to the null device."""
    _open_closed()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", LastingStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _open_closed() -> None:
    """Open the standard descriptors that the caller has closed (``>&-``), so that no other file takes their place."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            if getattr(sys, name) is not None:
                continue
        handle = os.open(os.devnull, os.O_RDWR)
        if handle != descriptor:
            os.dup2(handle, descriptor)
            os.close(handle)
        setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


# The log of commands: standard logging to ``runs/logs/stnbench.log``.
#
# All commands share one file. Each record is a line with the time in UTC, the process and the module, which tells
# concurrent commands apart. ``STNBENCH_LOG`` sets the level. The log never creates the runs folder: until a command
# creates it, records are kept in memory.


LEVEL_VARIABLE: Final = "STNBENCH_LOG"

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL + 1,
}

LOGGER: Final = logging.getLogger("stnbench")
"""The parent of every module's logger (``logging.getLogger(__name__)``)."""

BYTES_MAX: Final = 8 * 2**20
"""Size in bytes above which the log is renamed to ``stnbench.log.1`` when a command begins."""

_KEPT: Final = 1000
"""Largest number of records kept in memory until there is a runs folder."""


def log_level(*, debug: bool = False) -> int:
    """Return the level named by ``STNBENCH_LOG``, ``info`` if it is empty; with ``debug``, the level that logs all.

    Raises:
        SpecError: if the level does not exist.
    """
    name = os.environ.get(LEVEL_VARIABLE, "").strip().lower() or "info"
    if name not in LEVELS:
        raise SpecError(f"{LEVEL_VARIABLE} is {name!r}", remedy=f"set it to one of {', '.join(LEVELS)}")
    return logging.DEBUG if debug else LEVELS[name]


def open_log(*, debug: bool = False) -> None:
    """Send the records of this process to the log of the runs folder.

    Raises:
        SpecError: if the level does not exist.
    """
    level = log_level(debug=debug)
    close_log()
    LOGGER.setLevel(level)
    LOGGER.propagate = False  # MLflow and Ray set up the root logger, which would print records a second time
    with contextlib.suppress(StoreError):  # an invalid URL of the store is reported when it is opened
        layout = RunsLayout.from_environment()
        LOGGER.addHandler(RunsFolderHandler(layout.root, layout.command_log))


def close_log() -> None:
    """Stop logging and close the file."""
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        handler.close()


class RunsFolderHandler(logging.Handler):
    """A logging handler that writes to a file of the runs folder once that folder exists.

    A record that cannot be written is dropped; the command continues.

    Args:
        root: the runs folder, which the handler never creates.
        path: the log file.
    """

    def __init__(self, root: Path, path: Path) -> None:
        super().__init__()
        self._root, self._path = root, path
        self._waiting: deque[str] = deque(maxlen=_KEPT)
        self._handle: int | None = None
        formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(process)d %(name)s: %(message)s")
        formatter.converter = time.gmtime
        formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
        formatter.datefmt = "%Y-%m-%dT%H:%M:%S"
        self.setFormatter(formatter)

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.append(hide_passwords(self.format(record)))
            if self._handle is None and self._root.is_dir():
                self._handle = _open(self._path)
            while self._handle is not None and self._waiting:
                line = self._waiting.popleft() + "\n"
                os.write(self._handle, line.encode(errors="backslashreplace"))  # one call keeps lines whole
        except OSError:
            self._waiting.clear()
        except Exception:  # noqa: BLE001 - a record that cannot be formatted is a bug, and must not end the command
            self.handleError(record)

    @override
    def close(self) -> None:
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.close(self._handle)
            self._handle = None
        super().close()


def _open(path: Path) -> int:
    path.parent.mkdir(exist_ok=True)
    if path.exists() and path.stat().st_size > BYTES_MAX:
        path.replace(path.with_name(f"{path.name}.1"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)


# The end of every command: exit code 0, 1, 2 or 3, and one line instead of a traceback for expected errors.


DONE, SOME_FAILED, CANNOT_START, BUG = 0, 1, 2, 3
INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells report it."""

DEBUG_FLAG = "--debug"
"""Option that prints the traceback of every error, also of expected ones, and logs everything."""

GARBAGE_THRESHOLDS = (50_000, 20, 20)
"""Thresholds of ``gc``. There is little cyclic garbage; collecting less often makes large reports and plans 10 %
faster."""

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
"""Errors of the machine that any call may meet, with their remedies; they are no bugs of stnbench."""


def run_command(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``main`` with the arguments of the command line and leave the process with its exit code.

    A StnbenchError and an error of the machine (a full disk, a missing permission) print ``error: ...`` on standard
    error and give exit code 2; with ``--debug`` the traceback is printed first. Any other exception and an
    InternalError are bugs: they print the traceback and a line about how to report it, and give exit code 3. Ctrl-C,
    SIGTERM and SIGHUP print a line and give 130, 143 or 129. If the reader has gone (``| head``, a closed terminal),
    the work is still completed and the exit code reports its outcome. The log of the runs folder records everything.

    Args:
        main: the command; it takes the arguments without ``--debug`` and returns the exit code.
        arguments: the arguments; None for those of the process.
    """
    explain_lost_maps()
    with lasting_output(), handling(raise_interrupted):
        code = _run(main, arguments)
    ignore_further()
    sys.exit(code)


def _run(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None) -> int:
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    forgive_encoding()
    warnings.showwarning = _show_warning
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


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning; where the user is meant, as one line without the place in the code that gave it."""
    text = f"warning: {message}\n" if issubclass(category, FormerNameWarning) else None
    (file or sys.stderr).write(text or warnings.formatwarning(message, category, filename, lineno, line))


def _say(error: Exception, *, debug: bool) -> int:
    """Print and log an error, and return the exit code."""
    line = _foreseen(error)
    shown = hide_passwords("".join(traceback.format_exception(error)))
    if line is None:
        LOGGER.critical("a bug of stnbench", exc_info=error)
    else:
        LOGGER.error(hide_passwords(line), exc_info=error)
    with contextlib.suppress(OSError):  # standard error may be a file on the full disk
        if debug or line is None:
            print(shown, file=sys.stderr, end="")
        print(_bug_line(error) if line is None else f"error: {printable(hide_passwords(line))}", file=sys.stderr)
    return BUG if line is None else CANNOT_START


def _foreseen(error: Exception) -> str | None:
    """Return the message for an error that is no bug of stnbench, or None for a bug."""
    if isinstance(error, InternalError):
        return None
    if isinstance(error, StnbenchError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory: free some, or ask for less at once"
    remedy = _OF_THE_MACHINE.get(error.errno or 0) if isinstance(error, OSError) else None
    return None if remedy is None else f"{error}: {remedy}"


def _bug_line(error: Exception) -> str:
    """Return the line that is printed after the traceback of a bug."""
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
    """Print a note on work in progress if standard error is a terminal; logs only record completed work."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            print(f"{what} ...", file=sys.stderr, flush=True)
