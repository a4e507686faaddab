"""GTSRB as a data set: its tables and images, and the cache that every process opens."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from stnbench.core.errors import DataCorruptError
from stnbench.core.identity import Json, digest
from stnbench.core.process import advancing
from stnbench.data import Dataset, ImageSet
from stnbench.data.cache import CacheArrays, Layout, Recipe, open_or_build, open_prepared, remove_superseded
from stnbench.data.gtsrb.archive import (
    CLASS_FOLDER,
    GTSRB_CLASSES,
    TEST_IMAGES,
    TRAIN_IMAGES,
    TRAIN_TRACKS,
    Files,
    find_test,
    find_train,
    missing_test,
    missing_train,
)
from stnbench.data.gtsrb.official import RESIZE_VERSION, download_archives, normalized_position, resize
from stnbench.spec.data import CLASSES, GtsrbSpec

# The tables beside the images: one row per image with its size, the sign's box and its class.


COLUMNS = ("Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId")
TABLE_MAX_BYTES = 8 << 20
"""The limit for a table, in bytes; the largest official one has half a megabyte."""

REMEDY = "extract or download the archive again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """One row of a table: file name, size in pixels, the sign's box in pixels from the outer edges, and class."""

    file: str
    width: int
    height: int
    x1: int
    y1: int
    x2: int
    y2: int
    label: int


def parse_annotations(data: bytes, name: str) -> list[Annotation]:
    """Parse the rows of a table, with columns separated by semicolons, in its order.

    Args:
        data: the bytes of the table.
        name: the table's file, for messages.

    Raises:
        DataCorruptError: for a missing column, a value that is not an integer, a box that leaves the image or is empty,
            a class outside 0..42, a file named twice, and a table of more than ``TABLE_MAX_BYTES``. The message names
            the file, the line and the value.
    """
    if len(data) > TABLE_MAX_BYTES:
        size = f"{len(data) / (1 << 20):.0f} MiB"
        raise DataCorruptError(f"the table {name} has {size}, more than {TABLE_MAX_BYTES >> 20}", remedy=REMEDY)
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=";", strict=True)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise DataCorruptError(f"{name} has no column {missing[0]}", remedy=f"expected {';'.join(COLUMNS)}")
        rows = [_annotation(row, f"{name}, line {reader.line_num}") for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataCorruptError(f"{name} is not a table ({error})", remedy=REMEDY) from error
    _refuse_repeats(rows, name)
    return rows


def _annotation(row: dict[str, str], where: str) -> Annotation:
    file = row["Filename"]
    try:
        width, height, x1, y1, x2, y2, label = (int(row[column]) for column in COLUMNS[1:])
    except (TypeError, ValueError) as error:
        raise DataCorruptError(
            f"{where}: {file} has a value that is no whole number ({error})", remedy=REMEDY
        ) from error
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        problem = f"{where}: {file} of {width}x{height} pixels has the box ({x1}, {y1}, {x2}, {y2})"
        raise DataCorruptError(problem, remedy=f"a box lies in its image and is not empty; {REMEDY}")
    if not 0 <= label < CLASSES:
        raise DataCorruptError(f"{where}: {file} has class {label}", remedy=f"classes are 0 to {CLASSES - 1}")
    return Annotation(file=file, width=width, height=height, x1=x1, y1=y1, x2=x2, y2=y2, label=label)


def _refuse_repeats(rows: list[Annotation], name: str) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.file in seen:
            raise DataCorruptError(f"{name} names {row.file} twice", remedy=REMEDY)
        seen.add(row.file)


# Binary portable pixmaps (P6), the format of every image of GTSRB.


_GAP = rb"(?:\s|#[^\n]*\n)++"
_HEADER = re.compile(rb"P6" + _GAP + rb"(\d{1,5})" + _GAP + rb"(\d{1,5})" + _GAP + rb"(\d{1,5})\s")


def parse_ppm(data: bytes, name: str) -> NDArray[np.uint8]:
    """Parse a P6 file of 8 bits per channel; return its pixels, uint8 (height, width, 3), RGB.

    The result is a read-only view of ``data``. Source: the netpbm project's format description.

    Args:
        data: the bytes of the file.
        name: the file, for messages.

    Raises:
        DataCorruptError: if it is no such file, or has too few or too many bytes.
    """
    header = _HEADER.match(data)
    if header is None:
        raise DataCorruptError(f"{name} is not a PPM image (it starts with {data[:8]!r})", remedy=REMEDY)
    width, height, maximum = (int(number) for number in header.groups())
    if maximum != 255 or not width or not height:
        problem = f"{name} is a PPM image of {width}x{height} pixels with values to {maximum}, expected to 255"
        raise DataCorruptError(problem, remedy=REMEDY)
    size = height * width * 3
    found = len(data) - header.end()
    if found != size:
        raise DataCorruptError(f"{name} has {found} bytes of pixels instead of {size}", remedy=REMEDY)
    return np.frombuffer(data, np.uint8, size, header.end()).reshape(height, width, 3)


# One half on the disk: the list of images, their annotations, and their pixels.


HalfName = Literal["train", "test"]

TRACKS_PER_CLASS = 100_000
"""A track number is the class times this plus the five digits in the file's name, and therefore unique in the half."""

_FRAME_FILE = re.compile(r"(\d{5})_(\d{5})\.ppm")


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of annotations: its name for messages, its bytes, and the folder of its images ('' or 'CCCCC/')."""

    name: str
    data: bytes
    folder: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Half:
    """One half: the place of its images, their names in order, and their tables."""

    half: HalfName
    files: Files
    names: tuple[str, ...]
    tables: tuple[Table, ...]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def fingerprint(self) -> dict[str, Json]:
        """Return values that identify the half at little cost: the number of images, and the SHA-256 of all tables."""
        sha = hashlib.sha256()
        for table in self.tables:
            sha.update(table.folder.encode() + b"\0" + table.data)
        return {"half": self.half, "images": len(self), "tables_sha256": sha.hexdigest()}

    def images_sha256(self, cache: Path) -> str:
        """Return the SHA-256 over the name and the bytes of every image; only images that may have changed are read.

        Args:
            cache: the folder of caches, where the digests of the images are remembered.

        Raises:
            DataCorruptError: if an image cannot be read.
        """
        digests = self.files.digests(self.names, cache)
        return hashlib.sha256(json.dumps([[name, digests[name]] for name in self.names]).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One image: its name, its row of the table, its track and its frame (both -1 where unknown)."""

    name: str
    annotation: Annotation
    track: int
    frame: int


def find_half(root: Path, half: HalfName) -> Half | None:
    """Find the half below ``root``; return None if its images are not there.

    Raises:
        DataMissingError: if test images have no table with classes.
        DataCorruptError: if the files that are there cannot be read, or the images or the table of a class are missing.
    """
    return _find_train(root) if half == "train" else _find_test(root)


def read_entries(half: Half) -> list[Entry]:
    """Return every image with its row, in the order of the names.

    Raises:
        DataCorruptError: for a row without its image, an image without its row, a row of another class than its folder,
            a training image whose name does not contain its track, and the errors of ``parse_annotations``.
    """
    rows: dict[str, Annotation] = {}
    for table in half.tables:
        for row in parse_annotations(table.data, table.name):
            _check_class(row, table)
            rows[table.folder + row.file] = row
    present = set(half.names)
    for name in rows:
        if name not in present:
            raise DataCorruptError(
                f"{half.files.full_name(name)} has a row in its table and is not there", remedy=REMEDY
            )
    for name in half.names:
        if name not in rows:
            raise DataCorruptError(f"{half.files.full_name(name)} has no row in its table", remedy=REMEDY)
    return [_entry(half, name, rows[name]) for name in half.names]


def read_images(half: Half, entries: list[Entry]) -> Iterator[tuple[Entry, bytes, NDArray[np.uint8]]]:
    """Yield each image with the bytes of its file and its pixels, uint8 (height, width, 3).

    Raises:
        DataCorruptError: for a file that is no PPM image of the size in its table.
    """
    for entry, data in zip(entries, half.files.read(entry.name for entry in entries), strict=True):
        name = half.files.full_name(entry.name)
        image = parse_ppm(data, name)
        said = (entry.annotation.height, entry.annotation.width)
        if image.shape[:2] != said:
            problem = f"{name} has {image.shape[1]}x{image.shape[0]} pixels, and its table says {said[1]}x{said[0]}"
            raise DataCorruptError(problem, remedy=REMEDY)
        yield entry, data, image


def fill_arrays(half: Half, arrays: CacheArrays) -> None:
    """Resize the images of a half into the arrays of a cache, with their annotations.

    Raises:
        DataCorruptError: as ``read_entries`` and ``read_images``.
    """
    entries = read_entries(half)
    size = arrays.images.shape[-1]
    read = advancing(read_images(half, entries), f"resizing {half.half} images", len(entries))
    for index, (_, _, image) in enumerate(read):
        arrays.images[index] = resize(image, size)
    rows = [entry.annotation for entry in entries]
    arrays.labels[:] = [row.label for row in rows]
    arrays.tracks[:] = [entry.track for entry in entries]
    arrays.frames[:] = [entry.frame for entry in entries]
    arrays.original_size[:] = [(row.width, row.height) for row in rows]
    box = np.array([(row.x1, row.y1, row.x2, row.y2) for row in rows], np.float64).reshape(-1, 4)
    sides = np.tile(arrays.original_size, (1, 2))
    arrays.roi[:] = normalized_position(box, sides, size)


def content_digest(half: Half) -> str:
    """Return the SHA-256 over every image's name, row and file, 64 hexadecimal digits.

    Line ends of the tables do not matter.

    Raises:
        DataCorruptError: as ``read_entries`` and ``read_images``.
    """
    sha = hashlib.sha256()
    entries = read_entries(half)
    for entry, data, _ in advancing(read_images(half, entries), f"checking {half.half} images", len(entries)):
        row = entry.annotation
        numbers = (row.width, row.height, row.x1, row.y1, row.x2, row.y2, row.label, len(data))
        sha.update(f"{entry.name};{';'.join(map(str, numbers))}\n".encode())
        sha.update(data)
    return sha.hexdigest()


def _find_train(root: Path) -> Half | None:
    files = find_train(root)
    if files is None:
        return None
    names = files.names()
    images = [name for name in names if name.endswith(".ppm") and CLASS_FOLDER.fullmatch(name.partition("/")[0])]
    folders = sorted({name.partition("/")[0] for name in images})
    tables = [f"{folder}/GT-{folder}.csv" for folder in folders]
    missing = set(tables) - set(names)
    if missing:
        raise DataCorruptError(f"{files.full_name(min(missing))} is missing beside its images", remedy=REMEDY)
    if not images:
        raise DataCorruptError(f"{files.full_name('')} has no images", remedy=REMEDY)
    read = zip(folders, tables, files.read(tables), strict=True)
    loaded = (Table(name=files.full_name(name), data=data, folder=f"{folder}/") for folder, name, data in read)
    return Half(half="train", files=files, names=tuple(images), tables=tuple(loaded))


def _find_test(root: Path) -> Half | None:
    found = find_test(root)
    if found is None:
        return None
    images = tuple(name for name in found.images.names() if name.endswith(".ppm") and "/" not in name)
    if not images:
        raise DataCorruptError(f"{found.images.full_name('')} has no images", remedy=REMEDY)
    data = next(found.truth.read([found.truth_name]))
    table = Table(name=found.truth.full_name(found.truth_name), data=data, folder="")
    return Half(half="test", files=found.images, names=images, tables=(table,))


def _check_class(row: Annotation, table: Table) -> None:
    if table.folder and int(table.folder.rstrip("/")) != row.label:
        problem = f"{table.name}: {row.file} has class {row.label} in the folder {table.folder}"
        raise DataCorruptError(problem, remedy=REMEDY)


def _entry(half: Half, name: str, row: Annotation) -> Entry:
    if half.half == "test":
        return Entry(name=name, annotation=row, track=-1, frame=-1)
    match = _FRAME_FILE.fullmatch(row.file)
    if match is None:
        remedy = "training images are named TTTTT_FFFFF.ppm by track and frame"
        raise DataCorruptError(f"{half.files.full_name(name)} does not tell its track", remedy=remedy)
    track, frame = int(match[1]), int(match[2])
    return Entry(name=name, annotation=row, track=row.label * TRACKS_PER_CLASS + track, frame=frame)


READER_VERSION = 1
"""Increased when the arrays of a cache change meaning, so that caches are made again."""

VERSIONS: Mapping[str, Json] = {"set": "gtsrb", "reader": READER_VERSION, "resize": RESIZE_VERSION}


class Gtsrb(Dataset):
    """The German Traffic Sign Recognition Benchmark, resized to squares.

    A half is cached in ``cache / gtsrb-<half>-<size>-<digest>``; the digest covers the size, the versions of reader and
    resizing, the tables and the bytes of every image, not their location. If the source is there, it determines the
    cache; an image is read again only if its size, times or inode have changed. If the source is not there (deleted
    after preparing, or prepared with ``--root``), the one cache of the half and size is opened; several are an error.

    Args:
        spec: the specification, which has the size.
        source: the folder with the official tree or archives.
        cache: the folder of caches.
        builds: whether a missing cache is made.
    """

    def __init__(self, spec: GtsrbSpec, *, source: Path, cache: Path, builds: bool = True) -> None:
        self._image_size = spec.image_size
        self._source = source
        self._cache = cache
        self._builds = builds
        self._opened: dict[HalfName, ImageSet] = {}

    @property
    def class_names(self) -> Sequence[str]:
        """Return the names of the 43 classes of signs, in label order."""
        return GTSRB_CLASSES

    @property
    @override
    def official_counts(self) -> Mapping[str, tuple[int, ...]]:
        return {"train": (TRAIN_IMAGES, TRAIN_TRACKS), "test": (TEST_IMAGES,)}

    @override
    def download(self, root: Path, say: Callable[[str], None]) -> None:
        download_archives(root, say=say)

    def train(self) -> ImageSet:
        """Return the training half, 39,209 images if it is the official one; tracks are class * 100000 + track.

        Raises:
            DataMissingError: if neither the source nor a cache is there.
            DataCorruptError: if the source or the cache is wrong.
            DataError: if the source is not there, and there are several caches.
            FolderError: if the cache cannot be written.
        """
        return self._half("train")

    def test(self) -> ImageSet:
        """Return the test half, 12,630 images if it is the official one; tracks and frames are -1.

        It raises the same errors as ``train``.
        """
        return self._half("test")

    def _half(self, half: HalfName) -> ImageSet:
        if half not in self._opened:
            found = find_half(self._source, half)
            self._opened[half] = self._open_prepared(half) if found is None else self._open(found)
        return self._opened[half]

    def _open(self, half: Half) -> ImageSet:
        tables: dict[str, Json] = {"image_size": self._image_size, **VERSIONS, **half.fingerprint()}
        identity = tables | {"images_sha256": half.images_sha256(self._cache)}
        opened = open_or_build(
            self._folder(half.half, identity),
            identity=identity,
            recipe=lambda: Recipe(
                layout=Layout(count=len(half), image_size=self._image_size, has_pose=False),
                fill=lambda arrays: self._fill(half, arrays, identity),
            ),
            builds=self._builds,
            of_source=("images", "tables_sha256", "images_sha256"),
        )
        if self._builds:
            remove_superseded(self._folder(half.half, tables))
        return opened

    def _fill(self, half: Half, arrays: CacheArrays, identity: dict[str, Json]) -> None:
        fill_arrays(half, arrays)
        if half.images_sha256(self._cache) != identity["images_sha256"]:
            problem = f"images in {half.files.place} changed while they were read"
            raise DataCorruptError(problem, remedy="run the command again when nothing writes there")

    def _folder(self, half: HalfName, identity: dict[str, Json]) -> Path:
        return self._cache / f"gtsrb-{half}-{self._image_size}-{digest(identity)}"

    def _open_prepared(self, half: HalfName) -> ImageSet:
        """Open the one cache of this half and size, for a source that is not there.

        Raises:
            DataError: if there are several caches.
            DataMissingError: if there is none.
        """
        opened = open_prepared(
            self._cache,
            f"gtsrb-{half}-{self._image_size}-*",
            VERSIONS,
            absent=f"the source of GTSRB's {half} half is not below {self._source}",
        )
        if opened is None:
            raise missing_train(self._source) if half == "train" else missing_test(self._source)
        return opened
