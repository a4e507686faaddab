"""Sections on a terminal, or as plain lines elsewhere."""

import io
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, Final, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from stnbench.core.text import printable
from stnbench.report.table import Column, Section, Table, Tone

GAP: Final = 2
_NARROWEST: Final = 16
"""The least width to which text is shortened."""

_STYLES: Final[dict[Tone, str]] = {
    "best": "bold green",
    "good": "green",
    "bad": "bold red",
    "open": "",
    "faint": "dim",
    "": "",
}


def to_terminal(
    title: str, subtitle: str, sections: Sequence[Section], *, width: int | None = None, color: bool = False
) -> str:
    """Return sections as lines of text; the rows of tables are never wrapped.

    Args:
        title: the title of the report.
        subtitle: the text behind the title.
        sections: in order.
        width: the width of the terminal in characters; the least important columns that do not fit are left out and
            named. None for no limit.
        color: whether to write colours, as ANSI codes.
    """
    written = io.StringIO()
    console = Console(
        file=written,
        width=width or max([120, *(_width(shown) for section in sections for shown in _all_columns(section))]),
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        emoji=False,
        markup=False,
    )
    is_plain = width is None
    console.print(Text(printable(f"{title}: {subtitle}" if subtitle else title), style="bold"), soft_wrap=is_plain)
    for section in sections:
        for line, is_row in _section(section, width):
            console.print(line, soft_wrap=is_plain or is_row)
    return "".join(f"{line.rstrip()}\n" for line in written.getvalue().splitlines())


def print_sections(title: str, subtitle: str, sections: Sequence[Section], out: TextIO) -> None:
    """Print sections, with the width and the colours of the stream."""
    width = shutil.get_terminal_size().columns if out.isatty() else None
    color = out.isatty() and Console(file=out).color_system is not None
    out.write(to_terminal(title, subtitle, sections, width=width, color=color))


def fitting_columns(table: Table[Any], width: int) -> list[Column[Any]]:
    """Return the columns that fit, in order.

    Text is shortened to half of the width. The least important ones are left out; the most important ones are kept even
    where they do not fit.

    Args:
        table: the table.
        width: the width of the terminal in characters.
    """
    kept = table.people_columns()
    widths = {id(column): _shown_width(column, table.first_items(), width) for column in kept}
    while sum(widths[id(column)] + GAP for column in kept) - GAP > width and len({c.importance for c in kept}) > 1:
        least = min(column.importance for column in kept)
        kept.remove(next(column for column in reversed(kept) if column.importance == least))
    return kept


def _all_columns(section: Section) -> Iterator[list[int]]:
    for table in section.tables:
        yield [_column_width(column, table.first_items()) for column in table.people_columns()]


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _column_width(column: Column[Any], items: Sequence[Any]) -> int:
    return max(map(cell_len, (column.heading, *map(column.show, items))))


def _shown_width(column: Column[Any], items: Sequence[Any], width: int | None) -> int:
    """Return the width of a column on a terminal, where text takes at most half of a row."""
    whole = _column_width(column, items)
    return whole if width is None or column.is_number else min(whole, max(width // 2, cell_len(column.heading)))


def _shown_widths(columns: Sequence[Column[Any]], items: Sequence[Any], width: int | None) -> list[int]:
    """Return the widths of columns on a terminal; if they do not fit together, the widest text is shortened further."""
    widths = [_shown_width(column, items, width) for column in columns]
    texts = [index for index, column in enumerate(columns) if not column.is_number]
    beyond = 0 if width is None else _width(widths) - width
    if beyond > 0 and texts:
        widest = max(texts, key=lambda index: widths[index])
        widths[widest] = max(widths[widest] - beyond, min(widths[widest], _NARROWEST))
    return widths


def _section(section: Section, width: int | None) -> Iterator[tuple[Text, bool]]:
    """Yield the lines of a section, and whether each is a row of a table."""
    if section.key != "answer":
        yield Text(""), False
        yield Text(printable(section.heading), style="bold underline"), False
    yield from ((Text(printable(line)), False) for line in section.text)
    yield from ((Text(printable(f"{name}: {value}")), False) for name, value in section.facts)
    notes = list(section.notes)
    for table in section.tables:
        columns = table.people_columns()
        shown = columns if width is None else fitting_columns(table, width)
        yield from ((row, True) for row in _table(table, shown, width))
        left_out = [column.heading for column in columns if column not in shown]
        if left_out:
            notes.append(f"Columns that do not fit: {', '.join(left_out)}.")
        notes += [said] if (said := table.left_out()) else []
    yield from ((Text(printable(note), style="dim"), False) for note in notes)


def _table(table: Table[Any], columns: Sequence[Column[Any]], width: int | None) -> Iterator[Text]:
    """Yield the heading and a line for each row, aligned by the width on a terminal, where some letters are wide."""
    items = table.first_items()
    widths = _shown_widths(columns, items, width)
    yield _joined(
        [Text(_padded(column.heading, room, column)) for column, room in zip(columns, widths, strict=True)], "dim"
    )
    for item in items:
        row: Tone = table.tone(item) if table.tone else ""
        parts = []
        for column, room in zip(columns, widths, strict=True):
            tone: Tone = column.tone(item) if column.tone else ""
            style = _STYLES[tone] if tone == "bad" else ""
            parts.append(Text(_padded(_elided(column.show(item), room), room, column), style=style))
        yield _joined(parts, _STYLES[row])


def _joined(parts: Sequence[Text], style: str) -> Text:
    joined = Text(" " * GAP, style=style).join(parts)
    joined.rstrip()
    return joined


def _elided(said: str, width: int) -> str:
    """Return a text without its middle where it is wider than a column: labels differ at both ends."""
    if cell_len(said) <= width:
        return said
    tail = said[-((width - 1) // 2) :]
    while cell_len(tail) > (width - 1) // 2:
        tail = tail[1:]
    return f"{set_cell_size(said, width - 1 - cell_len(tail))}…{tail}"


def _padded(said: str, width: int, column: Column[Any]) -> str:
    return " " * (width - cell_len(said)) + said if column.is_number else set_cell_size(said, width)
