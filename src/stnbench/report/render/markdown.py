"""Sections in GitHub's Markdown."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from stnbench.core.text import printable
from stnbench.report.table import Column, Section, Table

MARKDOWN_COLUMNS_MAX: Final = 7
"""The largest number of columns of a table; GitHub cuts wider ones."""

_SPECIAL = re.compile(r"[\\`*{}|~$#]|\](?=[(\[:])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""The characters to escape: brackets only where they would make a link, underscores only where they emphasise."""


def to_markdown(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return a document with a heading for each section."""
    lines = [f"# {escape_markdown(title)}", ""]
    if subtitle:
        lines += [escape_markdown(subtitle), ""]
    for section in sections:
        lines += _section(section)
    return "\n".join(lines)


def escape_markdown(raw: str) -> str:
    """Return text escaped for Markdown and HTML, on one line."""
    plain = printable(raw).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\g<0>", plain)


def code(value: str) -> str:
    """Return text as code, in a fence that is longer than any in the text."""
    plain = printable(value)
    fence = "`" * (max((len(run) for run in re.findall(r"`+", plain)), default=0) + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def _section(section: Section) -> Iterator[str]:
    yield from (f"## {escape_markdown(section.heading)}", "")
    if section.text:
        yield from (*_paragraphs(section.text), "")
    if section.facts:
        yield from (*(f"- {escape_markdown(name)}: {code(value)}" for name, value in section.facts), "")
    for table in section.tables:
        yield from (*_table(table), "")
    notes = [*section.notes, *(said for table in section.tables if (said := table.left_out()))]
    if notes:
        yield from (*(f"- {escape_markdown(note)}" for note in notes), "")


def _paragraphs(sentences: Sequence[str]) -> Iterable[str]:
    """Return one sentence as a paragraph, several as a list."""
    return (
        [escape_markdown(sentences[0])] if len(sentences) == 1 else [f"- {escape_markdown(line)}" for line in sentences]
    )


def _table(table: Table[Any]) -> Iterator[str]:
    columns = table.people_columns(MARKDOWN_COLUMNS_MAX)
    yield _line(escape_markdown(column.heading) for column in columns)
    yield _line("---:" if column.is_number else ":---" for column in columns)
    yield from (_line(_cell(column, item) for column in columns) for item in table.first_items())


def _cell(column: Column[Any], item: object) -> str:
    """Return a cell; bad values are bold."""
    said = escape_markdown(column.show(item))
    is_bad = column.tone is not None and column.tone(item) == "bad"
    return f"**{said}**" if is_bad and said else said


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
