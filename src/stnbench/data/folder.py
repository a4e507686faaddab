"""The user's own images in class sub-folders, as a data set."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from stnbench.core.errors import DataCorruptError, DataMissingError
from stnbench.core.identity import Json, digest
from stnbench.core.image_folder import Entry, Survey, read_members, recall, survey
from stnbench.data.base import Dataset, ImageSet
from stnbench.data.cache import MANIFEST, CacheArrays, Layout, Recipe, open_cache, open_or_build
from stnbench.data.gtsrb.resize import RESIZE_VERSION, normalized_position, resize
from stnbench.spec.data import FolderSpec

READER_VERSION = 1
"""Increased when the arrays of a cache change meaning, so that caches are made again."""


class Folder(Dataset):
    """A data set of images in class sub-folders, of any size and number of classes, resized to squares as in GTSRB.

    A half is cached in ``cache / folder-<half>-<digest>``. The digest covers the content of the folder (path and bytes
    of every image, and the table) and the way it is read, not its location; once there is a cache, the folder is not
    needed. If files have changed since the trial was planned, no cache is made.

    Args:
        spec: the content of the folder as it was found, and the size.
        roots: the folders in which a folder of this name may lie, if this process has not seen it.
        cache: the folder of caches.
        builds: whether a missing cache is made.
    """

    def __init__(self, spec: FolderSpec, *, roots: Sequence[Path], cache: Path, builds: bool = True) -> None:
        self._spec = spec
        self._roots = roots
        self._cache = cache
        self._builds = builds

    @property
    def class_names(self) -> Sequence[str]:
        """Return the names of the classes (of the sub-folders, or from the table), in label order."""
        return self._spec.class_names

    def train(self) -> ImageSet:
        """Return the training half, validation included.

        Raises:
            DataMissingError: if neither the images nor their cache are there.
            DataCorruptError: if images have changed or cannot be read, or the cache is wrong.
            FolderError: if the cache cannot be written.
        """
        return self._half("train")

    def test(self) -> ImageSet:
        """Return the test half, which exists if there is a folder ``test/`` or the table marks test images.

        It raises the same errors as ``train``, and DataMissingError if there are no test images.
        """
        return self._half("test")

    def _half(self, half: str) -> ImageSet:
        spec = self._spec
        identity: dict[str, Json] = {
            "set": "folder",
            "half": half,
            "reader": READER_VERSION,
            "resize": RESIZE_VERSION,
            "digest": spec.digest,
            "image_size": spec.image_size,
            "channels": spec.channels,
        }
        folder = self._cache / f"folder-{half}-{digest(identity)}"
        place = recall(spec.digest, spec.name, self._roots)
        if place is None:
            if (folder / MANIFEST).exists():
                return open_cache(folder)
            problem = f"the images {spec.name} (digest {spec.digest}) are not here, or have changed"
            raise DataMissingError(
                problem, remedy="say where they are: dataset.path=FOLDER, and plan anew if they changed"
            )
        return open_or_build(folder, identity=identity, recipe=lambda: self._recipe(place, half), builds=self._builds)

    def _recipe(self, place: Path, half: str) -> Recipe:
        found = self._require_planned(place)
        entries = found.half(is_test=half == "test")
        if not entries:
            remedy = "put test images into test/ beside train/, or say so in images.csv"
            raise DataMissingError(f"{place} has no test images", remedy=remedy)
        layout = Layout(
            count=len(entries), image_size=self._spec.image_size, channels=self._spec.channels, has_pose=False
        )

        def fill(arrays: CacheArrays) -> None:
            _fill(arrays, place, entries)
            self._require_planned(place)  # nothing was written there while the images were read

        return Recipe(layout=layout, fill=fill)

    def _require_planned(self, place: Path) -> Survey:
        """Return what the folder holds. Raises: DataCorruptError if that is not what the trial was planned with."""
        found = survey(place)
        if found.digest != self._spec.digest:
            problem = f"the images in {place} have changed since the trial was planned"
            raise DataCorruptError(problem, remedy="plan the sweep again: other images make other trials")
        return found


def _fill(arrays: CacheArrays, place: Path, entries: Sequence[Entry]) -> None:
    """Decode and resize every image into the arrays.

    Raises:
        DataCorruptError: if images cannot be read; the message names up to five of them.
    """
    channels, size = arrays.images.shape[1], arrays.images.shape[-1]
    unreadable: list[str] = []
    for row, (name, data) in enumerate(read_members(place, [entry.path for entry in entries])):
        image = _decoded(data, channels)
        if image is None:
            unreadable.append(name)
            continue
        arrays.images[row] = resize(image, size)
        arrays.original_size[row] = image.shape[1], image.shape[0]
    if unreadable:
        names = ", ".join(unreadable[:5]) + (", ..." if len(unreadable) > 5 else "")
        raise DataCorruptError(
            f"{place}: {len(unreadable)} of {len(entries)} images cannot be read ({names})",
            remedy="replace or remove them",
        )
    arrays.labels[:] = [entry.label for entry in entries]
    arrays.tracks[:] = [entry.track for entry in entries]
    arrays.frames[:] = [entry.frame for entry in entries]
    arrays.roi[:] = _boxes(arrays.original_size, entries, size)


def _decoded(data: bytes, channels: int) -> NDArray[np.uint8] | None:
    """Decode an image to uint8 (height, width, channels), rotated by its EXIF tag; return None if it is unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as opened:
                image = ImageOps.exif_transpose(opened).convert("RGB" if channels == 3 else "L")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning):
        return None
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def _boxes(sizes: NDArray[np.int64], entries: Sequence[Entry], size: int) -> NDArray[np.float64]:
    """Return the boxes (n, 4) in normalised coordinates of the resized images; the whole image if a box is unknown."""
    known = np.array([entry.box is not None for entry in entries])
    pixels = np.array([entry.box or (0.0, 0.0, 1.0, 1.0) for entry in entries], np.float64)
    placed = normalized_position(pixels, np.tile(sizes, (1, 2)), size)
    return np.where(known[:, None], placed, np.array([-1.0, -1.0, 1.0, 1.0]))
