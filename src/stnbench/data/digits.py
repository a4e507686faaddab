"""Distorted digits: glyphs, clutter, and the data sets made from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from stnbench.core.errors import DataCorruptError, DataMissingError
from stnbench.core.files import file_mark, file_sha256, memory_of, remembered_digests
from stnbench.core.identity import Json, derive_seed, digest
from stnbench.core.process import advancing
from stnbench.data import Dataset, ImageSet
from stnbench.data.cache import (
    CacheArrays,
    Layout,
    Recipe,
    open_or_build,
    open_prepared,
    remove_superseded,
)
from stnbench.data.distort import Picture, Projective, Trace, draw_warp, make_picture, render, trace_whole
from stnbench.spec.codec import to_plain
from stnbench.spec.data import DigitsSpec, DigitTask, DistortionSpec, MnistSpec

# The digits before distortion: 28x28 images with a digit of about 20x20 pixels in the middle, as in MNIST.


Half = Literal["train", "test"]

GLYPH_SIDE: Final = 28
DIGIT_SIDE: Final = 20
TEST_SHARE: Final = 0.2
"""Share of each class of scikit-learn's digits that is in the test half."""

_FULL: Final = 16
"""The brightest pixel of scikit-learn's digits: a full 4x4 block of the scan."""
_INK: Final = (0.2, 0.75)
"""Shares of ink that become black and white; averaging over blocks has blurred the original bitmap."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Glyphs:
    """Digits before they are distorted.

    Attributes:
        images: uint8 (n, 28, 28), white on black.
        labels: int64 (n,), the digit.
        numbers: int64 (n,), one number per digit, unique across both halves where they come from one file.
        original_size: width and height in pixels before resizing to 28x28.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    numbers: NDArray[np.int64]
    original_size: tuple[int, int]

    def __len__(self) -> int:
        """Return the number of digits."""
        return len(self.labels)


def load_sklearn_glyphs(half: Half) -> Glyphs:
    """Load one half of the 1,797 digits of 8x8 pixels that scikit-learn contains (UCI, Alpaydin and Kaynak 1998).

    They are UCI's own test set. ``TEST_SHARE`` of each class are the test half, from a fixed random draw; numbers are
    unique across both halves.
    """
    from sklearn.datasets import load_digits  # takes a second

    scans = load_digits()
    labels = scans.target.astype(np.int64)
    rows = half_rows(labels, half)
    images = np.stack([enlarge(scan) for scan in scans.images[rows] / _FULL])
    return Glyphs(images=images, labels=labels[rows], numbers=rows, original_size=(8, 8))


def half_rows(labels: NDArray[np.int64], half: Half) -> NDArray[np.int64]:
    """Return the sorted rows (m,) of a half, stratified by class; they depend on the labels (n,) alone."""
    is_test = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        drawn = np.random.default_rng(derive_seed(0, "digits", "test", int(label))).permutation(own)
        is_test[drawn[: round(TEST_SHARE * len(own))]] = True
    return np.flatnonzero(is_test == (half == "test"))


def enlarge(scan: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a scan (8, 8) of shares of ink as a glyph, uint8 (28, 28): smooth, with the contrast of pen strokes."""
    from scipy import ndimage

    margin = 2
    padded = np.pad(scan, margin)
    steps = (np.arange(DIGIT_SIDE) + 0.5) * len(scan) / DIGIT_SIDE - 0.5 + margin
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    smooth = ndimage.map_coordinates(padded, (rows, columns), order=3, mode="constant")
    low, high = _INK
    ink = np.clip((smooth - low) / (high - low), 0, 1)
    border = (GLYPH_SIDE - DIGIT_SIDE) // 2
    return np.pad(np.rint(255 * ink * ink * (3 - 2 * ink)).astype(np.uint8), border)


# Clutter: small crops of other digits placed at random in the frame, as in cluttered translated MNIST.


CROP_SIDE: Final = 6
"""Side of a crop in glyph pixels."""


def strew(
    image: NDArray[np.uint8],
    distortion: DistortionSpec,
    glyphs: NDArray[np.uint8],
    own: int,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Add ``distortion.clutter`` crops of other glyphs to an image; of overlapping pixels the brighter one is kept.

    Crops keep the size that their digit would have undistorted; they are taken from the part of a glyph that has ink
    (the middle 20x20 pixels) and put on whole pixels anywhere in the frame.

    Args:
        image: uint8 (size, size); it is not changed.
        distortion: the amount of clutter, and the side of the frame.
        glyphs: uint8 (n, 28, 28).
        own: the row of the image's own glyph, which is not used.
        rng: the source of random numbers.

    Returns:
        The cluttered image, uint8 (size, size).
    """
    size = len(image)
    pixel = GLYPH_SIDE * distortion.canvas / size  # side of an output pixel in glyph pixels
    side = max(1, round(CROP_SIDE / pixel))
    border = (GLYPH_SIDE - DIGIT_SIDE) / 2
    cluttered = image.copy()
    for _ in range(distortion.clutter):
        other = (own + 1 + rng.integers(max(1, len(glyphs) - 1))) % len(glyphs)
        from_x, from_y = border + rng.uniform(0, DIGIT_SIDE - CROP_SIDE, 2)
        at_x, at_y = rng.integers(0, max(1, size - side + 1), 2)
        crop = _crop(glyphs[other], from_x, from_y, CROP_SIDE / side, side)
        place = cluttered[at_y : at_y + side, at_x : at_x + side]
        np.maximum(place, crop[: place.shape[0], : place.shape[1]], out=place)
    return cluttered


def _crop(glyph: NDArray[np.uint8], x: float, y: float, step: float, side: int) -> NDArray[np.uint8]:
    """Sample a square of ``side`` pixels, ``step`` glyph pixels apart, from its outer corner (x, y)."""
    from scipy import ndimage

    steps = (np.arange(side) + 0.5) * step - 0.5
    rows, columns = np.meshgrid(y + steps, x + steps, indexing="ij")
    sampled = ndimage.map_coordinates(glyph, (rows, columns), np.float32, order=1, mode="nearest")
    pixels: NDArray[np.uint8] = np.rint(sampled).astype(np.uint8)
    return pixels


# MNIST's digits from its four standard files, which torchvision reads and downloads.


PREPARE = "python -m stnbench.data prepare mnist"

TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000
"""The official numbers of images."""


def mnist_folder(root: Path) -> Path:
    """Return the folder of MNIST below a data folder; the files themselves are in its ``MNIST/raw/``."""
    return root / "mnist"


def load_mnist_glyphs(half: Half, root: Path) -> Glyphs:
    """Load one half of MNIST from the files below ``root``, in their order; numbers are the rows of the half.

    Raises:
        DataMissingError: if the files are not there.
        DataCorruptError: if the files cannot be read, or contain unexpected shapes or labels.
    """
    folder = mnist_folder(root)
    try:
        found = _torchvision_mnist(folder, half)
        images, labels = found.data.numpy(), found.targets.numpy().astype(np.int64)
    except RuntimeError as error:
        if "Dataset not found" not in str(error):
            raise _corrupt(folder, error) from error
        problem = f"the four files of MNIST are not in {folder / 'MNIST' / 'raw'}"
        remedy = f"put them there (train-images-idx3-ubyte and so on, unpacked), or run '{PREPARE} --download'"
        raise DataMissingError(problem, remedy=remedy) from error
    except (ValueError, TypeError, KeyError, IndexError, AssertionError, OSError) as error:
        raise _corrupt(folder, error) from error
    if images.shape != (len(labels), GLYPH_SIDE, GLYPH_SIDE) or not len(labels) or not 0 <= labels.min() <= 9:
        raise _corrupt(folder, f"{half} has images {images.shape} and {len(labels)} labels")
    if labels.max() > 9:
        raise _corrupt(folder, f"{half} has the label {labels.max()}")
    return Glyphs(images=images, labels=labels, numbers=np.arange(len(labels)), original_size=(GLYPH_SIDE, GLYPH_SIDE))


def mnist_source(root: Path, half: Half, cache: Path) -> dict[str, Json] | None:
    """Return the identity of the files of one half of MNIST below ``root``, or None if any is missing.

    Args:
        root: as for ``load_mnist_glyphs``.
        half: the half.
        cache: the folder of caches, where the digests of the files are remembered.

    Raises:
        DataCorruptError: if a file cannot be read.
    """
    folder = mnist_folder(root) / "MNIST" / "raw"
    names = [f"{'t10k' if half == 'test' else half}-{part}-ubyte" for part in ("images-idx3", "labels-idx1")]
    if not all((folder / name).is_file() for name in names):
        return None
    marks = {name: file_mark(folder / name) for name in names}
    try:
        digests = remembered_digests(
            memory_of(cache, folder / half),
            marks,
            lambda missing: (file_sha256(folder / name, follow_link=True) for name in missing),
            total_bytes=sum(mark[0] for mark in marks.values()),
        )
    except OSError as error:
        raise _corrupt(mnist_folder(root), error) from error
    return {"files_sha256": [digests[name] for name in names]}


def download_mnist(root: Path) -> None:
    """Download the four files, 11 MB, to the folder below ``root`` that ``load_mnist_glyphs`` reads; verify checksums.

    Raises:
        DataMissingError: if the files cannot be downloaded.
    """
    folder = mnist_folder(root)
    try:
        _torchvision_mnist(folder, "train", download=True)
    except (RuntimeError, OSError) as error:
        remedy = f"try again, or put the files in {folder / 'MNIST' / 'raw'} by hand"
        raise DataMissingError(f"MNIST cannot be fetched ({error})", remedy=remedy) from error


def _torchvision_mnist(folder: Path, half: Half, *, download: bool = False) -> Any:  # noqa: ANN401 - no stubs
    from torchvision.datasets import MNIST  # brings torch, which light commands do without

    return MNIST(str(folder), train=half == "train", download=download)


def _corrupt(folder: Path, why: object) -> DataCorruptError:
    remedy = f"delete the folder and run '{PREPARE} --download'"
    return DataCorruptError(f"the files of MNIST in {folder} cannot be read ({why})", remedy=remedy)


# One half of distorted digits: the digits of each track, and their images.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DigitPlan:
    """The digits and settings from which one half is drawn.

    Attributes:
        spec: task, copies, size and distortion.
        half: the half, which has separate random numbers.
        glyphs: the digits of the half.
        members: int64 (tracks, digits per image), rows of ``glyphs``: each track's digit, or the two that are added.
    """

    spec: DigitsSpec | MnistSpec
    half: Half
    glyphs: Glyphs
    members: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Return the number of images."""
        return len(self.members) * self.spec.copies


def plan_half(spec: DigitsSpec | MnistSpec, half: Half, glyphs: Glyphs) -> DigitPlan:
    """Assign the digits of a half to tracks: single digits, or disjoint pairs of digits (an odd one is left out).

    A held-out track therefore never shares a digit with the training images.
    """
    return DigitPlan(spec=spec, half=half, glyphs=glyphs, members=_deal(spec.task, half, len(glyphs)))


def fill(arrays: CacheArrays, plan: DigitPlan) -> None:
    """Draw every copy of every track into the arrays, one track after the other."""
    glyphs, copies = plan.glyphs, plan.spec.copies
    arrays.labels[:] = glyphs.labels[plan.members].sum(axis=1).repeat(copies)
    arrays.tracks[:] = glyphs.numbers[plan.members[:, 0]].repeat(copies)
    arrays.frames[:] = np.tile(np.arange(copies), len(plan.members))
    arrays.original_size[:] = glyphs.original_size
    for index, members in enumerate(advancing(plan.members, "drawing digits", len(plan.members))):
        pictures = [make_picture(glyphs.images[member][None], None) for member in members]
        for copy in range(copies):
            _fill_row(arrays, index * copies + copy, plan, members, pictures, copy)


def _fill_row(
    arrays: CacheArrays,
    row: int,
    plan: DigitPlan,
    members: NDArray[np.int64],
    pictures: list[Picture],
    copy: int,
) -> None:
    traces = []
    for channel, (member, picture) in enumerate(zip(members, pictures, strict=True)):
        key = (plan.half, int(arrays.tracks[row]), copy, channel)
        image, traced = _draw_digit(plan, int(member), picture, key)
        arrays.images[row, channel] = image
        traces.append(traced)
    boxes = np.array([traced.roi for traced in traces])
    arrays.roi[row] = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    if arrays.pose is not None:
        arrays.pose[row] = traces[0].pose
    if arrays.control_points is not None and traces[0].control_points is not None:
        arrays.control_points[row] = traces[0].control_points


def _draw_digit(
    plan: DigitPlan, member: int, picture: Picture, key: tuple[str | int, ...]
) -> tuple[NDArray[np.uint8], Trace]:
    """Draw one distorted digit, uint8 (size, size), and return it with its trace."""
    size, distortion = plan.spec.image_size, plan.spec.distortion
    if distortion is None:
        warp = Projective(np.eye(3))
        return render(picture, warp, size)[0], trace_whole(warp)
    warped = draw_warp(distortion, _generator(distortion, "distort", *key))
    image = render(picture, warped, size)[0]
    if distortion.clutter:
        image = strew(image, distortion, plan.glyphs.images, member, _generator(distortion, "clutter", *key))
    return image, trace_whole(warped)


def _generator(distortion: DistortionSpec, *purpose: str | int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(distortion.seed, *purpose))


def _deal(task: DigitTask, half: Half, count: int) -> NDArray[np.int64]:
    if task == "classify":
        return np.arange(count)[:, None]
    order = np.random.default_rng(derive_seed(0, "digits", "pairs", half)).permutation(count)
    return order[: count // 2 * 2].reshape(-1, 2)


# The data sets ``digits`` and ``mnist``: distorted on first use, then kept in a cache.


DISTORTION_VERSION: Final = 1
"""Increased when the code changes the images or their annotations: caches are then made again, and digests differ."""

DIGIT_NAMES: Final = tuple(str(digit) for digit in range(10))
SUM_NAMES: Final = tuple(str(total) for total in range(19))


def digit_class_names(spec: DigitsSpec | MnistSpec) -> Sequence[str]:
    """Return the class names: the digits ``0`` to ``9``, or their sums ``0`` to ``18``."""
    return DIGIT_NAMES if spec.task == "classify" else SUM_NAMES


def digit_channels(spec: DigitsSpec | MnistSpec) -> int:
    """Return the number of channels, one per digit of an image."""
    return 1 if spec.task == "classify" else 2


class Digits(Dataset):
    """Distorted handwritten digits, determined by the specification alone.

    In the task ``classify`` a track is one handwritten digit, numbered as in its file, and its frames are its copies.
    In the task ``addition`` a track is one pair of digits, numbered by the first, and no digit is in two pairs.
    Therefore no digit is on both sides of a split by tracks. A box is that of the warped 28x28 square, including the
    parts without ink; in ``addition`` it is the box around both squares, and there is no pose, since there would be
    two.

    Another version of SciPy may change single pixels, which changes the digest. If other files of MNIST replace those
    that a cache was made from, another cache is made; once there is one, the files are not needed.

    Args:
        spec: the set of digits, and their distortion.
        source: the folder below which the files of MNIST lie.
        cache: the folder of caches.
        builds: whether a missing cache is made.
    """

    def __init__(self, spec: DigitsSpec | MnistSpec, *, source: Path, cache: Path, builds: bool = True) -> None:
        self._spec = spec
        self._source = source
        self._cache = cache
        self._builds = builds

    @property
    def class_names(self) -> Sequence[str]:
        """Return ``0`` to ``9``, or ``0`` to ``18`` in the task ``addition``."""
        return digit_class_names(self._spec)

    @property
    @override
    def official_counts(self) -> Mapping[str, tuple[int, ...]]:
        is_mnist = isinstance(self._spec, MnistSpec)
        return {"train": (TRAIN_IMAGES,), "test": (TEST_IMAGES,)} if is_mnist else {}

    @override
    def download(self, root: Path, say: Callable[[str], None]) -> None:
        if isinstance(self._spec, MnistSpec):
            download_mnist(root)
        else:
            super().download(root, say)

    def train(self) -> ImageSet:
        """Return the training half, validation included: 1,438 digits of ``digits``, 60,000 of ``mnist``.

        Raises:
            DataMissingError: if MNIST's files are missing, or the cache is missing and may not be made.
            DataCorruptError: if MNIST's files or the cache are wrong.
            FolderError: if the cache cannot be written.
        """
        return self._half("train")

    def test(self) -> ImageSet:
        """Return the test half: 359 digits of ``digits``, 10,000 of ``mnist``, distorted in the same way.

        It raises the same errors as ``train``.
        """
        return self._half("test")

    def _half(self, half: Half) -> ImageSet:
        kind = self._spec.kind
        drawn: dict[str, Json] = {"version": DISTORTION_VERSION, "half": half, **to_plain(self._spec)}
        source = mnist_source(self._source, half, self._cache) if kind == "mnist" else {}
        if source is None:
            absent = f"the files of MNIST are not below {self._source}"
            prepared = open_prepared(self._cache, f"{kind}-{half}-*", drawn, absent=absent)
            if prepared is not None:
                return prepared
        identity = drawn | (source or {})
        opened = open_or_build(
            self._cache / f"{kind}-{half}-{digest(identity)}",
            identity=identity,
            recipe=lambda: self._recipe(half),
            builds=self._builds,
            of_source=tuple(source or ()),
        )
        if source and self._builds:
            remove_superseded(self._cache / f"{kind}-{half}-{digest(drawn)}")
        return opened

    def _recipe(self, half: Half) -> Recipe:
        spec = self._spec
        glyphs = load_mnist_glyphs(half, self._source) if isinstance(spec, MnistSpec) else load_sklearn_glyphs(half)
        plan = plan_half(spec, half, glyphs)
        distortion, channels = spec.distortion, digit_channels(spec)
        layout = Layout(
            count=plan.count,
            image_size=spec.image_size,
            channels=channels,
            has_pose=channels == 1,
            has_control_points=channels == 1 and distortion is not None and distortion.point_noise > 0,
        )
        return Recipe(layout=layout, fill=lambda arrays: fill(arrays, plan))
