"""Learning curves: accuracy and losses by epoch, a line a cell, with a band over its seeds."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from stnbench.analysis.inference import t_estimate
from stnbench.core.identity import Json
from stnbench.report.board import Leaderboard, Row
from stnbench.report.page.figure import Figure, Trace, View
from stnbench.report.page.html import figure_text

SHOWN_CELLS: Final = 8
"""Lines that are there at once; as many as there are colours."""

MOST_CELLS: Final = 24
"""Lines that the legend offers."""

_MOST_EPOCHS: Final = 120
_MOST_GROUPS: Final = 8
_DASHES: Final = ("solid", "dash", "dot", "dashdot")

Curve = Mapping[int, Sequence[float]]
"""What each seed has, by epoch."""

_METRICS: Final = (
    ("validation_accuracy", "Validation accuracy", "validation accuracy, %", 100.0),
    ("validation_loss", "Validation loss", "validation loss, nats", 1.0),
    ("train_loss", "Training loss", "training loss, nats", 1.0),
)


def learning_curves(board: Leaderboard, trials: pd.DataFrame, epochs: pd.DataFrame) -> Figure | None:
    """The curves of the best cells and of the best one without transformers; None where no complete trial has any.

    Args:
        board: says which cells are best.
        trials: of ``frames_columns.TRIAL_COLUMNS``.
        epochs: of ``frames_columns.EPOCH_COLUMNS``; of an epoch that two attempts have, the later one counts.
    """
    groups = _chosen(board)
    wanted = {row.cell_id for rows in groups.values() for row in rows}
    known = _read(trials, epochs, wanted)
    if not known:
        return None
    if len(groups) > 1:
        column, _, title, factor = _METRICS[0]
        views = [_view(name or "all", rows, known, (column, title, factor)) for name, rows in groups.items()]
    else:
        (rows,) = groups.values()
        views = [_view(name, rows, known, (column, title, factor)) for column, name, title, factor in _METRICS]
    return Figure(key="curves", title="Learning curves", caption=_caption(board, groups), views=views)


def _chosen(board: Leaderboard) -> dict[str, list[Row]]:
    """The cells with lines, by group: the best ones, the best one without transformers among the first."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in board.rows:
        if row.score is not None:
            groups[row.group].append(row)
    return {name: _with_twin(rows)[:MOST_CELLS] for name, rows in list(groups.items())[:_MOST_GROUPS]}


def _with_twin(rows: list[Row]) -> list[Row]:
    twin = next((row for row in rows if row.is_twin), None)
    if twin is None or twin in rows[:SHOWN_CELLS]:
        return rows
    others = [row for row in rows if row is not twin]
    return [*others[: SHOWN_CELLS - 1], twin, *others[SHOWN_CELLS - 1 :]]


def _read(trials: pd.DataFrame, epochs: pd.DataFrame, wanted: set[str]) -> dict[str, dict[str, Curve]]:
    """By cell and column, what each complete trial has, by epoch."""
    done = trials[(trials["state"] == "complete") & trials["cell_id"].isin(wanted)]
    cells = dict(zip(done["trial_id"], done["cell_id"], strict=True))
    own = epochs[epochs["trial_id"].isin(cells)].sort_values(["trial_id", "epoch", "attempt"], kind="stable")
    last = own.drop_duplicates(["trial_id", "epoch"], keep="last")
    curves: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    columns = [name for name, *_ in _METRICS]
    for trial_id, epoch, *values in last[["trial_id", "epoch", *columns]].itertuples(index=False):
        for column, value in zip(columns, values, strict=True):
            if abs(value) < float("inf"):  # not of a loss that is no number
                curves[cells[trial_id]][column][int(epoch)].append(float(value))
    return curves


def _view(
    name: str, rows: Sequence[Row], known: Mapping[str, Mapping[str, Curve]], metric: tuple[str, str, float]
) -> View:
    column, title, factor = metric
    traces: list[Trace] = []
    means: list[float] = []
    shown = [row for row in rows if known.get(row.cell_id, {}).get(column)]
    for row in shown[:SHOWN_CELLS]:
        means += [factor * sum(values) / len(values) for values in known[row.cell_id][column].values()]
    low, high = _frame(means, factor)
    for index, row in enumerate(shown):
        traces += _line(row, index, known[row.cell_id][column], factor, widest=(high - low) / 2)
    layout: dict[str, Json] = {
        "xaxis": {"title": {"text": "epoch"}, **_ticks(shown, known, column)},
        "yaxis": {"title": {"text": title}, "range": [low, high]},
    }
    return View(label=name, traces=traces, layout=layout, height_px=440 + 14 * min(len(shown), MOST_CELLS))


def _line(row: Row, index: int, curve: Curve, factor: float, *, widest: float) -> Iterator[Trace]:
    """A cell's line, and its band unless most of it is wider than ``widest``."""
    epochs = _thinned(sorted(curve))
    estimates = [t_estimate(curve[epoch]) for epoch in epochs]
    name = figure_text(row.label, 48)
    visible: Json = True if index < SHOWN_CELLS else "legendonly"
    common: Trace = {"type": "scatter", "legendgroup": row.cell_id, "visible": visible, "meta": {"colour": index % 8}}
    banded = [(e, it.low, it.high) for e, it in zip(epochs, estimates, strict=True) if it.low is not None]
    widths = [factor * ((high or 0.0) - (low or 0.0)) for _, low, high in banded]
    if banded and statistics.median(widths) <= widest:
        upper = [_rounded(factor * (high or 0.0)) for _, _, high in banded]
        lower = [_rounded(factor * (low or 0.0)) for _, low, _ in reversed(banded)]
        forward: list[Json] = [epoch for epoch, _, _ in banded]
        band: Trace = {"x": [*forward, *reversed(forward)], "y": [*upper, *lower], "fill": "toself", "mode": "lines"}
        yield {**common, **band, "hoverinfo": "skip", "showlegend": False}
    dash = _DASHES[(index // 8) % len(_DASHES)] if not row.is_twin else "dot"
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
    """A tick an epoch where there are few."""
    last = max((epoch for row in rows for epoch in known[row.cell_id][column]), default=1)
    return {"dtick": 1} if last <= 12 else {"nticks": 8, "tickformat": "d"}


def _frame(means: Sequence[float], factor: float) -> tuple[float, float]:
    """The range of an axis: that of the lines; wide bands of few seeds may reach beyond it."""
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
        "Mean over the seeds of each cell, on the validation split after every epoch. Bands are 95 % t intervals over "
        "seeds; those wider than half the frame are not drawn. Complete trials only."
    )
    if any(len(rows) > SHOWN_CELLS for rows in groups.values()):
        said += f" {SHOWN_CELLS} cells are drawn at first; the legend brings in others."
    if offered < scored:
        said += f" {offered} of the {scored} cells with a score can be drawn, the best ones."
    return said
