"""Figures of the effects of axes, and of the health of transformers during training."""

from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from stnbench.analysis.effects import Estimate
from stnbench.core.identity import Json
from stnbench.report import table
from stnbench.report.board import Leaderboard
from stnbench.report.findings import Findings, Importance, Interaction, MainEffect
from stnbench.report.html.document import Figure, Trace, View, figure_label, figure_text, whiskers
from stnbench.spec.result import Verdict

# Main effects of axes, interactions of two axes, and importances.


MOST_LABELS: Final = 30
"""The largest number of labels of one axis, those with the largest effects."""

_MOST_AXES: Final = 8
_MOST_PAIRS: Final = 6
_ROW_PX: Final = 26
_NAME_PX: Final = 34
"""The height above the labels of an axis for its name, in pixels."""


def effect_figure(findings: Findings) -> Figure | None:
    """Draw main effects as points with intervals, a block of rows for each axis; return None where there are none."""
    axes: dict[str, list[MainEffect]] = {}
    for effect in findings.main_effects:
        axes.setdefault(effect.axis, []).append(effect)
    if not axes:
        return None
    blocks = {axis: _largest(effects) for axis, effects in list(axes.items())[:_MOST_AXES]}
    methods = "; ".join(dict.fromkeys(effect.method for effects in blocks.values() for effect in effects))
    left_out = sum(map(len, axes.values())) - sum(map(len, blocks.values()))
    caption = (
        "How far the mean accuracy of each choice lies from the mean of its axis, all else equal, in percentage "
        f"points, with 95 % t intervals over seeds, cut where they leave the frame ({methods})."
    )
    if left_out:
        caption += f" {left_out} choices with small effects are left out."
    return Figure(key="effects", title="Main effects", caption=caption, views=[_effects_view(blocks)])


def interaction_figure(findings: Findings) -> Figure | None:
    """Draw mean accuracies by the labels of two axes, a view for each pair, the lowest p-value first.

    It is None where there are none.
    """
    pairs = sorted(findings.interactions, key=lambda pair: (_p(pair), -pair.largest))
    shown = [pair for pair in pairs if len(pair.first_labels) <= MOST_LABELS and len(pair.second_labels) <= MOST_LABELS]
    shown = shown[:_MOST_PAIRS]
    if not shown:
        return None
    lines = [_pair_line(pair) for pair in shown]
    left_out = len(pairs) - len(shown)
    more = f" {left_out} more pairs are not drawn." if left_out else ""
    return Figure(
        key="interactions",
        title="Two axes together",
        caption=f"Mean accuracy in percent; below the mean, what it is beyond the two effects added up, in percentage "
        f"points. {' '.join(lines)}{more}",
        views=[_pair_view(pair) for pair in shown],
        width_px=min(900, 190 + 70 * max(len(pair.second_labels) for pair in shown)),
    )


def importance_figure(findings: Findings) -> Figure | None:
    """Draw bars of each measure of importance, the most important axis on top; return None for fewer than two axes."""
    measures = (
        ("variance_explained", "variance explained (eta squared)", "the share of their variance between the choices"),
        ("ped_anova", "PED-ANOVA", "what separates the best (PED-ANOVA of Optuna, over all axes 100 %)"),
        ("fanova", "fANOVA", "what a forest's predictions vary by (fANOVA of Optuna, over all axes 100 %)"),
    )
    known = [item for item in findings.importances if any(_share(item, name) is not None for name, *_ in measures)]
    if len(known) < 2:
        return None
    known.sort(key=lambda item: next(v for name, *_ in measures if (v := _share(item, name)) is not None))
    traces: list[Trace] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": title,
            "y": [figure_text(item.axis, 32) for item in known],
            "x": [None if (share := _share(item, name)) is None else round(100 * share, 2) for item in known],
            "hovertemplate": "%{y}: %{x:.1f} %<extra>%{fullData.name}</extra>",
            "meta": {"colour": index},
        }
        for index, (name, title, _) in enumerate(measures)
        if any(_share(item, name) is not None for item in known)
    ]
    layout: dict[str, Json] = {
        "xaxis": {"title": {"text": "share, %"}, "rangemode": "tozero"},
        "yaxis": {"type": "category"},
        "barmode": "group",
        "legend": {"traceorder": "reversed"},
    }
    configs = max(item.configs for item in known)
    drawn = [meaning for name, _, meaning in measures if any(_share(item, name) is not None for item in known)]
    said = f"{', '.join(drawn[:-1])} and {drawn[-1]}" if len(drawn) > 1 else drawn[0]
    return Figure(
        key="importance",
        title="Which axis matters",
        caption=f"From the mean accuracies of {configs} configurations: {said}.",
        views=[View(label="", traces=traces, layout=layout, height_px=150 + 62 * len(known))],
    )


def _largest(effects: Sequence[MainEffect]) -> list[MainEffect]:
    kept = sorted(effects, key=lambda effect: -abs(effect.effect.mean))[:MOST_LABELS]
    return [effect for effect in effects if effect in kept]


def _effects_view(blocks: Mapping[str, Sequence[MainEffect]]) -> View:
    """Return axes below each other over one common x axis; rows have the same height in all of them."""
    height = sum(_NAME_PX + _ROW_PX * len(effects) for effects in blocks.values())
    reach = _reach([effect.effect for effects in blocks.values() for effect in effects])
    layout: dict[str, Json] = {
        "xaxis": {
            "title": {"text": "percentage points from the mean of the axis"},
            "zerolinewidth": 2,
            "anchor": "free",
            "position": 0,
            "range": [-reach, reach],
        },
        "showlegend": False,
    }
    traces: list[Trace] = []
    notes: list[Json] = []
    top = 1.0
    for index, (axis, effects) in enumerate(blocks.items()):
        suffix = "" if index == 0 else str(index + 1)
        named = top - _NAME_PX / height
        bottom = named - _ROW_PX * len(effects) / height
        labels: list[Json] = [figure_text(effect.label, 36) for effect in effects]
        layout[f"yaxis{suffix}"] = {
            "type": "category",
            "domain": [round(max(bottom, 0), 4), round(named, 4)],
            "categoryorder": "array",
            "categoryarray": [*reversed(labels)],
            "range": [-0.6, len(effects) - 0.4],
        }
        notes.append(
            {"text": f"<b>{figure_text(axis, 48)}</b>", "xref": "paper", "yref": "paper", "x": 0, "y": round(named, 4),
             "xanchor": "left", "yanchor": "bottom", "showarrow": False}
        )  # fmt: skip
        traces.append({**_effects_trace(effects, labels), "yaxis": f"y{suffix}", "xaxis": "x"})
        top = bottom
    layout["annotations"] = notes
    return View(label="", traces=traces, layout=layout, height_px=height + 80)


def _reach(effects: Sequence[Estimate]) -> float:
    """Return the reach of the x axis on either side, in percentage points.

    It extends to the ends of intervals, but to three times the largest effect at most, so that means stay distinct.
    """
    ends = [abs(end) for effect in effects for end in (effect.low, effect.high) if end is not None]
    farthest = max(abs(effect.mean) for effect in effects)
    return round(105 * min(max([farthest, *ends]), max(3 * farthest, 0.001)), 3)


def _effects_trace(effects: Sequence[MainEffect], labels: list[Json]) -> Trace:
    estimates = [effect.effect for effect in effects]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [round(100 * estimate.mean, 3) for estimate in estimates],
        "y": labels,
        "error_x": whiskers(estimates),
        "marker": {"size": 9},
        "customdata": [[round(100 * effect.mean, 2), effect.effect.n] for effect in effects],
        "hovertemplate": "%{y}: %{x:+.2f} points<br>mean %{customdata[0]} %, n = %{customdata[1]}<extra></extra>",
        "meta": {"colour": "accent"},
    }


def _pair_view(pair: Interaction) -> View:
    rows: list[Json] = [figure_text(label, 28) for label in pair.first_labels]
    columns: list[Json] = [figure_text(label, 20) for label in pair.second_labels]
    said: list[Json] = [
        [f"{100 * mean:.1f}<br>({100 * residual:+.1f})" for mean, residual in zip(means, residuals, strict=True)]
        for means, residuals in zip(pair.means, pair.residuals, strict=True)
    ]
    trace: Trace = {
        "type": "heatmap",
        "z": [[round(100 * mean, 2) for mean in means] for means in pair.means],
        "x": columns,
        "y": rows,
        "text": said,
        "texttemplate": "%{text}",
        "hovertemplate": "%{y}, %{x}<br>%{text}<extra></extra>",
        "xgap": 2,
        "ygap": 2,
        "showscale": False,
        "meta": {"scale": "one hue"},
    }
    names: dict[str, Json] = {"type": "category", "showgrid": False}
    layout: dict[str, Json] = {
        "xaxis": {**names, "title": {"text": figure_text(pair.second)}},
        "yaxis": {**names, "title": {"text": figure_text(pair.first)}, "autorange": "reversed"},
    }
    label = f"{pair.first} \u00d7 {pair.second}"
    return View(label=label, traces=[trace], layout=layout, height_px=130 + 46 * len(rows))


def _pair_line(pair: Interaction) -> str:
    said = f"{pair.first} \u00d7 {pair.second}:"
    if pair.corrected_p is None:
        return f"{said} one seed, no test."
    p_value = table.equals_p(pair.corrected_p)
    return f"{said} adjusted p {p_value} ({pair.seeds} seeds, {pair.configs} configurations)."


def _p(pair: Interaction) -> float:
    return 1.0 if pair.corrected_p is None else pair.corrected_p


def _share(item: Importance, name: str) -> float | None:
    share: float | None = getattr(item, name)
    return share


# Health of transformers during training: verdict, movement and the share read outside, by configuration and epoch.


MOST_CONFIGURATIONS: Final = 40
"""The largest number of rows: configurations with a bad verdict first, then the best ones."""

_MOST_EPOCHS: Final = 60
_VERDICTS: Final = tuple(Verdict)

_VERDICT_CAPTION: Final = (
    "The worst verdict of a configuration's seeds and transformers after every epoch; whether it helps that a "
    "transformer moves images differently is judged after the last one alone: before it, such cells are empty."
)
_MEASURES: Final = (
    ("movement", "Movement", "half sides", "how far sampling points are moved, in half sides of the image"),
    ("outside_share", "Outside", "share", "the share of sampling points outside the image"),
    ("theta_error", "Theta error", "half sides", "how far the sign is from its usual place in the output"),
    (
        "dead_share",
        "Dead units",
        "share",
        "the share of the localisation network's last units that are always 0",
    ),
)
"""Column, label, unit and meaning of the numbers of health, means over the seeds of a configuration."""

Grid = Mapping[tuple[str, int], float]
"""A number by configuration and epoch."""


def health_figure(board: Leaderboard, trials: pd.DataFrame, health: pd.DataFrame) -> Figure | None:
    """Draw heat maps with a row for each configuration and a column for each epoch.

    Of several seeds and transformers, the worst verdict is shown, and the mean of the numbers.

    Args:
        board: the leaderboard, which orders the configurations.
        trials: ``analysis.frames.TRIAL_COLUMNS``.
        health: ``analysis.frames.HEALTH_COLUMNS``.

    Returns:
        The figure, or None where no transformer that learns was judged.
    """
    judged = health[health["verdict"].notna()]
    if judged.empty:
        return None
    configs = dict(zip(trials["trial_id"], trials["cell_id"], strict=True))
    last = judged.sort_values("attempt", kind="stable").drop_duplicates(
        ["trial_id", "epoch", "place", "branch"], keep="last"
    )
    severity = {verdict.value: verdict.severity for verdict in Verdict}
    frame = last.assign(config=last["trial_id"].map(configs), severity=last["verdict"].map(severity))
    known = set(frame["config"])
    rows = [row for row in board.rows if row.config_id in known]
    ordered = sorted(rows, key=lambda row: -max((verdict.severity for verdict in row.health.verdicts), default=0))
    shown = {row.config_id: figure_label(row.label, 32) for row in ordered[:MOST_CONFIGURATIONS]}
    frame = frame[frame["config"].isin(shown)]
    epochs = _thinned(sorted({int(epoch) for epoch in frame["epoch"]}))
    by_config = frame.groupby(["config", "epoch"], sort=True)
    views = [_verdict_view(shown, epochs, _grid(by_config["severity"].max()))]
    captions = [_VERDICT_CAPTION]
    for column, label, title, meaning in _MEASURES:
        grid = _grid(by_config[column].mean())
        if grid:
            views.append(_number_view(label, title, shown, epochs, grid))
            captions.append(f"{label}: {meaning}.")
    if len(rows) > MOST_CONFIGURATIONS:
        shown_of = f"{MOST_CONFIGURATIONS} of {len(rows)} configurations"
        captions.append(f"{shown_of} are shown: those with a bad verdict, then the best ones.")
    return Figure(key="health", title="Health by epoch", caption=" ".join(captions), views=views, width_px=330)


def _grid(values: "pd.Series[float]") -> Grid:
    kept = values.dropna()
    configs, epochs = kept.index.get_level_values(0), kept.index.get_level_values(1)
    return {
        (str(config), int(epoch)): float(value)
        for config, epoch, value in zip(configs, epochs, kept.tolist(), strict=True)
    }


def _verdict_view(shown: Mapping[str, str], epochs: Sequence[int], grid: Grid) -> View:
    trace = _heat_map(shown, epochs, grid) | {
        "zmin": -0.5,
        "zmax": len(_VERDICTS) - 0.5,
        "text": [
            [_VERDICTS[int(grid[config, epoch])].value if (config, epoch) in grid else "" for epoch in epochs]
            for config in shown
        ],
        "hovertemplate": "%{y}<br>epoch %{x}: %{text}<extra></extra>",
        "showscale": False,
        "meta": {"scale": "verdicts"},
    }
    seen = {round(value) for (config, epoch), value in grid.items() if config in shown and epoch in set(epochs)}
    legend = [_legend_entry(verdict) for verdict in _VERDICTS if verdict.severity in seen]
    layout = {**_layout(shown), "showlegend": True}  # also with a single verdict
    return View(label="Verdict", traces=[trace, *legend], layout=layout, height_px=_height(shown))


def _legend_entry(verdict: Verdict) -> Trace:
    """Return a trace without points, for the legend."""
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
            [None if (value := grid.get((config, epoch))) is None else float(f"{value:.4g}") for epoch in epochs]
            for config in shown
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
