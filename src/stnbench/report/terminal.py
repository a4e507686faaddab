"""Leaderboards on a terminal, or as plain lines where there is none."""

import io
import shutil
from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stnbench.report import text
from stnbench.report.board import Leaderboard, Row
from stnbench.report.stats import Standing
from stnbench.report.table import Column, failure_line, heading, leaderboard_columns

GAP = 2
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
    if board.rows:
        console.print(_table(board.rows, shown))
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
    widest = (max(len(item) for item in (column.heading, *column.cells)) for column in columns)
    return sum(widest) + GAP * (len(columns) - 1)


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column.heading, justify="right" if column.is_number else "left", no_wrap=True)
    for row, cells in zip(rows, zip(*(column.cells for column in columns), strict=True), strict=True):
        style = _STYLES[row.standing] if row.standing else "dim"
        table.add_row(*map(Text, cells), style=style)
    return table


def _lines_below(board: Leaderboard, left_out: Sequence[str]) -> Iterator[tuple[str, str]]:
    if left_out:
        yield f"Left out for want of width: {', '.join(left_out)}.", "dim"
    yield from ((text.clean(note), "dim") for note in board.notes)
    yield from ((f"failed: {failure_line(group)}", "red") for group in board.failures)
