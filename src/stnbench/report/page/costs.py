"""Accuracy against what it costs, with the Pareto front."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from stnbench.analysis.inference import Standing
from stnbench.core.identity import Json
from stnbench.report import text
from stnbench.report.board import Leaderboard, Row
from stnbench.report.findings import ParetoFront
from stnbench.report.page.figure import Figure, Trace, View, whiskers
from stnbench.report.page.html import figure_text

MOST_CELLS: Final = 400
"""Points in a group; the best ones."""

_COSTS: Final = (
    ("parameters", "Parameters", "parameters"),
    ("flops", "FLOPs", "FLOPs of one image's forward pass"),
    ("epoch_duration_s", "Time", "measured training time, s per epoch"),
)


_ROOM: Final = 1.25
"""Of a cost, to either side of the axis."""

_MOST_TICKS: Final = 9


def cost_figure(board: Leaderboard) -> Figure | None:
    """Accuracy against parameters, FLOPs and time; None where fewer than two cells have both."""
    fronts = board.findings.pareto if board.findings else ()
    views = [view for cost in _COSTS if (view := _view(board, cost, fronts)) is not None]
    if not views:
        return None
    line = "The line is the Pareto front: nothing cheaper is better. " if fronts else ""
    marks = (
        "Whiskers are the 95 % intervals of the table; diamonds have no transformer; costs are on a logarithmic axis."
    )
    scored = sum(row.score is not None for row in board.rows)
    cut = f" Only the {MOST_CELLS} best cells of a group are drawn." if scored > MOST_CELLS else ""
    return Figure(
        key="costs",
        title="Accuracy against cost",
        caption=f"{line}{marks}{cut}",
        views=views,
    )


def _view(board: Leaderboard, cost: tuple[str, str, str], fronts: Sequence[ParetoFront]) -> View | None:
    field, label, title = cost
    rows = [row for row in board.rows if row.score is not None and getattr(row, field)]
    if len(rows) < 2:
        return None
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    traces: list[Trace] = []
    for index, (group, own) in enumerate(groups.items()):
        front = next((one for one in fronts if one.cost == field and one.group == group), None)
        traces += _group(own[:MOST_CELLS], field, front, index if len(groups) > 1 else None)
    shares = [row.score.mean for row in rows if row.score]
    room = max(0.12 * (max(shares) - min(shares)), 0.002)
    layout: dict[str, Json] = {
        "xaxis": {"title": {"text": title}, **_logarithmic([getattr(row, field) for row in rows])},
        "yaxis": {
            "title": {"text": f"{board.split} accuracy, %"},
            "range": [round(100 * (min(shares) - room), 3), round(min(100 * (max(shares) + room), 100.5), 3)],
        },
        "showlegend": len(groups) > 1,
    }
    return View(label=label, traces=traces, layout=layout, height_px=460)


def _logarithmic(costs: Sequence[float]) -> dict[str, Json]:
    """An axis that ends a little beyond the costs, however much alike they are, with ticks that never overlap."""
    low, high = min(costs) / _ROOM, max(costs) * _ROOM
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    steps = [float(f"{step}e{power}") for power in powers for step in (1, 2, 5) if low <= step * 10.0**power <= high]
    if len(steps) < 2:
        steps = sorted({float(f"{cost:.3g}") for cost in (min(costs), max(costs))})
    elif len(steps) > _MOST_TICKS:
        steps = [step for step in steps if f"{step:e}".startswith("1.0")]
    return {
        "type": "log",
        "range": [round(math.log10(low), 4), round(math.log10(high), 4)],
        "tickvals": list[Json](steps),
        "tickformat": "~s",
    }


def _group(rows: Sequence[Row], field: str, front: ParetoFront | None, index: int | None) -> list[Trace]:
    """The points of a group, and its front behind them; ``index`` is that of its colour where there are several."""
    name = figure_text(rows[0].group or "cells", 32)
    traces: list[Trace] = []
    if front is not None and len(front.costs) > 1:
        line: Mapping[str, Json] = {"shape": "hv", "width": 1.5, "dash": "dot"}
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [float(f"{cost:.5g}") for cost in front.costs],
                "y": [round(100 * mean, 3) for mean in front.means],
                "line": dict(line),
                "legendgroup": name,
                "showlegend": False,
                "hoverinfo": "skip",
                "meta": {"colour": "accent" if index is None else index % 8},
            }
        )
    scores = [row.score for row in rows if row.score]
    colours: Json = [_colour(row) for row in rows] if index is None else index % 8
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "legendgroup": name,
            "x": [float(f"{getattr(row, field):.5g}") for row in rows],
            "y": [round(100 * score.mean, 3) for score in scores],
            "error_y": whiskers(scores),
            "marker": {"size": 9, "symbol": ["diamond-open" if row.is_twin else "circle" for row in rows]},
            "text": [_hover(row, field) for row in rows],
            "hovertemplate": "%{text}<extra></extra>",
            "meta": {"colour": colours},
        }
    )
    return traces


def _colour(row: Row) -> str:
    return "faint" if row.standing in {Standing.LOWER, None} else "accent"


def _hover(row: Row, field: str) -> str:
    value = getattr(row, field)
    cost = f"{text.seconds(value)} s/epoch" if field == "epoch_duration_s" else f"{text.count(value)} {field}"
    score = text.score(row.score, 2)
    return f"{figure_text(row.label, 60)}<br>{score} %, n = {row.score.n if row.score else 0}<br>{cost}"
