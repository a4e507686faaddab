"""Scoring of a trained network on a split, from the files of its attempt and the data of its trial."""

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stnbench.core.errors import DataCorruptError, ShapeError, SpecError
from stnbench.data import DataPlaces, Indices, SplitRows, split_tracks, subset
from stnbench.data.build import open_dataset
from stnbench.data.corruptions import Classify, keeping_corruptions
from stnbench.data.preprocessing import GlobalStatistics, Preprocess, measure_statistics
from stnbench.data.quality import DuplicateKind, repeats_of
from stnbench.data.resident import DeviceImages, PreparedImages, fits_beside_training
from stnbench.models.scored_network import Model, build_model
from stnbench.spec.data import Contrast, DatasetSpec, PreprocessSpec, Split, SplitSpec
from stnbench.spec.metrics import Metric, measure, measure_network
from stnbench.spec.optimizer import TtaSpec
from stnbench.spec.result import ScoredImages, SplitScore
from stnbench.spec.trial import TrialSpec
from stnbench.training.device import DeviceSpec, prepare_device
from stnbench.training.evaluate import class_probabilities, evaluate
from stnbench.training.loop import Checkpoint
from stnbench.trials.export import StoredNetwork
from stnbench.trials.files import Probabilities

# The data of a trial on its device, cached for later trials of the same process that use the same data.


_KEPT: Final = 2
"""Number of cached data sets; a sweep rarely alternates between more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSource:
    """Identity of a trial's data and its location: trials with equal sources share their data."""

    dataset: DatasetSpec
    root: Path
    workers: int
    device: torch.device
    source: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingData:
    """The training half on the device.

    Attributes:
        images: all images, including validation.
        split: the rows to train on and the rows held out.
        tracks: int64 (n,), the track of every image.
        frames: int64 (n,), the position of every image in its track, the farthest first.
        statistics: statistics of all rows to train on, even if a trial uses only a part of them.
        classes: number of classes.
    """

    images: DeviceImages
    split: SplitRows
    tracks: Indices
    frames: Indices
    statistics: GlobalStatistics
    classes: int
    _prepared: dict[PreprocessSpec, PreparedImages] = field(default_factory=dict, repr=False)

    def images_for(self, preprocess: PreprocessSpec) -> DeviceImages:
        """Return all images with a cache of their preprocessed form, which later trials share.

        There is one cache at a time, and none if preprocessing is only a scale and a shift, or if the images would take
        too much memory of a GPU.
        """
        is_cheap = preprocess.contrast == "none" and not preprocess.contrastive_norm
        if is_cheap or not fits_beside_training(self.images.images):
            return self.images
        if preprocess not in self._prepared:
            self._prepared.clear()
            images = self.images.images
            module = Preprocess(preprocess, self.statistics, image_size=images.shape[-1]).to(images.device)
            self._prepared[preprocess] = PreparedImages(images, module)
        return replace(self.images, prepared=self._prepared[preprocess])

    def validation_rows(self) -> Tensor:
        """Return the held-out rows (n,), on the device."""
        return self._rows(self.split.validation)

    def validation_images(self) -> ScoredImages:
        """Return the labels, tracks and rows of the held-out images."""
        rows = self.split.validation
        return ScoredImages(
            labels=tuple(self.images.labels.cpu().numpy()[rows].tolist()),
            tracks=tuple(self.tracks[rows].tolist()),
            rows=tuple(rows.tolist()),
        )

    def training_rows(self, count: int | None, *, seed: int) -> Tensor:
        """Return the rows (n,) to train on: ``count`` of them drawn by the trial's seed, or all if it is None.

        Raises:
            SpecError: if there are fewer.
        """
        rows = self.split.train
        return self._rows(rows if count is None else subset(rows, count, seed))

    def _rows(self, rows: Indices) -> Tensor:
        return torch.from_numpy(rows).to(self.images.labels.device)


@functools.lru_cache(maxsize=_KEPT)
def open_training_data(source: DataSource, split: SplitSpec, contrast: Contrast = "none") -> TrainingData:
    """Open, split and measure the training half, and move it to the device; the result is cached.

    The statistics are those of the images after ``contrast``.

    Raises:
        DataError: if the data cannot be used.
        SpecError: if they cannot be split so.
    """
    dataset = open_dataset(source.dataset, root=source.root, workers=source.workers, source=source.source)
    half = dataset.train()
    rows = split_tracks(split, half.labels, half.tracks)
    return TrainingData(
        images=DeviceImages.from_image_set(half, source.device),
        split=rows,
        tracks=half.tracks,
        frames=half.frames,
        statistics=measure_statistics(half.images, rows.train, contrast=contrast),
        classes=len(dataset.class_names),
    )


@functools.lru_cache(maxsize=_KEPT)
def open_test_images(source: DataSource) -> DeviceImages:
    """Open the test half and move it to the device; the result is cached.

    Raises:
        DataMissingError: if there is none; other DataErrors where it cannot be used.
    """
    dataset = open_dataset(source.dataset, root=source.root, workers=source.workers, source=source.source)
    return DeviceImages.from_image_set(dataset.test(), source.device)


def require_unchanged(*images: DeviceImages) -> None:
    """Check that the files of images that a trial has read were not written to while it ran.

    Raises:
        DataCorruptError: if one was; it is opened anew, and refused, by the next trial of this process.
    """
    try:
        for half in images:
            half.check()
    except DataCorruptError:
        open_training_data.cache_clear()
        open_test_images.cache_clear()
        raise


def scored_test_images(images: DeviceImages) -> ScoredImages:
    """Return the labels of the test images, all of which are scored; their tracks are left out as unreliable."""
    return ScoredImages(labels=tuple(images.labels.tolist()))


# Scoring of a trained network on a split, from the files of its attempt.


_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rescored:
    """New score of a trial, with the probabilities of every image, float16 (n, classes).

    The score names its images, except those of training.
    """

    score: SplitScore
    probabilities: Probabilities


def rescore_trial(
    folder: Path,
    split: Split,
    *,
    data_root: Path,
    source: Path | None = None,
    device: str,
    threads: int,
    dataset: DatasetSpec | None = None,
    tta: TtaSpec | None = None,
) -> Rescored:
    """Score the checkpoint in an attempt's folder on a split; arguments as of ``score_network``.

    Raises:
        FolderError, CheckpointError: if the folder has no trained network; other errors as ``score_network``.
    """
    return score_network(
        StoredNetwork.of_attempt(folder), split, data_root=data_root, source=source, device=device, threads=threads,
        dataset=dataset, tta=tta,
    )  # fmt: skip


def score_network(
    stored: StoredNetwork,
    split: Split,
    *,
    data_root: Path,
    source: Path | None = None,
    device: str,
    threads: int,
    dataset: DatasetSpec | None = None,
    tta: TtaSpec | None = None,
) -> Rescored:
    """Score a trained network on a split of its own data set, or of another one.

    ``tta`` replaces the test-time augmentation of the trial.

    Another data set is split like that of the trial, and normalised with the statistics of the images the network was
    trained on. On another device than that of the training, the class may differ if two are almost equally probable.

    Raises:
        CheckpointError: if its weights do not fit.
        SpecError: if the images of the other data set have another size.
        DataError: if the data cannot be used.
    """
    if tta is not None:
        stored = replace(stored, spec=replace(stored.spec, tta=tta))
    spec = stored.spec
    target = prepare_device(DeviceSpec.parse(device, threads=threads), spec.training.precision)
    opened = DataSource(dataset=dataset or spec.dataset, root=data_root, workers=threads, device=target, source=source)
    _require_same_size(spec, opened.dataset)
    images, rows, scored = _open_split(spec, split, opened)
    found = evaluate(stored.build(target), images, rows)
    metrics = measure(found.probabilities, images.labels[rows].cpu().numpy(), warn=_LOGGER.warning)
    score = replace(found.score(split), scored=scored, metrics=metrics)
    return Rescored(score=score, probabilities=found.probabilities)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Classifier:
    """A trained network over the images of a split, which may be shown to it in other forms.

    Attributes:
        images: the images as they are, uint8 (images, channels, height, width).
        labels: their true classes, (images,).
        scored: identity of the split; None for that of training.
        classify: from other forms of the same images, in order, to class probabilities (images, classes).
        cache: the folder of caches of the data set, where corrupted images are kept for other networks.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    scored: ScoredImages | None
    classify: Classify
    cache: Path

    @classmethod
    def of(
        cls,
        stored: StoredNetwork,
        split: Split,
        *,
        data_root: Path,
        source: Path | None = None,
        device: str,
        threads: int,
    ) -> "Classifier":
        """Return a trained network over a split; arguments and errors as of ``score_network``."""
        target = prepare_device(DeviceSpec.parse(device, threads=threads), stored.spec.training.precision)
        opened = DataSource(dataset=stored.spec.dataset, root=data_root, workers=threads, device=target, source=source)
        half, rows, scored = _open_split(stored.spec, split, opened)
        model = stored.build(target)
        labels, boxes = half.labels[rows], half.boxes[rows]

        def classify(images: NDArray[np.uint8]) -> NDArray[np.float64]:
            if len(images) != len(labels):
                problem = f"{len(images)} images are classified where the split has {len(labels)}"
                raise ShapeError("the images", images.shape, problem)
            shown = DeviceImages(
                images=torch.from_numpy(images).to(target), labels=labels, boxes=boxes, poses=None, digest=half.digest
            )
            return class_probabilities(model, shown)

        return cls(
            images=half.images[rows].cpu().numpy(),
            labels=labels.cpu().numpy(),
            scored=scored,
            classify=classify,
            cache=DataPlaces(root=data_root).cache,
        )

    def measure(self, metrics: Mapping[str, Metric], warn: Callable[[str], None]) -> dict[str, float]:
        """Compute those of the metrics that need a network, see ``measure_network``."""
        with keeping_corruptions(self.cache):
            return measure_network(self.classify, self.images, self.labels, warn=warn, only=metrics)


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far two networks agree: images, those with another prediction, and those that only one recognises."""

    images: int
    changed: int
    flipped: int


def compare_networks(
    one: StoredNetwork, other: StoredNetwork, split: Split, *, data_root: Path, source: Path | None, threads: int
) -> Agreement:
    """Count the images of a split on which two networks of one trial differ; errors as of ``score_network``."""
    device = prepare_device(DeviceSpec.parse("cpu", threads=threads), one.spec.training.precision)
    opened = DataSource(dataset=one.spec.dataset, root=data_root, workers=threads, device=device, source=source)
    images, rows, _ = _open_split(one.spec, split, opened)
    labels = images.labels[rows].cpu().numpy()
    first, second = (
        np.array(evaluate(network.build(device), images, rows).score(split).predictions) for network in (one, other)
    )
    return Agreement(
        images=len(labels),
        changed=int((first != second).sum()),
        flipped=int(((first == labels) != (second == labels)).sum()),
    )


def repeated_images(
    stored: StoredNetwork,
    split: Split,
    kind: DuplicateKind,
    *,
    data_root: Path,
    source: Path | None = None,
    workers: int = 1,
) -> NDArray[np.bool_]:
    """Find the images of a split that repeat an image that the network was trained on.

    Args:
        stored: the trained network.
        split: the split, whose images are in the order of its predictions.
        kind: when two images count as repeats of each other.
        data_root: the data folder.
        source: the folder with the files of the data set; None for the data folder.
        workers: the number of processes that draw missing images.

    Raises:
        DataError: if the images are missing or damaged.

    Returns:
        A mask (images,) that is True for repeated images.
    """
    spec = stored.spec
    dataset = open_dataset(spec.dataset, root=data_root, workers=workers, source=source)
    half = dataset.train()
    rows = split_tracks(spec.split, half.labels, half.tracks)
    trained = rows.train
    if spec.training.train_images is not None:
        trained = subset(trained, spec.training.train_images, spec.seed)
    match split:
        case "test":
            images = dataset.test().images
        case "validation":
            images = half.images[rows.validation]
        case "train":
            raise SpecError("all images of the split train are trained on", remedy="choose another split")
        case _:
            assert_never(split)
    return repeats_of(images, half.images[trained], kind)


def restore_model(spec: TrialSpec, checkpoint: Checkpoint, device: torch.device) -> Model:
    """Return the trained model of a trial, ready to score.

    Raises:
        CheckpointError: if the weights do not fit.
    """
    model = build_model(spec, checkpoint.statistics, classes=checkpoint.classes, device=device)
    checkpoint.restore_scored(model.network)
    model.network.eval()
    return model


def _open_split(spec: TrialSpec, split: Split, source: DataSource) -> tuple[DeviceImages, Tensor, ScoredImages | None]:
    if split == "test":
        images = open_test_images(source)
        return images, images.all_rows(), scored_test_images(images)
    data = open_training_data(source, spec.split, spec.preprocess.contrast)
    if split == "validation":
        return data.images, data.validation_rows(), data.validation_images()
    return data.images, data.training_rows(spec.training.train_images, seed=spec.seed), None


def _require_same_size(spec: TrialSpec, dataset: DatasetSpec) -> None:
    if dataset.image_size != spec.dataset.image_size:
        problem = f"the images of {dataset.kind} are {dataset.image_size} pixels wide"
        raise SpecError(problem, remedy=f"the network was trained on {spec.dataset.image_size}")
