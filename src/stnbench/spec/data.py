"""The data of a trial: the set, what is held out of it, and what is done to images before the network."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Discriminator

from stnbench.spec.check import require
from stnbench.spec.codec import Strict

Split = Literal["train", "validation", "test"]
"""Where a number comes from; test is sealed from planners and pruners."""

CLASSES = 43
"""GTSRB's classes, which ``signs`` draws as well."""

FRAMES_PER_TRACK = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class SignsSpec(Strict):
    """The embedded synthetic set: 43 classes of signs seen in tracks of 30 frames; train and test are drawn alike."""

    kind: Literal["signs"] = "signs"
    image_size: int = 48
    tracks_per_class: int = 5
    test_tracks_per_class: int = 2
    drawing_seed: int = 1

    def __post_init__(self) -> None:
        """Check the values."""
        require(8 <= self.image_size <= 512, "image_size", self.image_size, "between 8 and 512 pixels")
        require(self.tracks_per_class >= 2, "tracks_per_class", self.tracks_per_class, "at least 2, one to hold out")
        require(self.test_tracks_per_class >= 1, "test_tracks_per_class", self.test_tracks_per_class, "at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class GtsrbSpec(Strict):
    """The German Traffic Sign Recognition Benchmark: 39,209 training images in 1,307 tracks, 12,630 test images."""

    kind: Literal["gtsrb"] = "gtsrb"
    image_size: int = 48

    def __post_init__(self) -> None:
        """Check the values."""
        require(8 <= self.image_size <= 512, "image_size", self.image_size, "between 8 and 512 pixels")


DatasetSpec = Annotated[SignsSpec | GtsrbSpec, Discriminator("kind")]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackSplitSpec(Strict):
    """Hold out ``tracks_per_class`` whole tracks of every class, at most half of a class, drawn by ``seed``."""

    kind: Literal["tracks"] = "tracks"
    tracks_per_class: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
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
        require(self.folds >= 2, "folds", self.folds, "at least 2")
        require(0 <= self.fold < self.folds, "fold", self.fold, f"from 0 to {self.folds - 1}")


SplitSpec = Annotated[TrackSplitSpec | OneTrackSplitSpec | FoldSplitSpec, Discriminator("kind")]


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessSpec(Strict):
    """What is done to images in [0, 1] before the network.

    ``global_norm``: one mean and one standard deviation of the training images, over pixels and channels together.
    ``contrastive_norm``: then local contrast normalisation with a gaussian kernel of side ``kernel_size``.
    """

    global_norm: bool = True
    contrastive_norm: bool = True
    kernel_size: int = 7

    def __post_init__(self) -> None:
        """Check the values."""
        odd = self.kernel_size % 2 == 1 and self.kernel_size >= 3
        require(odd, "kernel_size", self.kernel_size, "an odd number of at least 3")
