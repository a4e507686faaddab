"""Leaderboards in Markdown, as GitHub reads it."""

import re
from collections.abc import Iterable, Sequence

from stnbench.report import agreement_text, text
from stnbench.report.agreement import Agreement
from stnbench.report.board import Leaderboard
from stnbench.report.findings_text import Part, findings_parts
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
    lines += [*(f"- {name}: {code(value)}" for name, value in pairs), "", escape(heading(board)), ""]
    if board.rows:
        lines += [*table_lines(leaderboard_columns(board)), ""]
    lines += [*(f"- {escape(note)}" for note in board.notes), ""]
    lines += [line for part in findings_parts(board) for line in _part(part)]
    if board.agreement:
        lines += _agreement(board.agreement)
    if board.failures:
        lines += ["## Failures", "", *(f"- {escape(failure_line(group))}" for group in board.failures), ""]
    return "\n".join(lines)


def _part(part: Part) -> Iterable[str]:
    """One kind of finding."""
    yield from (f"## {escape(part.heading)}", "")
    if part.above:
        yield from (*(f"- {escape(line)}" for line in part.above), "")
    if part.columns:
        yield from (*table_lines(part.columns), "")
    if part.below:
        yield from (*(f"- {escape(line)}" for line in part.below), "")


def _agreement(agreement: Agreement) -> Iterable[str]:
    """What was published of the same cells, and which of the claims made then hold."""
    yield from (f"## {agreement_text.HEADING}", "")
    yield from (*(f"- {escape(line)}" for line in agreement_text.agreement_sentences(agreement)), "")
    yield from (*table_lines(agreement_text.agreement_columns(agreement)), "")
    if agreement.claims:
        yield from (*table_lines(agreement_text.claim_columns(agreement)), "")
    yield from (*(f"- {escape(line)}" for line in agreement_text.claim_sentences(agreement)), "")


def table_lines(columns: Sequence[Column]) -> Iterable[str]:
    """A table, line by line."""
    yield _line(column.heading for column in columns)
    yield _line("---:" if column.is_number else ":---" for column in columns)
    yield from (_line(cells) for cells in zip(*map(_cells, columns), strict=True))


def _cells(column: Column) -> list[str]:
    """The cells of a column; what tells of something wrong is bold."""
    cells = [escape(cell) for cell in column.cells]
    return [f"**{cell}**" if column.is_bad(row) else cell for row, cell in enumerate(cells)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def code(value: str) -> str:
    """Text as code, which nothing in it can end."""
    plain = text.clean(value)
    fence = "`" * (max((len(run) for run in re.findall(r"`+", plain)), default=0) + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{pad}{plain}{pad}{fence}"
