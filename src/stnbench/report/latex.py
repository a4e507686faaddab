"""Leaderboards as LaTeX tables, for papers that load booktabs."""

from collections.abc import Iterator, Sequence

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
    notes = " ".join((board.question, heading(board), *board.notes))
    yield rf"\caption{{{escape(notes)}}}"
    yield rf"\label{{tab:{_label(board.sweep)}}}"
    yield rf"\begin{{tabular}}{{{''.join('r' if column.is_number else 'l' for column in columns)}}}"
    yield r"\toprule"
    yield _row([column.heading for column in columns])
    yield r"\midrule"
    yield from (_row(cells) for cells in _rows(columns))
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\end{table}"


def _rows(columns: Sequence[Column]) -> Iterator[tuple[str, ...]]:
    return zip(*(column.cells for column in columns), strict=True)


def _row(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(escape, cells))} \\\\"


def _label(name: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-.") else "-" for letter in name)
