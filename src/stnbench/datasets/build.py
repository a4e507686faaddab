"""A data set from its specification."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stnbench.datasets.base import Dataset
from stnbench.datasets.gtsrb.source import Gtsrb
from stnbench.datasets.gtsrb_classes import GTSRB_CLASSES
from stnbench.datasets.signs.source import Signs
from stnbench.spec.data import DatasetSpec, SignsSpec


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
    return DatasetInfo(class_names=GTSRB_CLASSES, image_shape=(3, spec.image_size, spec.image_size))


def open_dataset(spec: DatasetSpec, *, root: Path, workers: int, source: Path | None = None) -> Dataset:
    """The data set; nothing is read or made until a half is asked for.

    Args:
        spec: which set.
        root: the data folder; caches lie in its ``cache/``.
        workers: processes that draw what is missing; GTSRB is read by one, which takes seconds.
        source: the folder with GTSRB's official files, ``root`` where it is None.
    """
    cache = root / "cache"
    if isinstance(spec, SignsSpec):
        return Signs(spec, cache, workers)
    return Gtsrb(spec, source=source or root, cache=cache)
