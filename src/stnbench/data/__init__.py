"""The interface of a data set: a training and a test half of images in tracks."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from stnbench.core.errors import SpecError
from stnbench.core.identity import DIGEST_LENGTH, derive_seed
from stnbench.spec.data import AllSplitSpec, FoldSplitSpec, OneTrackSplitSpec, SplitSpec, TrackSplitSpec


def nothing_to_check() -> None:
    """Do nothing, as the check of images that are in memory."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageSet:
    """One half (train or test) of a data set; every array has one row per image, in one fixed order.

    Attributes:
        images: uint8 (n, channels, height, width), usually a read-only memory map; 3 channels are RGB, 1 is grey, and
            2 hold a digit each.
        labels: int64 (n,), the class.
        tracks: int64 (n,), one number per track, unique in the half; -1 where tracks are unknown (GTSRB's test half).
        frames: int64 (n,), position within the track from 0, the farthest first; -1 where unknown.
        roi: float32 (n, 4), the box of the sign or digit, x1, y1, x2, y2, in normalised coordinates of the image
            ([-1, 1], x to the right, y down, -1 and 1 at the outer edges of the border pixels). In a distorted set it
            is the box around the warped box, clipped to the image.
        original_size: int64 (n, 2), width and height in pixels before resizing.
        pose: float32 (n, 3, 3) or None: the homography that takes points of the object's own square ([-1, 1]^2: of the
            sign, its box in GTSRB, or the undistorted image of a digit) to normalised image coordinates (edges as for
            roi); the last element is 1. Synthetic and distorted sets have it, except for two digits in two channels.
            Where the distortion is a thin plate spline, it is the affine map nearest to it in the least squares.
        control_points: float32 (n, 16, 2) or None: where the regular 4x4 lattice of that square, corners included, row
            by row and x fastest, lies in the image. Only sets distorted by thin plate splines have it.
        digest: SHA-256 (first 16 hexadecimal digits) over images and labels.
        check: raises DataCorruptError if the file that the images are mapped from has been changed since; it costs a
            look at the file's times.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    tracks: NDArray[np.int64]
    frames: NDArray[np.int64]
    roi: NDArray[np.float32]
    original_size: NDArray[np.int64]
    pose: NDArray[np.float32] | None
    digest: str
    control_points: NDArray[np.float32] | None = None
    check: Callable[[], None] = nothing_to_check

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataPlaces:
    """The folders and resources of this machine that a data set uses; no specification contains them.

    Attributes:
        root: the data folder; caches lie in its ``cache/``.
        source: the folder with the files of a data set, where the user names one.
        workers: the number of processes that may draw images.
        builds: whether a missing cache is made; if not, its half raises DataMissingError.
    """

    root: Path
    source: Path | None = None
    workers: int = 1
    builds: bool = True

    @property
    def cache(self) -> Path:
        """Return the folder of caches."""
        return self.root / "cache"


class Dataset(ABC):
    """A data set with a train and a test half.

    Opening is lazy: a half is read or made on first use. Instances may be used by one thread at a time; several
    processes may open the same set at once.
    """

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """Return one readable name per class, in label order."""

    @property
    def official_counts(self) -> Mapping[str, tuple[int, ...]]:
        """Return the images, and the tracks where they are known, of the published halves, ``train`` and ``test``."""
        return {}

    def download(self, root: Path, say: Callable[[str], None]) -> None:
        """Download the files of the set to a folder, and tell the progress.

        Raises:
            SpecError: if nothing is known to download.
            DataError: if the download fails.
        """
        del root, say
        problem = f"{type(self).__name__} has no download"
        raise SpecError(problem, remedy="leave out --download, and name its files by --root")

    @abstractmethod
    def train(self) -> ImageSet:
        """Return the training half, validation included.

        Raises:
            DataMissingError: if it is not there.
            DataCorruptError: if it is there and wrong.
        """

    @abstractmethod
    def test(self) -> ImageSet:
        """Return the test half, to which planners have no access; it raises the same errors as ``train``."""


# Splits of a training half by whole tracks, never by single frames, since frames of one track are near copies.


Indices = NDArray[np.int64]


def images_digest(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """Return the SHA-256 over the pixels and then the labels (little-endian int64), its first 16 hexadecimal digits."""
    sha = hashlib.sha256()
    for start in range(0, len(images), 1024):
        sha.update(np.ascontiguousarray(images[start : start + 1024]).data)
    sha.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return sha.hexdigest()[:DIGEST_LENGTH]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SplitRows:
    """Two sorted sets of rows, int64, that together cover a half; disjoint, unless all of it is trained on."""

    train: Indices
    validation: Indices


def split_tracks(spec: SplitSpec, labels: NDArray[np.int64], tracks: NDArray[np.int64]) -> SplitRows:
    """Split rows into those to train on and those to validate on; the same arguments give the same split.

    No track is in both, except in the split ``all``, which trains on everything. The draw of one class does not depend
    on the other classes, except for folds, to which tracks are dealt class after class so that they have equal sizes.

    Args:
        spec: the number of tracks that are held out, and the seed of the draw.
        labels: (n,), the classes.
        tracks: (n,), one number per track, unique in the half.

    Raises:
        SpecError: if tracks are unknown, if a class would have no image left to train on, or if nothing would be held
            out.
    """
    if not len(tracks) or tracks.min() < 0:
        raise SpecError("the tracks of these images are unknown", remedy="split the training half of a set with tracks")
    held_out = _draw(spec, labels, tracks)
    is_held_out = np.isin(tracks, held_out)
    trained = np.ones_like(is_held_out) if isinstance(spec, AllSplitSpec) else ~is_held_out
    split = SplitRows(train=np.flatnonzero(trained), validation=np.flatnonzero(is_held_out))
    _check(spec, split, labels)
    return split


def subset(indices: Indices, n: int, seed: int) -> Indices:
    """Draw ``n`` of the rows at random, sorted; a smaller draw with the same seed is contained in a larger one.

    Raises:
        SpecError: if there are fewer than ``n`` rows, or ``n`` is less than 1.
    """
    if not 1 <= n <= len(indices):
        problem = f"{n} training images are asked for, and there are {len(indices)}"
        raise SpecError(problem, remedy=f"ask for 1 to {len(indices)}")
    drawn = np.random.default_rng(derive_seed(seed, "subset")).permutation(indices)[:n]
    return np.sort(drawn)


def _draw_some(spec: TrackSplitSpec, labels: NDArray[np.int64], tracks: NDArray[np.int64]) -> Indices:
    """Draw ``spec.tracks_per_class`` tracks of every class, at most half of them."""
    drawn = [
        _generator(spec.seed, label).permutation(own)[: min(spec.tracks_per_class, len(own) // 2)]
        for label, own in _tracks_by_class(labels, tracks)
    ]
    return np.concatenate(drawn)


def _draw_one(spec: OneTrackSplitSpec | AllSplitSpec, labels: NDArray[np.int64], tracks: NDArray[np.int64]) -> Indices:
    """Draw one track of every class, never its first, as the code of 2015 did.

    Raises:
        SpecError: if a class has only one track.
    """
    drawn = []
    for label, own in _tracks_by_class(labels, tracks):
        if len(own) < 2:
            raise SpecError(f"class {label} has one track", remedy="holding out one needs at least two")
        drawn.append(_generator(spec.seed, label).choice(own[1:]))
    return np.array(drawn, np.int64)


def _draw_fold(spec: FoldSplitSpec, labels: NDArray[np.int64], tracks: NDArray[np.int64]) -> Indices:
    """Return the tracks of one fold.

    The tracks of every class, in random order, are dealt to the folds in turn; the next class continues where the
    previous one ended.
    """
    order = np.concatenate(
        [_generator(spec.seed, label).permutation(own) for label, own in _tracks_by_class(labels, tracks)]
    )
    return order[spec.fold :: spec.folds]


def _draw(spec: SplitSpec, labels: NDArray[np.int64], tracks: NDArray[np.int64]) -> Indices:
    match spec:
        case TrackSplitSpec():
            return _draw_some(spec, labels, tracks)
        case OneTrackSplitSpec() | AllSplitSpec():
            return _draw_one(spec, labels, tracks)
        case FoldSplitSpec():
            return _draw_fold(spec, labels, tracks)
        case _:
            assert_never(spec)


def _tracks_by_class(labels: NDArray[np.int64], tracks: NDArray[np.int64]) -> Iterator[tuple[int, Indices]]:
    """Yield each class with its tracks in ascending order."""
    for label in np.unique(labels):
        yield int(label), np.unique(tracks[labels == label])


def _generator(seed: int, label: int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, "split", label))


def _check(spec: SplitSpec, split: SplitRows, labels: NDArray[np.int64]) -> None:
    if not len(split.validation):
        raise SpecError(f"the split {spec.kind} holds out nothing", remedy="there are too few tracks for it")
    lost = np.setdiff1d(labels, labels[split.train])
    if len(lost):
        problem = f"the split {spec.kind} leaves class {lost[0]} without images to train on"
        raise SpecError(problem, remedy="a class needs at least two tracks")
