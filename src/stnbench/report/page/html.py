"""HTML and JSON as text. Everything that configurations, stores and error messages say goes through here."""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape as escape_html

from stnbench.core.identity import Json
from stnbench.report import text
from stnbench.report.table import Column

_UNSAFE_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def escape(raw: str) -> str:
    """Text that HTML shows as it is, on one line; safe in attributes as well."""
    return escape_html(text.clean(raw), quote=True)


def escape_lines(lines: Iterable[str]) -> str:
    """Several lines of text, as a ``pre`` shows them: indented as they are."""
    return "\n".join(" " * (len(line) - len(line.lstrip())) + escape(line) for line in lines)


def figure_text(raw: str, most: int | None = None) -> str:
    """Text for a figure, which would take markup in it for markup; cut after so many characters."""
    plain = text.clean(raw)
    if most is not None and len(plain) > most:
        plain = f"{plain[: most - 1].rstrip()}\u2026"
    return escape_html(plain, quote=False)


def json_block(element_id: str, value: Json) -> str:
    """JSON that a script of the page reads, and that no text in it can end.

    Raises: ValueError for a float that is not finite.
    """
    written = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for letter, escaped in _UNSAFE_IN_SCRIPT.items():
        written = written.replace(letter, escaped)
    return f'<script type="application/json" id="{escape(element_id)}">{written}</script>'


def bullets(items: Iterable[str], kind: str = "") -> Iterator[str]:
    """A list of texts; nothing where there are none."""
    lines = [f"<li>{escape(item)}</li>" for item in items]
    if lines:
        yield from (f'<ul class="{escape(kind)}">' if kind else "<ul>", *lines, "</ul>")


def table(columns: Sequence[Column], caption: str, most: int | None = None) -> Iterator[str]:
    """A plain table that scrolls in its own box; of more than ``most`` rows the first ones, which the caption says."""
    rows = list(zip(*(column.cells for column in columns), strict=True))
    if most is not None and len(rows) > most:
        caption = f"{caption}; the first {most} of {len(rows):,}"

    def cells(tag: str, contents: Iterable[str]) -> str:
        kinds = [' class="number"' if column.is_number else "" for column in columns]
        return "".join(f"<{tag}{kind}>{escape(said)}</{tag}>" for kind, said in zip(kinds, contents, strict=True))

    yield f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="plain">'
    yield f"<caption><span>{escape(caption)}</span></caption>"
    yield f"<thead><tr>{cells('th', (column.heading for column in columns))}</tr></thead><tbody>"
    yield from (f"<tr>{cells('td', row)}</tr>" for row in rows[:most])
    yield "</tbody></table></div>"


def column(heading: str, cells: Iterable[str], *, is_number: bool = True) -> Column:
    """A column of a plain table."""
    return Column(heading=heading, cells=tuple(cells), is_number=is_number, importance=0)


def data_uri(kind: str, content: bytes) -> str:
    """A picture that is part of the page; ``kind`` as in ``image/png``."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
