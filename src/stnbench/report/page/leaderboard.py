"""The leaderboard of a page: sorted by every column, filtered by words and axes, readable without a script."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from stnbench.analysis.inference import Standing
from stnbench.report.board import Leaderboard, Row
from stnbench.report.page.html import bullets, escape
from stnbench.report.table import Column, heading, leaderboard_columns
from stnbench.spec.verdict import Verdict

MOST_ROWS: Final = 1000
"""Rows of a page; more are in the CSV."""

_MOST_CHOICES: Final = 60
"""Of a select; an axis with more is found by words."""

_WHISKER_PX: Final = (92, 14)
_NUMBER: Final = re.compile(r"^\[?([+-]?[\d,]*\.?\d+)(?:\s*([kMGT])\b)?")
_UNITS: Final = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def leaderboard_lines(board: Leaderboard, prefix: str) -> Iterator[str]:
    """Filters, table and notes; the notes alone where there are no cells."""
    scale = f" Intervals are drawn to the scale of each {board.within}." if board.within else ""
    yield f'<p class="note">{escape(heading(board) + scale)}</p>'
    if board.rows:
        shown = board.rows[:MOST_ROWS]
        if len(board.rows) > MOST_ROWS:
            yield f'<p class="note">The first {MOST_ROWS} of {len(board.rows):,} cells; all are in the CSV.</p>'
        yield from _filters(board, shown, prefix)
        yield from _table(board, shown, prefix)
    yield '<div class="notes-list">'
    yield from bullets(board.notes)
    yield "</div>"


def sort_value(said: str) -> float | None:
    """The number that a cell of a table begins with, its unit applied; None where there is none."""
    found = _NUMBER.match(said)
    if found is None:
        return None
    return float(found[1].replace(",", "")) * _UNITS.get(found[2] or "", 1.0)


def _filters(board: Leaderboard, rows: Sequence[Row], prefix: str) -> Iterator[str]:
    yield f'<form class="filters" id="{escape(prefix)}-filter" data-needs-script hidden>'
    yield '<label>Search<input type="search" placeholder="words of a cell" autocomplete="off"></label>'
    for index, (name, labels) in enumerate(_axes(board, rows)):
        yield from _select(name, labels, f"data-a{index}")
    standings = [standing.value for standing in Standing if any(row.standing is standing for row in rows)]
    if len(standings) > 1:
        yield from _select("vs best", standings, "data-standing")
    verdicts = [verdict.value for verdict in Verdict if any(verdict in row.health.verdicts[:1] for row in rows)]
    if len(verdicts) > 1:
        yield from _select("health, worst", verdicts, "data-health")
    yield '<button type="reset">Show all</button><output aria-live="polite"></output></form>'


def _axes(board: Leaderboard, rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Axes that can be chosen from, with their labels in the order of the table."""
    found = []
    for name in board.axes:
        labels = sorted({label for row in rows for axis, label in row.axes if axis == name}, key=_natural)
        if 1 < len(labels) <= _MOST_CHOICES:
            found.append((name, labels))
    return found


def _natural(label: str) -> list[tuple[int, str]]:
    """Numbers in labels are in order as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,15})", label) if part]


def _select(name: str, labels: Sequence[str], attribute: str) -> Iterator[str]:
    yield f'<label>{escape(name)}<select data-attribute="{attribute}"><option value="">all</option>'
    values = labels if attribute in {"data-standing", "data-health"} else [str(index) for index in range(len(labels))]
    options = zip(values, labels, strict=True)
    yield "".join(f'<option value="{escape(value)}">{escape(label)}</option>' for value, label in options)
    yield "</select></label>"


def _table(board: Leaderboard, rows: Sequence[Row], prefix: str) -> Iterator[str]:
    columns = _cell_first(leaderboard_columns(board))
    label = escape(f"Leaderboard of {board.sweep}")
    yield f'<div class="wide" tabindex="0" role="region" aria-label="{label}">'
    yield f'<table class="board" id="{escape(prefix)}-board" data-filter="{escape(prefix)}-filter">'
    yield f"<thead><tr>{''.join(map(_heading, columns))}</tr></thead>"
    yield "<tbody>"
    axes = [(name, {label: index for index, label in enumerate(labels)}) for name, labels in _axes(board, rows)]
    groups = {row.group for row in rows}
    frames = {group: _whisker_frame([row for row in rows if row.group == group]) for group in groups}
    for index, row in enumerate(rows):
        cells = "".join(_cell(column, index, row, frames[row.group]) for column in columns)
        yield f'<tr class="{_kind(row)}" data-at="{index}"{_attributes(row, axes)}>{cells}</tr>'
    yield "</tbody></table></div>"


def _cell_first(columns: Sequence[Column]) -> list[Column]:
    """The column that names the cell goes first: it is the one that stays in sight."""
    return sorted(columns, key=lambda column: column.heading != "cell")


def _heading(column: Column) -> str:
    classes = ' class="number"' if column.is_number else ""
    first = "descending" if column.is_number and column.heading != "rank" else "ascending"
    ranked = ' aria-sort="ascending"' if column.heading == "rank" else ""
    said = escape(column.heading)
    return f'<th scope="col"{classes} data-first="{first}"{ranked}><button type="button">{said}</button></th>'


def _kind(row: Row) -> str:
    return row.standing.value if row.standing else "none"


def _attributes(row: Row, axes: Sequence[tuple[str, dict[str, int]]]) -> str:
    """What the filters look at: labels by number, so that no text of theirs matters."""
    labels = dict(row.axes)
    found = [f' data-a{index}="{known[labels[name]]}"' for index, (name, known) in enumerate(axes) if name in labels]
    worst = f' data-health="{row.health.verdicts[0].value}"' if row.health.verdicts else ""
    return "".join(found) + f' data-standing="{_kind(row)}"' + worst


def _cell(column: Column, index: int, row: Row, frame: tuple[float, float] | None) -> str:
    said = column.cells[index]
    shown = escape(said)
    if column.heading == "cell":
        return f'<th scope="row">{shown.replace("_", "_<wbr>")}</th>'
    if column.heading == "vs best" and row.standing:
        word = row.standing.value
        shown = f'<span class="mark {word}">{word}</span><span class="faint">{escape(said.removeprefix(word))}</span>'
    if column.heading == "health" and row.health.verdicts:
        kind = "bad" if column.is_bad(index) else "healthy"
        shown = f'<span class="mark {kind}">{shown}</span>'
    if column.heading == "95 % interval" and frame is not None:
        shown = _whisker(row, frame) + shown
    classes = [
        name for name, applies in (("number", column.is_number), ("notes", column.heading == "notes")) if applies
    ]
    attribute = f' class="{" ".join(classes)}"' if classes else ""
    if not column.is_number:
        return f"<td{attribute}>{shown}</td>"
    value = sort_value(said)
    return f'<td{attribute} data-v="{"" if value is None else f"{value:.10g}"}">{shown}</td>'


def _whisker_frame(rows: Sequence[Row]) -> tuple[float, float] | None:
    """The range of the small intervals: that of the means and a little more; wider intervals are cut."""
    means = [row.score.mean for row in rows if row.score]
    if not means:
        return None
    room = max(0.25 * (max(means) - min(means)), 0.002)
    return min(means) - room, max(means) + room


def _whisker(row: Row, frame: tuple[float, float]) -> str:
    """The interval as a line with a dot at the mean."""
    width, height = _WHISKER_PX
    if row.score is None:
        return ""

    def place(share: float) -> float:
        return round(3 + (width - 6) * min(max((share - frame[0]) / (frame[1] - frame[0]), 0.0), 1.0), 1)

    low, high = row.score.low, row.score.high
    line = "" if low is None or high is None else f'<path d="M{place(low)} 7H{place(high)}"/>'
    return (
        f'<svg class="whisker" width="{width}" height="{height}" aria-hidden="true" fill="currentColor" '
        f'stroke="currentColor" stroke-width="1.5">{line}<circle cx="{place(row.score.mean)}" cy="7" r="3"/></svg>'
    )
