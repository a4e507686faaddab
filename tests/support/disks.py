"""Disks that are full when a test wants it: small file systems of their own, or a limit on the size of files.

Only root may mount a file system. Without that right a disk is full for the processes that one names, as a quota is:
no file of theirs may grow beyond a few bytes.
"""

import contextlib
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from typing_extensions import override

SIZE_MIB = 256
FULL_BYTES = 2000
"""What a file may hold at most where a limit stands in for a full disk."""


class Disk(ABC):
    """What a folder lies on."""

    @abstractmethod
    def fill(self, processes: Iterable[psutil.Process]) -> None:
        """From now on not a byte is left, at least for these processes."""

    @abstractmethod
    def free(self) -> None:
        """There is room again."""


@dataclass(frozen=True, slots=True)
class OwnDisk(Disk):
    """A file system of its own in a folder, filled by a file."""

    folder: Path

    @property
    def ballast(self) -> Path:
        """The file that fills it."""
        return self.folder / "ballast"

    @override
    def fill(self, processes: Iterable[psutil.Process]) -> None:
        del processes
        state = os.statvfs(self.folder)
        with self.ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, state.f_bavail * state.f_frsize))
        # What was given back in the meantime, and the rest of the last block.
        with self.ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(state.f_frsize))

    @override
    def free(self) -> None:
        self.ballast.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class LimitedFiles(Disk):
    """A stand-in that needs no rights: the processes may not make files grow."""

    limited: list[psutil.Process] = field(default_factory=list)

    @override
    def fill(self, processes: Iterable[psutil.Process]) -> None:
        for process in processes:
            self.limited.append(process)
            _limit(process, FULL_BYTES)

    @override
    def free(self) -> None:
        while self.limited:
            _limit(self.limited.pop(), psutil.RLIM_INFINITY)


@contextmanager
def disk_in(folder: Path, *, may_mount: bool = True) -> Iterator[Disk]:
    """A disk for a folder, which is made; a stand-in where no file system can be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (may_mount and os.geteuid() == 0 and _mount(folder)):
        yield LimitedFiles()
        return
    try:
        yield OwnDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "stnbench-test", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _limit(process: psutil.Process, size_bytes: int) -> None:
    with contextlib.suppress(psutil.Error):
        process.rlimit(psutil.RLIMIT_FSIZE, (size_bytes, psutil.RLIM_INFINITY))
