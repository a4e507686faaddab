"""One half as it lies on the disk: which images there are, what the tables say of them, and their pixels."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stnbench.core.activity import advancing
from stnbench.core.errors import DataCorruptError
from stnbench.core.identity import Json
from stnbench.data.cache import CacheArrays
from stnbench.data.gtsrb.annotations import REMEDY, Annotation, parse_annotations
from stnbench.data.gtsrb.files import Files
from stnbench.data.gtsrb.locate import CLASS_FOLDER, find_test, find_train
from stnbench.data.gtsrb.ppm import parse_ppm
from stnbench.data.gtsrb.resize import normalized_position, resize

HalfName = Literal["train", "test"]

TRACKS_PER_CLASS = 100_000
"""Track numbers are class times this plus the five digits in the file's name, and so unique in the half."""

_FRAME_FILE = re.compile(r"(\d{5})_(\d{5})\.ppm")


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of annotations: its name for messages, its bytes, and the folder of its images ('' or 'CCCCC/')."""

    name: str
    data: bytes
    folder: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Half:
    """One half: where its images are, their names in order, and the tables about them."""

    half: HalfName
    files: Files
    names: tuple[str, ...]
    tables: tuple[Table, ...]

    def __len__(self) -> int:
        """How many images."""
        return len(self.names)

    def fingerprint(self) -> dict[str, Json]:
        """What tells this half from another at little cost: how many images, and the digest of all tables."""
        sha = hashlib.sha256()
        for table in self.tables:
            sha.update(table.folder.encode() + b"\0" + table.data)
        return {"half": self.half, "images": len(self), "tables_sha256": sha.hexdigest()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One image: its name, what its table says, its track and its frame (both -1 where unknown)."""

    name: str
    annotation: Annotation
    track: int
    frame: int


def find_half(root: Path, half: HalfName) -> Half | None:
    """The half below ``root``, or None if its images are not there.

    Raises: DataMissingError if test images have no table with classes; DataCorruptError if what is there is unreadable.
    """
    return _find_train(root) if half == "train" else _find_test(root)


def read_entries(half: Half) -> list[Entry]:
    """Every image with its row, in the order of the names.

    Raises: DataCorruptError for a row without its image, an image without its row, a row of another class than its
    folder, and a training image whose name does not tell its track.
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
    """Each image with the bytes of its file and its pixels, uint8 (height, width, 3).

    Raises: DataCorruptError for a file that is no PPM image of the size that its table says.
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
    """Write the half into a cache. Raises: as ``read_entries`` and ``read_images``."""
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
    """SHA-256 over every image's name, row and file, 64 hexadecimal digits; line ends of the tables do not matter.

    Raises: as ``read_entries`` and ``read_images``.
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
