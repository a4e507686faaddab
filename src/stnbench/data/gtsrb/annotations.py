"""The tables beside the images: one row an image with its size, the sign's box and its class."""

import csv
import io
from dataclasses import dataclass

from stnbench.core.errors import DataCorruptError
from stnbench.spec.data import CLASSES

COLUMNS = ("Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId")
TABLE_MAX_BYTES = 8 << 20
"""Of a table that is read at all; the largest official one has half a megabyte."""

REMEDY = "extract or download the archive again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """One row: the file's name, its size in pixels, the sign's box in pixels from the outer edges, and the class."""

    file: str
    width: int
    height: int
    x1: int
    y1: int
    x2: int
    y2: int
    label: int


def parse_annotations(data: bytes, name: str) -> list[Annotation]:
    """The rows of a table, separated by semicolons, in its order.

    ``name`` is the table's file, for messages.
    Raises: DataCorruptError naming the file, the line and the value for a missing column, a value that is not a whole
    number, a box that leaves the image or is empty, a class outside 0..42, a file named twice, and a table that is
    larger than any of GTSRB's.
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
