"""Leaderboards on a terminal, or as plain lines where there is none."""

import io
import shutil
from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from stnbench.analysis.inference import Standing
from stnbench.report import text
from stnbench.report.board import Leaderboard, Row
from stnbench.report.findings_text import folds_sentences
from stnbench.report.table import Column, failure_line, heading, leaderboard_columns

GAP = 2
_BAD = "bold red"
_STYLES = {Standing.BEST: "bold green", Standing.TIED: "green", Standing.UNDERPOWERED: "", Standing.LOWER: ""}


def render_terminal(board: Leaderboard, *, width: int | None = None, color: bool = False) -> str:
    """A leaderboard as lines, the table never wrapped.

    Args:
        board: the leaderboard.
        width: of the terminal in characters; the least important columns that do not fit are left out and named. None
            for as wide as it is.
        color: whether to write colours, as ANSI codes.
    """
    columns = leaderboard_columns(board)
    shown = columns if width is None else fitting_columns(columns, width)
    written = io.StringIO()
    console = Console(
        file=written,
        width=width or max(_width(columns), 120),
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        emoji=False,
        markup=False,
    )
    console.print(Text(text.clean(f"{board.sweep}: {board.question}"), style="bold"), soft_wrap=width is None)
    for name, value in text.provenance_lines(board.provenance):
        console.print(Text(f"{name.lower()}: {text.clean(value)}", style="dim"), soft_wrap=width is None)
    console.print(Text(heading(board)), soft_wrap=width is None)
    for row in _table(board.rows, shown):
        console.print(row, soft_wrap=True)
    for line, style in _lines_below(board, [column.heading for column in columns if column not in shown]):
        console.print(Text(line, style=style), soft_wrap=width is None)
    return "".join(f"{line.rstrip()}\n" for line in written.getvalue().splitlines())


def print_terminal(boards: Sequence[Leaderboard], out: TextIO) -> None:
    """Print leaderboards, as wide and as coloured as the stream is."""
    width = shutil.get_terminal_size().columns if out.isatty() else None
    color = out.isatty() and Console(file=out).color_system is not None
    out.write("\n".join(render_terminal(board, width=width, color=color) for board in boards))


def fitting_columns(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns that fit, in order: the least important ones are left out, down to the most important ones."""
    kept = list(columns)
    while _width(kept) > width and len({column.importance for column in kept}) > 1:
        kept.remove(min(kept, key=lambda column: column.importance))
    return kept


def _width(columns: Sequence[Column]) -> int:
    return sum(map(_column_width, columns)) + GAP * (len(columns) - 1)


def _column_width(column: Column) -> int:
    return max(map(cell_len, (column.heading, *column.cells)))


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> Iterator[Text]:
    """The heading and one line a row, aligned by what a terminal shows, in which some letters are wide."""
    if not rows:
        return
    cells_by_column = [padded(column) for column in columns]
    styles = ["dim", *(_STYLES[row.standing] if row.standing else "dim" for row in rows)]
    for line, (cells, style) in enumerate(zip(zip(*cells_by_column, strict=True), styles, strict=True)):
        is_bad = [line > 0 and column.is_bad(line - 1) for column in columns]  # line 0 is the heading
        parts = [Text(cell, style=_BAD if bad else "") for cell, bad in zip(cells, is_bad, strict=True)]
        joined = Text(" " * GAP, style=style).join(parts)
        joined.rstrip()
        yield joined


def padded(column: Column) -> list[str]:
    """The heading and the cells of a column, as wide as the widest of them."""
    width = _column_width(column)
    cells = (column.heading, *column.cells)
    if column.is_number:
        return [" " * (width - cell_len(cell)) + cell for cell in cells]
    return [set_cell_size(cell, width) for cell in cells]


def _lines_below(board: Leaderboard, left_out: Sequence[str]) -> Iterator[tuple[str, str]]:
    if left_out:
        yield f"Left out for want of width: {', '.join(left_out)}.", "dim"
    if board.findings:
        yield from ((line, "bold") for line in folds_sentences(board.findings.folds))
    yield from ((text.clean(note), "dim") for note in board.notes)
    yield from ((f"failed: {failure_line(group)}", "red") for group in board.failures)
