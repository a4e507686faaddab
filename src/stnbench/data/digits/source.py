"""The data sets ``digits`` and ``mnist``: distorted when they are first asked for, then kept in a cache."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stnbench.core.identity import Json, digest
from stnbench.data.base import Dataset, ImageSet
from stnbench.data.cache import Recipe, open_or_build
from stnbench.data.cache_manifest import Layout
from stnbench.data.digits.fill import fill, plan_half
from stnbench.data.digits.glyphs import Half, load_sklearn_glyphs
from stnbench.data.digits.mnist import load_mnist_glyphs
from stnbench.spec.codec import to_plain
from stnbench.spec.data import DigitsSpec, MnistSpec

DISTORTION_VERSION: Final = 1
"""Raised when the code changes the images or what is said of them: caches are then made again, and digests differ."""

DIGIT_NAMES: Final = tuple(str(digit) for digit in range(10))
SUM_NAMES: Final = tuple(str(total) for total in range(19))


def digit_class_names(spec: DigitsSpec | MnistSpec) -> Sequence[str]:
    """The digits, or their sums."""
    return DIGIT_NAMES if spec.task == "classify" else SUM_NAMES


def digit_channels(spec: DigitsSpec | MnistSpec) -> int:
    """One a digit."""
    return 1 if spec.task == "classify" else 2


class Digits(Dataset):
    """Distorted handwritten digits, a function of the specification alone.

    A track is one handwritten digit, numbered as in its file, and its frames are its copies; in addition a track is one
    pair of digits, numbered by the first, and no digit is in two pairs. So no digit is on both sides of a split by
    tracks. A box is that of the warped 28x28 square, ink or not; in addition it is the box round both, and there is no
    pose, since there would be two.

    Another version of SciPy may change single pixels, which the digest then shows. A cache is not made again where
    other files of MNIST take the place of those that it was made from.

    Args:
        spec: which digits, and what is done to them.
        source: the folder below which the files of MNIST lie.
        cache: the folder of caches.
        builds: whether a cache that is missing is made.
    """

    def __init__(self, spec: DigitsSpec | MnistSpec, *, source: Path, cache: Path, builds: bool = True) -> None:
        self._spec = spec
        self._source = source
        self._cache = cache
        self._builds = builds

    @property
    def class_names(self) -> Sequence[str]:
        """``0`` to ``9``, or to ``18`` in addition."""
        return digit_class_names(self._spec)

    def train(self) -> ImageSet:
        """The training half, validation included: 1,438 digits of ``digits``, 60,000 of ``mnist``.

        Raises: DataMissingError or DataCorruptError for MNIST's files; DataCorruptError if the cache is wrong;
        FolderError if it cannot be written.
        """
        return self._half("train")

    def test(self) -> ImageSet:
        """The test half: 359 digits of ``digits``, 10,000 of ``mnist``, distorted alike. Raises: as ``train``."""
        return self._half("test")

    def _half(self, half: Half) -> ImageSet:
        identity: dict[str, Json] = {"version": DISTORTION_VERSION, "half": half, **to_plain(self._spec)}
        return open_or_build(
            self._cache / f"{self._spec.kind}-{half}-{digest(identity)}",
            identity=identity,
            recipe=lambda: self._recipe(half),
            builds=self._builds,
        )

    def _recipe(self, half: Half) -> Recipe:
        spec = self._spec
        glyphs = load_sklearn_glyphs(half) if spec.kind == "digits" else load_mnist_glyphs(half, self._source)
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
