"""Leaderboards as LaTeX tables, for papers that load booktabs and longtable."""

import re
from collections.abc import Iterable, Iterator, Sequence

from stnbench.report import text
from stnbench.report.board import Leaderboard
from stnbench.report.findings_text import Part, findings_parts
from stnbench.report.table import Column, failure_line, heading, leaderboard_columns

_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "[": "{[}",  # after a line's end it would be read as an optional argument
        "]": "{]}",
        "\u00b7": r"\textperiodcentered{}",
        "\u2013": "--",
    }
)
_RANGE = re.compile(r"(?<=\d)-(?=\d)")
_SIGN = re.compile(r"(?<!-)-(?=\d)")
LEAST_IMPORTANCE = 3

_SHORT = 30
"""Rows of a table that may float: more might not find room on a page."""

_WIDE = 90
"""Characters of a row from which on the letters are smaller, and from half as many more on smaller still."""


def to_latex(boards: Sequence[Leaderboard]) -> str:
    """Tables of each sweep, long ones over as many pages as they need; load booktabs and longtable.

    FLOPs and notes of cells are left to the other formats, and so are findings that are sentences. Very wide tables
    want a page on its side.
    """
    return "\n".join("\n".join(_lines(board)) + "\n" for board in boards)


def escape(raw: str) -> str:
    """Text that LaTeX sets as it is, on one line."""
    return text.clean(raw).translate(_SPECIAL)


def _lines(board: Leaderboard) -> Iterator[str]:
    columns = [
        column
        for column in leaderboard_columns(board)
        if column.importance >= LEAST_IMPORTANCE and column.heading != "notes"
    ]
    yield from (f"% {name}: {text.clean(value)}" for name, value in text.provenance_lines(board.provenance))
    yield from (f"% failed: {failure_line(group)}" for group in board.failures)
    label = _label(board.sweep)
    groups = [row.group for row in board.rows]
    caption = f"{board.question} {heading(board)}"
    yield from _table(columns, caption=caption, label=label, notes=board.notes, groups=groups)
    for part in findings_parts(board):
        if part.columns:
            yield from _part(board, part)


def _part(board: Leaderboard, part: Part) -> Iterator[str]:
    label = f"{_label(board.sweep)}-{_label(part.heading.lower())}"
    caption = f"{part.heading}, {board.split} split."
    yield from _table(part.columns, caption=caption, label=label, notes=(*part.above, *part.below))


def _table(
    columns: Sequence[Column], *, caption: str, label: str, notes: Iterable[str], groups: Sequence[str] = ()
) -> Iterator[str]:
    """One that floats where it is short, or else goes on over pages; a little space between groups of rows."""
    headings = (r"\toprule", _row(escape(column.heading) for column in columns), r"\midrule")
    title = rf"\caption{{{escape(caption)}}}\label{{tab:{label}}}"
    letters = f"@{{}}{''.join('r' if column.is_number else 'l' for column in columns)}@{{}}"
    remarks = rf"\footnotesize {escape(' '.join(notes))}\par"
    rows = list(_rows(columns, groups))
    if len(rows) <= _SHORT:
        yield from (r"\begin{table}", r"\centering", title, _size(columns))
        yield from (rf"\begin{{tabular}}{{{letters}}}", *headings, *rows, r"\bottomrule", r"\end{tabular}")
        yield from (rf"\par\smallskip\raggedright{remarks}", r"\end{table}")
        return
    yield from (r"\begingroup", _size(columns), rf"\begin{{longtable}}{{{letters}}}", rf"{title}\\")
    yield from (*headings, r"\endfirsthead", *headings, r"\endhead", r"\bottomrule", r"\endlastfoot")
    yield from (*rows, r"\end{longtable}")
    yield from (rf"\noindent{remarks}", r"\endgroup")


def _rows(columns: Sequence[Column], groups: Sequence[str]) -> Iterator[str]:
    for index, cells in enumerate(zip(*map(_cells, columns), strict=True)):
        if index and groups and groups[index] != groups[index - 1]:
            yield r"\addlinespace"
        yield _row(cells)


def _size(columns: Sequence[Column]) -> str:
    width = sum(max(map(len, (column.heading, *column.cells))) + 2 for column in columns)
    letters = r"\small" if width < _WIDE else r"\footnotesize" if width < 1.5 * _WIDE else r"\scriptsize"
    return rf"{letters}\setlength{{\tabcolsep}}{{4pt}}"


def _cells(column: Column) -> list[str]:
    """The cells of a column; in numbers a hyphen is a minus sign, or between two of them a dash.

    What tells of something wrong is bold.
    """
    cells = map(escape, column.cells)
    if column.is_number:
        return [_SIGN.sub("$-$", _RANGE.sub("--", cell)) for cell in cells]
    return [rf"\textbf{{{cell}}}" if column.is_bad(row) else cell for row, cell in enumerate(cells)]


def _row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _label(name: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-.") else "-" for letter in name)
