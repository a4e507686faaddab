"""Files by name, in a folder or inside a zip archive that is never extracted."""

import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stnbench.core.errors import DataCorruptError

REMEDY = "download it again, or extract it again"
MAX_MEMBER_BYTES = 1 << 26
"""64 MiB; the largest official image has 0.2. Larger members are not unpacked."""


class Files(ABC):
    """Files below one place, named by their path from there with slashes."""

    @abstractmethod
    def names(self) -> list[str]:
        """Every name at most one folder deep, sorted, but for hidden ones.

        Raises: DataCorruptError if the place cannot be read.
        """

    @abstractmethod
    def read(self, names: Iterable[str]) -> Iterator[bytes]:
        """The content of each file in turn. Raises: DataCorruptError naming a file that cannot be read."""

    @abstractmethod
    def full_name(self, name: str) -> str:
        """The name with the place, for messages."""


@dataclass(frozen=True, slots=True)
class FolderFiles(Files):
    """Files in a folder and its folders."""

    folder: Path

    def names(self) -> list[str]:
        """As the contract says."""
        try:
            inner = sorted(entry.name for entry in os.scandir(self.folder) if entry.is_dir())
            found = [entry.name for entry in os.scandir(self.folder) if entry.is_file()]
            for name in inner:
                found += [f"{name}/{entry.name}" for entry in os.scandir(self.folder / name) if entry.is_file()]
        except OSError as error:
            raise DataCorruptError(
                f"{self.folder} cannot be read ({error})", remedy="look at its permissions"
            ) from error
        return sorted(name for name in found if not is_hidden(name))

    def read(self, names: Iterable[str]) -> Iterator[bytes]:
        """As the contract says."""
        for name in names:
            try:
                data = (self.folder / name).read_bytes()
            except OSError as error:
                raise DataCorruptError(f"{self.full_name(name)} cannot be read ({error})", remedy=REMEDY) from error
            yield data

    def full_name(self, name: str) -> str:
        """As the contract says."""
        return str(self.folder / name)


@dataclass(frozen=True, slots=True)
class ZipFiles(Files):
    """Members of a zip archive below one of its folders (``prefix`` ends with a slash, or is empty)."""

    archive: Path
    prefix: str

    def names(self) -> list[str]:
        """As the contract says; raises DataCorruptError also for a member whose path leaves the archive's folder."""
        with self._open() as archive:
            members = archive.namelist()
        for member in members:
            if leaves_folder(member):
                problem = f"{self.archive} has a member '{member}' whose path leaves its folder"
                raise DataCorruptError(problem, remedy="do not use this archive; download the official one")
        below = (member.removeprefix(self.prefix) for member in members if member.startswith(self.prefix))
        files = (name for name in below if name and not name.endswith("/") and name.count("/") <= 1)
        return sorted(name for name in files if not is_hidden(name))

    def read(self, names: Iterable[str]) -> Iterator[bytes]:
        """As the contract says."""
        with self._open() as archive:
            for name in names:
                yield self._read_one(archive, name)

    def full_name(self, name: str) -> str:
        """As the contract says."""
        return f"{self.archive}:{self.prefix}{name}"

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.archive)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataCorruptError(f"{self.archive} is no whole zip archive ({error})", remedy=REMEDY) from error

    def _read_one(self, archive: zipfile.ZipFile, name: str) -> bytes:
        try:
            member = archive.getinfo(self.prefix + name)
            if member.file_size > MAX_MEMBER_BYTES:
                problem = f"{self.full_name(name)} has {member.file_size} bytes, more than {MAX_MEMBER_BYTES}"
                raise DataCorruptError(problem, remedy="do not use this archive; download the official one")
            return archive.read(member)
        except KeyError as error:
            raise DataCorruptError(f"{self.full_name(name)} is not in the archive", remedy=REMEDY) from error
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise DataCorruptError(f"{self.full_name(name)} cannot be read ({error})", remedy=REMEDY) from error


def is_hidden(name: str) -> bool:
    """Whether a file system, an editor or a packer left it beside the files that are meant.

    macOS puts ``._name`` beside every file on drives that are not its own, and ``__MACOSX/`` into archives.
    """
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def leaves_folder(member: str) -> bool:
    """Whether a member's path could lead outside the folder it would be extracted to, on any system."""
    has_drive = member[1:2] == ":"
    climbs = ".." in member and ".." in member.split("/")
    return member.startswith("/") or "\\" in member or has_drive or climbs
