"""Leaderboards in Markdown, as GitHub reads it."""

import re
from collections.abc import Iterable, Sequence

from stnbench.report import text
from stnbench.report.board import Leaderboard
from stnbench.report.table import Column, failure_line, heading, leaderboard_columns

_SPECIAL = re.compile(r"[\\`*{}|~$#]|\](?=[(\[:])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""Brackets only where they would make a link, underscores only where they would make emphasis."""


def to_markdown(boards: Sequence[Leaderboard]) -> str:
    """One section a sweep."""
    return "\n".join(_section(board) for board in boards)


def escape(raw: str) -> str:
    """Text that Markdown and HTML leave as it is, on one line."""
    plain = text.clean(raw).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\g<0>", plain)


def _section(board: Leaderboard) -> str:
    pairs = text.provenance_lines(board.provenance)
    lines = [f"# {escape(board.sweep)}", "", escape(board.question), ""]
    lines += [*(f"- {name}: {_code(value)}" for name, value in pairs), "", escape(heading(board)), ""]
    if board.rows:
        lines += [*_table(leaderboard_columns(board)), ""]
    lines += [*(f"- {escape(note)}" for note in board.notes), ""]
    if board.failures:
        lines += ["## Failures", "", *(f"- {escape(failure_line(group))}" for group in board.failures), ""]
    return "\n".join(lines)


def _table(columns: Sequence[Column]) -> Iterable[str]:
    yield _line(column.heading for column in columns)
    yield _line("---:" if column.is_number else ":---" for column in columns)
    yield from (_line(cells) for cells in zip(*map(_cells, columns), strict=True))


def _cells(column: Column) -> list[str]:
    """The cells of a column; what tells of something wrong is bold."""
    cells = [escape(cell) for cell in column.cells]
    return [f"**{cell}**" if column.is_bad(row) else cell for row, cell in enumerate(cells)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(value: str) -> str:
    """Text as code, which nothing in it can end."""
    plain = text.clean(value)
    fence = "`" * (max((len(run) for run in re.findall(r"`+", plain)), default=0) + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{pad}{plain}{pad}{fence}"
