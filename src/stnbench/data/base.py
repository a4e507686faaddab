"""The interface of a data set: a training and a test half of images in tracks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stnbench.core.errors import SpecError


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
