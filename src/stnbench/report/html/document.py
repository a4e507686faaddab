"""The frame of a page, its colours, its figures, and the escaping of text for HTML and JSON."""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape as escape_html
from html import unescape
from importlib import resources
from typing import Final, cast

from stnbench.analysis.effects import Estimate
from stnbench.core.identity import Json
from stnbench.core.text import printable
from stnbench.report.table import short_label
from stnbench.spec.result import Verdict

_UNSAFE_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def escape(raw: str) -> str:
    """Return text escaped for HTML and its attributes, on one line."""
    return escape_html(printable(raw), quote=True)


def escape_lines(lines: Iterable[str]) -> str:
    """Return lines of text escaped for a ``pre`` element, with their indentation."""
    return "\n".join(" " * (len(line) - len(line.lstrip())) + escape(line) for line in lines)


def figure_text(raw: str, most: int | None = None) -> str:
    """Return text escaped for a figure, where markup would be interpreted, cut to ``most`` characters."""
    plain = printable(raw)
    if most is not None and len(plain) > most:
        plain = f"{plain[: most - 1].rstrip()}\u2026"
    return escape_html(plain, quote=False)


def figure_label(label: str, most: int) -> str:
    """Return a configuration's label escaped for a figure, shortened to ``most`` characters."""
    return escape_html(short_label(label, most), quote=False)


def json_block(element_id: str, value: Json) -> str:
    """Return a script element that holds a value as JSON, escaped so that no text in it can end the element.

    Raises:
        ValueError: for a float that is not finite.
    """
    written = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for letter, escaped in _UNSAFE_IN_SCRIPT.items():
        written = written.replace(letter, escaped)
    return f'<script type="application/json" id="{escape(element_id)}">{written}</script>'


def bullets(items: Iterable[str], kind: str = "") -> Iterator[str]:
    """Yield a list of texts as HTML; nothing where there are none."""
    lines = [f"<li>{escape(item)}</li>" for item in items]
    if lines:
        yield from (f'<ul class="{escape(kind)}">' if kind else "<ul>", *lines, "</ul>")


def data_uri(kind: str, content: bytes) -> str:
    """Return the address of a picture that is part of the page; ``kind`` is such as ``png`` in ``image/png``."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """The colours of a page, as ``#rrggbb``.

    Attributes:
        page: the background.
        panel: the background of figures and boxes.
        ink: text.
        faint: text of less importance.
        line: rules and grids.
        accent: links, focus and the best values.
        good: good values.
        bad: bad values.
        lines: the configurations of a figure, in order.
        low: the start of a scale of one hue.
        high: the end of a scale of one hue.
        verdicts: each verdict on a transformer.
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
    """Return a theme as custom properties of CSS, without the braces."""
    return " ".join(f"--{word}: {getattr(theme, word)};" for word in _WORDS)


def theme_data(theme: Theme) -> dict[str, Json]:
    """Return a theme as JSON values for the page's script, with verdicts as a list from healthy to diverged."""
    words: dict[str, Json] = {word: getattr(theme, word) for word in _WORDS}
    return {**words, "lines": list(theme.lines), "verdicts": [theme.verdicts[verdict] for verdict in Verdict]}


THEMES_ID: Final = "stnbench-themes"

PLOTLY: Final = "plotly-cartesian.min.js.gz"
"""The partial bundle of plotly.js for x and y axes, a third of the whole one.

The npm package plotly.js-cartesian-dist-min, version 4.1.1, packed by ``gzip -9n``."""


def document_lines(title: str, body: Sequence[str], *, has_figures: bool) -> Iterator[str]:
    """Yield the whole page, which includes Plotly if it has figures.

    Scripts are allowed only by their SHA-256, which also works where the page is opened as a file.
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
    """Return the style sheet of pages, for light and dark schemes."""
    light, dark = css_variables(LIGHT), css_variables(DARK)
    schemes = f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    return schemes + _asset("page.css")


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8").rstrip("\n")


def _plotly() -> str:
    """Return Plotly's partial bundle, compressed and in base64; the page's script unpacks it."""
    packed = resources.files(__package__).joinpath(PLOTLY).read_bytes()
    return base64.b64encode(packed).decode()


# Figures: one or more views, as data that Plotly draws in the browser with the colours of the page.
#
# The ``meta`` of a trace names its colour, and the script takes that colour from the theme: ``{"colour": 0}`` to ``7``
# for configurations in order, ``"accent"``, ``"faint"``, ``"good"`` or ``"bad"``; ``{"scale": "one hue"}`` or
# ``"verdicts"`` for a heat map.


Trace = dict[str, Json]

MOST_LINES: Final = 16
"""The largest number of lines of the text that describes a view."""

MOST_LETTERS: Final = 120
"""The greatest length of the names of all views that have a button each; longer ones are in a list to choose from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A view of a figure, with Plotly's traces and layout.

    Attributes:
        label: its name, where a figure has several.
        traces: the traces.
        layout: the layout.
        height_px: the height.
        words: its content as text; made from the traces where it is empty.
        link: ties parallel coordinates to a table, whose ``table`` is its id on the page; ``rows`` has the row of each
            line, by trace, and ``axes`` is the number of points of a line.
    """

    label: str
    traces: Sequence[Trace]
    layout: Mapping[str, Json]
    height_px: int = 420
    words: Sequence[str] = ()
    link: Mapping[str, Json] | None = None


_COLUMN_PX: Final = 500
"""The least width of a drawing in a column of figures, without the figure's border."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A figure with its title, its caption and its views.

    ``width_px`` is the least width at which it can be read; above that of a column it fills a row, and on
    narrower screens it scrolls in its own box.
    """

    key: str
    title: str
    caption: str
    views: Sequence[View]
    width_px: int = 0


def whiskers(estimates: Sequence[Estimate]) -> dict[str, Json]:
    """Return the 95 % intervals of estimates as error bars of Plotly, in percent; 0 where there is no interval."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [0 if it.high is None else round(100 * (it.high - it.mean), 3) for it in estimates],
        "arrayminus": [0 if it.low is None else round(100 * (it.mean - it.low), 3) for it in estimates],
        "thickness": 1.2,
        "width": 3,
    }


def figure_lines(figure: Figure, prefix: str) -> Iterator[str]:
    """Yield a figure as HTML; ``prefix`` keeps the ids of several sweeps on one page distinct.

    The numbers of the first view are repeated below it as text, for readers without scripts or with a screen reader.
    """
    name = f"{prefix}-{figure.key}"
    kind = "figure broad" if figure.width_px > _COLUMN_PX else "figure"
    yield f'<figure class="{kind}" id="{escape(name)}" aria-labelledby="{escape(name)}-title">'
    yield f'<h3 id="{escape(name)}-title">{escape(figure.title)}</h3>'
    if len(figure.views) > 1:
        yield from _switch(figure, name)
    width = f"min-width:{figure.width_px}px;" if figure.width_px else ""
    style = f"{width}height:{figure.views[0].height_px}px"
    yield (
        f'<div class="wide plain-box" tabindex="0" role="group" aria-label="{escape(figure.title)}, drawn">'
        f'<div class="plot" data-figure="{escape(name)}-data" style="{style}"></div></div>'
    )
    yield f"<figcaption>{escape(figure.caption)}</figcaption>"
    lines = describe(figure.views[0])
    if lines:
        yield '<details class="in-words"><summary>In words</summary>'
        yield from bullets(lines)
        yield "</details>"
    yield json_block(f"{name}-data", [_view_data(view) for view in figure.views])
    yield "</figure>"


def describe(view: View) -> list[str]:
    """Return the content of a view as text, with a line for each trace or for each row of a heat map.

    A line has the texts or values of the trace, or the first and the last point of a curve.
    """
    drawn = (trace for trace in view.traces if trace.get("hoverinfo") != "skip")
    lines = [*view.words] or [line for trace in drawn for line in _described(trace)]
    more = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], f"and {more} more"] if more > 0 else lines


def _described(trace: Trace) -> Iterator[str]:
    xs, ys = (cast("list[Json]", trace.get(axis) or []) for axis in ("x", "y"))
    if trace["type"] == "heatmap":
        yield from _heat_map_rows(trace, xs, ys)
    elif isinstance(trace.get("text"), list):
        yield from (_plain(said) for said in cast("list[Json]", trace["text"]))
    elif trace["type"] == "bar" or any(isinstance(y, str) for y in ys):
        pairs = "; ".join(f"{_plain(y)} {_number(x)}" for x, y in zip(xs, ys, strict=False))
        yield f"{_plain(trace.get('name') or 'values')}: {pairs}"
    else:
        known = [(x, y) for x, y in zip(xs, ys, strict=False) if isinstance(y, int | float)]
        if known:
            (first, start), (last, end) = known[0], known[-1]
            yield f"{_plain(trace.get('name') or 'values')}: {_number(start)} at {first}, {_number(end)} at {last}"


def _heat_map_rows(trace: Trace, xs: Sequence[Json], ys: Sequence[Json]) -> Iterator[str]:
    texts = cast("list[list[Json]] | None", trace.get("text"))
    numbers = cast("list[list[Json]]", trace["z"])
    for index, row in enumerate(texts or numbers):
        cells = [f"{_plain(x)} {_number(value)}" for x, value in zip(xs, row, strict=False) if value not in {None, ""}]
        if cells:
            yield f"{_plain(ys[index])}: {', '.join(cells[:8])}{', ...' if len(cells) > 8 else ''}"


def _plain(said: Json) -> str:
    return unescape(str(said).replace("<br>", ", "))


def _number(value: Json) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _plain(value)


def _switch(figure: Figure, name: str) -> Iterator[str]:
    """Yield the control that selects a view: buttons, or a list if there are many."""
    yield f'<div class="switch" role="group" aria-label="Show" data-switch="{escape(name)}-data" hidden>'
    if sum(len(view.label) for view in figure.views) > MOST_LETTERS:
        yield "<label>Show <select>"
        yield "".join(
            f'<option value="{index}">{escape(view.label)}</option>' for index, view in enumerate(figure.views)
        )
        yield "</select></label>"
    else:
        for index, view in enumerate(figure.views):
            pressed = "true" if index == 0 else "false"
            yield f'<button type="button" data-view="{index}" aria-pressed="{pressed}">{escape(view.label)}</button>'
    yield "</div>"


def _view_data(view: View) -> Json:
    link = {} if view.link is None else {"link": dict(view.link)}
    return {"data": list(view.traces), "layout": dict(view.layout), "height": view.height_px, **link}
