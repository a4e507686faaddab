"""GTSRB as a data set: found, cached once, opened by every process."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from stnbench.core.errors import DataError
from stnbench.core.identity import Json, digest
from stnbench.data.base import Dataset, ImageSet
from stnbench.data.cache import Recipe, open_cache, open_or_build
from stnbench.data.cache_manifest import Layout, read_manifest
from stnbench.data.gtsrb.half import Half, HalfName, fill_arrays, find_half
from stnbench.data.gtsrb.locate import missing_test, missing_train
from stnbench.data.gtsrb.resize import RESIZE_VERSION
from stnbench.data.gtsrb_classes import GTSRB_CLASSES
from stnbench.spec.data import GtsrbSpec

READER_VERSION = 1
"""Raised when the arrays of a cache change meaning: caches are then made again."""

VERSIONS: Mapping[str, Json] = {"set": "gtsrb", "reader": READER_VERSION, "resize": RESIZE_VERSION}


class Gtsrb(Dataset):
    """The German Traffic Sign Recognition Benchmark, resized to squares.

    A half is cached in ``cache / gtsrb-<half>-<size>-<digest>``; the digest covers the size, the versions of reader and
    resizing, the number of images and the tables, not where they lie. Where the source is there, it decides which
    cache is meant. Where it is not (deleted after preparing, or prepared with ``--root``), the one cache of the half
    and size is opened; with several, none is guessed. Changed pixels under an unchanged table are not noticed.

    Args:
        spec: the size.
        source: the folder with the official tree or archives.
        cache: the folder of caches.
        builds: whether a cache that is missing is made.
    """

    def __init__(self, spec: GtsrbSpec, *, source: Path, cache: Path, builds: bool = True) -> None:
        self._image_size = spec.image_size
        self._source = source
        self._cache = cache
        self._builds = builds
        self._opened: dict[HalfName, ImageSet] = {}

    @property
    def class_names(self) -> Sequence[str]:
        """The 43 signs."""
        return GTSRB_CLASSES

    def train(self) -> ImageSet:
        """The training half, 39,209 images if it is the official one; tracks are class * 100000 + track."""
        return self._half("train")

    def test(self) -> ImageSet:
        """The test half, 12,630 images if it is the official one; tracks and frames are -1."""
        return self._half("test")

    def _half(self, half: HalfName) -> ImageSet:
        if half not in self._opened:
            found = find_half(self._source, half)
            self._opened[half] = self._open_prepared(half) if found is None else self._open(found)
        return self._opened[half]

    def _open(self, half: Half) -> ImageSet:
        identity: dict[str, Json] = {"image_size": self._image_size, **VERSIONS, **half.fingerprint()}
        return open_or_build(
            self._cache / f"gtsrb-{half.half}-{self._image_size}-{digest(identity)}",
            identity=identity,
            recipe=lambda: Recipe(
                layout=Layout(count=len(half), image_size=self._image_size, has_pose=False),
                fill=lambda arrays: fill_arrays(half, arrays),
            ),
            builds=self._builds,
        )

    def _open_prepared(self, half: HalfName) -> ImageSet:
        """The one cache of this half and size, for a source that is not there."""
        folders = sorted(self._cache.glob(f"gtsrb-{half}-{self._image_size}-*"))
        prepared = [folder for folder in folders if _is_current(folder)]
        if len(prepared) > 1:
            names = ", ".join(str(folder) for folder in prepared)
            problem = (
                f"the source of GTSRB's {half} half is not below {self._source}, and there are {len(prepared)} caches"
            )
            raise DataError(problem, remedy=f"delete those that are not meant: {names}")
        if not prepared:
            raise missing_train(self._source) if half == "train" else missing_test(self._source)
        return open_cache(prepared[0])


def _is_current(folder: Path) -> bool:
    """Whether a cache was made by this version. Raises: DataCorruptError if its manifest is not whole."""
    manifest = read_manifest(folder)
    return manifest is not None and manifest.identity.items() >= VERSIONS.items()
