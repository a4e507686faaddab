"""A figure: one or more views that Plotly draws in the browser, as data; colours are the page's own.

A trace says by ``meta`` what it is, and the script gives it the colour that the theme has for that:
``{"colour": 0}`` to ``7`` for the cells in order, ``"accent"``, ``"faint"``, ``"good"`` or ``"bad"``; ``{"scale":
"one hue"}`` or ``"verdicts"`` for a heat map.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stnbench.analysis.inference import Estimate
from stnbench.core.identity import Json
from stnbench.report.page.html import escape, json_block

Trace = dict[str, Json]


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One of a figure's ways to look at its subject: traces and layout as Plotly has them."""

    label: str
    traces: Sequence[Trace]
    layout: Mapping[str, Json]
    height_px: int = 420


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A figure with its title, what it says in words, and its views.

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
    """The figure as HTML; ``prefix`` tells the pages of several sweeps apart."""
    name = f"{prefix}-{figure.key}"
    yield f'<figure class="figure" id="{escape(name)}">'
    yield f"<h3>{escape(figure.title)}</h3>"
    if len(figure.views) > 1:
        yield from _switch(figure, name)
    width = f"min-width:{figure.width_px}px;" if figure.width_px else ""
    style = f"{width}height:{figure.views[0].height_px}px"
    yield (
        f'<div class="wide plain-box"><div class="plot" data-figure="{escape(name)}-data" style="{style}" '
        f'role="img" aria-label="{escape(figure.title)}"></div></div>'
    )
    yield f"<figcaption>{escape(figure.caption)}</figcaption>"
    yield json_block(f"{name}-data", [_view_data(view) for view in figure.views])
    yield "</figure>"


def _switch(figure: Figure, name: str) -> Iterator[str]:
    """Buttons, one a view."""
    yield f'<div class="switch" role="group" aria-label="Show" data-switch="{escape(name)}-data" hidden>'
    for index, view in enumerate(figure.views):
        pressed = "true" if index == 0 else "false"
        yield f'<button type="button" data-view="{index}" aria-pressed="{pressed}">{escape(view.label)}</button>'
    yield "</div>"


def _view_data(view: View) -> Json:
    return {"data": list(view.traces), "layout": dict(view.layout), "height": view.height_px}
