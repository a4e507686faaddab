"""Figures of scores: learning curves, accuracy against cost, published results, and the timeline of a run."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from stnbench.analysis.effects import t_estimate
from stnbench.analysis.verdicts import Verdict
from stnbench.core.identity import Json
from stnbench.report import table
from stnbench.report.board import Leaderboard, Row
from stnbench.report.findings import Agreement, AgreementRow, ParetoFront
from stnbench.report.html.document import Figure, Trace, View, figure_label, figure_text, whiskers
from stnbench.report.runs import RunSummary, Span
from stnbench.spec.result import AttemptState

MOST_POINTS: Final = 400
"""The largest number of points in a group, the best ones."""

_COSTS: Final = (
    ("parameters", "Parameters", "parameters"),
    ("flops", "FLOPs", "FLOPs of one image's forward pass"),
    ("epoch_duration_s", "Time", "measured training time, s per epoch"),
)


_ROOM: Final = 1.25
"""The factor from the least and the greatest cost to the ends of the axis."""

_MOST_TICKS: Final = 9


def cost_figure(board: Leaderboard) -> Figure | None:
    """Draw accuracy against parameters, FLOPs and time; return None where fewer than two configurations have both."""
    fronts = board.findings.pareto if board.findings else ()
    views = [view for cost in _COSTS if (view := _cost_view(board, cost, fronts)) is not None]
    if not views:
        return None
    line = "The line is the Pareto front: nothing cheaper is better. " if fronts else ""
    marks = (
        "Whiskers are the 95 % intervals of the table; diamonds have no transformer; costs are on a logarithmic axis."
    )
    scored = sum(row.score is not None for row in board.rows)
    cut = f" Only the {MOST_POINTS} best configurations of a group are drawn." if scored > MOST_POINTS else ""
    return Figure(
        key="costs",
        title="Accuracy against cost",
        caption=f"{line}{marks}{cut}",
        views=views,
    )


def _cost_view(board: Leaderboard, cost: tuple[str, str, str], fronts: Sequence[ParetoFront]) -> View | None:
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
        traces += _cost_group(own[:MOST_POINTS], field, front, index if len(groups) > 1 else None)
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
    """Return a logarithmic axis that ends a little beyond the costs, however similar, with ticks that never overlap."""
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


def _cost_group(rows: Sequence[Row], field: str, front: ParetoFront | None, index: int | None) -> list[Trace]:
    """Return the points of a group with its front behind them; ``index`` is its colour's, None for a single group."""
    name = figure_text(rows[0].group or "configurations", 32)
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
    colours: Json = [_cost_colour(row) for row in rows] if index is None else index % 8
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "legendgroup": name,
            "x": [float(f"{getattr(row, field):.5g}") for row in rows],
            "y": [round(100 * score.mean, 3) for score in scores],
            "error_y": whiskers(scores),
            "marker": {"size": 9, "symbol": ["diamond-open" if row.is_baseline else "circle" for row in rows]},
            "text": [_cost_hover(row, field) for row in rows],
            "hovertemplate": "%{text}<extra></extra>",
            "meta": {"colour": colours},
        }
    )
    return traces


def _cost_colour(row: Row) -> str:
    return "faint" if row.standing in {Verdict.LOWER, None} else "accent"


def _cost_hover(row: Row, field: str) -> str:
    value = getattr(row, field)
    cost = f"{table.seconds(value)} s/epoch" if field == "epoch_duration_s" else f"{table.count(value)} {field}"
    score = table.score(row.score, 2)
    return f"{figure_text(row.label, 60)}<br>{score} %, n = {row.score.n if row.score else 0}<br>{cost}"


SHOWN_CONFIGURATIONS: Final = 8
"""The number of lines shown at first, which is the number of colours."""

MOST_LINES: Final = 14
"""The largest number of lines that the legend offers."""

_MOST_EPOCHS: Final = 120
_MOST_GROUPS: Final = 8
_DASHES: Final = ("solid", "dash", "dot", "dashdot")

Curve = Mapping[int, Sequence[float]]
"""The values of all seeds, by epoch."""

_METRICS: Final = (
    ("validation_accuracy", "Validation accuracy", "validation accuracy, %", 100.0),
    ("validation_loss", "Validation loss", "validation loss, nats", 1.0),
    ("train_loss", "Training loss", "training loss, nats", 1.0),
)


def learning_curves(board: Leaderboard, trials: pd.DataFrame, epochs: pd.DataFrame) -> Figure | None:
    """Draw the learning curves of the best configurations and the best baseline.

    Args:
        board: the leaderboard, which orders the configurations.
        trials: ``analysis.frames.TRIAL_COLUMNS``.
        epochs: ``analysis.frames.EPOCH_COLUMNS``; of an epoch that two attempts have, the later one counts.

    Returns:
        The figure, or None where no complete trial has a curve.
    """
    groups = _chosen(board)
    wanted = {row.config_id for rows in groups.values() for row in rows}
    known = _read(trials, epochs, wanted)
    if not known:
        return None
    if len(groups) > 1:
        column, _, title, factor = _METRICS[0]
        views = [_curve_view(name or "all", rows, known, (column, title, factor)) for name, rows in groups.items()]
    else:
        (rows,) = groups.values()
        views = [_curve_view(name, rows, known, (column, title, factor)) for column, name, title, factor in _METRICS]
    return Figure(key="curves", title="Learning curves", caption=_caption(board, groups), views=views)


def _chosen(board: Leaderboard) -> dict[str, list[Row]]:
    """Return the configurations with lines, by group: the best ones, with the best baseline among the first."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in board.rows:
        if row.score is not None:
            groups[row.group].append(row)
    return {name: _with_baseline(rows)[:MOST_LINES] for name, rows in list(groups.items())[:_MOST_GROUPS]}


def _with_baseline(rows: list[Row]) -> list[Row]:
    baseline = next((row for row in rows if row.is_baseline), None)
    if baseline is None or baseline in rows[:SHOWN_CONFIGURATIONS]:
        return rows
    others = [row for row in rows if row is not baseline]
    return [*others[: SHOWN_CONFIGURATIONS - 1], baseline, *others[SHOWN_CONFIGURATIONS - 1 :]]


def _read(trials: pd.DataFrame, epochs: pd.DataFrame, wanted: set[str]) -> dict[str, dict[str, Curve]]:
    """Return the values of the complete trials by epoch, for each configuration and column."""
    done = trials[(trials["state"] == "complete") & trials["cell_id"].isin(wanted)]
    configs = dict(zip(done["trial_id"], done["cell_id"], strict=True))
    own = epochs[epochs["trial_id"].isin(configs)].sort_values(["trial_id", "epoch", "attempt"], kind="stable")
    last = own.drop_duplicates(["trial_id", "epoch"], keep="last")
    curves: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    columns = [name for name, *_ in _METRICS]
    for trial_id, epoch, *values in last[["trial_id", "epoch", *columns]].itertuples(index=False):
        for column, value in zip(columns, values, strict=True):
            if abs(value) < float("inf"):  # leaves out losses that are not finite
                curves[configs[trial_id]][column][int(epoch)].append(float(value))
    return curves


def _curve_view(
    name: str, rows: Sequence[Row], known: Mapping[str, Mapping[str, Curve]], metric: tuple[str, str, float]
) -> View:
    column, title, factor = metric
    traces: list[Trace] = []
    means: list[float] = []
    shown = [row for row in rows if known.get(row.config_id, {}).get(column)]
    for row in shown[:SHOWN_CONFIGURATIONS]:
        means += [factor * sum(values) / len(values) for values in known[row.config_id][column].values()]
    low, high = _frame(means, factor)
    for index, row in enumerate(shown):
        traces += _line(row, index, known[row.config_id][column], factor, widest=(high - low) / 2)
    layout: dict[str, Json] = {
        "xaxis": {"title": {"text": "epoch"}, **_ticks(shown, known, column)},
        "yaxis": {"title": {"text": title}, "range": [low, high]},
    }
    return View(label=name, traces=traces, layout=layout, height_px=440 + 14 * min(len(shown), MOST_LINES))


def _line(row: Row, index: int, curve: Curve, factor: float, *, widest: float) -> Iterator[Trace]:
    """Yield a configuration's line, and its band unless the median width of it is above ``widest``."""
    epochs = _thinned(sorted(curve))
    estimates = [t_estimate(curve[epoch]) for epoch in epochs]
    name = figure_label(row.label, 42)
    visible: Json = True if index < SHOWN_CONFIGURATIONS else "legendonly"
    common: Trace = {"type": "scatter", "legendgroup": row.config_id, "visible": visible, "meta": {"colour": index % 8}}
    banded = [(e, it.low, it.high) for e, it in zip(epochs, estimates, strict=True) if it.low is not None]
    widths = [factor * ((high or 0.0) - (low or 0.0)) for _, low, high in banded]
    if banded and statistics.median(widths) <= widest:
        upper = [_rounded(factor * (high or 0.0)) for _, _, high in banded]
        lower = [_rounded(factor * (low or 0.0)) for _, low, _ in reversed(banded)]
        forward: list[Json] = [epoch for epoch, _, _ in banded]
        band: Trace = {"x": [*forward, *reversed(forward)], "y": [*upper, *lower], "fill": "toself", "mode": "lines"}
        yield {**common, **band, "hoverinfo": "skip", "showlegend": False}
    dash = _DASHES[(index // 8) % len(_DASHES)] if not row.is_baseline else "dot"
    yield {
        **common,
        "name": name,
        "x": [*epochs],
        "y": [_rounded(factor * estimate.mean) for estimate in estimates],
        "customdata": [estimate.n for estimate in estimates],
        "mode": "lines+markers" if len(epochs) <= 20 else "lines",
        "line": {"width": 2, "dash": dash},
        "marker": {"size": 5},
        "hovertemplate": "%{fullData.name}<br>epoch %{x}: %{y:.2f} (n = %{customdata})<extra></extra>",
    }


def _ticks(rows: Sequence[Row], known: Mapping[str, Mapping[str, Curve]], column: str) -> dict[str, Json]:
    """Return the ticks of the axis of epochs, one for each epoch where there are few."""
    last = max((epoch for row in rows for epoch in known[row.config_id][column]), default=1)
    return {"dtick": 1} if last <= 12 else {"nticks": 8, "tickformat": "d"}


def _frame(means: Sequence[float], factor: float) -> tuple[float, float]:
    """Return the range of the y axis, that of the lines; wide bands of few seeds may extend beyond it."""
    if not means:
        return 0.0, 1.0
    low, high = min(means), max(means)
    room = max(0.06 * (high - low), 0.01 * factor)
    return round(low - room, 4), round(min(high + room, 101.0) if factor == 100 else high + room, 4)


def _thinned(epochs: list[int]) -> list[int]:
    step = -(-len(epochs) // _MOST_EPOCHS)
    return sorted({*epochs[::step], *epochs[-1:]}) if step else []


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _caption(board: Leaderboard, groups: Mapping[str, Sequence[Row]]) -> str:
    scored = sum(row.score is not None for row in board.rows)
    offered = sum(map(len, groups.values()))
    said = (
        "Mean over the seeds of each configuration, on the validation split after every epoch. Bands are 95 % t "
        "intervals over seeds; those wider than half the frame are not drawn. Complete trials only."
    )
    if any(len(rows) > SHOWN_CONFIGURATIONS for rows in groups.values()):
        said += f" {SHOWN_CONFIGURATIONS} configurations are drawn at first; the legend brings in others."
    if offered < scored:
        said += f" {offered} of the {scored} configurations with a score can be drawn, the best ones."
    return said


def published_figure(agreement: Agreement) -> Figure | None:
    """Draw published accuracies against ours; return None for fewer than two configurations."""
    if len(agreement.rows) < 2:
        return None
    rows = agreement.rows
    trace: Trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [round(100 * row.published.mean, 3) for row in rows],
        "y": [round(100 * row.ours.mean, 3) for row in rows],
        "error_x": whiskers([row.published for row in rows]),
        "error_y": whiskers([row.ours for row in rows]),
        "marker": {"size": 9},
        "text": [_published_hover(row) for row in rows],
        "hovertemplate": "%{text}<extra></extra>",
        "meta": {"colour": "accent"},
    }
    ours = [row.ours.mean for row in rows]
    room = max(0.12 * (max(ours) - min(ours)), 0.002)
    layout: dict[str, Json] = {
        "xaxis": {"title": {"text": f"{figure_text(agreement.published)}, {agreement.published_split} accuracy, %"}},
        "yaxis": {
            "title": {"text": f"here, {agreement.split} accuracy, %"},
            "range": [round(100 * (min(ours) - room), 3), round(100 * (max(ours) + room), 3)],
        },
        "showlegend": False,
    }
    caption = (
        "Each point is a configuration: what was published of it, with Wilson's interval of one run over its images, "
        "and what it scores here, with the interval of the leaderboard, cut where it leaves the frame."
    )
    view = View(label="", traces=[trace], layout=layout)
    return Figure(key="published", title="Published and here", caption=caption, views=[view])


def _published_hover(row: AgreementRow) -> str:
    ours = f"here {table.score(row.ours, 2)}, rank {row.our_rank:g}"
    published = f"published {table.score(row.published, 2)}, rank {row.published_rank:g}"
    return f"{figure_text(row.label, 60)}<br>{ours}<br>{published}"


_MOST_SPANS: Final = 3000
_STATE_COLOURS: Final = {
    AttemptState.COMPLETE: "accent",
    AttemptState.RUNNING: "good",
    AttemptState.FAILED: "bad",
    AttemptState.LOST: "bad",
    AttemptState.PRUNED: "faint",
    AttemptState.STOPPED: "faint",
}


def timeline_figure(run: RunSummary) -> Figure | None:
    """Draw the attempts over time, with a row for each slot; return None if there is no attempt."""
    spans = run.spans[:_MOST_SPANS]
    if not spans:
        return None
    unit, seconds = ("hours", 3600.0) if (run.wall_s or 0) > 7200 else ("minutes", 60.0)
    states = dict.fromkeys(span.state for span in spans)
    traces = [_timeline_trace(state, [span for span in spans if span.state is state], seconds) for state in states]
    slots = sorted({span.slot for span in spans})
    layout: dict[str, Json] = {
        "barmode": "overlay",
        "xaxis": {"title": {"text": f"{unit} since the start"}, "rangemode": "tozero"},
        "yaxis": {"type": "category", "categoryarray": [*map(figure_text, reversed(slots))], "categoryorder": "array"},
        "showlegend": True,
    }
    view = View(label="", traces=traces, layout=layout, height_px=140 + 34 * len(slots))
    more = f" Only the first {_MOST_SPANS} attempts are drawn." if len(run.spans) > _MOST_SPANS else ""
    caption = f"Every attempt on its slot, by how it ended; gaps are idle time.{more}"
    return Figure(key="timeline", title="Use of slots over time", caption=caption, views=[view])


def _timeline_trace(state: AttemptState, spans: Sequence[Span], seconds: float) -> Trace:
    return {
        "type": "bar",
        "orientation": "h",
        "name": state.value,
        "y": [figure_text(span.slot) for span in spans],
        "x": [round(span.duration_s / seconds, 3) for span in spans],
        "base": [round(span.start_s / seconds, 3) for span in spans],
        "customdata": [f"{figure_text(span.label, 60)}, seed {span.seed}" for span in spans],
        "marker": {"line": {"width": 0}},
        "hovertemplate": f"%{{customdata}}<br>{state.value}, %{{x:.2f}} from %{{base:.2f}}<extra></extra>",
        "meta": {"colour": _STATE_COLOURS[state]},
    }
