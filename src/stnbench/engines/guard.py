"""A guard process: ``python -m stnbench.engines.guard FOLDER OWNER`` ends the processes of a folder after its owner.

A local cluster consists of many processes, and some of them outlive a killed orchestrator by a minute. The owner starts
a guard and then everything else; when the pipe to the guard closes, because the owner closed it or has died, the guard
ends the remaining processes and removes the folder. The owner itself is never ended: it may still have logs in the
folder open.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

VARIABLE = "STNBENCH_GUARDED"
"""Name of the environment variable whose value is the folder."""

PATIENCE_S = 10.0
"""Seconds for which the guard searches for remaining processes."""

LONGEST_PARENT = 28
"""Maximum length of the parent folder's path: Ray adds 79 characters, and a socket's name has at most 107."""


class Guard:
    """The owner's handle on a guard process, which is active from construction to ``close`` or the owner's death."""

    def __init__(self) -> None:
        usual = tempfile.gettempdir()
        parent = usual if len(usual) <= LONGEST_PARENT else "/tmp"  # noqa: S108 - the folder itself is made safely
        self.folder = Path(tempfile.mkdtemp(prefix="stn-", dir=parent))
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no input of others
            [sys.executable, "-m", "stnbench.engines.guard", str(self.folder), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @contextlib.contextmanager
    def marking(self) -> Iterator[None]:
        """Guard every process started inside the block, its descendants at any time, and their temporary files."""
        mark = {VARIABLE: str(self.folder), "TMPDIR": str(self.folder)}
        before = {name: os.environ.get(name) for name in mark}
        os.environ.update(mark)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    def close(self) -> None:
        """End the remaining processes and the guard."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def main(arguments: Sequence[str]) -> None:
    """Wait for the owner's end, end the remaining processes and remove the folder."""
    folder, owner_pid = arguments
    spared = _spared(int(owner_pid))
    sys.stdin.buffer.read()
    deadline = time.monotonic() + PATIENCE_S
    left = _guarded(folder, spared)
    while left and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.05)
        left = _guarded(folder, spared)
    shutil.rmtree(folder, ignore_errors=True)


def _spared(owner_pid: int) -> tuple[psutil.Process, ...]:
    """Return the guard and its owner, which are never ended.

    They are identified by start time as well, since another process may get the id of a dead owner.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        return (psutil.Process(), psutil.Process(owner_pid))
    return (psutil.Process(),)


def _guarded(folder: str, spared: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if process not in spared and _works_in(process, folder)]


def _works_in(process: psutil.Process, folder: str) -> bool:
    """Check whether a process carries the mark or has files of the folder open.

    Open files are checked because a process that sets a new title overwrites its environment.
    """
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        marked = process.environ().get(VARIABLE) == folder
        return marked or any(file.path.startswith(f"{folder}/") for file in process.open_files())
    except (psutil.Error, OSError):
        return False  # another user's, or already gone


if __name__ == "__main__":
    main(sys.argv[1:])
