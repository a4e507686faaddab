"""Figures of how accuracy depends on the axes of a sweep: accuracy against size, and any two axes together."""

import itertools
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stnbench.analysis.effects import Estimate, t_estimate
from stnbench.core.identity import Json
from stnbench.report import table
from stnbench.report.board import Leaderboard, Row
from stnbench.report.html.document import Figure, Trace, View, figure_text, whiskers
from stnbench.spec.result import TrialState

# Axes and configurations, as the figures need them.

MOST_AXES: Final = 8
"""The largest number of axes in the figures, the most important ones."""

MOST_PAIRS: Final = 15
"""The largest number of pairs of axes that can be chosen, all pairs of six axes."""

MOST_LABELS: Final = 30
"""The largest number of rows or columns of a heat map; numbers with more labels are put into intervals."""

_MOST_FAMILIES: Final = 12
_INTERVALS: Final = 6
_LOG_RATIO: Final = 20.0
"""The ratio of the largest to the smallest number from which on an axis is logarithmic."""

_NUMBER: Final = r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_NUMBERS: Final = re.compile(rf"(?:[\w.]+=|[^\W\d][\w ]* )?({_NUMBER}(?:,{_NUMBER})*)")

Kind = Literal["number", "ordered", "category"]


def numbers_of(label: str) -> tuple[float, ...]:
    """Return the numbers of a label such as ``0.01``, ``epochs=3``, ``size 10`` or ``20,20,20``; empty for a name."""
    found = _NUMBERS.fullmatch(label)
    return tuple(map(float, found[1].split(","))) if found else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class AxisScale:
    """An axis with its labels in order.

    ``kind`` is ``number`` where every label is one number, ``ordered`` where it is several, such as sizes, and else
    ``category``.
    """

    name: str
    labels: tuple[str, ...]
    kind: Kind
    is_log: bool = False

    def value(self, label: str) -> float:
        """Return the position of a label on the axis, the logarithm of its number on a logarithmic one."""
        if self.kind != "number":
            return float(self.labels.index(label))
        (number,) = numbers_of(label)
        return math.log10(number) if self.is_log else number

    def share(self, label: str) -> float:
        """Return the position of a label in [0, 1]."""
        ends = self.value(self.labels[0]), self.value(self.labels[-1])
        return 0.5 if ends[0] == ends[1] else (self.value(label) - ends[0]) / (ends[1] - ends[0])


def make_scale(name: str, labels: Sequence[str]) -> AxisScale:
    """Return the scale of an axis from its labels, in the order of the sweep."""
    known = {label: numbers_of(label) for label in dict.fromkeys(labels)}
    counts = {len(numbers) for numbers in known.values()}
    if counts == {1}:
        ordered = sorted(known, key=lambda label: known[label])
        low, high = known[ordered[0]][0], known[ordered[-1]][0]
        return AxisScale(
            name=name, labels=tuple(ordered), kind="number", is_log=low > 0 and high / low >= _LOG_RATIO
        )  # fmt: skip
    if 0 not in counts and len(counts) == 1:
        ordered = sorted(known, key=lambda label: (math.prod(known[label]), known[label]))
        return AxisScale(name=name, labels=tuple(ordered), kind="ordered")
    return AxisScale(name=name, labels=tuple(known), kind="category")


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """A configuration of the sweep that is not a baseline.

    Attributes:
        number: its place in the order in which configurations were proposed, from 1.
        at: its row in the leaderboard.
        row: the same row.
        state: ``pruned`` or ``failed`` where any trial of it is, else ``complete`` where all are.
        value: the mean accuracy in [0, 1]; that after the last epochs for a pruned one, None where there is none.
        by_seed: the accuracies of complete trials.
    """

    number: int
    at: int
    row: Row
    state: TrialState
    value: float | None
    by_seed: Mapping[int, float]

    @property
    def axes(self) -> Mapping[str, str]:
        """Return its labels by the names of axes."""
        return dict(self.row.axes)


def read_configurations(board: Leaderboard, trials: pd.DataFrame) -> list[Configuration]:
    """Return the configurations of a sweep in the order in which they were proposed, without baselines."""
    column = f"{board.split}_accuracy"
    places = {row.config_id: at for at, row in enumerate(board.rows) if not row.is_baseline}
    scores: dict[str, dict[int, float]] = {}
    columns = ("cell_id", "seed", "state", column)
    for config_id, seed, state, accuracy in zip(*(trials[name] for name in columns), strict=True):
        own = scores.setdefault(str(config_id), {})
        if state == TrialState.COMPLETE.value and accuracy == accuracy:  # noqa: PLR0124 - not NaN
            own[int(seed)] = float(accuracy)
    last = _last_accuracies(board) if board.split == "validation" else {}
    found: list[Configuration] = []
    for config_id, by_seed in scores.items():
        if config_id in places:
            row = board.rows[places[config_id]]
            state = _state(row)
            value = row.score.mean if row.score else None
            if state is TrialState.PRUNED:
                value = statistics.fmean(last[config_id]) if config_id in last else None
            found.append(
                Configuration(
                    number=len(found) + 1, at=places[config_id], row=row, state=state, value=value,
                    by_seed=by_seed,
                )
            )  # fmt: skip
    return found


def _last_accuracies(board: Leaderboard) -> dict[str, list[float]]:
    last: dict[str, list[float]] = {}
    for trial in board.trials:
        if trial.accuracy is not None:
            last.setdefault(trial.config_id, []).append(trial.accuracy)
    return last


def _state(row: Row) -> TrialState:
    order = (TrialState.FAILED, TrialState.PRUNED, TrialState.RUNNING, TrialState.PLANNED)
    return next((state for state in order if getattr(row.states, state.value)), TrialState.COMPLETE)


def scales_of(board: Leaderboard, configurations: Sequence[Configuration]) -> list[AxisScale]:
    """Return the axes on which configurations differ, the most important ones first where that is known."""
    labels: dict[str, list[str]] = {name: [] for name in board.axes}
    for one in configurations:
        for name, label in one.row.axes:
            labels.setdefault(name, []).append(label)
    scales = [make_scale(name, own) for name, own in labels.items() if len(set(own)) > 1]
    weights = {item.axis: item for item in board.findings.importances} if board.findings else {}

    def weight(scale: AxisScale) -> float:
        item = weights.get(scale.name)
        known = () if item is None else (item.ped_anova, item.fanova, item.variance_explained)
        return next((share for share in known if share is not None), 0.0)

    return sorted(scales, key=weight, reverse=True)[:MOST_AXES]


def percent(share: float | None) -> float | None:
    """Return a share in percent, with three decimals."""
    return None if share is None else round(100 * share, 3)


def hover(one: Configuration) -> str:
    """Return the text of a configuration's point: its label, its accuracy with an interval, and n."""
    score = one.row.score
    if one.state is TrialState.PRUNED:
        said = f"pruned at {table.percent(one.value, 2)} %"
    else:
        said = f"{table.score(score, 2)} %, n = {score.n if score else 0}"
    return f"{figure_text(one.row.label, 60)}<br>{said}"


def coordinate(scale: AxisScale, label: str) -> Json:
    """Return a label as a coordinate of Plotly: its number, or its name."""
    return numbers_of(label)[0] if scale.kind == "number" else figure_text(label, 28)


def axis_layout(scale: AxisScale) -> dict[str, Json]:
    """Return the layout of an axis of Plotly."""
    layout: dict[str, Json] = {"title": {"text": figure_text(scale.name, 40)}}
    if scale.kind == "number":
        return {**layout, "type": "log" if scale.is_log else "linear", **({"dtick": 1} if scale.is_log else {})}
    labels: list[Json] = [figure_text(label, 28) for label in scale.labels]
    return {**layout, "type": "category", "categoryorder": "array", "categoryarray": labels}


# Figures of two axes.


def pair_figure(
    configurations: Sequence[Configuration], scales: Sequence[AxisScale], *, is_search: bool
) -> Figure | None:
    """Draw mean accuracies by two axes, a view for each pair; return None for fewer than two axes.

    Two axes of numbers of a search are drawn as contours; others as heat maps.
    """
    known = [one for one in configurations if one.value is not None and one.state is not TrialState.PRUNED]
    pairs = list(itertools.combinations(scales, 2))[:MOST_PAIRS]
    views = []
    for first, second in pairs:
        own = [one for one in known if {first.name, second.name} <= one.axes.keys()]
        is_drawn = is_search and first.kind == second.kind == "number" and len(own) >= 8
        view = _contour_view(own, first, second) if is_drawn else _heat_view(own, first, second)
        if view is not None:
            views.append(view)
    if not views:
        return None
    caption = "Means over all other axes of configurations with a score, in percent; empty where there is none."
    if any(trace["type"] == "contour" for view in views for trace in view.traces):
        caption += (
            " Contours are weighted means of the configurations nearby (Gaussian weights, an eighth of the axis wide), "
            "and empty where none is near."
        )
    more = math.comb(len(scales), 2) - len(pairs)
    caption += f" {more} more pairs are not offered." if more else ""
    width = max((170 + 64 * _columns(view) for view in views), default=0)
    return Figure(key="pairs", title="Any two axes", caption=caption, views=views, width_px=min(900, width))


def _columns(view: View) -> int:
    xs = view.traces[0].get("x")
    is_heat_map = view.traces[0]["type"] == "heatmap"
    return len(xs) if is_heat_map and isinstance(xs, list) else 0


def _heat_view(own: Sequence[Configuration], first: AxisScale, second: AxisScale) -> View | None:
    rows, of_row = _put_together(first)
    columns, of_column = _put_together(second)
    if not own or len(rows) > MOST_LABELS or len(columns) > MOST_LABELS:
        return None
    groups: dict[tuple[str, str], list[Configuration]] = {}
    for one in own:
        groups.setdefault((of_row[one.axes[first.name]], of_column[one.axes[second.name]]), []).append(one)
    means = {key: statistics.fmean(one.value or 0.0 for one in group) for key, group in groups.items()}
    said = {key: f"{100 * means[key]:.1f}" for key in means}
    shown = len(columns) <= MOST_LABELS // 2
    trace: Trace = {
        "type": "heatmap",
        "x": [figure_text(label, 24) for label in columns],
        "y": [figure_text(label, 28) for label in rows],
        "z": [[percent(means.get((row, column))) for column in columns] for row in rows],
        "text": [[said.get((row, column), "") for column in columns] for row in rows],
        "customdata": [[len(groups.get((row, column), ())) for column in columns] for row in rows],
        **({"texttemplate": "%{text}"} if shown else {}),
        "hovertemplate": "%{y}, %{x}<br>%{z:.2f} %, configurations: %{customdata}<extra></extra>",
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
        "showscale": not shown,
        "meta": {"scale": "one hue"},
    }
    names: dict[str, Json] = {"type": "category", "showgrid": False}
    layout: dict[str, Json] = {
        "xaxis": {**names, "title": {"text": figure_text(second.name)}},
        "yaxis": {**names, "title": {"text": figure_text(first.name)}, "autorange": "reversed"},
    }
    label = f"{first.name} \u00d7 {second.name}"
    return View(label=label, traces=[trace], layout=layout, height_px=150 + 34 * len(rows))


def _put_together(scale: AxisScale) -> tuple[list[str], dict[str, str]]:
    """Return the labels of a heat map's side in order, and that of each label; many numbers are put into intervals."""
    if scale.kind != "number" or len(scale.labels) <= 2 * _INTERVALS:
        return [*scale.labels], {label: label for label in scale.labels}
    edges = np.linspace(0, len(scale.labels), _INTERVALS + 1).round().astype(int).tolist()
    found: dict[str, str] = {}
    for start, stop in itertools.pairwise(edges):
        own = scale.labels[start:stop]
        name = " to ".join(f"{numbers_of(label)[0]:.3g}" for label in dict.fromkeys((own[0], own[-1])))
        found |= dict.fromkeys(own, name)
    return [*dict.fromkeys(found.values())], found


_GRID: Final = 32
_BANDWIDTH: Final = 0.125
_NEAR: Final = 0.2
"""The distance, as a share of the axes, beyond which contours say nothing of a place."""


def _contour_view(own: Sequence[Configuration], first: AxisScale, second: AxisScale) -> View:
    places = np.array([[second.share(one.axes[second.name]), first.share(one.axes[first.name])] for one in own])
    values = np.array([100 * (one.value or 0.0) for one in own])
    side = np.linspace(0, 1, _GRID)
    surface = _smoothed(places, values, side)
    contour: Trace = {
        "type": "contour",
        "x": _ticks_along(second, side),
        "y": _ticks_along(first, side),
        "z": [[None if math.isnan(value) else round(value, 3) for value in row] for row in surface.tolist()],
        "hoverinfo": "skip",
        "contours": {"coloring": "heatmap", "showlabels": False},
        "line": {"width": 0.5},
        "colorbar": {"title": {"text": "%"}, "thickness": 10, "outlinewidth": 0},
        "meta": {"scale": "one hue"},
    }
    points: Trace = {
        "type": "scatter",
        "mode": "markers",
        "name": "configurations",
        "x": [numbers_of(one.axes[second.name])[0] for one in own],
        "y": [numbers_of(one.axes[first.name])[0] for one in own],
        "text": [hover(one) for one in own],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"size": 6, "line": {"width": 1, "color": "#ffffff"}},
        "meta": {"colour": "ink"},
    }
    layout: dict[str, Json] = {"xaxis": axis_layout(second), "yaxis": axis_layout(first), "showlegend": False}
    label = f"{first.name} \u00d7 {second.name}"
    return View(label=label, traces=[contour, points], layout=layout, height_px=440)


def _smoothed(
    places: NDArray[np.float64], values: NDArray[np.float64], side: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the kernel-weighted mean of values over a grid, NaN where no value is near.

    Shape:
        places: (values, 2), in [0, 1]; the result is (len(side), len(side)), rows along the second coordinate.
    """
    across, up = np.meshgrid(side, side)
    distance = np.hypot(across[..., None] - places[:, 0], up[..., None] - places[:, 1])
    weights = np.exp(-0.5 * (distance / _BANDWIDTH) ** 2)
    smooth: NDArray[np.float64] = (weights * values).sum(-1) / np.maximum(weights.sum(-1), 1e-12)
    return np.where(distance.min(-1) <= _NEAR, smooth, np.nan)


def _ticks_along(scale: AxisScale, side: NDArray[np.float64]) -> list[Json]:
    low, high = scale.value(scale.labels[0]), scale.value(scale.labels[-1])
    along = low + side * (high - low)
    return [float(f"{10**value if scale.is_log else value:.6g}") for value in along.tolist()]


# Accuracy against size, for grids.


def size_figure(
    board: Leaderboard, configurations: Sequence[Configuration], scales: Sequence[AxisScale]
) -> Figure | None:
    """Draw accuracy against each axis of sizes or numbers, with a line for each family.

    A family is a label of an axis of names; the other axes are averaged over, for seeds with all their configurations.

    Returns:
        The figure, or None where no axis has three sizes.
    """
    families = [scale for scale in scales if scale.kind == "category" and len(scale.labels) <= _MOST_FAMILIES]
    views = []
    for scale in scales:
        if scale.kind != "category" and len(scale.labels) >= 3:
            own = [view for family in families if (view := _size_view(board, configurations, scale, family))]
            alone = _size_view(board, configurations, scale, None)
            views += own or ([alone] if alone else [])
    if not views:
        return None
    caption = (
        "Means over the axes that are not named, with 95 % t intervals over seeds; of seeds that have every "
        "configuration of a point."
    )
    return Figure(key="sizes", title="Accuracy against size", caption=caption, views=views[:MOST_PAIRS])


def _size_view(
    board: Leaderboard, configurations: Sequence[Configuration], scale: AxisScale, family: AxisScale | None
) -> View | None:
    groups: dict[tuple[str, str], list[Configuration]] = {}
    for one in configurations:
        if scale.name in one.axes and (family is None or family.name in one.axes):
            name = one.axes[family.name] if family else "all configurations"
            groups.setdefault((name, one.axes[scale.name]), []).append(one)
    names = [*family.labels] if family else ["all configurations"]
    traces: list[Trace] = []
    for index, name in enumerate(names):
        found = {
            label: estimate
            for label in scale.labels
            if (estimate := _over_seeds(groups.get((name, label), ()))) is not None
        }
        if found:
            traces.append(_size_line(scale, name, index, found))
    if not any(len(xs) > 1 for trace in traces if isinstance(xs := trace["x"], list)):
        return None
    layout: dict[str, Json] = {
        "xaxis": axis_layout(scale),
        "yaxis": {"title": {"text": f"{board.split} accuracy, %"}},
        "showlegend": len(traces) > 1,
    }
    label = f"{scale.name} by {family.name}" if family else scale.name
    return View(label=label, traces=traces, layout=layout, height_px=440)


def _size_line(scale: AxisScale, name: str, index: int, found: Mapping[str, Estimate]) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": figure_text(name, 40),
        "x": [coordinate(scale, label) for label in found],
        "y": [percent(estimate.mean) for estimate in found.values()],
        "error_y": whiskers([*found.values()]),
        "customdata": [[figure_text(label, 40), estimate.n] for label, estimate in found.items()],
        "line": {"width": 2, "dash": "solid" if index < 8 else "dash"},
        "marker": {"size": 6},
        "hovertemplate": "%{fullData.name}, %{customdata[0]}<br>%{y:.2f} % (n = %{customdata[1]})<extra></extra>",
        "meta": {"colour": index % 8},
    }


def _over_seeds(group: Sequence[Configuration]) -> Estimate | None:
    """Return the mean over configurations with its interval over seeds, of seeds that all of them have."""
    if not group:
        return None
    seeds = sorted(set.intersection(*(set(one.by_seed) for one in group)))
    if not seeds:
        return None
    return t_estimate([statistics.fmean(one.by_seed[seed] for one in group) for seed in seeds])
