"""What a sweep says beyond its ranking: figures of effects and interactions, and the tables of every other format."""

from collections.abc import Iterator
from typing import Final

from stnbench.report.board import Leaderboard
from stnbench.report.findings import Findings
from stnbench.report.findings_text import FOLDS, Part, findings_parts
from stnbench.report.page.effects import effect_figure, importance_figure, interaction_figure
from stnbench.report.page.figure import figure_lines
from stnbench.report.page.html import bullets, escape, table

_OPEN_ROWS: Final = 12
"""A table with more is closed at first."""

_OPEN: Final = frozenset({FOLDS, "Differences", "Gains of transformers", "What these findings leave out"})
"""The other parts say in words what a figure above has shown."""


def findings_lines(board: Leaderboard, findings: Findings, prefix: str) -> Iterator[str]:
    """Effects, interactions and importance as figures; all of it in words and numbers below, folded where long."""
    for figure in (effect_figure(findings), interaction_figure(findings), importance_figure(findings)):
        if figure is not None:
            yield from figure_lines(figure, prefix)
    for part in findings_parts(board):
        yield from _part(part)


def _part(part: Part) -> Iterator[str]:
    rows = max((len(column.cells) for column in part.columns), default=0)
    is_open = " open" if part.heading in _OPEN and rows <= _OPEN_ROWS else ""
    yield f'<details class="part"{is_open}><summary><h3>{escape(part.heading)}</h3></summary>'
    yield from bullets(part.above, "notes-list")
    if part.columns:
        yield from table(part.columns, part.heading)
    yield from bullets(part.below, "notes-list")
    yield "</details>"
