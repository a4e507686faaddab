"""Sections in LaTeX, for papers that load booktabs and longtable."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from stnbench.core.text import printable
from stnbench.report.table import Column, Section, Table

LATEX_COLUMNS_MAX: Final = 9

_SPECIAL = str.maketrans(
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
        lines += _section(title, section)
    return "\n".join([*lines, ""])


def escape_latex(raw: str) -> str:
    """Return text escaped for LaTeX, on one line."""
    return printable(raw).translate(_SPECIAL)


def _section(title: str, section: Section) -> Iterator[str]:
    left_out = [said for table in section.tables if (said := table.left_out())]
    remarks = [*section.notes, *left_out]
    if not section.tables:
        facts = [f"{name}: {value}." for name, value in section.facts]
        text = escape_latex(" ".join([*section.text, *facts, *remarks]))
        yield rf"\paragraph{{{escape_latex(section.heading)}}} {text}"
    for table in section.tables:
        label = f"{_label(title)}-{_label(table.key)}"
        yield from _table(table, caption=" ".join([f"{section.heading}.", *section.text]), label=label, notes=remarks)


def _table(table: Table[Any], *, caption: str, label: str, notes: Iterable[str]) -> Iterator[str]:
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
        yield _row(_cell(column, item) for column in columns)


def _size(columns: Sequence[Column[Any]], items: Sequence[Any]) -> str:
    width = sum(max(map(len, (column.heading, *map(column.show, items)))) + 2 for column in columns)
    letters = r"\small" if width < _WIDE else r"\footnotesize" if width < 1.5 * _WIDE else r"\scriptsize"
    return rf"{letters}\setlength{{\tabcolsep}}{{4pt}}"


def _cell(column: Column[Any], item: object) -> str:
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
