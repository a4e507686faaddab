"""What the transformers of one trial made of a few images while it learnt, as a film that the reader winds.

The page holds the images and where the transformers read them; its script draws the region and what comes out, so that
a whole training takes a tenth of what an animated picture would.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.core.identity import Json
from stnbench.report.page.answers import picture_png
from stnbench.report.page.html import data_uri, escape, json_block

MOST_MOMENTS: Final = 40
_UNIT: Final = 1000
"""Coordinates are whole thousandths of half an image."""

_FARTHEST: Final = 20.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Watched:
    """The snapshots of one trial, as ``trials.snapshots.Snapshots`` has them.

    Attributes:
        trial_id: of which trial.
        title: what to call it.
        images: uint8 (probes, channels, height, width).
        steps: int64 (snapshots,), optimiser steps taken.
        epochs: int64 (snapshots,), the epoch that it was; 0 before the first step.
        fill: the colour in [0, 255] of what is outside the image.
        names: of each transformer.
        points: float32 (snapshots, transformers, probes, lattice points, 2), -1 and 1 at the image's outer edges.
    """

    trial_id: str
    title: str
    images: NDArray[np.uint8]
    steps: NDArray[np.int64]
    epochs: NDArray[np.int64]
    fill: float
    names: tuple[str, ...]
    points: NDArray[np.float32]


def watch_lines(watched: Watched, prefix: str) -> Iterator[str]:
    """The film, with a slider and a button to play it; at first it shows the end of training."""
    name = f"{prefix}-watch"
    kept = _moments(watched)
    last = len(kept) - 1
    yield f'<figure class="box watch" data-watch="{escape(name)}-data">'
    yield f"<h3>{escape(watched.title)}</h3>"
    yield '<div class="controls" data-needs-script hidden><button type="button">Play</button>'
    yield f'<input type="range" min="0" max="{last}" value="{last}" step="1" aria-label="Moment of the training">'
    yield "<output></output></div>"
    yield '<div class="probes">'
    for number, image in enumerate(watched.images, 1):
        uri = data_uri("png", picture_png(image, least_px=2))
        yield f'<div class="probe"><img src="{uri}" alt="validation image {number}"></div>'
    yield "</div>"
    said = "Above, validation images with the region that is read; below, what the transformer makes of it (bilinear)."
    if len(watched.names) > 1:
        said += f" Transformers in order: {', '.join(watched.names)}."
    again = f"python -m stnbench.show training {watched.trial_id}"
    yield f"<figcaption>{escape(said)} As a file: <code>{escape(again)}</code></figcaption>"
    yield json_block(f"{name}-data", _data(watched, kept))
    yield "</figure>"


def _moments(watched: Watched) -> list[int]:
    count = len(watched.steps)
    kept = np.linspace(0, count - 1, min(count, MOST_MOMENTS)).round().astype(np.int64)
    return sorted({int(index) for index in kept})


def _data(watched: Watched, kept: list[int]) -> dict[str, Json]:
    points = np.nan_to_num(watched.points[kept], nan=_FARTHEST, posinf=_FARTHEST, neginf=-_FARTHEST)
    whole = (points.clip(-_FARTHEST, _FARTHEST) * _UNIT).round().astype(np.int64)
    flat = whole.reshape(*whole.shape[:3], -1).transpose(1, 0, 2, 3)
    total, epochs = int(watched.steps[-1]), int(watched.epochs[-1])
    moments: list[Json] = [
        f"step {int(watched.steps[index]):,} of {total:,}, epoch {int(watched.epochs[index])} of {epochs}"
        if watched.steps[index]
        else f"before training, 0 of {total:,} steps"
        for index in kept
    ]
    side = round(points.shape[-2] ** 0.5)
    return {"side": side, "fill": round(watched.fill), "moments": moments, "transformers": flat.tolist()}
