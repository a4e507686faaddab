"""What each axis does by itself, two together, and how much of the differences goes with each."""

from collections.abc import Mapping, Sequence
from typing import Final

from stnbench.analysis.inference import Estimate
from stnbench.core.identity import Json
from stnbench.report import text
from stnbench.report.findings import Findings, Importance, Interaction, MainEffect
from stnbench.report.html.document import figure_text
from stnbench.report.html.figure import Figure, Trace, View, whiskers

MOST_LABELS: Final = 30
"""Of one axis; those with the largest effects."""

_MOST_AXES: Final = 8
_MOST_PAIRS: Final = 6
_ROW_PX: Final = 26
_NAME_PX: Final = 34
"""Above the labels of an axis, for its name."""


def effect_figure(findings: Findings) -> Figure | None:
    """Main effects as points with intervals, one block of rows an axis; None where there are none."""
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
    """Mean accuracy by the labels of two axes, a view a pair, the surest first; None where there are none."""
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
    """Bars a measure, the axis that matters most on top; None where fewer than two axes can be weighed."""
    measures = (
        ("variance_explained", "variance explained (eta squared)"),
        ("ped_anova", "PED-ANOVA"),
        ("fanova", "fANOVA"),
    )
    known = [item for item in findings.importances if any(_share(item, name) is not None for name, _ in measures)]
    if len(known) < 2:
        return None
    known.sort(key=lambda item: next(v for name, _ in measures if (v := _share(item, name)) is not None))
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
        for index, (name, title) in enumerate(measures)
        if any(_share(item, name) is not None for item in known)
    ]
    layout: dict[str, Json] = {
        "xaxis": {"title": {"text": "share, %"}, "rangemode": "tozero"},
        "yaxis": {"type": "category"},
        "barmode": "group",
        "legend": {"traceorder": "reversed"},
    }
    cells = max(item.cells for item in known)
    return Figure(
        key="importance",
        title="Which axis matters",
        caption=f"From the mean accuracies of {cells} configurations: the share of their variance between the "
        "choices of an axis, and Optuna's two evaluators, each normalised over the axes.",
        views=[View(label="", traces=traces, layout=layout, height_px=150 + 62 * len(known))],
    )


def _largest(effects: Sequence[MainEffect]) -> list[MainEffect]:
    kept = sorted(effects, key=lambda effect: -abs(effect.effect.mean))[:MOST_LABELS]
    return [effect for effect in effects if effect in kept]


def _effects_view(blocks: Mapping[str, Sequence[MainEffect]]) -> View:
    """Axes below each other over one common x axis; rows have the same height in all of them."""
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
    """How far the axis goes on either side, in points: to the ends of intervals, but not so far that means merge."""
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
    p_value = text.equals_p(pair.corrected_p)
    return f"{said} adjusted p {p_value} ({pair.seeds} seeds, {pair.cells} configurations)."


def _p(pair: Interaction) -> float:
    return 1.0 if pair.corrected_p is None else pair.corrected_p


def _share(item: Importance, name: str) -> float | None:
    share: float | None = getattr(item, name)
    return share
