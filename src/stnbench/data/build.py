"""Construction of a data set from its specification."""

import dataclasses
import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from stnbench.core.errors import CacheMissingError, DataCorruptError, DataMissingError, SpecError
from stnbench.core.identity import Json, derive_seed, digest
from stnbench.core.image_folder import TABLE, Entry, Survey, read_members, recall, survey
from stnbench.core.process import advancing
from stnbench.data import DataPlaces, Dataset, ImageSet
from stnbench.data.cache import MANIFEST, CacheArrays, Layout, Recipe, digests_of, open_cache, open_or_build
from stnbench.data.digits import Digits
from stnbench.data.distort import box_pose, draw_warp, make_picture, render, trace_part
from stnbench.data.gtsrb import Gtsrb
from stnbench.data.gtsrb.official import RESIZE_VERSION, normalized_position, resize
from stnbench.data.signs import Signs
from stnbench.spec.data import (
    DATASETS,
    DISTORTS_ITSELF,
    DatasetSpec,
    DigitsSpec,
    DistortionSpec,
    FolderSpec,
    GtsrbSpec,
    MnistSpec,
    SignsSpec,
)

# The user's own images in class sub-folders, as a data set.


READER_VERSION = 2
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
        """Survey the folder. Raises: DataCorruptError if its images are not those that the trial was planned with."""
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
        try:
            image = _decoded(data, channels)
        except _UnknownRangeError as error:
            unreadable.append(f"{name}: {error}")
            continue
        except _DECODING_ERRORS:
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
    for entry, (width, height) in zip(entries, arrays.original_size.tolist(), strict=True):
        if entry.box is not None and (entry.box[2] > width or entry.box[3] > height):
            problem = f"{place}: the box of {entry.path} leaves its {width} x {height} pixels"
            raise DataCorruptError(problem, remedy=f"write x1, y1, x2, y2 of {TABLE} in pixels of the image itself")
    arrays.roi[:] = _boxes(arrays.original_size, entries, size)


class _UnknownRangeError(Exception):
    """An image has pixels whose darkest and brightest levels its format does not determine."""


_DECODING_ERRORS: Final = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    Image.DecompressionBombError,
    Warning,
)
"""Exceptions of Pillow for bytes that are no image, a damaged one, or one too large to be meant."""


def _decoded(data: bytes, channels: int) -> NDArray[np.uint8]:
    """Decode an image to uint8 (height, width, channels), rotated by its EXIF tag.

    Pillow clips pixels of more than 8 bits at 255; here 16 bits are scaled to 8.

    Raises:
        _UnknownRangeError: if it has 32-bit pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data)) as opened:
            image = ImageOps.exif_transpose(opened)
    if image.mode in ("I", "F"):
        raise _UnknownRangeError("32-bit pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):
        image = Image.fromarray(np.round(np.asarray(image, np.float64) / 257).astype(np.uint8))
    image = image.convert("RGB" if channels == 3 else "L")
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def _boxes(sizes: NDArray[np.int64], entries: Sequence[Entry], size: int) -> NDArray[np.float64]:
    """Return the boxes (n, 4) in normalised coordinates of the resized images; the whole image if a box is unknown."""
    known = np.array([entry.box is not None for entry in entries])
    pixels = np.array([entry.box or (0.0, 0.0, 1.0, 1.0) for entry in entries], np.float64)
    placed = normalized_position(pixels, np.tile(sizes, (1, 2)), size)
    return np.where(known[:, None], placed, np.array([-1.0, -1.0, 1.0, 1.0]))


# Photographs of another data set, each warped at random with known parameters.


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


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """The facts about a data set that are known without opening it.

    Attributes:
        class_names: one readable name per class, in label order.
        image_shape: channels, height, width.
    """

    class_names: Sequence[str]
    image_shape: tuple[int, int, int]


def dataset_info(spec: DatasetSpec) -> DatasetInfo:
    """Return the class names and the image shape of a data set without reading any file."""
    names = _built(spec, DataPlaces(root=Path(), builds=False)).class_names
    return DatasetInfo(class_names=names, image_shape=(spec.channels, spec.image_size, spec.image_size))


def open_dataset(
    spec: DatasetSpec, *, root: Path, workers: int, source: Path | None = None, builds: bool = True
) -> Dataset:
    """Return the data set of a specification; nothing is read or made until a half is requested.

    Args:
        spec: the specification of the set.
        root: the data folder; caches lie in its ``cache/``.
        workers: the number of processes that draw missing signs; everything else is made by one.
        source: the folder with GTSRB's official files, or with ``mnist/``; ``root`` if it is None.
        builds: whether a missing cache is made; if not, its half raises DataMissingError.

    Raises:
        UnknownNameError: if the data set is not registered.
        SpecError: if a data set from outside is not a ``Dataset``.
    """
    places = DataPlaces(root=root, source=source, workers=workers, builds=builds)
    if spec.distortion is None or DATASETS.has_trait(spec.kind, DISTORTS_ITSELF):
        return _built(spec, places)
    images = _built(dataclasses.replace(spec, distortion=None), places)
    return DistortedPhotographs(
        images, name=spec.kind, distortion=spec.distortion, cache=places.cache, builds=places.builds
    )


def _built(spec: DatasetSpec, places: DataPlaces) -> Dataset:
    """Build the registered data set of a specification; photographs are left undistorted.

    Raises:
        UnknownNameError: if the data set is not registered.
        SpecError: if a data set from outside is not a ``Dataset``.
    """
    made = DATASETS.implementation(spec.kind)(spec, places)
    if not isinstance(made, Dataset):
        problem = f"the dataset {spec.kind} is {type(made).__name__}"
        raise SpecError(problem, remedy="register a class that extends stnbench.data.Dataset")
    return made


def signs(spec: SignsSpec, places: DataPlaces) -> Dataset:
    """Build the data set ``signs``: traffic signs that stnbench draws at first use and caches."""
    return Signs(spec, places.cache, places.workers, builds=places.builds)


def gtsrb(spec: GtsrbSpec, places: DataPlaces) -> Dataset:
    """Build the data set ``gtsrb`` from its official files."""
    return Gtsrb(spec, source=places.source or places.root, cache=places.cache, builds=places.builds)


def digits(spec: DigitsSpec | MnistSpec, places: DataPlaces) -> Dataset:
    """Build the data set ``digits`` of scikit-learn, or ``mnist``."""
    return Digits(spec, source=places.source or places.root, cache=places.cache, builds=places.builds)


def folder(spec: FolderSpec, places: DataPlaces) -> Dataset:
    """Build the data set ``folder``: the user's images, in a sub-folder for each class."""
    roots = [places.root] if places.source is None else [places.source.parent, places.root]
    return Folder(spec, roots=roots, cache=places.cache, builds=places.builds)
