"""Photographs of another data set, each warped at random with known parameters."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np

from stnbench.core.errors import CacheMissingError
from stnbench.core.identity import Json, derive_seed, digest
from stnbench.core.process import advancing
from stnbench.data.base import Dataset, ImageSet
from stnbench.data.cache import CacheArrays, Layout, Recipe, digests_of, open_or_build
from stnbench.data.distort import box_pose, draw_warp, make_picture, render, trace_part
from stnbench.spec.data import DistortionSpec

WARP_VERSION: Final = 1
"""Increased when drawing or rendering changes the images or their annotations, so that caches are made again."""


class DistortedPhotographs(Dataset):
    """A set of photographs warped image by image; beyond their edges the surroundings of the sign are mirrored.

    Tracks, frames, classes and sizes are those of the base set. An image's warp depends on the distortion, the half,
    and its track and frame (its row, where these are unknown), so that additional tracks do not change the others. The
    cache belongs to exactly these images: ``cache / distorted-<name>-<half>-<digest>``.

    Args:
        base: the undistorted set of square images.
        name: the name of that set, for the folder.
        distortion: the distribution of the warps.
        cache: the folder of caches.
        builds: whether a missing cache is made.
    """

    def __init__(
        self, base: Dataset, *, name: str, distortion: DistortionSpec, cache: Path, builds: bool = True
    ) -> None:
        self._base = base
        self._name = name
        self._distortion = distortion
        self._cache = cache
        self._builds = builds

    @property
    def class_names(self) -> Sequence[str]:
        """Return the class names of the base set."""
        return self._base.class_names

    def train(self) -> ImageSet:
        """Return the training half, warped on first use.

        Raises:
            DataError: if the base set cannot be read or made.
            DataMissingError: if the cache is missing and may not be made.
            DataCorruptError: if the cache is wrong.
            FolderError: if the cache cannot be written.
        """
        return self._half("train", self._base.train)

    def test(self) -> ImageSet:
        """Return the test half, warped on first use; it raises the same errors as ``train``."""
        return self._half("test", self._base.test)

    def _half(self, half: Literal["train", "test"], open_base: Callable[[], ImageSet]) -> ImageSet:
        try:
            base = open_base()
        except CacheMissingError as error:
            gone = error.superseded
            error.superseded = digests_of(self._folder(half, ""), lambda identity: identity.get("images") in gone)
            raise
        identity: dict[str, Json] = {
            "set": "distorted",
            "version": WARP_VERSION,
            "half": half,
            "images": base.digest,
            "annotations": _annotations_digest(base),
            **dataclasses.asdict(self._distortion),
        }
        layout = Layout(
            count=len(base),
            image_size=base.images.shape[-1],
            channels=base.images.shape[1],
            has_pose=True,
            has_control_points=self._distortion.point_noise > 0,
        )
        return open_or_build(
            self._folder(half, digest(identity)),
            identity=identity,
            recipe=lambda: Recipe(layout=layout, fill=lambda arrays: fill(arrays, base, half, self._distortion)),
            builds=self._builds,
        )

    def _folder(self, half: str, name: str) -> Path:
        return self._cache / f"distorted-{self._name}-{half}-{name}"


def fill(arrays: CacheArrays, base: ImageSet, half: str, distortion: DistortionSpec) -> None:
    """Warp every image of a half into the arrays, in the same order; the arrays include the pose."""
    for name in ("labels", "tracks", "frames", "original_size"):
        getattr(arrays, name)[:] = getattr(base, name)
    size = base.images.shape[-1]
    for row, image in enumerate(advancing(base.images, f"distorting {half} images", len(base.images))):
        track = int(base.tracks[row])
        number = int(base.frames[row]) if track >= 0 else row
        rng = np.random.default_rng(derive_seed(distortion.seed, "distort", half, track, number))
        warp = draw_warp(distortion, rng)
        box = base.roi[row].astype(np.float64)
        arrays.images[row] = render(make_picture(image, box), warp, size)
        pose = box_pose(box) if base.pose is None else base.pose[row].astype(np.float64)
        traced = trace_part(warp, pose, box)
        arrays.roi[row] = traced.roi
        if arrays.pose is not None:
            arrays.pose[row] = traced.pose
        if arrays.control_points is not None and traced.control_points is not None:
            arrays.control_points[row] = traced.control_points


def _annotations_digest(base: ImageSet) -> str:
    """Return the SHA-256 of the annotations that determine the result, besides pixels and classes."""
    sha = hashlib.sha256()
    for array in (base.tracks, base.frames, base.roi, base.pose):
        sha.update(b"" if array is None else np.ascontiguousarray(array).data)
    return sha.hexdigest()
