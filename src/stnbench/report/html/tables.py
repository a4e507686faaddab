"""Tables of a page, which can be sorted by value and filtered by words and facets, and read without a script."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from stnbench.analysis.inference import Estimate
from stnbench.report.html.document import escape
from stnbench.report.table import ESSENTIAL, Column, Facet, Table

MOST_ROWS: Final = 2000
"""The largest number of rows on a page; CSV and JSON have all."""

FIRST_ROWS: Final = 25
"""The number of rows that the script shows at first, of tables with filters."""

_MOST_CHOICES: Final = 60
"""The largest number of choices of a select; a facet with more has none and is searched by words."""

_FEWEST_FILTERED: Final = 4
_WHISKER_PX: Final = (92, 14)


def table_lines(table: Table[Any], name: str, *, link: Callable[[Any], str] | None = None) -> Iterator[str]:
    """Yield a table as HTML, with filters unless it is short.

    Args:
        table: the table.
        name: the id of the table on the page.
        link: returns the target of the cell that names a row: the id of another table, which is then filtered by the
            cell.
    """
    if len(table.items) > MOST_ROWS:
        yield f'<p class="note">The first {MOST_ROWS:,} of {len(table.items):,} rows; CSV and JSON have all.</p>'
    items = table.items[:MOST_ROWS]
    facets = [(facet, labels) for facet in table.facets if len(labels := _labels(facet, items)) > 1]
    has_filters = len(items) >= _FEWEST_FILTERED and (bool(table.facets) or len(items) > FIRST_ROWS)
    if has_filters:
        yield from _filters(facets, name)
    yield from _table(table, items, facets, name, has_filters=has_filters, link=link)


def _labels(facet: Facet[Any], items: Sequence[Any]) -> list[str]:
    """Return the values of a facet in the order of the rows; empty where they are too many for a select."""
    found = dict.fromkeys(value for item in items if (value := facet.value(item)))
    return [*found] if len(found) <= _MOST_CHOICES else []


def _filters(facets: Sequence[tuple[Facet[Any], list[str]]], name: str) -> Iterator[str]:
    yield f'<form class="filters" id="{escape(name)}-filter" data-needs-script hidden>'
    yield '<label>Search<input type="search" placeholder="words of a row" autocomplete="off"></label>'
    for index, (facet, labels) in enumerate(facets):
        yield f'<label>{escape(facet.heading)}<select data-facet="{index}"><option value="">all</option>'
        yield "".join(f'<option value="{place}">{escape(label)}</option>' for place, label in enumerate(labels))
        yield "</select></label>"
    yield '<button type="reset">Reset</button>'
    yield '<details class="chooser"><summary>Columns</summary><div></div></details>'
    yield '<output aria-live="polite"></output></form>'


def _table(
    table: Table[Any],
    items: Sequence[Any],
    facets: Sequence[tuple[Facet[Any], list[str]]],
    name: str,
    *,
    has_filters: bool,
    link: Callable[[Any], str] | None,
) -> Iterator[str]:
    columns = _page_order(table)
    filters = f' data-filter="{escape(name)}-filter"' if has_filters else ""
    yield f'<div class="wide" tabindex="0" role="region" aria-label="{escape(table.caption)}">'
    yield f'<table class="board" id="{escape(name)}"{filters} data-first="{FIRST_ROWS}">'
    yield f"<caption>{escape(table.caption)}</caption>"
    yield f"<thead><tr>{''.join(map(_heading, columns))}</tr></thead><tbody>"
    frames = _frames(table, items, columns)
    places = [(facet, {label: place for place, label in enumerate(labels)}) for facet, labels in facets]
    for index, item in enumerate(items):
        frame = frames.get(table.group(item) if table.group else "")
        cells = "".join(_cell(table, column, item, frame, link) for column in columns)
        tone = f' class="{table.tone(item)}"' if table.tone and table.tone(item) else ""
        found = "".join(
            f' data-f{number}="{known[value]}"'
            for number, (facet, known) in enumerate(places)
            if (value := facet.value(item)) in known
        )
        yield f'<tr{tone} data-at="{index}"{found}>{cells}</tr>'
    yield "</tbody></table></div>"
    if has_filters and len(items) > FIRST_ROWS:
        yield (
            f'<p><button type="button" class="more" data-more="{escape(name)}" data-needs-script hidden>'
            f"Show all {len(items):,} rows</button></p>"
        )


def _page_order(table: Table[Any]) -> list[Column[Any]]:
    """Return the columns in the order of the page.

    The column that names a row is first and stays visible; the score is next, to be visible on a phone.
    """
    return sorted(table.people_columns(), key=lambda column: (column.key != table.label, not column.has_whisker))


def _heading(column: Column[Any]) -> str:
    classes = ' class="number"' if column.is_number else ""
    first = "descending" if column.is_number and column.key != "rank" else "ascending"
    weight = ESSENTIAL + 1 if column.importance >= ESSENTIAL else column.importance
    return (
        f'<th scope="col"{classes} data-first="{first}" data-weight="{weight}" data-key="{escape(column.key)}">'
        f'<button type="button">{escape(column.heading)}</button></th>'
    )


def _cell(
    table: Table[Any],
    column: Column[Any],
    item: object,
    frame: tuple[float, float] | None,
    link: Callable[[Any], str] | None,
) -> str:
    said = column.show(item)
    shown = escape(said)
    if column.key == table.label:
        broken = shown.replace("_", "_<wbr>").replace(",", ",<wbr>")
        if link is not None:
            broken = f'<a href="#{escape(link(item))}" data-find="{shown}">{broken}</a>'
        return f'<th scope="row" data-sort="{_order(column, item)}">{broken}</th>'
    tone = column.tone(item) if column.tone else ""
    if tone and said:
        shown = f'<span class="mark {tone}">{shown}</span>'
    if column.has_whisker and frame is not None:
        shown = _whisker(column.value(item), frame) + shown
    classes = ' class="number"' if column.is_number else ' class="words"' if len(said) > 28 else ""
    return f'<td{classes} data-sort="{_order(column, item)}">{shown}</td>'


def _order(column: Column[Any], item: object) -> str:
    value = column.order(item)
    if value is None:
        return ""
    return f"{value:.10g}" if isinstance(value, int | float) else escape(value)


def _frames(table: Table[Any], items: Sequence[Any], columns: Sequence[Column[Any]]) -> dict[str, tuple[float, float]]:
    """Return the range of the drawn intervals by group, a little more than that of the means; wider ones are cut."""
    drawn = next((column for column in columns if column.has_whisker), None)
    means: dict[str, list[float]] = {}
    for item in items if drawn else ():
        value = drawn.value(item) if drawn else None
        if isinstance(value, Estimate):
            means.setdefault(table.group(item) if table.group else "", []).append(value.mean)
    rooms = {group: max(0.25 * (max(own) - min(own)), 0.002) for group, own in means.items()}
    return {group: (min(own) - rooms[group], max(own) + rooms[group]) for group, own in means.items()}


def _whisker(estimate: Estimate | None, frame: tuple[float, float]) -> str:
    """Return an interval as a line with a dot at the mean, as SVG; empty without an estimate."""
    width, height = _WHISKER_PX
    if estimate is None:
        return ""

    def place(share: float) -> float:
        return round(3 + (width - 6) * min(max((share - frame[0]) / (frame[1] - frame[0]), 0.0), 1.0), 1)

    low, high = estimate.low, estimate.high
    line = "" if low is None or high is None else f'<path d="M{place(low)} 7H{place(high)}"/>'
    return (
        f'<svg class="whisker" width="{width}" height="{height}" aria-hidden="true" fill="currentColor" '
        f'stroke="currentColor" stroke-width="1.5">{line}<circle cx="{place(estimate.mean)}" cy="7" r="3"/></svg>'
    )
