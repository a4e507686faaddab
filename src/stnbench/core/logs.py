"""The log of commands: standard logging to ``runs/logs/stnbench.log``.

One file for all commands, a line a record with the time in UTC, the process and the module, so that what ran at once
can be told apart. ``STNBENCH_LOG`` sets the level. Nothing is created for the log's sake: while there is no runs
folder, records are kept in memory and written once a command makes it.
"""

import contextlib
import logging
import os
import time
from collections import deque
from pathlib import Path
from typing import Final

from typing_extensions import override

from stnbench.core.errors import SpecError, StoreError
from stnbench.core.passwords import hide_passwords
from stnbench.core.paths import RunsLayout

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
"""A log beyond this size becomes ``stnbench.log.1`` when a command begins."""

_KEPT: Final = 1000
"""Records that wait for a runs folder at most."""


def log_level(*, debug: bool = False) -> int:
    """Return the level that ``STNBENCH_LOG`` names, ``info`` where it is empty; ``--debug`` logs everything.

    Raises:
        SpecError: for a level that does not exist.
    """
    name = os.environ.get(LEVEL_VARIABLE, "").strip().lower() or "info"
    if name not in LEVELS:
        raise SpecError(f"{LEVEL_VARIABLE} is {name!r}", remedy=f"set it to one of {', '.join(LEVELS)}")
    return logging.DEBUG if debug else LEVELS[name]


def open_log(*, debug: bool = False) -> None:
    """Send the records of this process to the log of the runs folder.

    Raises:
        SpecError: for a level that does not exist.
    """
    level = log_level(debug=debug)
    close_log()
    LOGGER.setLevel(level)
    LOGGER.propagate = False  # MLflow and Ray set up the root logger, which would print records a second time
    with contextlib.suppress(StoreError):  # an address of a store that is none is refused by who opens it
        layout = RunsLayout.from_environment()
        LOGGER.addHandler(RunsFolderHandler(layout.root, layout.command_log))


def close_log() -> None:
    """Stop logging and close the file."""
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        handler.close()


class RunsFolderHandler(logging.Handler):
    """Writes to a file of the runs folder, from the moment that folder exists.

    A log that cannot be written ends no command: the record is dropped.

    Args:
        root: the runs folder, which is never created here.
        path: the file.
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
                os.write(self._handle, line.encode(errors="backslashreplace"))  # one call: lines stay whole
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
