"""Content of a page beside the sections, read from the store, the runs, the data cache and the report's folder.

Nothing is made or trained for a page: content that is not on this machine is left out, and the page says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stnbench.analysis.frames import SweepFrames
from stnbench.core.errors import DataError, FolderError
from stnbench.core.files import RunsLayout
from stnbench.core.identity import Json
from stnbench.data import ImageSet
from stnbench.data.build import dataset_info
from stnbench.data.cache import MANIFEST, open_cache, read_manifest
from stnbench.report.board import Leaderboard, Row
from stnbench.report.html.answers import Answers, hardest, picture_png
from stnbench.report.html.document import data_uri, escape, json_block
from stnbench.spec.planner import SamplerSpec
from stnbench.spec.result import read_digests
from stnbench.spec.sweep import SweepSpec
from stnbench.trials.files import read_snapshots

# Pictures beside the report, and a film of transformers during training.


MOST_BYTES: Final = 4_500_000
"""The largest size of all pictures together, in bytes, so that a page stays small enough to be sent."""

_KINDS: Final = {
    "transform.png": "What the transformer does to validation images: the region it reads, and what it makes of it",
    "training.gif": "The transformer while the network learns",
    "tracks.gif": "Approaches to a sign: input above, what the classifier sees below",
}
"""The captions of the files that ``stnbench.show`` writes, by the end of their names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture with the bytes of its file; ``content`` is None for one that is too large for the page."""

    name: str
    caption: str
    content: bytes | None


def read_pictures(reports: Path, sweep: str) -> list[Picture]:
    """Read the pictures beside a sweep's report, by kind and name; those beyond ``MOST_BYTES`` have no content."""
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
    """Yield the pictures as HTML, one below the other."""
    for picture in pictures:
        yield '<figure class="box gallery">'
        yield f"<h3>{escape(picture.caption)}</h3>"
        if picture.content is None:
            yield f'<p class="note">{escape(picture.name)} lies beside this page; it is too large to be part of it.</p>'
        else:
            uri = data_uri(picture.name.rpartition(".")[2], picture.content)
            yield f'<img src="{uri}" alt="{escape(picture.caption)}" loading="lazy">'
        yield f"<figcaption>{escape(picture.name)}</figcaption></figure>"


MOST_MOMENTS: Final = 24
"""The largest number of moments of the first film."""

MOST_FILMS: Final = 4
"""The largest number of films that can be chosen."""

MOST_LOOKED_FOR: Final = 12
"""The largest number of configurations whose snapshots are looked for."""

_FEWER_MOMENTS: Final = 10
"""The largest number of moments of the other films, so that the page stays small enough to be sent."""

_UNIT: Final = 1000
"""The number of units in half an image; coordinates are whole units, that is thousandths."""

_FARTHEST: Final = 20.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Watched:
    """The snapshots of one trial, from ``trials.files.Snapshots``.

    Attributes:
        trial_id: the identity of the trial.
        title: the title of the film.
        images: uint8 (probes, channels, height, width).
        steps: int64 (snapshots,), optimiser steps taken.
        epochs: int64 (snapshots,), the epoch of each snapshot; 0 before the first step.
        fill: the colour outside the image, in [0, 255].
        names: the name of each transformer.
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


def film_lines(films: Sequence[Watched], prefix: str) -> Iterator[str]:
    """Yield films as HTML, the first one shown, with a list to choose another one from."""
    name = f"{prefix}-films"
    if len(films) > 1:
        yield f'<div class="switch" data-films="{escape(name)}" data-needs-script hidden><label>Configuration <select>'
        yield "".join(f'<option value="{index}">{escape(film.title)}</option>' for index, film in enumerate(films))
        yield "</select></label></div>"
    yield f'<div id="{escape(name)}">'
    for index, film in enumerate(films):
        yield from _watch_lines(film, f"{prefix}-watch-{index + 1}" if index else f"{prefix}-watch", is_first=not index)
    yield "</div>"


def _watch_lines(watched: Watched, name: str, *, is_first: bool) -> Iterator[str]:
    """Yield a film as HTML, with a slider and a button to play it; at first it shows the end of training."""
    kept = _moments(watched, MOST_MOMENTS if is_first else _FEWER_MOMENTS)
    last = len(kept) - 1
    is_hidden = "" if is_first else " hidden"
    yield f'<figure class="box watch" data-watch="{escape(name)}-data"{is_hidden}>'
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


def _moments(watched: Watched, most: int) -> list[int]:
    count = len(watched.steps)
    kept = np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Material:
    """The content of a page beside the sections. By default it is empty, and the page shows only the sections.

    Attributes:
        trials: ``analysis.frames.TRIAL_COLUMNS``.
        epochs: ``analysis.frames.EPOCH_COLUMNS``.
        health: ``analysis.frames.HEALTH_COLUMNS``.
        answers: the predictions for each set of images that trials were scored on, that of the best configuration
            first.
        no_answers: the reason why there are none, in a sentence.
        pictures: the pictures beside the report.
        films: the snapshots of the best configurations with a transformer.
        last_lines: the last lines of output of failed trials, by trial id.
        is_search: whether a planner chose configurations by their results, or an axis is a range.
    """

    trials: pd.DataFrame | None = None
    epochs: pd.DataFrame | None = None
    health: pd.DataFrame | None = None
    answers: Sequence[Answers] = ()
    no_answers: str = ""
    pictures: Sequence[Picture] = ()
    films: Sequence[Watched] = ()
    last_lines: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_search: bool = False


MOST_TRIALS: Final = 400
"""The number of trials whose predictions are read for one set of images: all of the best configuration, others evenly.

The trials of the best configuration are read even where they are more.
"""

MOST_SETS: Final = 8
MOST_GROUPS: Final = 30
"""The largest number of groups of failures whose last output is shown."""

LAST_LINES: Final = 14
NO_LABELS: Final = (
    "Which images are classified wrongly is not known: these trials were scored by an older version, which kept no "
    "true labels."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """The folders of content that is not in the store.

    Attributes:
        layout: the runs folder, with snapshots.
        data_root: the data folder, with images in its ``cache/``.
        reports: the folder of reports, with one folder for each sweep, and pictures in it.
    """

    layout: RunsLayout
    data_root: Path
    reports: Path


def read_material(board: Leaderboard, frames: SweepFrames, places: Places) -> Material:
    """Read the content of the page of one sweep.

    Raises:
        StoreError: if the predictions of its trials cannot be read.
    """
    answers = tuple(_read_answers(board, frames, places.data_root / "cache"))
    has_answers = answers or not board.states.complete
    return Material(
        trials=frames.trials,
        epochs=frames.epochs,
        health=frames.health,
        answers=answers,
        no_answers="" if has_answers else NO_LABELS,
        pictures=read_pictures(places.reports, board.sweep),
        films=tuple(_read_films(board, frames, places.layout)),
        last_lines=_last_lines(board, frames),
        is_search=_is_search(frames.spec),
    )


def _is_search(spec: SweepSpec) -> bool:
    return isinstance(spec.planner, SamplerSpec) or any(axis.span is not None for grid in spec.grids for axis in grid)


def find_images(cache: Path, digest: str) -> ImageSet | None:
    """Map the images with this digest from the cache that has them; None where none has, or it is broken."""
    for manifest in sorted(cache.glob(f"*/{MANIFEST}")):
        try:
            found = read_manifest(manifest.parent)
            if found is not None and found.digest == digest:
                return open_cache(manifest.parent)
        except DataError:
            continue
    return None


def _read_answers(board: Leaderboard, frames: SweepFrames, cache: Path) -> Iterator[Answers]:
    """Yield the predictions for each set of images, that of the best configuration first."""
    column = f"{board.split}_image_set"
    order = {row.config_id: index for index, row in enumerate(board.rows)}
    done = frames.trials[frames.trials[column].notna()]
    ranked = done.assign(place=done["cell_id"].map(order)).sort_values("place", kind="stable")
    for image_set, own in list(ranked.groupby(column, sort=False))[:MOST_SETS]:
        first = own.iloc[0]
        scored = _Scored(
            image_set=str(image_set),
            best=board.rows[int(first["place"])],
            of_best=[str(trial_id) for trial_id in own.loc[own["place"] == first["place"], "trial_id"]],
            others=[str(trial_id) for trial_id in own.loc[own["place"] != first["place"], "trial_id"]],
        )
        yield _answers_to(board, frames, scored, _find_half(cache, str(first["dataset_digest"]), board.split))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scored:
    """The trials that were scored on one set of images."""

    image_set: str
    best: Row
    of_best: Sequence[str]
    others: Sequence[str]


def _answers_to(board: Leaderboard, frames: SweepFrames, scored: _Scored, data: ImageSet | None) -> Answers:
    asked = [*scored.of_best, *_thinned(scored.others, max(MOST_TRIALS - len(scored.of_best), 0))]
    said = frames.predictions(board.split, asked)
    predictions = {
        str(trial_id): part["prediction"].to_numpy(np.int64)
        for trial_id, part in said.groupby("trial_id", observed=True, sort=False)
    }
    of_set = (frames.images["split"] == board.split) & (frames.images["image_set"] == scored.image_set)
    images = frames.images[of_set].sort_values("image")
    labels, rows = images["label"].to_numpy(np.int64), images["row"].to_numpy(np.int64)
    known = not images["track"].isna().any()
    tracks = images["track"].to_numpy(np.int64) if known else np.arange(len(labels))
    hard = [hard.place for hard in hardest(labels, tracks, [*predictions.values()])]
    return Answers(
        split=board.split,
        task=scored.best.group,
        class_names=dataset_info(frames.specs[asked[0]].dataset).class_names,
        labels=labels,
        tracks=tracks,
        rows=rows,
        predictions=predictions,
        best=scored.of_best,
        best_label=scored.best.label,
        trials=len(scored.of_best) + len(scored.others),
        pictures=None if data is None else _pictures(data, labels, rows, hard),
    )


def _thinned(trial_ids: Sequence[str], most: int) -> Sequence[str]:
    """Return at most ``most`` of the trials, evenly spaced."""
    if len(trial_ids) <= most:
        return trial_ids
    kept: NDArray[np.int64] = np.linspace(0, len(trial_ids) - 1, most).round().astype(np.int64)
    return [trial_ids[int(index)] for index in kept]


def _find_half(cache: Path, recorded: str, split: str) -> ImageSet | None:
    """Find the half of the data set of a split, by the digests that a trial recorded, or None where it is not here."""
    digest = read_digests(recorded).get("test" if split == "test" else "train")
    return None if digest is None else find_images(cache, digest)


def _pictures(
    images: ImageSet, labels: NDArray[np.int64], rows: NDArray[np.int64], wanted: Sequence[int]
) -> Mapping[int, NDArray[np.uint8]] | None:
    """Return the pixels of the wanted images, uint8 (channels, height, width) by place.

    It is None where the set's classes are not those that were scored.
    """
    if not len(rows) or rows.max() >= len(images) or not np.array_equal(images.labels[rows], labels):
        return None
    return {place: np.asarray(images.images[rows[place]]) for place in wanted}


def _read_films(board: Leaderboard, frames: SweepFrames, layout: RunsLayout) -> Iterator[Watched]:
    """Yield the snapshots of the first seed of the best configurations with a transformer that have any."""
    trials = frames.trials
    done = trials[trials["state"] == "complete"].sort_values("seed", kind="stable")
    rows = [row for row in board.rows if row.score and not row.is_baseline and row.health.verdicts]
    found = 0
    for row in rows[:MOST_LOOKED_FOR]:
        own = done[done["cell_id"] == row.config_id]
        watched = _read_watched(row.label, own.iloc[0], frames, layout) if len(own) else None
        if watched is not None:
            yield watched
            found += 1
        if found == MOST_FILMS:
            return


def _read_watched(label: str, trial: "pd.Series[Any]", frames: SweepFrames, layout: RunsLayout) -> Watched | None:
    trial_id, seed = str(trial["trial_id"]), int(trial["seed"])
    attempts = frames.attempts[(frames.attempts["trial_id"] == trial_id) & (frames.attempts["state"] == "complete")]
    try:
        found = read_snapshots(layout.attempt(trial_id, int(attempts["attempt"].max())))
    except FolderError:
        return None
    has_branches = len(set(found.places[:, 0].tolist())) < len(found.places)
    return Watched(
        trial_id=trial_id,
        title=f"{label}, seed {seed}, while it learns",
        images=found.images,
        steps=found.steps,
        epochs=found.epochs,
        fill=found.fill,
        names=tuple(f"ST {place}.{branch}" if has_branches else f"ST {place}" for place, branch in found.places),
        points=found.points,
    )


def _last_lines(board: Leaderboard, frames: SweepFrames) -> dict[str, list[str]]:
    """Return the last lines of the first trial of each group of failures, by trial id.

    They are from its traceback, or else from its last output or its message.
    """
    wanted = {group.trial_ids[0] for group in board.failures[:MOST_GROUPS]}
    attempts = frames.attempts
    failed = attempts[attempts["trial_id"].isin(wanted) & attempts["failure_kind"].notna()]
    columns = ("trial_id", "failure_message", "failure_last_output", "failure_traceback")
    last: dict[str, list[str]] = {}
    for trial_id, *said in zip(*(failed[name] for name in columns), strict=True):  # the last attempt of each counts
        words = next((str(text) for text in reversed(said) if text), "")
        last[str(trial_id)] = words.rstrip().splitlines()[-LAST_LINES:]
    return last
