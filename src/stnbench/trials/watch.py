"""Effects of a trained network's spatial transformers as numpy arrays for pictures, from the files of its attempt."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stnbench.core.errors import SpecError
from stnbench.core.files import ARRAY_ERRORS, AttemptLayout
from stnbench.core.identity import derive_seed
from stnbench.data.build import dataset_info
from stnbench.diagnostics.stability import LATTICE_SIDE, lattice, look, render, sampled_regions, zero_colour
from stnbench.models.scored_network import Model
from stnbench.spec.transformer import TransformerSpec
from stnbench.spec.trial import TrialSpec
from stnbench.training.device import DeviceSpec, prepare_device
from stnbench.training.loop import read_checkpoint
from stnbench.training.step import TrainingRun
from stnbench.trials.files import Snapshots, load_arrays, load_spec, read_snapshots, write_snapshots
from stnbench.trials.score import DataSource, TrainingData, open_training_data, restore_model

# Snapshots of the transformers' effect on eight images during training, from before the first step on.
#
# They are one file in the folder of an attempt (``snapshots.npy``). A record holds the positions in the image of a
# lattice of each transformer's output, 5 kB, from which the picture is made on request. Besides, only the specification
# is needed: neither data nor checkpoint.


PROBES: Final = 8
"""Number of probe images."""


class SnapshotRecorder:
    """Recorder of the snapshots of one run in the folder of its attempt.

    A run that resumes from a checkpoint keeps the snapshots up to it, and takes the later ones again.

    Args:
        run: the training run, which is not changed.
        folder: folder of the attempt.
        earlier: the folder of the attempt from which the run resumes, or None.
        step: number of optimiser steps already taken.
    """

    def __init__(self, run: TrainingRun, folder: Path, *, earlier: Path | None, step: int) -> None:
        self._model = run.model
        self._path = AttemptLayout(folder).snapshots
        rows = probe_rows(run.images.labels, run.validation, seed=run.spec.seed)
        self._images, self._boxes = run.images.images[rows], run.images.boxes[rows]
        self._steps_per_epoch = run.steps
        self._points = lattice().to(rows.device)
        self._records: list[NDArray[np.void]] = []
        if earlier is not None and run.spec.transformers:
            self._records = _records_until(AttemptLayout(earlier).snapshots, step)
        self._is_watching = bool(run.spec.transformers)

    def take(self, step: int, loss: float = math.nan) -> None:
        """Take a snapshot after ``step`` optimiser steps with a training loss; do nothing without transformers."""
        if self._is_watching:
            regions = sampled_regions(look(self._model, self._images, self._boxes).transformers, self._points)
            record = np.zeros(1, _record_type(len(regions), len(self._images)))
            record["step"], record["loss"] = step, loss
            record["epoch"] = math.ceil(step / self._steps_per_epoch)
            record["fill"] = zero_colour(self._model)
            record["places"] = [(region.place, region.branch) for region in regions]
            record["points"] = torch.stack([region.points for region in regions]).float().cpu().numpy()
            self._records = [kept for kept in self._records if kept["step"] < step] + list(record)

    def save(self) -> None:
        """Write all snapshots so far atomically.

        Raises:
            OSError: if a file cannot be read or written.
        """
        if self._records:
            write_snapshots(self._path.parent, self._images.cpu().numpy(), np.array(self._records))


def probe_rows(labels: Tensor, validation: Tensor, *, seed: int, count: int = PROBES) -> Tensor:
    """Return the held-out rows (count,) of the probe images, drawn by the seed from as many classes as possible.

    All rows are returned if there are fewer. All configurations of a seed have the same probe images.
    """
    order = np.random.default_rng(derive_seed(seed, "probes")).permutation(len(validation))
    drawn = validation[torch.from_numpy(order).to(validation.device)]
    _, first = np.unique(labels[drawn].cpu().numpy(), return_index=True)
    others = np.setdiff1d(np.arange(len(drawn)), first)
    chosen = np.concatenate([np.sort(first), others])[:count]
    return drawn[torch.from_numpy(chosen).to(drawn.device)]


def _records_until(path: Path, step: int) -> list[NDArray[np.void]]:
    """Return the records of an earlier attempt up to a step; none if they are unreadable, which must not stop a run."""
    try:
        records: Iterable[NDArray[np.void]] = load_arrays(path)[1]
        return [_with_loss(record) for record in records if record["step"] <= step]
    except (*ARRAY_ERRORS, KeyError, IndexError):
        return []


def _with_loss(record: NDArray[np.void]) -> NDArray[np.void]:
    """Convert a record of a version that stored no loss to the present type; return any other unchanged."""
    known = record.dtype.names or ()
    if "loss" in known:
        return record
    transformers, probes = record["points"].shape[:2]
    made = np.zeros((), _record_type(transformers, probes))
    for name in known:
        made[name] = record[name]
    made["loss"] = math.nan
    whole: NDArray[np.void] = made[()]
    return whole


def _record_type(transformers: int, probes: int) -> np.dtype[np.void]:
    shape = (transformers, probes, LATTICE_SIDE**2, 2)
    numbers: list[tuple[str, str]] = [("step", "<i8"), ("epoch", "<i8"), ("fill", "<f4"), ("loss", "<f4")]
    return np.dtype([*numbers, ("places", "<i8", (transformers, 2)), ("points", "<f4", shape)])


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchSetup:
    """Settings for computing: the data folder, the device (``cpu`` or ``cuda:N``), and the number of CPU threads."""

    data_root: Path
    device: str
    threads: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class View:
    """The output of one transformer, the ``branch``-th at its ``place``, for some images.

    Attributes:
        place: the stage before which it is placed, from 1.
        branch: index among the transformers of the place, from 1.
        outputs: uint8 (images, channels, height, width), the transformed image; for a transformer before a later stage,
            the image that corresponds to its feature maps.
        border: float32 (images, points, 2), the outline of the region of the image that it reads, clockwise from the
            upper left corner of the output, (x, y) with -1 and 1 at the outer edges of the image.
        corners: indices of the points of the border that are the output's corners.
    """

    place: int
    branch: int
    outputs: NDArray[np.uint8]
    border: NDArray[np.float32]
    corners: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Watched:
    """Images with the output of every transformer for them.

    Attributes:
        images: uint8 (images, channels, height, width).
        labels: int64 (images,), their classes; empty if they are not known.
        predictions: int64 (images,), the classes predicted by the network; empty if they are not known.
        views: the view of each transformer whose output can be traced to the image, by ascending place and branch.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    views: tuple[View, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Moment:
    """The probe images of a training run after ``step`` optimiser steps; epoch 0 is before the first step.

    ``loss`` is the mean training loss of the last steps; NaN if it is not known.
    """

    step: int
    epoch: int
    watched: Watched
    loss: float = math.nan


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainedNetwork:
    """A trained network with the data it was trained on, on the device.

    ``fill`` is the colour in [0, 255] that preprocessing maps to 0, which zero padding therefore shows.
    """

    spec: TrialSpec
    model: Model
    data: TrainingData
    fill: float

    @property
    def class_names(self) -> Sequence[str]:
        """Return one readable name per class, in label order."""
        return dataset_info(self.spec.dataset).class_names


def open_network(folder: Path, setup: WatchSetup) -> TrainedNetwork:
    """Open the network in the folder of an attempt, with its data.

    Raises:
        SpecError: if it has no spatial transformer.
        FolderError, CheckpointError: if there is no trained network.
        DataError: if the data cannot be used.
    """
    spec = load_spec(folder)
    _require_transformer(spec)
    checkpoint = read_checkpoint(AttemptLayout(folder).checkpoint, trial_id=spec.trained_as.trial_id)
    device = prepare_device(DeviceSpec.parse(setup.device, threads=setup.threads), spec.training.precision)
    source = DataSource(dataset=spec.dataset, root=setup.data_root, workers=setup.threads, device=device)
    data = open_training_data(source, spec.split, spec.preprocess.contrast)
    model = restore_model(spec, checkpoint, device)
    return TrainedNetwork(
        spec=spec,
        model=model,
        data=data,
        fill=zero_colour(model),
    )


def watch_images(network: TrainedNetwork, *, count: int, seed: int) -> Watched:
    """Return ``count`` validation images, drawn by the seed from as many classes as possible, with all outputs.

    Raises:
        SpecError: if there are fewer.
    """
    validation = network.data.validation_rows()
    _require_enough("images", count, len(validation))
    return _watch(network, probe_rows(network.data.images.labels, validation, seed=seed, count=count))


def watch_tracks(network: TrainedNetwork, *, count: int, seed: int) -> tuple[Watched, ...]:
    """Return ``count`` validation tracks, of different classes if there are enough, each with its frames in order.

    Raises:
        SpecError: if there are fewer.
    """
    data = network.data
    rows = data.split.validation
    tracks = data.tracks[rows]
    known, first = np.unique(tracks, return_index=True)
    _require_enough("tracks", count, len(known))
    order = np.random.default_rng(derive_seed(seed, "tracks")).permutation(len(known))
    classes = data.images.labels.cpu().numpy()[rows[first[order]]]
    _, new = np.unique(classes, return_index=True)
    drawn = order[np.concatenate([np.sort(new), np.setdiff1d(np.arange(len(order)), new)])[:count]]
    watched = []
    for track in known[drawn]:
        own = rows[tracks == track]
        in_order = own[np.argsort(data.frames[own], kind="stable")]
        watched.append(_watch(network, torch.from_numpy(in_order).to(data.images.labels.device)))
    return tuple(watched)


def watch_training(folder: Path) -> tuple[Moment, ...]:
    """Return the probe images and the transformers' outputs during training, from the snapshots, without the data.

    Raises:
        SpecError: if it has no spatial transformer.
        FolderError: if there are no snapshots.
    """
    spec = load_spec(folder)
    _require_transformer(spec)
    snapshots = read_snapshots(folder)
    return tuple(
        Moment(step=int(step), epoch=int(epoch), watched=_watched_snapshot(spec, snapshots, index), loss=float(loss))
        for index, (step, epoch, loss) in enumerate(
            zip(snapshots.steps, snapshots.epochs, snapshots.losses, strict=True)
        )
    )


def liveliest_images(moments: Sequence[Moment], count: int) -> list[int]:
    """Return the rows of the images with the largest product of contrast and way, in order.

    The contrast is the standard deviation of the image's values; the way is the mean distance between the outlines of
    the regions read at the first and the last moment, over all transformers.
    """
    first, last = moments[0].watched, moments[-1].watched
    contrast = first.images.reshape(len(first.images), -1).std(axis=1)
    ways = [
        np.hypot(*np.moveaxis(np.asarray(new.border) - np.asarray(old.border), -1, 0)).mean(axis=1)
        for old, new in zip(first.views, last.views, strict=True)
    ]
    lively = np.nan_to_num(contrast * np.sum(ways, axis=0))
    return sorted(np.argsort(-lively, kind="stable")[:count].tolist())


def transformer_at(spec: TrialSpec, place: int) -> TransformerSpec:
    """Return the first transformer at a place of a trial's network."""
    return next(placed.transformer for placed in spec.transformers if placed.place == place)


def _watched_snapshot(spec: TrialSpec, snapshots: Snapshots, index: int) -> Watched:
    images = torch.from_numpy(snapshots.images)
    views = [
        _view(images, torch.from_numpy(points), spec, place=int(place), branch=int(branch), fill=snapshots.fill)
        for (place, branch), points in zip(snapshots.places, snapshots.points[index].astype(np.float64), strict=True)
    ]
    unknown = np.zeros(0, np.int64)
    return Watched(images=snapshots.images, labels=unknown, predictions=unknown, views=tuple(views))


def _watch(network: TrainedNetwork, rows: Tensor) -> Watched:
    images, boxes = network.data.images.images[rows], network.data.images.boxes[rows]
    explained = look(network.model, images, boxes)
    regions = sampled_regions(explained.transformers, lattice())
    views = [
        _view(images, one.points, network.spec, place=one.place, branch=one.branch, fill=network.fill)
        for one in regions
    ]
    return Watched(
        images=images.cpu().numpy(),
        labels=network.data.images.labels[rows].cpu().numpy(),
        predictions=explained.logits.argmax(dim=1).cpu().numpy(),
        views=tuple(views),
    )


def _view(images: Tensor, points: Tensor, spec: TrialSpec, *, place: int, branch: int, fill: float) -> View:
    side = LATTICE_SIDE
    square = np.arange(side**2).reshape(side, side)
    border = np.concatenate([square[0, :-1], square[:-1, -1], square[-1, :0:-1], square[:0:-1, 0]])
    outputs = render(images, points, transformer_at(spec, place), fill=fill)
    return View(
        place=place,
        branch=branch,
        outputs=outputs.round().to(torch.uint8).cpu().numpy(),
        border=points.cpu().numpy()[:, border].astype(np.float32),
        corners=tuple(range(0, 4 * (side - 1), side - 1)),
    )


def _require_transformer(spec: TrialSpec) -> None:
    if not spec.transformers:
        problem = f"the trial {spec.trial_id} has no spatial transformer"
        raise SpecError(problem, remedy="name one that has; without it there is nothing to see")


def _require_enough(what: str, asked: int, there: int) -> None:
    if not 1 <= asked <= there:
        raise SpecError(f"{asked} {what} are asked for, and {there} are held out", remedy=f"ask for 1 to {there}")
