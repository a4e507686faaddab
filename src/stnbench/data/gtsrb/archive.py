"""The official archives of GTSRB: names, counts, checksums, classes; and files in a folder or a zip, not extracted."""

import hashlib
import os
import re
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from typing_extensions import override

from stnbench.core.errors import DataCorruptError, DataMissingError
from stnbench.core.files import file_mark, is_left_behind, memory_of, remembered_digests
from stnbench.core.process import advancing

# The 43 classes of GTSRB in label order, which ``signs`` also uses.


GTSRB_CLASSES: Final[tuple[str, ...]] = (
    "speed limit 20",
    "speed limit 30",
    "speed limit 50",
    "speed limit 60",
    "speed limit 70",
    "speed limit 80",
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no passing",
    "no passing for trucks",
    "right of way at next crossing",
    "priority road",
    "yield",
    "stop",
    "no vehicles",
    "no trucks",
    "no entry",
    "general caution",
    "dangerous curve left",
    "dangerous curve right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road work",
    "traffic signals",
    "pedestrians",
    "children crossing",
    "bicycles crossing",
    "snow or ice",
    "wild animals crossing",
    "end of all limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "straight or right",
    "straight or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no passing",
    "end of no passing for trucks",
)
"""English names; the label of a class is its position."""


# The official files: names, counts and checksums.
#
# Counts: the benchmark's page and Readme, and Stallkamp et al., "Man vs. computer", Neural Networks 32, 2012. The
# checksums of the test archives are those that torchvision contains; that of the training archive is the one on which
# public download scripts agree. torchvision's own training archive is another set, of 26,640 images.


BASE_URL = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"

TRAIN_IMAGES = 39_209
TRAIN_TRACKS = 1_307
TEST_IMAGES = 12_630
TORCHVISION_TRAIN_IMAGES = 26_640

TRAIN_CONTENT_DIGEST = "d8a3eaf0d50169e55a1ee0d5ad56e0fb1591d10828441719d126cbd5a03e1ee0"
"""``content_digest`` of the training half: annotations and bytes of every image; it was computed from a copy with the
official counts, which was a folder and not the archive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """One official archive.

    Attributes:
        name: file name, also the last part of its URL.
        md5: MD5 of the whole file, 32 hexadecimal digits.
        prefix: folder of the images inside it, with a slash at the end; empty for the archive of annotations.
    """

    name: str
    md5: str
    prefix: str


TRAIN_ARCHIVE = Archive(
    name="GTSRB_Final_Training_Images.zip",
    md5="f33fd80ac59bff73c82d25ab499e03a3",
    prefix="GTSRB/Final_Training/Images/",
)
TEST_ARCHIVE = Archive(
    name="GTSRB_Final_Test_Images.zip",
    md5="c7e4e6327067d32654124b0fe9e82185",
    prefix="GTSRB/Final_Test/Images/",
)
TEST_TRUTH_ARCHIVE = Archive(name="GTSRB_Final_Test_GT.zip", md5="fe31e9c9270bbcd7b84b7f21a9d9d9e5", prefix="")

ARCHIVES = (TRAIN_ARCHIVE, TEST_ARCHIVE, TEST_TRUTH_ARCHIVE)


# Files by name, in a folder or inside a zip archive that is never extracted.


REMEDY = "download it again, or extract it again"
MAX_MEMBER_BYTES = 1 << 26
"""The limit of 64 MiB for a member; the largest official image has 0.2 MiB. Larger members are not unpacked."""


class Files(ABC):
    """The files below a folder or inside an archive, named by their relative path with slashes."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return every name at most one folder deep, sorted, without hidden ones.

        Raises:
            DataCorruptError: if the folder or the archive cannot be read.
        """

    @abstractmethod
    def read(self, names: Iterable[str]) -> Iterator[bytes]:
        """Yield the content of each file in turn.

        Raises:
            DataCorruptError: if a file cannot be read; the message names it.
        """

    @property
    @abstractmethod
    def place(self) -> Path:
        """Return the folder or the archive."""

    @abstractmethod
    def marks(self, names: Iterable[str]) -> tuple[dict[str, list[int]], int]:
        """Return the mark (``core.files.file_mark``) of each file, or of its archive, and the bytes of all of them.

        Raises:
            DataCorruptError: if a file is not there.
        """

    @abstractmethod
    def full_name(self, name: str) -> str:
        """Return the name with the path of the folder or the archive, for messages."""

    def digests(self, names: Sequence[str], cache: Path) -> dict[str, str]:
        """Return the SHA-256 of each file by name; only those are read that may have changed since the last time.

        Args:
            names: the files.
            cache: the folder of caches, which holds the memory of earlier digests.

        Raises:
            DataCorruptError: if a file cannot be read.
        """

        def measure(missing: Sequence[str]) -> Iterator[str]:
            read = self.read(advancing(missing, f"reading {self.place.name}", len(missing)))
            return (hashlib.sha256(data).hexdigest() for data in read)

        marks, total_bytes = self.marks(names)
        return remembered_digests(memory_of(cache, self.place), marks, measure, total_bytes=total_bytes)


@dataclass(frozen=True, slots=True)
class FolderFiles(Files):
    """The files in a folder and its sub-folders."""

    folder: Path

    def names(self) -> list[str]:
        """Return every name at most one folder deep, sorted, without hidden ones."""
        try:
            inner = sorted(entry.name for entry in os.scandir(self.folder) if entry.is_dir())
            found = [entry.name for entry in os.scandir(self.folder) if entry.is_file()]
            for name in inner:
                found += [f"{name}/{entry.name}" for entry in os.scandir(self.folder / name) if entry.is_file()]
        except OSError as error:
            raise DataCorruptError(
                f"{self.folder} cannot be read ({error})", remedy="look at its permissions"
            ) from error
        return sorted(name for name in found if not is_left_behind(name))

    def read(self, names: Iterable[str]) -> Iterator[bytes]:
        """Yield the content of each file in turn."""
        for name in names:
            try:
                data = (self.folder / name).read_bytes()
            except OSError as error:
                raise DataCorruptError(f"{self.full_name(name)} cannot be read ({error})", remedy=REMEDY) from error
            yield data

    @property
    @override
    def place(self) -> Path:
        return self.folder

    @override
    def marks(self, names: Iterable[str]) -> tuple[dict[str, list[int]], int]:
        marks = {name: file_mark(f"{self.folder}/{name}") for name in names}  # Path takes longer than the call
        return marks, sum(mark[0] for mark in marks.values())

    def full_name(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.folder / name)


@dataclass(frozen=True, slots=True)
class ZipFiles(Files):
    """The members of a zip archive below one of its folders (``prefix`` ends with a slash, or is empty)."""

    archive: Path
    prefix: str

    def names(self) -> list[str]:
        """Return every name at most one folder deep, sorted, without hidden ones.

        Raises:
            DataCorruptError: if the archive cannot be read, or a member's path leaves the archive's folder.
        """
        with self._open() as archive:
            members = archive.namelist()
        for member in members:
            if leaves_folder(member):
                problem = f"{self.archive} has a member '{member}' whose path leaves its folder"
                raise DataCorruptError(problem, remedy="do not use this archive; download the official one")
        below = (member.removeprefix(self.prefix) for member in members if member.startswith(self.prefix))
        files = (name for name in below if name and not name.endswith("/") and name.count("/") <= 1)
        return sorted(name for name in files if not is_left_behind(name))

    def read(self, names: Iterable[str]) -> Iterator[bytes]:
        """Yield the content of each member in turn.

        Raises:
            DataCorruptError: if a member cannot be read, or is larger than ``MAX_MEMBER_BYTES``.
        """
        with self._open() as archive:
            for name in names:
                yield self._read_one(archive, name)

    @property
    @override
    def place(self) -> Path:
        return self.archive

    @override
    def marks(self, names: Iterable[str]) -> tuple[dict[str, list[int]], int]:
        mark = file_mark(self.archive)
        return dict.fromkeys(names, mark), mark[0]

    def full_name(self, name: str) -> str:
        """Return the path of the archive and of the member inside it."""
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
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
            raise DataCorruptError(f"{self.full_name(name)} cannot be read ({error})", remedy=REMEDY) from error


def leaves_folder(member: str) -> bool:
    """Return whether a member's path could lead outside the folder that it would be extracted to, on any system."""
    has_drive = member[1:2] == ":"
    climbs = ".." in member and ".." in member.split("/")
    return member.startswith("/") or "\\" in member or has_drive or climbs


# The search for the two halves below a folder: the extracted tree first, then the official archives.


PREPARE = "python -m stnbench.data prepare gtsrb"
TRUTH = "GT-final_test.csv"
TRUTH_WITHOUT_CLASSES = "GT-final_test.test.csv"
CLASS_FOLDER = re.compile(r"\d{5}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledImages:
    """The test half's images and the table with their classes."""

    images: Files
    truth: Files
    truth_name: str


def find_train(root: Path) -> Files | None:
    """Find the training images below ``root``: a folder or an archive with one folder per class; None if absent.

    ``root`` may be the folder that holds ``GTSRB/``, ``GTSRB`` itself, ``Final_Training``, the folder that holds the
    class folders, or the folder with the archives.
    """
    for folder in (*(place / "Final_Training" / "Images" for place in _places(root)), root / "Images", root):
        if _has_classes(folder):
            return FolderFiles(folder)
    return _find_archive(root, TRAIN_ARCHIVE.name, TRAIN_ARCHIVE.prefix)


def missing_train(root: Path) -> DataMissingError:
    """Return the error for a folder without training images; it mentions torchvision's other set if that is there."""
    other = next((place / "Training" for place in _places(root) if _has_classes(place / "Training")), None)
    problem = f"the GTSRB training images (GTSRB/Final_Training/Images) are not below {root}"
    if other is not None:
        problem += f" (there is {other}, torchvision's smaller set of the online competition; name it to use it)"
    return DataMissingError(problem, remedy=f"run '{PREPARE} --root DIR' with the folder they are in, or --download")


def find_test(root: Path) -> LabelledImages | None:
    """Find the test images below ``root`` with their classes; return None if there are no images.

    The table may lie beside the images, in ``GTSRB/``, in ``root`` or its parent, or in a separate archive.

    Raises:
        DataMissingError: if there are images, but no table with their classes.
    """
    images = _find_test_images(root)
    if images is None:
        return None
    beside = images.folder if isinstance(images, FolderFiles) else root
    folders = (beside, beside.parent, beside.parent.parent, *_places(root), root.parent)
    for folder in folders:
        if (folder / TRUTH).is_file():
            return LabelledImages(images=images, truth=FolderFiles(folder), truth_name=TRUTH)
    archive = _find_archive(root, TEST_TRUTH_ARCHIVE.name, "")
    if archive is not None and TRUTH in archive.names():
        return LabelledImages(images=images, truth=archive, truth_name=TRUTH)
    problem = f"the classes of the GTSRB test images ({TRUTH}) are not below {root}"
    if TRUTH_WITHOUT_CLASSES in images.names():
        problem += f" ({images.full_name(TRUTH_WITHOUT_CLASSES)} is there, but has no classes)"
    remedy = f"put {TEST_TRUTH_ARCHIVE.name} there, or run '{PREPARE} --download'"
    raise DataMissingError(problem, remedy=remedy)


def missing_test(root: Path) -> DataMissingError:
    """Return the error for a folder without test images."""
    problem = f"the GTSRB test images (GTSRB/Final_Test/Images) are not below {root}"
    return DataMissingError(problem, remedy=f"run '{PREPARE} --root DIR' with the folder they are in, or --download")


def _places(root: Path) -> tuple[Path, ...]:
    """Return the folders that may hold ``Final_Training`` and ``Final_Test``; torchvision uses ``gtsrb/GTSRB``."""
    inside = (root.parent,) if root.name in {"Final_Training", "Final_Test"} else ()
    return (root / "GTSRB", root / "gtsrb" / "GTSRB", root, *inside)


def _has_classes(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    return any(CLASS_FOLDER.fullmatch(inner.name) and any(inner.glob("GT-*.csv")) for inner in sorted(folder.iterdir()))


def _find_test_images(root: Path) -> FolderFiles | ZipFiles | None:
    for place in _places(root):
        folder = place / "Final_Test" / "Images"
        if folder.is_dir() and any(folder.glob("*.ppm")):
            return FolderFiles(folder)
    return _find_archive(root, TEST_ARCHIVE.name, TEST_ARCHIVE.prefix)


def _find_archive(root: Path, name: str, prefix: str) -> ZipFiles | None:
    for folder in (root, root / "GTSRB", root / "gtsrb"):
        if (folder / name).is_file():
            return ZipFiles(folder / name, prefix)
    return None
