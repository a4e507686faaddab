"""Specifications of a trial's data: data sets, distortions, held-out images and preprocessing."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Discriminator
from typing_extensions import override

from stnbench.core.errors import SpecError, require
from stnbench.core.identity import Json
from stnbench.core.image_folder import surveyed
from stnbench.spec.codec import PartSpec, Strict
from stnbench.spec.registry import Registry

Split = Literal["train", "validation", "test"]
"""Split of the data; planners and pruners have no access to test."""

CLASSES = 43
"""Number of classes of GTSRB and of ``signs``."""

FRAMES_PER_TRACK, TRACKS_MAX = 30, 1_000_000

GTSRB_TRAIN_IMAGES = 39_209

DIGITS_TRAIN, MNIST_TRAIN = 1438, 60_000
_DIGITS, _SUMS = 10, 19

SIGNS_TRACKS_PER_CLASS_MIN, DIGITS_COPIES_MIN = 5, 8
DIGITS_TO_TRAIN_ON = 1100
"""Smallest number of digits left for training once tracks are held out."""

DISTORTS_ITSELF, WITHOUT_FILES = "distorts_itself", "without_files"
"""Traits of data sets: it distorts its images as it makes them, not afterwards; and it reads no files of the user."""

DigitTask = Literal["classify", "addition"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DistortionSpec(Strict):
    """Distortion that is applied once to every image, training and test: the image is warped into a larger frame.

    The square of the image is scaled, rotated and placed; then its corners are moved, and then its 4x4 lattice. The
    unit of length is a side of the undistorted image, independent of pixels. Noise that folds the image, or moves its
    centre out of the frame, is drawn again. Source: Jaderberg et al. 2015, appendix A.

    Attributes:
        rotation_deg: largest rotation in degrees; the angle is uniform between minus and plus this.
        scale_min: lower end of the range from which the side of the square is drawn uniformly.
        scale_max: upper end of that range.
        canvas: side of the frame; 1 is the side of the undistorted image.
        placement: in the centre of the frame, or uniformly where the unrotated square fits into it.
        corner_noise: standard deviation of each coordinate of the four corners: a homography.
        point_noise: standard deviation of each coordinate of the 4x4 lattice of control points: a thin plate spline.
        clutter: number of crops of 6/28 of a side from other images that are scattered over the frame (digits only).
        seed: seed of all random numbers.

    A seed that is not used and a placement that leaves no choice take their defaults, since the data are the same.
    """

    rotation_deg: float = 0.0
    scale_min: float = 1.0
    scale_max: float = 1.0
    canvas: float = 1.0
    placement: Literal["centre", "random"] = "centre"
    corner_noise: float = 0.0
    point_noise: float = 0.0
    clutter: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        self.settle()
        require(0 <= self.rotation_deg <= 180, "rotation_deg", self.rotation_deg, "from 0 to 180 degrees")
        require(self.scale_min >= 0.1, "scale_min", self.scale_min, "at least 0.1")
        ordered = self.scale_min <= self.scale_max <= 4
        require(ordered, "scale_max", self.scale_max, "at least scale_min, at most 4")
        require(1 <= self.canvas <= 8, "canvas", self.canvas, "from 1 to 8 sides of the undistorted image")
        require(0 <= self.corner_noise <= 0.3, "corner_noise", self.corner_noise, "from 0 to 0.3 sides")
        require(0 <= self.point_noise <= 0.1, "point_noise", self.point_noise, "from 0 to 0.1 sides")
        require(0 <= self.clutter <= 100, "clutter", self.clutter, "from 0 to 100 crops")
        if self.scale_min >= self.canvas:
            object.__setattr__(self, "placement", "centre")
        if not self._draws_anything:
            object.__setattr__(self, "seed", 1)

    @property
    def changes_anything(self) -> bool:
        """Return whether the distortion changes images."""
        return self != DistortionSpec()

    @property
    def _draws_anything(self) -> bool:
        noise = self.rotation_deg or self.corner_noise or self.point_noise or self.clutter
        return bool(noise) or self.scale_min < self.scale_max or self.placement == "random"


Framing = Literal["tight", "loose"]
"""Cropping of images: closely around the sign as in GTSRB, or with the sign at varying position and size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataNeeds:
    """Numbers of a data set that its configuration leaves open and a trial needs.

    Attributes:
        train_images: number of images that it trains on.
        held_out: number of tracks per class that are held out.
        framing: cropping of drawn images.
    """

    train_images: int
    held_out: int
    framing: Framing


class TrainingHalf(NamedTuple):
    """Size of the training half of a data set, including validation images."""

    images: int
    classes: int
    frames_per_track: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSpec(PartSpec):
    """Base specification of data sets: square images of ``image_size`` pixels a side, and their distortion."""

    image_size: int = 48
    distortion: DistortionSpec | None = None

    def __post_init__(self) -> None:
        self.settle()
        _check_photographs(self.image_size, self.distortion)
        object.__setattr__(self, "distortion", _effective(self.distortion))

    @classmethod
    def held_out_tracks(cls, task: str) -> int:
        """Return the default number of tracks per class that are held out for validation, for a task of the set."""
        del task
        return 3

    @classmethod
    def locate(cls, section: dict[str, Json]) -> int:
        """Replace a path of this machine in a configuration by the values that identify the images.

        Args:
            section: keys of the configuration, which are changed.

        Returns:
            The number of tracks of the rarest class; 0 if it is not known, and ``held_out_tracks`` decides.

        Raises:
            SpecError: if a place is malformed.
            DataError: if the images cannot be found or used.
        """
        del section
        return 0

    @classmethod
    def fill(cls, section: dict[str, Json], needs: DataNeeds) -> None:
        """Set the keys that a configuration leaves open (null): as many images as the trial needs."""
        del section, needs

    @property
    def channels(self) -> int:
        """Return the number of channels of the images: 3 for colour, 1 for grey."""
        return 3

    @property
    def licence(self) -> str:
        """Return a sentence on the licence of the images, for the card of an exported network."""
        return f"not known to stnbench ({self.kind})"

    @property
    def training_half(self) -> TrainingHalf | None:
        """Return the size of the training half for estimates of time, or None if it is unknown before a read."""
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class SignsSpec(DatasetSpec):
    """Synthetic data set: 43 classes of signs in tracks of 30 frames, with training and test images drawn equally.

    ``framing`` determines how closely images are cropped (``data/signs/canvas.py`` defines the numbers).
    """

    kind: Literal["signs"] = "signs"
    image_size: int = 48
    tracks_per_class: int = 5
    test_tracks_per_class: int = 2
    drawing_seed: int = 1
    framing: Framing = "tight"
    distortion: DistortionSpec | None = None

    def __post_init__(self) -> None:
        self.settle()
        _check_photographs(self.image_size, self.distortion)
        object.__setattr__(self, "distortion", _effective(self.distortion))
        tracks, tests = self.tracks_per_class, self.test_tracks_per_class
        require(2 <= tracks <= TRACKS_MAX, "tracks_per_class", tracks, f"from 2, one to hold out, to {TRACKS_MAX:,}")
        require(1 <= tests <= TRACKS_MAX, "test_tracks_per_class", tests, f"from 1 to {TRACKS_MAX:,}")

    @classmethod
    @override
    def fill(cls, section: dict[str, Json], needs: DataNeeds) -> None:
        """Set the framing, and the number of tracks, of which ``held_out`` are not trained on."""
        if section.get("framing", "") is None:
            section["framing"] = needs.framing
        if section.get("tracks_per_class", 0) is None:
            tracks = math.ceil(needs.train_images / (CLASSES * FRAMES_PER_TRACK)) + needs.held_out
            section["tracks_per_class"] = max(SIGNS_TRACKS_PER_CLASS_MIN, tracks, 2 * needs.held_out)

    @property
    def licence(self) -> str:
        """Return a sentence on the licence of the images."""
        return "MIT: the images are drawn by stnbench"

    @property
    def training_half(self) -> TrainingHalf:
        """Return the size of the training half."""
        return TrainingHalf(CLASSES * FRAMES_PER_TRACK * self.tracks_per_class, CLASSES, FRAMES_PER_TRACK)


@dataclass(frozen=True, kw_only=True, slots=True)
class GtsrbSpec(DatasetSpec):
    """German Traffic Sign Recognition Benchmark: 39,209 training images in 1,307 tracks and 12,630 test images."""

    kind: Literal["gtsrb"] = "gtsrb"
    image_size: int = 48
    distortion: DistortionSpec | None = None

    @property
    def licence(self) -> str:
        """Return a sentence on the licence of the images."""
        return "none is stated with the official files (GTSRB, Stallkamp et al. 2012, published for research)"

    @property
    def training_half(self) -> TrainingHalf:
        """Return the size of the training half."""
        return TrainingHalf(GTSRB_TRAIN_IMAGES, CLASSES, FRAMES_PER_TRACK)  # of the official set


@dataclass(frozen=True, kw_only=True, slots=True)
class _DigitImagesSpec(DatasetSpec):
    """Base specification of data sets of handwritten digits."""

    image_size: int = 42
    copies: int = 1
    task: DigitTask = "classify"

    def __post_init__(self) -> None:
        self.settle()
        require(8 <= self.image_size <= 512, "image_size", self.image_size, "between 8 and 512 pixels")
        require(1 <= self.copies <= 10_000, "copies", self.copies, "from 1 to 10,000")
        object.__setattr__(self, "distortion", _effective(self.distortion))

    @property
    def channels(self) -> int:
        """Return the number of channels: one per digit."""
        return 2 if self.task == "addition" else 1

    def half_of(self, digits: int) -> TrainingHalf:
        """Return the training half of a number of digits, each in copies, or of their pairs for addition."""
        if self.task == "addition":
            return TrainingHalf(digits // 2 * self.copies, _SUMS, self.copies)
        return TrainingHalf(digits * self.copies, _DIGITS, self.copies)


@dataclass(frozen=True, kw_only=True, slots=True)
class DigitsSpec(_DigitImagesSpec):
    """The 1,797 handwritten digits of scikit-learn, 8x8 pixels, each in ``copies`` distorted versions.

    ``classify``: the digit, 10 classes, one channel. ``addition`` (Jaderberg et al. 2015): the sum of two digits, each
    distorted independently in a separate channel, 19 classes. Without a distortion the copies are equal.
    """

    kind: Literal["digits"] = "digits"
    copies: int = 8

    @classmethod
    @override
    def held_out_tracks(cls, task: str) -> int:
        return 7 if task == "addition" else 28

    @classmethod
    @override
    def fill(cls, section: dict[str, Json], needs: DataNeeds) -> None:
        """Set the number of distorted copies of each digit."""
        if section.get("copies", 0) is None:
            section["copies"] = max(DIGITS_COPIES_MIN, math.ceil(needs.train_images / DIGITS_TO_TRAIN_ON))

    @property
    def licence(self) -> str:
        """Return a sentence on the licence of the images."""
        return "CC BY 4.0 (Optical Recognition of Handwritten Digits, UCI, as scikit-learn ships it)"

    @property
    def training_half(self) -> TrainingHalf:
        """Return the size of the training half."""
        return self.half_of(DIGITS_TRAIN)


@dataclass(frozen=True, kw_only=True, slots=True)
class MnistSpec(_DigitImagesSpec):
    """MNIST: 60,000 training and 10,000 test digits of 28x28 pixels; ``copies`` and ``task`` as for ``DigitsSpec``."""

    kind: Literal["mnist"] = "mnist"

    @classmethod
    @override
    def held_out_tracks(cls, task: str) -> int:
        return 150 if task == "addition" else 500

    @property
    def licence(self) -> str:
        """Return a sentence on the licence of the images."""
        return "CC BY-SA 3.0 (MNIST, LeCun, Cortes and Burges)"

    @property
    def training_half(self) -> TrainingHalf:
        """Return the size of the training half."""
        return self.half_of(MNIST_TRAIN)


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderSpec(DatasetSpec):
    """User's images in class sub-folders, identified by their contents and not by their path.

    Attributes:
        name: name of the folder or archive.
        digest: digest over the path and content of every image and over the table of the folder.
        class_names: names of the classes, in label order.
        train_images: number of images for training and validation.
        image_size: side of the images after resizing, in pixels.
        channels: 3 for colour, 1 for grey.
        distortion: distortion of every image.
    """

    kind: Literal["folder"] = "folder"
    name: str
    digest: str
    class_names: tuple[str, ...]
    train_images: int
    image_size: int = 48
    channels: int = 3
    distortion: DistortionSpec | None = None

    def __post_init__(self) -> None:
        self.settle()
        _check_photographs(self.image_size, self.distortion)
        object.__setattr__(self, "distortion", _effective(self.distortion))
        require(len(self.class_names) >= 2, "class_names", list(self.class_names), "at least two")
        require(self.channels in (1, 3), "channels", self.channels, "3 for colour, or 1 for grey")

    @classmethod
    @override
    def locate(cls, section: dict[str, Json]) -> int:
        """Replace ``path``, a folder, a tar or a zip, by its name and contents; return the tracks of a class."""
        if "path" not in section:
            return 0
        path = section.pop("path")
        if not isinstance(path, str) or not path:
            raise SpecError(f"path is {path!r}", remedy="name a folder, a tar or a zip of images")
        found = surveyed(Path(path).expanduser().resolve())
        section |= {"name": found.place.name.partition(".")[0], "digest": found.digest}
        section |= {"class_names": list(found.class_names), "train_images": len(found.half(is_test=False))}
        return found.tracks

    @property
    def licence(self) -> str:
        """Return a sentence on the licence of the images."""
        return f"not known to stnbench (images of a folder, {self.name})"

    @property
    def training_half(self) -> TrainingHalf:
        """Return the size of the training half."""
        return TrainingHalf(self.train_images, len(self.class_names))


DATASETS: Final = Registry("dataset", DatasetSpec, section="dataset")
DATASETS.declare_each(
    {
        SignsSpec: "stnbench.data.build:signs",
        GtsrbSpec: "stnbench.data.build:gtsrb",
        DigitsSpec: "stnbench.data.build:digits",
        MnistSpec: "stnbench.data.build:digits",
        FolderSpec: "stnbench.data.build:folder",
    },
    traits={SignsSpec: [WITHOUT_FILES], DigitsSpec: [DISTORTS_ITSELF, WITHOUT_FILES], MnistSpec: [DISTORTS_ITSELF]},
)

AnyDataset = Annotated[DatasetSpec, DATASETS]
"""Specification of any data set, discriminated by ``kind``."""


def _effective(distortion: DistortionSpec | None) -> DistortionSpec | None:
    """Return the distortion, or None if it changes nothing."""
    return distortion if distortion is not None and distortion.changes_anything else None


def _check_photographs(image_size: int, distortion: DistortionSpec | None) -> None:
    require(8 <= image_size <= 512, "image_size", image_size, "between 8 and 512 pixels")
    clutter = 0 if distortion is None else distortion.clutter
    require(clutter == 0, "distortion.clutter", clutter, "clutter is for digits; choose a distortion without it")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackSplitSpec(Strict):
    """Split that holds out ``tracks_per_class`` whole tracks of each class, at most half of them, drawn by ``seed``."""

    kind: Literal["tracks"] = "tracks"
    tracks_per_class: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        self.settle()
        require(self.tracks_per_class >= 1, "tracks_per_class", self.tracks_per_class, "at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class OneTrackSplitSpec(Strict):
    """Split that holds out one track of every class, never the first: 1,290 images of GTSRB, as in 2015."""

    kind: Literal["one_track"] = "one_track"
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldSplitSpec(Strict):
    """Split that holds out the ``fold``-th (from 0) of ``folds`` groups of whole tracks, stratified by class."""

    kind: Literal["folds"] = "folds"
    folds: int = 10
    fold: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        self.settle()
        require(self.folds >= 2, "folds", self.folds, "at least 2")
        require(0 <= self.fold < self.folds, "fold", self.fold, f"from 0 to {self.folds - 1}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AllSplitSpec(Strict):
    """Split that holds out nothing, for the final training after all choices were made on held-out tracks.

    The validation images are one track of every class (``OneTrackSplitSpec``) and are also trained on. Epochs report
    them to detect failing trainings; they are no score, so reports leave them out and planners refuse them.
    """

    kind: Literal["all"] = "all"
    seed: int = 0


NO_SCORE = "the validation images were trained on as well (split=all): an alarm, and no score"

SplitSpec = Annotated[TrackSplitSpec | OneTrackSplitSpec | FoldSplitSpec | AllSplitSpec, Discriminator("kind")]


Contrast = Literal["none", "image_adjustment", "histogram_equalisation", "clahe", "contrast_normalisation"]
"""Adjustment of the contrast of images; ``data/preprocessing.py`` defines each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessSpec(Strict):
    """Preprocessing of images in [0, 1] before the network.

    ``contrast``: an adjustment of every image separately (Cireşan et al. 2012), applied first.
    ``global_norm``: normalisation by one mean and one standard deviation of the training images, over pixels and
    channels together.
    ``contrastive_norm``: then local contrast normalisation with a gaussian kernel of side ``kernel_size``, which is 7
    if there is no such normalisation.
    """

    contrast: Contrast = "none"
    global_norm: bool = True
    contrastive_norm: bool = True
    kernel_size: int = 7

    def __post_init__(self) -> None:
        self.settle()
        odd = self.kernel_size % 2 == 1 and 3 <= self.kernel_size <= 1023  # twice the largest image
        require(odd, "kernel_size", self.kernel_size, "an odd number of at least 3 and at most 1,023")
        if not self.contrastive_norm:
            object.__setattr__(self, "kernel_size", 7)
