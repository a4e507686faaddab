"""Pictures beside the report, and what transformers did while they learned as a film."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.core.identity import Json
from stnbench.report.html.answers import picture_png
from stnbench.report.html.document import data_uri, escape, json_block

MOST_BYTES: Final = 4_500_000
"""Of all pictures together, so that a page stays small enough to be sent."""

_KINDS: Final = {
    "transform.png": "What the transformer does to validation images: the region it reads, and what it makes of it",
    "training.gif": "The transformer while the network learns",
    "tracks.gif": "Approaches to a sign: input above, what the classifier sees below",
}
"""What ``stnbench.show`` writes, by how the name of the file ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture as it is in its file; ``content`` is None for one that is too large for the page."""

    name: str
    caption: str
    content: bytes | None


def read_pictures(reports: Path, sweep: str) -> list[Picture]:
    """The pictures beside a sweep's report, by kind and name; those beyond ``MOST_BYTES`` without their content."""
    if Path(sweep).name != sweep:  # a name from the store must not lead out of the folder
        return []
    folder = reports / sweep
    found = []
    room = MOST_BYTES
    for kind, caption in _KINDS.items():
        for path in sorted([*folder.glob(kind), *folder.glob(f"*-{kind}")]):
            content = path.read_bytes() if path.stat().st_size <= room else None
            room -= len(content) if content is not None else 0
            found.append(Picture(name=path.name, caption=caption, content=content))
    return found


def gallery_lines(pictures: Sequence[Picture]) -> Iterator[str]:
    """The pictures, one below the other."""
    for picture in pictures:
        yield '<figure class="box gallery">'
        yield f"<h3>{escape(picture.caption)}</h3>"
        if picture.content is None:
            yield f'<p class="note">{escape(picture.name)} lies beside this page; it is too large to be part of it.</p>'
        else:
            uri = data_uri(picture.name.rpartition(".")[2], picture.content)
            yield f'<img src="{uri}" alt="{escape(picture.caption)}" loading="lazy">'
        yield f"<figcaption>{escape(picture.name)}</figcaption></figure>"


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
