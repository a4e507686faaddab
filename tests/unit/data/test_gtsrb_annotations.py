"""The tables beside the images are read strictly."""

import pytest

from stnbench.core.errors import DataCorruptError
from stnbench.data.gtsrb import Annotation, parse_annotations

HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
ROW = "00000_00000.ppm;29;30;5;6;24;25;33"


def test_a_row_is_read() -> None:
    """Every value lands where it belongs, with either line end and with a byte order mark."""
    row = Annotation(file="00000_00000.ppm", width=29, height=30, x1=5, y1=6, x2=24, y2=25, label=33)
    assert parse_annotations(f"{HEADER}\r\n{ROW}\r\n".encode(), "t.csv") == [row]
    assert parse_annotations(f"\ufeff{HEADER}\n{ROW}".encode(), "t.csv") == [row]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("a.ppm;29;30;5;6;24;25;43", "has class 43"),
        ("a.ppm;29;30;5;6;24;25;-1", "has class -1"),
        ("a.ppm;29;30;5;6;30;25;1", r"has the box \(5, 6, 30, 25\)"),
        ("a.ppm;29;30;5;6;5;25;1", r"has the box \(5, 6, 5, 25\)"),
        ("a.ppm;29;30;-1;6;24;25;1", r"has the box \(-1, 6, 24, 25\)"),
        ("a.ppm;29;30;5;6;24;x;1", "no whole number"),
        ("a.ppm;29;30;5;6", "no whole number"),
    ],
)
def test_a_wrong_row_is_named(row: str, problem: str) -> None:
    """The table, the line, the file and the value stand in the message."""
    with pytest.raises(DataCorruptError, match=rf"t\.csv, line 3: a\.ppm .*{problem}"):
        parse_annotations(f"{HEADER}\n{ROW}\n{row}\n".encode(), "t.csv")


def test_a_missing_column_is_named() -> None:
    """The official table of test images without classes is such a case."""
    with pytest.raises(DataCorruptError, match=r"t\.csv has no column ClassId"):
        parse_annotations(b"Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2\n", "t.csv")
    with pytest.raises(DataCorruptError, match="no column Filename"):
        parse_annotations(b"", "t.csv")


def test_a_repeated_file_is_refused() -> None:
    """One image has one row."""
    with pytest.raises(DataCorruptError, match=r"00000_00000\.ppm twice"):
        parse_annotations(f"{HEADER}\n{ROW}\n{ROW}\n".encode(), "t.csv")


def test_bytes_that_are_no_text_are_refused() -> None:
    """A binary file in the table's place is no traceback."""
    with pytest.raises(DataCorruptError, match=r"t\.csv is not a table"):
        parse_annotations(b"\xff\xfe\x00", "t.csv")


@pytest.mark.parametrize("line", [ROW + "\n", "x;" * 1000 + "\n", "\n", '"'])
def test_a_table_larger_than_any_of_gtsrb_is_refused_unread(line: str) -> None:
    """60 MiB of rows, of columns, of nothing or of one field: one line at once, without a look at them."""
    data = f"{HEADER}\n{line}".encode() + line.encode() * (60 * (1 << 20) // len(line))
    with pytest.raises(DataCorruptError, match="MiB, more than 8"):
        parse_annotations(data, "t.csv")
