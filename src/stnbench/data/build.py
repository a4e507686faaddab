"""A data set from its specification."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from stnbench.data.base import Dataset
from stnbench.data.digits.source import Digits, digit_channels, digit_class_names
from stnbench.data.distort.photographs import DistortedPhotographs
from stnbench.data.folder import Folder
from stnbench.data.gtsrb.source import Gtsrb
from stnbench.data.gtsrb_classes import GTSRB_CLASSES
from stnbench.data.signs.source import Signs
from stnbench.spec.data import DatasetSpec, DigitsSpec, FolderSpec, GtsrbSpec, MnistSpec, SignsSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """What is known of a data set without opening it.

    Attributes:
        class_names: one readable name a class, in label order.
        image_shape: channels, height, width.
    """

    class_names: Sequence[str]
    image_shape: tuple[int, int, int]


def dataset_info(spec: DatasetSpec) -> DatasetInfo:
    """What is known of the data set without opening it; reads no file."""
    sides = (spec.image_size, spec.image_size)
    match spec:
        case DigitsSpec() | MnistSpec():
            return DatasetInfo(class_names=digit_class_names(spec), image_shape=(digit_channels(spec), *sides))
        case GtsrbSpec() | SignsSpec():
            return DatasetInfo(class_names=GTSRB_CLASSES, image_shape=(spec.channels, *sides))
        case FolderSpec():
            return DatasetInfo(class_names=spec.class_names, image_shape=(spec.channels, *sides))
        case _:
            assert_never(spec)


def open_dataset(
    spec: DatasetSpec, *, root: Path, workers: int, source: Path | None = None, builds: bool = True
) -> Dataset:
    """The data set; nothing is read or made until a half is asked for.

    Args:
        spec: which set.
        root: the data folder; caches lie in its ``cache/``.
        workers: processes that draw signs that are missing; everything else is made by one.
        source: the folder with GTSRB's official files, or with ``mnist/``; ``root`` where it is None.
        builds: whether a cache that is missing is made; without, its half is a DataMissingError.
    """
    cache = root / "cache"
    match spec:
        case DigitsSpec() | MnistSpec():
            return Digits(spec, source=source or root, cache=cache, builds=builds)
        case GtsrbSpec():
            plain_gtsrb = dataclasses.replace(spec, distortion=None)
            photographs: Dataset = Gtsrb(plain_gtsrb, source=source or root, cache=cache, builds=builds)
        case FolderSpec():
            plain = dataclasses.replace(spec, distortion=None)
            roots = [root] if source is None else [source.parent, root]
            photographs = Folder(plain, roots=roots, cache=cache, builds=builds)
        case SignsSpec():
            photographs = Signs(dataclasses.replace(spec, distortion=None), cache, workers, builds=builds)
        case _:
            assert_never(spec)
    if spec.distortion is None:
        return photographs
    return DistortedPhotographs(photographs, name=spec.kind, distortion=spec.distortion, cache=cache, builds=builds)
