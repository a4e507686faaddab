"""A figure: one or more views that Plotly draws in the browser, as data; colours are the page's own.

A trace says by ``meta`` what it is, and the script gives it the colour that the theme has for that:
``{"colour": 0}`` to ``7`` for configurations in order, ``"accent"``, ``"faint"``, ``"good"`` or ``"bad"``; ``{"scale":
"one hue"}`` or ``"verdicts"`` for a heat map.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Final, cast

from stnbench.analysis.inference import Estimate
from stnbench.core.identity import Json
from stnbench.report.html.document import bullets, escape, json_block

Trace = dict[str, Json]

MOST_LINES: Final = 16
"""Of the text that stands for a view."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One of a figure's ways to look at its subject: traces and layout as Plotly has them."""

    label: str
    traces: Sequence[Trace]
    layout: Mapping[str, Json]
    height_px: int = 420


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A figure with its title, its caption and its views.

    ``width_px`` is the least width at which it can be read; on narrower screens it scrolls in its own box.
    """

    key: str
    title: str
    caption: str
    views: Sequence[View]
    width_px: int = 0


def whiskers(estimates: Sequence[Estimate]) -> dict[str, Json]:
    """Their 95 % intervals as error bars of Plotly, in percent; none where there is no interval."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [0 if it.high is None else round(100 * (it.high - it.mean), 3) for it in estimates],
        "arrayminus": [0 if it.low is None else round(100 * (it.mean - it.low), 3) for it in estimates],
        "thickness": 1.2,
        "width": 3,
    }


def figure_lines(figure: Figure, prefix: str) -> Iterator[str]:
    """The figure as HTML; ``prefix`` tells the pages of several sweeps apart.

    The numbers of the first view stand below it as text, for readers without a script or without sight of it.
    """
    name = f"{prefix}-{figure.key}"
    yield f'<figure class="figure" id="{escape(name)}" aria-labelledby="{escape(name)}-title">'
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
    """What a view shows, a line a trace: its ends and its range, or the rows of a heat map."""
    lines = [line for trace in view.traces if trace.get("hoverinfo") != "skip" for line in _described(trace)]
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
    """Buttons, one a view."""
    yield f'<div class="switch" role="group" aria-label="Show" data-switch="{escape(name)}-data" hidden>'
    for index, view in enumerate(figure.views):
        pressed = "true" if index == 0 else "false"
        yield f'<button type="button" data-view="{index}" aria-pressed="{pressed}">{escape(view.label)}</button>'
    yield "</div>"


def _view_data(view: View) -> Json:
    return {"data": list(view.traces), "layout": dict(view.layout), "height": view.height_px}
