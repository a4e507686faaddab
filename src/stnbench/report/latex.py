"""Leaderboards as LaTeX tables, for papers that load booktabs."""

import re
from collections.abc import Iterable, Iterator, Sequence

from stnbench.report import text
from stnbench.report.board import Leaderboard
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


def to_latex(boards: Sequence[Leaderboard]) -> str:
    """One table a sweep; load booktabs. FLOPs and notes of cells are left to the other formats."""
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
    yield r"\begin{table}"
    yield r"\centering"
    yield rf"\caption{{{escape(board.question)} {escape(heading(board))}}}"
    yield rf"\label{{tab:{_label(board.sweep)}}}"
    yield rf"\begin{{tabular}}{{{''.join('r' if column.is_number else 'l' for column in columns)}}}"
    yield r"\toprule"
    yield _row(escape(column.heading) for column in columns)
    yield r"\midrule"
    yield from (_row(cells) for cells in zip(*map(_cells, columns), strict=True))
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield rf"\par\smallskip\footnotesize {escape(' '.join(board.notes))}"
    yield r"\end{table}"


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
