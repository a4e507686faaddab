"""The data of a trial on its device, cached for later trials of the same process that use the same data."""

import functools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from stnbench.core.errors import DataCorruptError
from stnbench.data.base import Indices, SplitRows, split_tracks, subset
from stnbench.data.build import open_dataset
from stnbench.data.preprocessing import GlobalStatistics, Preprocess, measure_statistics
from stnbench.data.resident import DeviceImages, PreparedImages, fits_beside_training
from stnbench.spec.data import Contrast, DatasetSpec, PreprocessSpec, SplitSpec
from stnbench.spec.result import ScoredImages

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
