"""What the transformers did while they learnt: verdict, movement and reading outside, by configuration and epoch."""

from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from stnbench.core.identity import Json
from stnbench.report.board import Leaderboard
from stnbench.report.html.document import figure_text
from stnbench.report.html.figure import Figure, Trace, View
from stnbench.spec.verdict import Verdict

MOST_CELLS: Final = 40
"""Rows; configurations with a bad verdict first, then the best ones."""

_MOST_EPOCHS: Final = 60
_VERDICTS: Final = tuple(Verdict)

Grid = Mapping[tuple[str, int], float]
"""A number by configuration and epoch."""


def health_figure(board: Leaderboard, trials: pd.DataFrame, health: pd.DataFrame) -> Figure | None:
    """Heat maps with a row a configuration and a column an epoch; None where no transformer that learns was judged.

    Of several seeds and transformers the worst verdict is shown, and the mean of the numbers.
    """
    judged = health[health["verdict"].notna()]
    if judged.empty:
        return None
    cells = dict(zip(trials["trial_id"], trials["cell_id"], strict=True))
    last = judged.sort_values("attempt", kind="stable").drop_duplicates(
        ["trial_id", "epoch", "place", "branch"], keep="last"
    )
    severity = {verdict.value: verdict.severity for verdict in Verdict}
    frame = last.assign(cell=last["trial_id"].map(cells), severity=last["verdict"].map(severity))
    known = set(frame["cell"])
    rows = [row for row in board.rows if row.cell_id in known]
    ordered = sorted(rows, key=lambda row: -max((verdict.severity for verdict in row.health.verdicts), default=0))
    shown = {row.cell_id: figure_text(row.label, 30) for row in ordered[:MOST_CELLS]}
    frame = frame[frame["cell"].isin(shown)]
    epochs = _thinned(sorted({int(epoch) for epoch in frame["epoch"]}))
    by_cell = frame.groupby(["cell", "epoch"], sort=True)
    views = [_verdict_view(shown, epochs, _grid(by_cell["severity"].max()))]
    for column, label, title in (
        ("movement", "Movement", "half sides"),
        ("outside_share", "Outside", "share"),
        ("theta_error", "Theta error", "half sides"),
        ("dead_share", "Dead units", "share"),
    ):
        grid = _grid(by_cell[column].mean())
        if grid:
            views.append(_number_view(label, title, shown, epochs, grid))
    return Figure(key="health", title="Health by epoch", caption=_caption(rows), views=views, width_px=330)


def _caption(rows: Sequence[object]) -> str:
    said = (
        "The worst verdict of a configuration's seeds and transformers after every epoch; whether it helps that a "
        "transformer moves images differently is judged after the last one. Movement: how far sampling points are "
        "moved, in half sides of the image (mean over seeds). Outside: the share of sampling points outside the image. "
        "Theta error: how far the sign is from its usual place in the output, where its pose is known. Dead units: the "
        "share of the localisation network's last hidden units that are 0 for every image; where all are, images are "
        "moved alike."
    )
    if len(rows) > MOST_CELLS:
        said += f" {MOST_CELLS} of {len(rows)} configurations are shown: those with a bad verdict, then the best ones."
    return said


def _grid(values: "pd.Series[float]") -> Grid:
    kept = values.dropna()
    cells, epochs = kept.index.get_level_values(0), kept.index.get_level_values(1)
    return {
        (str(cell), int(epoch)): float(value) for cell, epoch, value in zip(cells, epochs, kept.tolist(), strict=True)
    }


def _verdict_view(shown: Mapping[str, str], epochs: Sequence[int], grid: Grid) -> View:
    trace = _heat_map(shown, epochs, grid) | {
        "zmin": -0.5,
        "zmax": len(_VERDICTS) - 0.5,
        "text": [
            [_VERDICTS[int(grid[cell, epoch])].value if (cell, epoch) in grid else "" for epoch in epochs]
            for cell in shown
        ],
        "hovertemplate": "%{y}<br>epoch %{x}: %{text}<extra></extra>",
        "showscale": False,
        "meta": {"scale": "verdicts"},
    }
    seen = {round(value) for (cell, epoch), value in grid.items() if cell in shown and epoch in set(epochs)}
    legend = [_legend_entry(verdict) for verdict in _VERDICTS if verdict.severity in seen]
    layout = {**_layout(shown), "showlegend": True}  # also where one verdict is all there is
    return View(label="Verdict", traces=[trace, *legend], layout=layout, height_px=_height(shown))


def _legend_entry(verdict: Verdict) -> Trace:
    """A trace without points, for the legend."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": verdict.value,
        "x": [None],
        "y": [None],
        "marker": {"symbol": "square", "size": 12},
        "meta": {"colour": verdict.value},
    }


def _number_view(label: str, title: str, shown: Mapping[str, str], epochs: Sequence[int], grid: Grid) -> View:
    trace = _heat_map(shown, epochs, grid) | {
        "zmin": 0,
        "hovertemplate": f"%{{y}}<br>epoch %{{x}}: %{{z:.3f}} {title}<extra></extra>",
        "colorbar": {"title": {"text": title, "side": "right"}, **_COLOUR_BAR},
        "meta": {"scale": "one hue"},
    }
    return View(label=label, traces=[trace], layout=_layout(shown), height_px=_height(shown))


_COLOUR_BAR: Final[Mapping[str, Json]] = {
    "orientation": "h",
    "thickness": 10,
    "outlinewidth": 0,
    "x": 0.5,
    "y": 1.0,
    "yanchor": "bottom",
    "yref": "paper",
    "len": 1.0,
}


def _heat_map(shown: Mapping[str, str], epochs: Sequence[int], grid: Grid) -> Trace:
    return {
        "type": "heatmap",
        "x": [str(epoch) for epoch in epochs],
        "y": [*range(len(shown))],
        "z": [
            [None if (value := grid.get((cell, epoch))) is None else float(f"{value:.4g}") for epoch in epochs]
            for cell in shown
        ],
        "xgap": 1,
        "ygap": 1,
    }


def _layout(shown: Mapping[str, str]) -> dict[str, Json]:
    return {
        "xaxis": {"type": "category", "title": {"text": "epoch"}, "showgrid": False, "nticks": 20},
        "yaxis": {
            "tickvals": [*range(len(shown))],
            "ticktext": [*shown.values()],
            "autorange": "reversed",
            "showgrid": False,
            "zeroline": False,
        },
    }


def _height(shown: Mapping[str, str]) -> int:
    return 150 + 22 * len(shown)


def _thinned(epochs: list[int]) -> list[int]:
    step = -(-len(epochs) // _MOST_EPOCHS)
    return sorted({*epochs[::step], *epochs[-1:]}) if step else []
