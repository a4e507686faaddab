"""Figures of searches: their history, pruned trials and slices; and parallel coordinates, which grids have as well."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from stnbench.core.identity import Json
from stnbench.report import table
from stnbench.report.board import Leaderboard
from stnbench.report.html.axes import (
    AxisScale,
    Configuration,
    axis_layout,
    coordinate,
    hover,
    pair_figure,
    percent,
    read_configurations,
    scales_of,
    size_figure,
)
from stnbench.report.html.document import Figure, Trace, View, figure_text
from stnbench.report.runs import TrialRow
from stnbench.spec.result import TrialState

MOST_LINES: Final = 600
"""The largest number of lines of parallel coordinates, the best configurations."""

_FEWEST_LINES: Final = 8
"""The smallest number of configurations for parallel coordinates of a grid; fewer are read in the table."""

# Figures that searches alone have.


def history_figure(board: Leaderboard, configurations: Sequence[Configuration]) -> Figure | None:
    """Draw accuracy in the order of proposals with the best so far; return None for fewer than two values."""
    complete = [one for one in configurations if one.state is TrialState.COMPLETE and one.value is not None]
    pruned = [one for one in configurations if one.state is TrialState.PRUNED and one.value is not None]
    if len(complete) + len(pruned) < 2:
        return None
    best = itertools.accumulate((one.value or 0.0 for one in complete), max)
    traces: list[Trace] = [
        _points("complete", complete, "accent"),
        *([_points("pruned", pruned, "faint", symbol="x-thin-open")] if pruned else []),
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": [one.number for one in complete],
            "y": [percent(value) for value in best],
            "line": {"shape": "hv", "width": 2},
            "hoverinfo": "skip",
            "meta": {"colour": "good"},
        },
    ]
    layout: dict[str, Json] = {
        "xaxis": {"title": {"text": "configuration, in the order of proposals"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": f"{board.split} accuracy, %"}},
    }
    without = sum(one.value is None for one in configurations)
    caption = "Means over the seeds of each configuration. " + (
        "Pruned ones are at the accuracy after their last epoch, and never count as best. " if pruned else ""
    )
    caption += f"{table.counted(without, 'configuration')} failed or without a value yet." if without else ""
    view = View(label="", traces=traces, layout=layout)
    return Figure(key="history", title="History of the search", caption=caption.strip(), views=[view])


def _points(name: str, own: Sequence[Configuration], colour: str, *, symbol: str = "circle") -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [one.number for one in own],
        "y": [percent(one.value) for one in own],
        "text": [hover(one) for one in own],
        "marker": {"size": 8, "symbol": symbol},
        "hovertemplate": "%{x}: %{text}<extra></extra>",
        "meta": {"colour": colour},
    }


def pruned_figure(board: Leaderboard, epochs: pd.DataFrame) -> Figure | None:
    """Draw the curves of pruned trials over those of complete ones; return None where none was pruned.

    Args:
        board: the leaderboard, with its trials.
        epochs: ``analysis.frames.EPOCH_COLUMNS``; of an epoch that two attempts have, the later one counts.
    """
    kept = {
        trial.trial_id: trial
        for trial in board.trials
        if not trial.is_baseline and trial.state in {TrialState.PRUNED, TrialState.COMPLETE}
    }
    pruned = sum(trial.state is TrialState.PRUNED for trial in kept.values())
    if not pruned:
        return None
    own = epochs[epochs["trial_id"].isin(kept)].sort_values(["trial_id", "epoch", "attempt"], kind="stable")
    last = own.drop_duplicates(["trial_id", "epoch"], keep="last")
    curves: dict[str, list[tuple[int, float]]] = {}
    for trial_id, epoch, accuracy in last[["trial_id", "epoch", "validation_accuracy"]].itertuples(index=False):
        curves.setdefault(str(trial_id), []).append((int(epoch), float(accuracy)))
    traces: list[Trace] = []
    for state, colour in ((TrialState.COMPLETE, "accent"), (TrialState.PRUNED, "bad")):
        shown = [trial for trial in kept.values() if trial.state is state and trial.trial_id in curves]
        traces.append(_curves_trace(state, shown, curves, colour))
    layout: dict[str, Json] = {
        "xaxis": {"title": {"text": "epoch"}, "tickformat": "d", "nticks": 8},
        "yaxis": {"title": {"text": "validation accuracy, %"}},
        "showlegend": True,
    }
    shown_trials = [trial for trial in kept.values() if trial.state is TrialState.PRUNED]
    words = [
        f"{trial.label}, seed {trial.seed}: pruned after epoch {trial.epoch} of {trial.epochs}"
        f" at {table.percent(trial.accuracy, 2)} %"
        for trial in shown_trials
    ]
    caption = f"Every trial after every epoch; {table.counted(pruned, 'trial')} ended early, judged worse than others."
    view = View(label="", traces=traces, layout=layout, words=words)
    return Figure(key="pruned", title="Pruned trials", caption=caption, views=[view])


def _curves_trace(
    state: TrialState, shown: Sequence[TrialRow], curves: Mapping[str, Sequence[tuple[int, float]]], colour: str
) -> Trace:
    """Return the curves of the trials in a state as one trace."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"{state.value} ({len(shown)})",
        "x": _joined([epoch for epoch, _ in curves[trial.trial_id]] for trial in shown),
        "y": _joined([percent(share) for _, share in curves[trial.trial_id]] for trial in shown),
        "customdata": _joined(
            [f"{figure_text(trial.label, 60)}, seed {trial.seed}"] * len(curves[trial.trial_id]) for trial in shown
        ),
        "line": {"width": 1},
        "marker": {"size": 4},
        "opacity": 0.55 if state is TrialState.COMPLETE else 0.9,
        "hovertemplate": "%{customdata}<br>epoch %{x}: %{y:.2f} %<extra></extra>",
        "meta": {"colour": colour},
    }


def _joined(parts: "Iterator[Sequence[Json]] | Sequence[Sequence[Json]]") -> list[Json]:
    """Return lists one after the other, with None behind each, where a line breaks."""
    return [value for part in parts for value in (*part, None)]


def slice_figure(
    board: Leaderboard, configurations: Sequence[Configuration], scales: Sequence[AxisScale]
) -> Figure | None:
    """Draw accuracy against each axis, a view for each; return None where nothing varies."""
    known = [one for one in configurations if one.value is not None]
    if len(known) < 3 or not scales:
        return None
    views = [_slice_view(board, known, scale) for scale in scales]
    caption = (
        "Every configuration with a value, on one axis at a time; the others vary as well. Darker points (in a dark "
        "scheme: brighter ones) were proposed later; crosses were pruned."
    )
    return Figure(key="slices", title="One axis at a time", caption=caption, views=views)


def _slice_view(board: Leaderboard, known: Sequence[Configuration], scale: AxisScale) -> View:
    own = [one for one in known if scale.name in one.axes]
    traces: list[Trace] = []
    for state in (TrialState.COMPLETE, TrialState.PRUNED):
        of_state = [one for one in own if (one.state is TrialState.PRUNED) == (state is TrialState.PRUNED)]
        if of_state:
            is_pruned = state is TrialState.PRUNED
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": "pruned" if is_pruned else "complete",
                    "x": [coordinate(scale, one.axes[scale.name]) for one in of_state],
                    "y": [percent(one.value) for one in of_state],
                    "text": [hover(one) for one in of_state],
                    "hovertemplate": "%{text}<extra></extra>",
                    "marker": {"size": 8, "symbol": "x-thin-open" if is_pruned else "circle"},
                    "meta": {"colour": "faint" if is_pruned else [_hue(one.number / len(known)) for one in of_state]},
                }
            )
    layout: dict[str, Json] = {
        "xaxis": axis_layout(scale),
        "yaxis": {"title": {"text": f"{board.split} accuracy, %"}},
        "showlegend": False,
    }
    return View(label=scale.name, traces=traces, layout=layout)


def _hue(share: float) -> str:
    """Return the name of a colour between faint (0) and strong (1), which the page's script mixes."""
    return f"hue {min(max(share, 0.0), 1.0):.2f}"


# Parallel coordinates.

_SHADES: Final = 5
_LINE_LENGTH: Final = 14
_PARTS: Final = re.compile(r"[^._ ]+[._ ]?|[._ ]")


_ALL_AT_ONCE: Final = (
    "A line for each configuration, darker the more accurate it is (in a dark scheme: brighter); dotted without a "
    "score. Drag along an axis to keep the lines that cross there, also along several (with Shift); the "
    "leaderboard follows, and what is chosen above the leaderboard is kept here. A double click frees all."
)


def _by_shade(kept: Sequence[Configuration], scores: Sequence[float]) -> dict[int, list[Configuration]]:
    """Return the configurations by the rank of their score in ``_SHADES`` groups; -1 for those without one."""
    shades: dict[int, list[Configuration]] = {}
    for one in kept:
        is_scored = one.value is not None and one.state is not TrialState.PRUNED
        shade = min(_SHADES - 1, _SHADES * _rank(scores, one.value) // len(scores)) if is_scored else -1
        shades.setdefault(shade, []).append(one)
    return shades


def _shade_trace(shade: int, own: Sequence[Configuration], lines: Sequence[list[Json]], *, axes: int) -> Trace:
    """Return the lines of the configurations of a shade, -1 for those without a score, as one trace."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "without a score" if shade < 0 else f"{shade + 1} of {_SHADES}",
        "x": _joined([[*range(axes)]] * len(own)),
        "y": _joined(lines),
        "customdata": _joined([[hover(one)] * (axes) for one in own]),
        "hovertemplate": "%{customdata}<extra></extra>",
        "line": {"width": 1 if shade < _SHADES - 1 else 1.8, "dash": "dot" if shade < 0 else "solid"},
        "marker": {"size": 4},
        "meta": {"colour": "faint" if shade < 0 else _hue((shade + 0.5) / _SHADES)},
    }


def _parallel_layout(board: Leaderboard, scales: Sequence[AxisScale], low: float, high: float) -> dict[str, Json]:
    """Return the layout of parallel coordinates, whose last axis is the score from ``low`` to ``high``."""
    names = [*(scale.name for scale in scales), f"{board.split} %"]
    notes = [note for place, scale in enumerate(scales) for note in _axis_notes(place, scale)]
    notes += [_note(len(scales), share, f"{100 * value:.1f}") for share, value in ((0.0, low), (1.0, high))]
    return {
        "xaxis": {
            "tickvals": [*range(len(names))], "ticktext": [*map(_in_lines, names)], "tickangle": 0, "showgrid": True,
            "range": [-0.35, len(names) - 0.4], "gridwidth": 2, "zeroline": False, "fixedrange": True, "side": "top",
        },
        "yaxis": {"visible": False, "range": [-0.06, 1.06], "fixedrange": True},
        "annotations": [*notes],
        "showlegend": False,
    }  # fmt: skip


def parallel_figure(
    board: Leaderboard,
    configurations: Sequence[Configuration],
    scales: Sequence[AxisScale],
    *,
    is_search: bool,
    table_id: str,
) -> Figure | None:
    """Draw parallel coordinates of configurations, tied to the rows of the leaderboard.

    Args:
        board: the leaderboard.
        configurations: all configurations.
        scales: the axes, from left to right.
        is_search: whether a planner chose the configurations.
        table_id: the id of the leaderboard on the page.

    Returns:
        The figure, or None for fewer than two axes, or for a grid so small that its table shows everything.
    """
    kept = sorted(configurations, key=lambda one: one.at)[:MOST_LINES]
    scores = sorted(one.value for one in kept if one.value is not None and one.state is not TrialState.PRUNED)
    if len(scales) < 2 or len(kept) < (3 if is_search else _FEWEST_LINES) or len(scores) < 2:
        return None
    shades = _by_shade(kept, scores)
    low, high = scores[0], scores[-1]

    def line(one: Configuration) -> list[Json]:
        shares = [scale.share(one.axes[scale.name]) if scale.name in one.axes else None for scale in scales]
        ends = one.value is not None and one.state is not TrialState.PRUNED and high > low
        score = ((one.value or 0.0) - low) / (high - low) if ends else None
        return [None if share is None else round(share, 4) for share in (*shares, score)]

    traces: list[Trace] = []
    rows: list[Json] = []
    for shade, own in sorted(shades.items()):
        traces.append(_shade_trace(shade, own, [line(one) for one in own], axes=len(scales) + 1))
        rows.append([one.at for one in own])
    layout = _parallel_layout(board, scales, low, high)
    caption = _ALL_AT_ONCE
    if len(configurations) > len(kept):
        caption += f" {len(kept)} of {len(configurations)} configurations are drawn, the best ones."
    best = [one for one in kept if one.row.score is not None]
    words = [
        f"{one.row.label}: {table.score(one.row.score, 2)} %, n = {one.row.score.n}" for one in best if one.row.score
    ]
    view = View(
        label="",
        traces=traces,
        layout=layout,
        height_px=420,
        words=words,
        link={"table": table_id, "rows": rows, "axes": len(scales) + 1},
    )
    return Figure(
        key="parallel", title="All axes at once", caption=caption, views=[view], width_px=90 + 105 * (len(scales) + 1)
    )


def _in_lines(name: str) -> str:
    """Return the name of an axis in short lines, for a figure."""
    lines = [""]
    for part in _PARTS.findall(name):
        if lines[-1] and len(lines[-1]) + len(part) > _LINE_LENGTH:
            lines.append("")
        lines[-1] += part
    return "<br>".join(figure_text(line, 2 * _LINE_LENGTH) for line in lines[:4])


def _rank(scores: Sequence[float], value: float | None) -> int:
    return sum(score < (value or 0.0) for score in scores)


def _axis_notes(place: int, scale: AxisScale) -> Iterator[Json]:
    if scale.kind == "number":
        low, high = scale.value(scale.labels[0]), scale.value(scale.labels[-1])
        for share in (0.0, 0.5, 1.0):
            value = low + share * (high - low)
            digits = 2 if share == 0.5 else 3  # the middle is a place on the scale, not a choice
            yield _note(place, share, f"{10**value if scale.is_log else value:.{digits}g}")
        return
    step = -(-len(scale.labels) // 12)
    for index, label in enumerate(scale.labels):
        if index % step == 0 or index == len(scale.labels) - 1:
            yield _note(place, scale.share(label), label)


def _note(place: int, share: float, said: str) -> Json:
    return {
        "x": place, "y": round(share, 4), "text": figure_text(said, 18), "showarrow": False, "xanchor": "left",
        "xshift": 5, "font": {"size": 11}, "name": "over lines",
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class AxisFigures:
    """The figures of a sweep's axes.

    ``first`` stand before a long leaderboard, because they say where to look in it; ``second`` behind it.
    """

    first: Sequence[Figure]
    second: Sequence[Figure]


def axis_figures(
    board: Leaderboard, trials: pd.DataFrame, epochs: pd.DataFrame | None, *, is_search: bool, table_id: str
) -> AxisFigures:
    """Return the figures of a sweep's axes.

    Args:
        board: the leaderboard, with its trials.
        trials: ``analysis.frames.TRIAL_COLUMNS``.
        epochs: ``analysis.frames.EPOCH_COLUMNS``.
        is_search: whether a planner chose the configurations by their results, or an axis is a range.
        table_id: the id of the leaderboard on the page.
    """
    configurations = read_configurations(board, trials)
    scales = scales_of(board, configurations)
    parallel = parallel_figure(board, configurations, scales, is_search=is_search, table_id=table_id)
    pairs = pair_figure(configurations, scales, is_search=is_search)
    if is_search:
        pruned = None if epochs is None else pruned_figure(board, epochs)
        first = [history_figure(board, configurations), pruned, parallel]
        second = [slice_figure(board, configurations, scales), pairs]
    else:
        first = [size_figure(board, configurations, scales), parallel]
        second = [pairs]
    return AxisFigures(
        first=[figure for figure in first if figure is not None],
        second=[figure for figure in second if figure is not None],
    )
