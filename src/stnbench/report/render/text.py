"""Renderers of a leaderboard's sections as text: for the terminal, Markdown and LaTeX."""

import io
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from stnbench.core.text import printable
from stnbench.report.table import Column, Section, Table, Tone, short_label

# Sections on a terminal, or as plain lines elsewhere.


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
            said = column.show(item)
            shown = _elided(short_label(said, room) if column.key == table.label else said, room)
            parts.append(Text(_padded(shown, room, column), style=style))
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


# Sections in GitHub's Markdown.


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
        lines += _section_markdown(section)
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


def _section_markdown(section: Section) -> Iterator[str]:
    yield from (f"## {escape_markdown(section.heading)}", "")
    if section.text:
        yield from (*_paragraphs(section.text), "")
    if section.facts:
        yield from (*(f"- {escape_markdown(name)}: {code(value)}" for name, value in section.facts), "")
    for table in section.tables:
        yield from (*_table_markdown(table), "")
    notes = [*section.notes, *(said for table in section.tables if (said := table.left_out()))]
    if notes:
        yield from (*(f"- {escape_markdown(note)}" for note in notes), "")


def _paragraphs(sentences: Sequence[str]) -> Iterable[str]:
    """Return one sentence as a paragraph, several as a list."""
    return (
        [escape_markdown(sentences[0])] if len(sentences) == 1 else [f"- {escape_markdown(line)}" for line in sentences]
    )


def _table_markdown(table: Table[Any]) -> Iterator[str]:
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


# Sections in LaTeX, for papers that load booktabs and longtable.


LATEX_COLUMNS_MAX: Final = 9

_SPECIAL_latex = str.maketrans(
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
        "[": "{[}",  # behind the end of a line it would begin an optional argument
        "]": "{]}",
        "\u00b7": r"\textperiodcentered{}",
        "\u00d7": r"$\times$",
        "\u2013": "--",
        "\u0394": r"$\Delta$",
        "\u00b1": r"$\pm$",
        "\u2248": r"$\approx$",
    }
)
_RANGE = re.compile(r"(?<=\d)-(?=\d)")
_SIGN = re.compile(r"(?<!-)-(?=\d)")

_SHORT: Final = 30
"""The largest number of rows of a table that floats: more may not fit on a page."""

_WIDE: Final = 90
"""The width of a row in characters from which on the letters are smaller; from 1.5 times that, smaller still."""


def to_latex(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return sections as LaTeX: tables with their sentences and notes, and sections without a table as paragraphs.

    The text needs the packages booktabs and longtable. Very wide tables need a page in landscape.
    """
    lines = [f"% {printable(title)}: {printable(subtitle)}"]
    for section in sections:
        lines += _section_latex(title, section)
    return "\n".join([*lines, ""])


def escape_latex(raw: str) -> str:
    """Return text escaped for LaTeX, on one line."""
    return printable(raw).translate(_SPECIAL_latex)


def _section_latex(title: str, section: Section) -> Iterator[str]:
    left_out = [said for table in section.tables if (said := table.left_out())]
    remarks = [*section.notes, *left_out]
    if not section.tables:
        facts = [f"{name}: {value}." for name, value in section.facts]
        text = escape_latex(" ".join([*section.text, *facts, *remarks]))
        yield rf"\paragraph{{{escape_latex(section.heading)}}} {text}"
    for table in section.tables:
        label = f"{_label(title)}-{_label(table.key)}"
        yield from _table_latex(
            table, caption=" ".join([f"{section.heading}.", *section.text]), label=label, notes=remarks
        )


def _table_latex(table: Table[Any], *, caption: str, label: str, notes: Iterable[str]) -> Iterator[str]:
    """Yield a table that floats if it is short, or else continues over pages, with space between groups of rows."""
    columns, items = table.people_columns(LATEX_COLUMNS_MAX), table.first_items()
    headings = (r"\toprule", _row(escape_latex(column.heading) for column in columns), r"\midrule")
    title = rf"\caption{{{escape_latex(caption)}}}\label{{tab:{label}}}"
    letters = f"@{{}}{''.join('r' if column.is_number else 'l' for column in columns)}@{{}}"
    remarks = rf"\footnotesize {escape_latex(' '.join(notes))}\par"
    rows = list(_rows(table, columns, items))
    size = _size(columns, items)
    if len(items) <= _SHORT:
        yield from (r"\begin{table}", r"\centering", title, size)
        yield from (rf"\begin{{tabular}}{{{letters}}}", *headings, *rows, r"\bottomrule", r"\end{tabular}")
        yield from (rf"\par\smallskip\raggedright{remarks}", r"\end{table}")
        return
    yield from (r"\begingroup", size, rf"\begin{{longtable}}{{{letters}}}", rf"{title}\\")
    yield from (*headings, r"\endfirsthead", *headings, r"\endhead", r"\bottomrule", r"\endlastfoot")
    yield from (*rows, r"\end{longtable}")
    yield from (rf"\noindent{remarks}", r"\endgroup")


def _rows(table: Table[Any], columns: Sequence[Column[Any]], items: Sequence[Any]) -> Iterator[str]:
    groups = [table.group(item) if table.group else "" for item in items]
    for index, item in enumerate(items):
        if index and groups[index] != groups[index - 1]:
            yield r"\addlinespace"
        yield _row(_cell_latex(column, item) for column in columns)


def _size(columns: Sequence[Column[Any]], items: Sequence[Any]) -> str:
    width = sum(max(map(len, (column.heading, *map(column.show, items)))) + 2 for column in columns)
    letters = r"\small" if width < _WIDE else r"\footnotesize" if width < 1.5 * _WIDE else r"\scriptsize"
    return rf"{letters}\setlength{{\tabcolsep}}{{4pt}}"


def _cell_latex(column: Column[Any], item: object) -> str:
    """Return a cell; in numbers a hyphen becomes a minus sign, or a dash between digits; bad values are bold."""
    said = escape_latex(column.show(item))
    if column.is_number:
        return _SIGN.sub("$-$", _RANGE.sub("--", said))
    is_bad = column.tone is not None and column.tone(item) == "bad"
    return rf"\textbf{{{said}}}" if is_bad and said else said


def _row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _label(name: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-.") else "-" for letter in name)
