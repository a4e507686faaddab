"""The data set ``signs``: drawn when it is first asked for, then kept in a cache."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from stnbench.core.activity import advancing
from stnbench.core.identity import Json, digest
from stnbench.data.base import Dataset, ImageSet
from stnbench.data.cache import CacheArrays, Recipe, open_or_build
from stnbench.data.cache_manifest import Layout
from stnbench.data.gtsrb_classes import GTSRB_CLASSES
from stnbench.data.signs.drawing import Half, HalfPlan, draw_half
from stnbench.spec.data import CLASSES, FRAMES_PER_TRACK, SignsSpec

DRAWING_VERSION: Final = 1
"""Raised when the drawing code changes the images: caches are then made again, and digests differ."""


class Signs(Dataset):
    """Synthetic signs of GTSRB's 43 classes in tracks of 30 frames, a function of the specification alone.

    Images are the same for any number of workers; another version of Pillow or of its JPEG library may change single
    pixels, which the digest then shows. Track numbers do not depend on how many tracks there are.
    """

    def __init__(self, spec: SignsSpec, folder: Path, workers: int, *, builds: bool = True) -> None:
        """Describe the set; nothing is drawn yet.

        ``folder`` holds the caches, ``workers`` draw what is missing, where ``builds`` allows it.
        """
        self._spec = spec
        self._folder = folder
        self._workers = workers
        self._builds = builds

    @property
    def class_names(self) -> Sequence[str]:
        """GTSRB's class names."""
        return GTSRB_CLASSES

    def train(self) -> ImageSet:
        """The training half, validation included; drawn on first use.

        Raises: DataError if drawing fails; DataCorruptError if the cache is wrong; FolderError if it cannot be written.
        """
        return self._half("train", self._spec.tracks_per_class)

    def test(self) -> ImageSet:
        """The test half: other tracks from the same distributions. Raises: as ``train``."""
        return self._half("test", self._spec.test_tracks_per_class)

    def _half(self, half: Half, tracks_per_class: int) -> ImageSet:
        plan = HalfPlan(
            drawing_seed=self._spec.drawing_seed,
            half=half,
            tracks_per_class=tracks_per_class,
            image_size=self._spec.image_size,
            framing=self._spec.framing,
        )
        identity: dict[str, Json] = {
            "dataset": "signs",
            "drawing_version": DRAWING_VERSION,
            **dataclasses.asdict(plan),
        }
        return open_or_build(
            self._folder / f"signs-{half}-{digest(identity)}",
            identity=identity,
            recipe=lambda: Recipe(
                layout=Layout(count=len(plan.keys) * FRAMES_PER_TRACK, image_size=plan.image_size, has_pose=True),
                fill=lambda arrays: fill(arrays, plan, self._workers),
            ),
            builds=self._builds,
        )


def fill(arrays: CacheArrays, plan: HalfPlan, workers: int) -> None:
    """Draw every track of the plan into the arrays, in the order of ``plan.keys``."""
    drawn = advancing(
        zip(plan.keys, draw_half(plan, workers), strict=True), f"drawing {plan.half} signs", len(plan.keys)
    )
    for index, ((label, track), records) in enumerate(drawn):
        rows = slice(index * FRAMES_PER_TRACK, (index + 1) * FRAMES_PER_TRACK)
        arrays.images[rows] = records["image"]
        arrays.labels[rows] = label
        arrays.tracks[rows] = track * CLASSES + label
        arrays.frames[rows] = np.arange(FRAMES_PER_TRACK)
        arrays.roi[rows] = records["roi"]
        arrays.original_size[rows] = records["original_size"]
        if arrays.pose is not None:
            arrays.pose[rows] = records["pose"]
