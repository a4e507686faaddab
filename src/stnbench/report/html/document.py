"""The page around the sections, its colours, and text made safe for HTML and JSON."""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape as escape_html
from importlib import resources
from typing import Final

from stnbench.core.identity import Json
from stnbench.core.text import printable
from stnbench.spec.verdict import Verdict

_UNSAFE_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def escape(raw: str) -> str:
    """Text that HTML shows as it is, on one line; safe in attributes as well."""
    return escape_html(printable(raw), quote=True)


def escape_lines(lines: Iterable[str]) -> str:
    """Several lines of text, as a ``pre`` shows them: indented as they are."""
    return "\n".join(" " * (len(line) - len(line.lstrip())) + escape(line) for line in lines)


def figure_text(raw: str, most: int | None = None) -> str:
    """Text for a figure, which would take markup in it for markup; cut after so many characters."""
    plain = printable(raw)
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


def data_uri(kind: str, content: bytes) -> str:
    """A picture that is part of the page; ``kind`` as in ``image/png``."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """Colours as ``#rrggbb``.

    Attributes:
        page: behind everything.
        panel: behind figures and boxes.
        ink: of text.
        faint: of text beside the point.
        line: of rules and grids.
        accent: of links, focus and what is best.
        good: of what is as it should be.
        bad: of what is wrong.
        lines: of the cells of a figure, the first cell's first.
        low: where a scale of one hue begins.
        high: where it ends.
        verdicts: of each verdict on a transformer.
    """

    page: str
    panel: str
    ink: str
    faint: str
    line: str
    accent: str
    good: str
    bad: str
    lines: Sequence[str]
    low: str
    high: str
    verdicts: Mapping[Verdict, str]


LIGHT: Final = Theme(
    page="#ffffff",
    panel="#f6f7f9",
    ink="#1b1f24",
    faint="#57606a",
    line="#d5d9df",
    accent="#0b5bd3",
    good="#1a6f37",
    bad="#b3261e",
    lines=("#0b5bd3", "#c2410c", "#147a3d", "#7a3fd1", "#8a6100", "#00788a", "#b0307f", "#57606a"),
    low="#eef2f8",
    high="#0b4fb8",
    verdicts={
        Verdict.HEALTHY: "#2f9e5b",
        Verdict.UNHELPFUL: "#c7b34a",
        Verdict.IDENTITY: "#9aa4b0",
        Verdict.CONSTANT: "#d69e2e",
        Verdict.COLLAPSED: "#c8382e",
        Verdict.DIVERGED: "#7a3fd1",
    },
)

DARK: Final = Theme(
    page="#0f1216",
    panel="#171b21",
    ink="#e8eaed",
    faint="#a3abb6",
    line="#333a44",
    accent="#7db4ff",
    good="#5fce8a",
    bad="#ff8a80",
    lines=("#6aa9ff", "#ff9a5c", "#5fce8a", "#b99aff", "#e0b44c", "#4cc5d6", "#f28ac6", "#a3abb6"),
    low="#1d232b",
    high="#8cc0ff",
    verdicts={
        Verdict.HEALTHY: "#3fb871",
        Verdict.UNHELPFUL: "#d8c768",
        Verdict.IDENTITY: "#78828e",
        Verdict.CONSTANT: "#dba73a",
        Verdict.COLLAPSED: "#f0645a",
        Verdict.DIVERGED: "#a883ff",
    },
)

_WORDS: Final = ("page", "panel", "ink", "faint", "line", "accent", "good", "bad", "low", "high")


def css_variables(theme: Theme) -> str:
    """The theme as custom properties of CSS, without the braces."""
    return " ".join(f"--{word}: {getattr(theme, word)};" for word in _WORDS)


def theme_data(theme: Theme) -> dict[str, Json]:
    """The theme as the page's script reads it: verdicts as a list, from healthy to diverged."""
    words: dict[str, Json] = {word: getattr(theme, word) for word in _WORDS}
    return {**words, "lines": list(theme.lines), "verdicts": [theme.verdicts[verdict] for verdict in Verdict]}


THEMES_ID: Final = "stnbench-themes"

PLOTLY: Final = "plotly-cartesian.min.js.gz"
"""The partial bundle of plotly.js for x and y axes, a third of the whole one.

The npm package plotly.js-cartesian-dist-min, version 4.1.1, packed by ``gzip -9n``."""


def document_lines(title: str, body: Sequence[str], *, has_figures: bool) -> Iterator[str]:
    """The whole page; Plotly is part of it where there are figures to draw.

    Scripts are allowed by their SHA-256 alone, which also holds where the page is opened as a file.
    """
    scripts = [_asset("page.js")]
    yield "<!doctype html>"
    yield '<html lang="en">'
    yield "<head>"
    yield '<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield f"<title>{escape(title)}</title>"
    yield f"<style>{style_sheet()}</style>"
    yield "</head>"
    yield "<body>"
    yield from body
    yield json_block(
        THEMES_ID, {"light": theme_data(LIGHT), "dark": theme_data(DARK), "verdicts": [*map(str, Verdict)]}
    )
    if has_figures:
        yield f'<script type="application/gzip" id="stnbench-plotly">{_plotly()}</script>'
    yield from (f"<script>{script}</script>" for script in scripts)
    yield "</body>"
    yield "</html>"


def _policy(scripts: Iterable[str]) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed} blob:; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def style_sheet() -> str:
    """Return the style of pages, in light and dark."""
    light, dark = css_variables(LIGHT), css_variables(DARK)
    schemes = f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    return schemes + _asset("page.css")


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8").rstrip("\n")


def _plotly() -> str:
    """Plotly's partial bundle, compressed, as text; the page's script unpacks it."""
    packed = resources.files(__package__).joinpath(PLOTLY).read_bytes()
    return base64.b64encode(packed).decode()
