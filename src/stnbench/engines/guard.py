"""A guard: ``python -m stnbench.engines.guard FOLDER OWNER`` ends what works in a folder once its owner lets go.

A cluster of one's own is many processes, and some of them outlive a killed orchestrator by a minute. The owner starts a
guard and then everything else; when the pipe to the guard closes, because the owner closed it or has died, the guard
ends what is left and removes the folder. The owner itself is never ended: it may have logs in the folder open still.
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
"""The environment variable whose value is the folder."""

PATIENCE_S = 10.0
"""How long the guard goes on looking for what is left."""

LONGEST_PARENT = 28
"""Characters of the parent folder: Ray adds 79, and the name of a socket has 107 at most."""


class Guard:
    """The owner's end of a guard, which works from its construction to ``close`` or the owner's death."""

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
        """What is started inside the block, and whatever that starts at any time, is guarded; its scratch as well."""
        mark = {VARIABLE: str(self.folder), "TMPDIR": str(self.folder)}
        before = {name: os.environ.get(name) for name in mark}
        os.environ.update(mark)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    def close(self) -> None:
        """End what is left, and the guard."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def main(arguments: Sequence[str]) -> None:
    """Wait for the owner's end, and end what is left."""
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
    """The guard and its owner, known by their start as well: another process may get the number of a dead owner."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return (psutil.Process(), psutil.Process(owner_pid))
    return (psutil.Process(),)


def _guarded(folder: str, spared: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if process not in spared and _works_in(process, folder)]


def _works_in(process: psutil.Process, folder: str) -> bool:
    """Whether a process carries the mark, or has files of the folder open: a new title overwrites the environment."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        marked = process.environ().get(VARIABLE) == folder
        return marked or any(file.path.startswith(f"{folder}/") for file in process.open_files())
    except (psutil.Error, OSError):
        return False  # another user's, or already gone


if __name__ == "__main__":
    main(sys.argv[1:])
