"""Construction of a data set from its specification."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stnbench.core.errors import SpecError
from stnbench.data.base import DataPlaces, Dataset
from stnbench.data.digits import Digits
from stnbench.data.folder import Folder
from stnbench.data.gtsrb.source import Gtsrb
from stnbench.data.photographs import DistortedPhotographs
from stnbench.data.signs.source import Signs
from stnbench.spec.data import (
    DATASETS,
    DISTORTS_ITSELF,
    DatasetSpec,
    DigitsSpec,
    FolderSpec,
    GtsrbSpec,
    MnistSpec,
    SignsSpec,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """The facts about a data set that are known without opening it.

    Attributes:
        class_names: one readable name per class, in label order.
        image_shape: channels, height, width.
    """

    class_names: Sequence[str]
    image_shape: tuple[int, int, int]


def dataset_info(spec: DatasetSpec) -> DatasetInfo:
    """Return the class names and the image shape of a data set without reading any file."""
    names = _built(spec, DataPlaces(root=Path(), builds=False)).class_names
    return DatasetInfo(class_names=names, image_shape=(spec.channels, spec.image_size, spec.image_size))


def open_dataset(
    spec: DatasetSpec, *, root: Path, workers: int, source: Path | None = None, builds: bool = True
) -> Dataset:
    """Return the data set of a specification; nothing is read or made until a half is requested.

    Args:
        spec: the specification of the set.
        root: the data folder; caches lie in its ``cache/``.
        workers: the number of processes that draw missing signs; everything else is made by one.
        source: the folder with GTSRB's official files, or with ``mnist/``; ``root`` if it is None.
        builds: whether a missing cache is made; if not, its half raises DataMissingError.

    Raises:
        UnknownNameError: if the data set is not registered.
        SpecError: if a data set from outside is not a ``Dataset``.
    """
    places = DataPlaces(root=root, source=source, workers=workers, builds=builds)
    if spec.distortion is None or DATASETS.has_trait(spec.kind, DISTORTS_ITSELF):
        return _built(spec, places)
    images = _built(dataclasses.replace(spec, distortion=None), places)
    return DistortedPhotographs(
        images, name=spec.kind, distortion=spec.distortion, cache=places.cache, builds=places.builds
    )


def _built(spec: DatasetSpec, places: DataPlaces) -> Dataset:
    """Build the registered data set of a specification; photographs are left undistorted.

    Raises:
        UnknownNameError: if the data set is not registered.
        SpecError: if a data set from outside is not a ``Dataset``.
    """
    made = DATASETS.implementation(spec.kind)(spec, places)
    if not isinstance(made, Dataset):
        problem = f"the dataset {spec.kind} is {type(made).__name__}"
        raise SpecError(problem, remedy="register a class that extends stnbench.data.base.Dataset")
    return made


def signs(spec: SignsSpec, places: DataPlaces) -> Dataset:
    """Return the synthetic set of traffic signs."""
    return Signs(spec, places.cache, places.workers, builds=places.builds)


def gtsrb(spec: GtsrbSpec, places: DataPlaces) -> Dataset:
    """Return GTSRB, from its official files."""
    return Gtsrb(spec, source=places.source or places.root, cache=places.cache, builds=places.builds)


def digits(spec: DigitsSpec | MnistSpec, places: DataPlaces) -> Dataset:
    """Return the handwritten digits of scikit-learn, or of MNIST."""
    return Digits(spec, source=places.source or places.root, cache=places.cache, builds=places.builds)


def folder(spec: FolderSpec, places: DataPlaces) -> Dataset:
    """Return the user's own images in class sub-folders."""
    roots = [places.root] if places.source is None else [places.source.parent, places.root]
    return Folder(spec, roots=roots, cache=places.cache, builds=places.builds)
