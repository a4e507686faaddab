"""The table of stability, as text and as plain data."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # plain numbers at run time; what measures them needs torch
    from stnbench.diagnostics.stability import TrackMean
    from stnbench.trials.stability import Measure, Stability, TransformerStability


def stability_text(stability: "Stability") -> str:
    """A table a transformer: each measure with its interval, beside the identity's and the fixed zoom's."""
    coordinates = {"pose": "its true pose", "box": "its annotated box"}[stability.sign]
    counted = f"{stability.tracks:,} validation tracks, {stability.images:,} images"
    method = "means over tracks with 95 % intervals (bootstrap over tracks)"
    lines = [f"{counted}; the sign's coordinates are from {coordinates}; {method}."]
    for one in stability.transformers:
        lines += ["", *_table(one)]
    return "\n".join(lines)


def stability_data(stability: "Stability") -> dict[str, Any]:
    """The same numbers for ``json.dumps``."""
    return dataclasses.asdict(stability)


def _table(one: "TransformerStability") -> list[str]:
    branch = f", branch {one.branch}" if one.branch > 1 else ""
    heading = f"ST before stage {one.place}{branch}"
    rows = [[heading, "transformer", "identity", f"zoom {one.zoom:.2f}", "over identity", "over zoom"]]
    rows += [_row(measure) for measure in one.measures]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(measure: "Measure") -> list[str]:
    name = f"{measure.name} ({measure.unit})" if measure.unit else measure.name
    values: Sequence[TrackMean | None] = (
        measure.transformer,
        measure.identity,
        measure.zoom,
        measure.to_identity,
        measure.to_zoom,
    )
    return [name, *map(_estimate, values)]


def _estimate(mean: "TrackMean | None") -> str:
    if mean is None:
        return "-"
    interval = "" if mean.low is None or mean.high is None else f" [{mean.low:.3f}, {mean.high:.3f}]"
    return f"{mean.mean:.3f}{interval}"
