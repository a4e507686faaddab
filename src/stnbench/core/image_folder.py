"""Survey of images in class sub-folders of a folder, tar or zip, by names and contents.

::

    images/cat/1.png            images/train/cat/1.png      images/images.csv, with the columns
    images/dog/a.jpg      or    images/test/dog/a.jpg       path,class,track,frame,x1,y1,x2,y2,split

The table is optional; only its column ``path`` is required.

Nothing is unpacked and no image is decoded here; :mod:`stnbench.data.build` does that. The digests of the files of a
large folder are cached in the data folder, so that the folder is read once.
"""

import csv
import functools
import hashlib
import io
import json
import lzma
import math
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from stnbench.core.errors import DataCorruptError, DataMissingError
from stnbench.core.files import data_root, file_mark, is_left_behind, memory_of, remembered_digests, require_decoded
from stnbench.core.identity import DIGEST_LENGTH

ENDINGS: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
"""Suffixes of files that count as images."""

TABLE: Final = "images.csv"
"""Name of the optional table beside the class folders."""

COLUMNS: Final = ("path", "class", "track", "frame", "x1", "y1", "x2", "y2", "split")

BOX: Final = ("x1", "y1", "x2", "y2")

_FRAME_DIGITS: Final = 18
"""Most digits of a frame's number, so that it is an int64."""

_ARCHIVE_ERRORS: Final = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""Exceptions of zipfile, tarfile and their decompressors for an archive that is damaged or encrypted."""

_REMEDY: Final = "put images into one sub-folder a class, or name the class of each in images.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An image of a folder.

    Attributes:
        path: path inside the folder or archive.
        label: class, counted from 0 in the order of names.
        track: number shared by the images of one object, which are never divided between training and validation.
        frame: position in the track.
        box: x1, y1, x2, y2 of the object in pixels; None for the whole image.
        is_test: whether the image belongs to the test half.
    """

    path: str
    label: int
    track: int
    frame: int
    box: tuple[float, float, float, float] | None
    is_test: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """Contents of a folder of images.

    Attributes:
        place: the folder or archive.
        digest: 16 hexadecimal digits over the path and content of every image and over the table.
        class_names: names of the classes, sorted.
        entries: all images, sorted by path.
        tracks: number of tracks of the rarest class in the training half.
    """

    place: Path
    digest: str
    class_names: tuple[str, ...]
    entries: tuple[Entry, ...]
    tracks: int

    def half(self, *, is_test: bool) -> tuple[Entry, ...]:
        """Return the images of the training half or of the test half."""
        return tuple(entry for entry in self.entries if entry.is_test == is_test)


def survey(place: Path) -> Survey:
    """Return the contents of a folder of images, or of a tar or zip of one.

    Raises:
        DataMissingError: if it does not exist, or holds no images or only one class.
        SpecError: if the name of a class is no text in the encoding of the locale.
        DataCorruptError: if its table is invalid, a class has no training image, or a file cannot be read.
    """
    place = place.expanduser().resolve()
    if not place.exists():
        raise DataMissingError(f"there are no images at {place}", remedy="name a folder, a tar or a zip")
    sizes = _sizes(place)
    images = sorted(name for name in sizes if PurePosixPath(name).suffix.lower() in ENDINGS)
    table = next(read_members(place, [TABLE]))[1] if TABLE in sizes else b""
    found = _Reader(place, images, table)
    entries = tuple(found.entries())
    contents = _contents(place, images, total=sum(sizes[name] for name in images))
    sha = hashlib.sha256(json.dumps([[name, contents[name]] for name in images]).encode())
    sha.update(table)
    per_class: list[set[int]] = [set() for _ in found.names]
    for entry in entries:
        if not entry.is_test:
            per_class[entry.label].add(entry.track)
    empty = [name for name, tracks in zip(found.names, per_class, strict=True) if not tracks]
    if empty:
        raise DataCorruptError(
            f"{place} has no training image of the class {empty[0]}", remedy="add some, or remove it"
        )
    return Survey(
        place=place,
        digest=sha.hexdigest()[:DIGEST_LENGTH],
        class_names=tuple(found.names),
        entries=entries,
        tracks=min(map(len, per_class)),
    )


def read_members(place: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield names and bytes of files of a folder or archive, in the given order.

    Raises:
        DataCorruptError: if a file cannot be read.
    """
    try:
        if place.is_dir():
            for name in names:
                yield name, (place / name).read_bytes()
        elif zipfile.is_zipfile(place):
            with zipfile.ZipFile(place) as archive:
                members = _stripped(info.filename for info in archive.infolist() if not info.is_dir())
                for name in names:
                    yield name, archive.read(members[name])
        else:
            with tarfile.open(place) as tar:
                members = _stripped(info.name for info in tar.getmembers() if info.isfile())
                for name in names:
                    file = tar.extractfile(members[name])
                    yield name, b"" if file is None else file.read()
    except (KeyError, *_ARCHIVE_ERRORS) as error:
        raise DataCorruptError(f"{place} cannot be read ({error})", remedy="check the file it names") from error


@functools.cache
def _remembered() -> dict[str, Path]:
    """Return the folders that this process has surveyed, by digest."""
    return {}


def remember(found: Survey) -> None:
    """Record the place of a folder for later calls of ``recall``; paths are never part of a trial."""
    _remembered()[found.digest] = found.place


@functools.cache
def surveyed(place: Path) -> Survey:
    """Survey a folder once per process, since a sweep resolves thousands of trials, and record its place."""
    found = survey(place)
    remember(found)
    return found


def recall(digest: str, name: str, roots: Sequence[Path]) -> Path | None:
    """Return the folder of a digest, or None if it is not found.

    Args:
        digest: digest of the folder's contents.
        name: name of the folder or archive without suffixes.
        roots: folders in which it is looked up by name if this process has not surveyed it.
    """
    if digest in _remembered():
        return _remembered()[digest]
    for root in roots:
        for place in sorted(root.glob(f"{name}*")):
            is_candidate = place.name.partition(".")[0] == name
            if is_candidate and (place.is_dir() or place.is_file()) and survey(place).digest == digest:
                return place
    return None


class _Reader:
    """Reader that makes entries of the paths of images and an optional table."""

    def __init__(self, place: Path, images: Sequence[str], table: bytes) -> None:
        self.place = place
        self.rows = self._rows(images, table)
        if not self.rows:
            raise DataMissingError(f"there are no images in {place}", remedy=_REMEDY)
        halves = {PurePosixPath(path).parts[0].lower() for path in images}
        self.has_halves = "train" in halves and halves <= {"train", "test"}
        self.names = sorted({self._class(path, row) for path, row in self.rows.items()})
        for name in self.names:
            require_decoded(name, f"{place}: a class")
        if len(self.names) < 2:
            raise DataMissingError(f"{place} has images of one class ({self.names[0]})", remedy=_REMEDY)

    def entries(self) -> Iterator[Entry]:
        labels = {name: label for label, name in enumerate(self.names)}
        tracks: dict[tuple[bool, str, str], int] = {}
        seen: dict[int, int] = {}
        for path, row in self.rows.items():
            name, is_test = self._class(path, row), self._is_test(path, row)
            key = (is_test, name, row.get("track") or path)
            track = tracks.setdefault(key, len(tracks))
            seen[track] = seen.get(track, -1) + 1
            yield Entry(
                path=path,
                label=labels[name],
                track=track,
                frame=self._frame(path, row, seen[track]),
                box=self._box(path, row),
                is_test=is_test,
            )

    def _rows(self, images: Sequence[str], table: bytes) -> Mapping[str, Mapping[str, str]]:
        if not table:
            return {path: {} for path in images}
        try:
            reader = csv.DictReader(io.StringIO(table.decode("utf-8-sig")), restkey="")
            columns, read = tuple(reader.fieldnames or ()), list(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataCorruptError(f"{self.place}: {TABLE} is no table ({error})", remedy="write it as CSV") from error
        unknown = [name for name in columns if name not in COLUMNS]
        if "path" not in columns or unknown:
            problem = f"{self.place}: {TABLE} has the columns {', '.join(columns)}"
            raise DataCorruptError(problem, remedy=f"path is needed; there may be {', '.join(COLUMNS[1:])}")
        rows = self._by_path(read)
        missing = sorted(rows.keys() - set(images))
        if missing:
            problem = f"{self.place}: {TABLE} names {len(missing)} images that are not there, such as {missing[0]}"
            raise DataCorruptError(problem, remedy="mend the table; paths are relative to its folder")
        return dict(sorted(rows.items()))

    def _by_path(self, read: Sequence[Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
        """Return the filled cells of each row by its path.

        Raises:
            DataCorruptError: for a row without a path, a second row of a path, or more cells than columns.
        """
        rows: dict[str, Mapping[str, str]] = {}
        for row in read:
            path = row["path"]
            if not path:
                fault = "has a row without a path"
            elif path in rows:
                fault = f"names {path} twice"
            elif "" in row:
                fault = f"has more cells than columns in the row of {path}"
            else:
                rows[path] = {key: value for key, value in row.items() if value}
                continue
            raise DataCorruptError(f"{self.place}: {TABLE} {fault}", remedy="write one row an image")
        return rows

    def _class(self, path: str, row: Mapping[str, str]) -> str:
        if "class" in row:
            return row["class"]
        parts = PurePosixPath(path).parts[self.has_halves :]
        if len(parts) < 2:
            raise DataCorruptError(f"{self.place}: {path} is in no sub-folder of a class", remedy=_REMEDY)
        return parts[0]

    def _is_test(self, path: str, row: Mapping[str, str]) -> bool:
        split = row.get("split", "test" if self.has_halves and path.lower().startswith("test/") else "train")
        if split not in ("train", "test"):
            raise DataCorruptError(f"{self.place}: {path} is of the split {split}", remedy="write train or test")
        return split == "test"

    def _box(self, path: str, row: Mapping[str, str]) -> tuple[float, float, float, float] | None:
        if not any(key in row for key in BOX):
            return None
        x1, y1, x2, y2 = (self._number(path, row, key, float("nan")) for key in BOX)
        if not (0 <= x1 < x2 < math.inf and 0 <= y1 < y2 < math.inf):
            problem = f"{self.place}: the box of {path} is {x1:g}, {y1:g}, {x2:g}, {y2:g}"
            raise DataCorruptError(problem, remedy="write x1 < x2 and y1 < y2 in pixels, from 0")
        return x1, y1, x2, y2

    def _frame(self, path: str, row: Mapping[str, str], usual: int) -> int:
        text = row.get("frame", str(usual))
        if not (text.isascii() and text.isdecimal() and len(text) <= _FRAME_DIGITS):
            problem = f"{self.place}: frame of {path} is {text}"
            raise DataCorruptError(problem, remedy="write a whole number, from 0")
        return int(text)

    def _number(self, path: str, row: Mapping[str, str], key: str, usual: float) -> float:
        try:
            return float(row.get(key, usual))
        except ValueError as error:
            problem = f"{self.place}: {key} of {path} is {row[key]}"
            raise DataCorruptError(problem, remedy="write a number") from error


def _sizes(place: Path) -> dict[str, int]:
    """Return the size in bytes of every file by its path inside the folder or archive, without hidden files."""
    try:
        if place.is_dir():
            files = {
                path.relative_to(place).as_posix(): path.stat().st_size for path in place.rglob("*") if path.is_file()
            }
        elif zipfile.is_zipfile(place):
            with zipfile.ZipFile(place) as archive:
                known = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
            files = {name: known[member] for name, member in _stripped(known).items()}
        else:
            with tarfile.open(place) as tar:
                known = {info.name: info.size for info in tar.getmembers() if info.isfile()}
            files = {name: known[member] for name, member in _stripped(known).items()}
    except _ARCHIVE_ERRORS as error:
        raise DataCorruptError(
            f"{place} is no folder, tar or zip that can be read ({error})", remedy=_REMEDY
        ) from error
    return {name: size for name, size in files.items() if not is_left_behind(name)}


def _contents(place: Path, images: Sequence[str], *, total: int) -> dict[str, str]:
    """Return the SHA-256 of every image by name, from the memory of the folder or archive where that is still valid."""
    marks = (
        {name: file_mark(place / name) for name in images}
        if place.is_dir()
        else dict.fromkeys(images, file_mark(place))
    )
    return remembered_digests(
        memory_of(data_root() / "cache", place),
        marks,
        lambda names: (hashlib.sha256(data).hexdigest() for _, data in read_members(place, names)),
        total_bytes=total,
    )


def _stripped(members: Iterator[str] | Mapping[str, int]) -> dict[str, str]:
    """Return the members of an archive by their path, relative to the one folder that holds all images, if any."""
    names = [name for name in members if ".." not in PurePosixPath(name).parts and not name.startswith("/")]
    plain = {PurePosixPath(name).as_posix(): name for name in names}
    images = [
        PurePosixPath(name).parts
        for name in plain
        if PurePosixPath(name).suffix.lower() in ENDINGS and not is_left_behind(name)
    ]
    tops = {parts[0] for parts in images}
    if len(tops) == 1 and all(len(parts) > 2 for parts in images):
        top = tops.pop()
        return {name.removeprefix(f"{top}/"): member for name, member in plain.items()}
    return plain
