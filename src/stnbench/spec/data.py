"""The data of a trial: the set, what is held out of it, and what is done to images before the network."""

from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Discriminator

from stnbench.spec.check import require
from stnbench.spec.codec import Strict
from stnbench.spec.registry import Registry

Split = Literal["train", "validation", "test"]
"""Where a number comes from; test is sealed from planners and pruners."""

CLASSES = 43
"""GTSRB's classes, which ``signs`` draws as well."""

FRAMES_PER_TRACK = 30

GTSRB_TRAIN_IMAGES = 39_209

DIGITS_TRAIN, MNIST_TRAIN = 1438, 60_000
_DIGITS, _SUMS = 10, 19

DISTORTS_ITSELF: Final = "distorts_itself"
"""The trait of a data set that makes its distortion as it makes its images; others are distorted afterwards."""

DigitTask = Literal["classify", "addition"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DistortionSpec(Strict):
    """What is done to every image of a set, training and test, once: its own square is warped into a larger frame.

    The square is scaled, turned and placed; then its corners are moved, and then its 4x4 lattice. One unit is a side of
    the undistorted image, so that nothing depends on pixels. Noise that folds the image, or carries its middle out of
    the frame, is drawn again. Source: Jaderberg et al. 2015, appendix A.

    Attributes:
        rotation_deg: turned by an angle drawn evenly between minus and plus this.
        scale_min: with ``scale_max``, the range from which the side of the square is drawn evenly.
        scale_max: see there.
        canvas: side of the frame; 1 is the undistorted image's own.
        placement: in the centre of the frame, or anywhere in it where the unturned square still fits.
        corner_noise: standard deviation of each coordinate of the four corners: a homography.
        point_noise: that of each coordinate of the 4x4 lattice of control points: a thin plate spline.
        clutter: crops of 6/28 of a side from other images strewn over the frame (digits only).
        seed: draws all of it.

    A seed that draws nothing and a placement that leaves no choice take their defaults: they make no other data.
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
        """Check the values."""
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
        """Whether images are not left as they are, bit for bit."""
        return self != DistortionSpec()

    @property
    def _draws_anything(self) -> bool:
        noise = self.rotation_deg or self.corner_noise or self.point_noise or self.clutter
        return bool(noise) or self.scale_min < self.scale_max or self.placement == "random"


Framing = Literal["tight", "loose"]
"""How images are cropped: closely round the sign as GTSRB's are, or with the sign somewhere in them at varying size."""


class TrainingHalf(NamedTuple):
    """How large the training half of a data set is, validation included."""

    images: int
    classes: int
    frames_per_track: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSpec(Strict):
    """What all data sets share: square images of ``image_size`` pixels a side, and what is done to every one."""

    image_size: int = 48
    distortion: DistortionSpec | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        _check_photographs(self.image_size, self.distortion)
        object.__setattr__(self, "distortion", _effective(self.distortion))

    @property
    def kind(self) -> str:
        """Name the data set; each has a field of this name."""
        raise NotImplementedError

    @property
    def channels(self) -> int:
        """How many channels its images have: 3 for colour, 1 for grey."""
        return 3

    @property
    def licence(self) -> str:
        """What is known of the licence of the images, for the card of an exported network."""
        return f"not known to stnbench ({self.kind})"

    @property
    def training_half(self) -> TrainingHalf | None:
        """How large the training half is, as far as that is known without opening it: for estimates of time."""
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class SignsSpec(DatasetSpec):
    """The embedded synthetic set: 43 classes of signs seen in tracks of 30 frames; train and test are drawn alike.

    ``framing`` says how closely images are cropped (``data/signs/conditions.py`` has the numbers).
    """

    kind: Literal["signs"] = "signs"
    image_size: int = 48
    tracks_per_class: int = 5
    test_tracks_per_class: int = 2
    drawing_seed: int = 1
    framing: Framing = "tight"
    distortion: DistortionSpec | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        _check_photographs(self.image_size, self.distortion)
        object.__setattr__(self, "distortion", _effective(self.distortion))
        require(self.tracks_per_class >= 2, "tracks_per_class", self.tracks_per_class, "at least 2, one to hold out")
        require(self.test_tracks_per_class >= 1, "test_tracks_per_class", self.test_tracks_per_class, "at least 1")

    @property
    def licence(self) -> str:
        """What is known of the licence of the images."""
        return "MIT: the images are drawn by stnbench"

    @property
    def training_half(self) -> TrainingHalf:
        """How large the training half is."""
        return TrainingHalf(CLASSES * FRAMES_PER_TRACK * self.tracks_per_class, CLASSES, FRAMES_PER_TRACK)


@dataclass(frozen=True, kw_only=True, slots=True)
class GtsrbSpec(DatasetSpec):
    """The German Traffic Sign Recognition Benchmark: 39,209 training images in 1,307 tracks, 12,630 test images."""

    kind: Literal["gtsrb"] = "gtsrb"
    image_size: int = 48
    distortion: DistortionSpec | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        _check_photographs(self.image_size, self.distortion)
        object.__setattr__(self, "distortion", _effective(self.distortion))

    @property
    def licence(self) -> str:
        """What is known of the licence of the images."""
        return "none is stated with the official files (GTSRB, Stallkamp et al. 2012, published for research)"

    @property
    def training_half(self) -> TrainingHalf:
        """How large the training half is."""
        return TrainingHalf(GTSRB_TRAIN_IMAGES, CLASSES, FRAMES_PER_TRACK)  # of the official set


@dataclass(frozen=True, kw_only=True, slots=True)
class DigitsSpec(DatasetSpec):
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn brings along, each in ``copies`` distorted versions.

    ``classify``: which digit, 10 classes, one channel. ``addition`` (Jaderberg et al. 2015): the sum of two digits,
    each distorted by itself in a channel of its own, 19 classes. Without a distortion the copies are equal.
    """

    kind: Literal["digits"] = "digits"
    image_size: int = 42
    copies: int = 8
    task: DigitTask = "classify"
    distortion: DistortionSpec | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        _check_digits(self.image_size, self.copies)
        object.__setattr__(self, "distortion", _effective(self.distortion))

    @property
    def channels(self) -> int:
        """One a digit."""
        return 2 if self.task == "addition" else 1

    @property
    def licence(self) -> str:
        """What is known of the licence of the images."""
        return "CC BY 4.0 (Optical Recognition of Handwritten Digits, UCI, as scikit-learn ships it)"

    @property
    def training_half(self) -> TrainingHalf:
        """How large the training half is."""
        return _digits_half(DIGITS_TRAIN, self)


@dataclass(frozen=True, kw_only=True, slots=True)
class MnistSpec(DatasetSpec):
    """MNIST, 60,000 and 10,000 handwritten digits of 28x28 pixels; ``copies`` and ``task`` as for ``DigitsSpec``."""

    kind: Literal["mnist"] = "mnist"
    image_size: int = 42
    copies: int = 1
    task: DigitTask = "classify"
    distortion: DistortionSpec | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        _check_digits(self.image_size, self.copies)
        object.__setattr__(self, "distortion", _effective(self.distortion))

    @property
    def channels(self) -> int:
        """One a digit."""
        return 2 if self.task == "addition" else 1

    @property
    def licence(self) -> str:
        """What is known of the licence of the images."""
        return "CC BY-SA 3.0 (MNIST, LeCun, Cortes and Burges)"

    @property
    def training_half(self) -> TrainingHalf:
        """How large the training half is."""
        return _digits_half(MNIST_TRAIN, self)


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderSpec(DatasetSpec):
    """Images of one's own in class sub-folders: what is in them, not where they lie.

    Attributes:
        name: of the folder or archive.
        digest: over the path and content of every image, and over the table of the folder.
        class_names: in label order.
        train_images: how many there are for training and validation.
        image_size: side of the images after resizing.
        channels: 3 for colour, 1 for grey.
        distortion: what is done to every image.
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
        """Check the values."""
        self.settle()
        _check_photographs(self.image_size, self.distortion)
        object.__setattr__(self, "distortion", _effective(self.distortion))
        require(len(self.class_names) >= 2, "class_names", list(self.class_names), "at least two")
        require(self.channels in (1, 3), "channels", self.channels, "3 for colour, or 1 for grey")

    @property
    def licence(self) -> str:
        """What is known of the licence of the images."""
        return f"not known to stnbench (images of a folder, {self.name})"

    @property
    def training_half(self) -> TrainingHalf:
        """How large the training half is."""
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
    traits={DigitsSpec: [DISTORTS_ITSELF], MnistSpec: [DISTORTS_ITSELF]},
)

AnyDataset = Annotated[DatasetSpec, DATASETS]
"""The specification of any data set, told apart by ``kind``."""


def _digits_half(digits: int, spec: DigitsSpec | MnistSpec) -> TrainingHalf:
    """Of so many digits, each in copies; in pairs where two are added."""
    if spec.task == "addition":
        return TrainingHalf(digits // 2 * spec.copies, _SUMS, spec.copies)
    return TrainingHalf(digits * spec.copies, _DIGITS, spec.copies)


def _effective(distortion: DistortionSpec | None) -> DistortionSpec | None:
    """None as well for a distortion that does nothing."""
    return distortion if distortion is not None and distortion.changes_anything else None


def _check_photographs(image_size: int, distortion: DistortionSpec | None) -> None:
    require(8 <= image_size <= 512, "image_size", image_size, "between 8 and 512 pixels")
    clutter = 0 if distortion is None else distortion.clutter
    require(clutter == 0, "distortion.clutter", clutter, "clutter is for digits; choose a distortion without it")


def _check_digits(image_size: int, copies: int) -> None:
    require(8 <= image_size <= 512, "image_size", image_size, "between 8 and 512 pixels")
    require(1 <= copies <= 10_000, "copies", copies, "from 1 to 10,000")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackSplitSpec(Strict):
    """Hold out ``tracks_per_class`` whole tracks of every class, at most half of a class, drawn by ``seed``."""

    kind: Literal["tracks"] = "tracks"
    tracks_per_class: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        require(self.tracks_per_class >= 1, "tracks_per_class", self.tracks_per_class, "at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class OneTrackSplitSpec(Strict):
    """Hold out one track of every class, never the first: 1,290 images of GTSRB, as in 2015."""

    kind: Literal["one_track"] = "one_track"
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldSplitSpec(Strict):
    """Hold out the ``fold``-th of ``folds`` groups of whole tracks, stratified by class."""

    kind: Literal["folds"] = "folds"
    folds: int = 10
    fold: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        require(self.folds >= 2, "folds", self.folds, "at least 2")
        require(0 <= self.fold < self.folds, "fold", self.fold, f"from 0 to {self.folds - 1}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AllSplitSpec(Strict):
    """Hold out nothing: the last training, after everything was chosen on held-out tracks.

    The validation images are one track of every class (``OneTrackSplitSpec``) and are trained on as well. Epochs report
    them as an alarm for trainings that fail; they are no score, so reports leave them out and planners refuse them.
    """

    kind: Literal["all"] = "all"
    seed: int = 0


NO_SCORE = "the validation images were trained on as well (split=all): an alarm, and no score"

SplitSpec = Annotated[TrackSplitSpec | OneTrackSplitSpec | FoldSplitSpec | AllSplitSpec, Discriminator("kind")]


Contrast = Literal["none", "image_adjustment", "histogram_equalisation", "clahe", "contrast_normalisation"]
"""How the contrast of images is adjusted; ``networks/contrast.py`` defines each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessSpec(Strict):
    """What is done to images in [0, 1] before the network.

    ``contrast``: an adjustment of every image for itself (Cireşan et al. 2012), before all else.
    ``global_norm``: one mean and one standard deviation of the training images, over pixels and channels together.
    ``contrastive_norm``: then local contrast normalisation with a gaussian kernel of side ``kernel_size``, which is 7
    where there is no such norm.
    """

    contrast: Contrast = "none"
    global_norm: bool = True
    contrastive_norm: bool = True
    kernel_size: int = 7

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        odd = self.kernel_size % 2 == 1 and self.kernel_size >= 3
        require(odd, "kernel_size", self.kernel_size, "an odd number of at least 3")
        if not self.contrastive_norm:
            object.__setattr__(self, "kernel_size", 7)
