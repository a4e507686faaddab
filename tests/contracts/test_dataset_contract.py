"""What every data set keeps to, whichever it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_mnist import write_mnist

from stnbench.data import Dataset, ImageSet, images_digest
from stnbench.data.build import open_dataset
from stnbench.spec.data import (
    DatasetSpec,
    DigitsSpec,
    DistortionSpec,
    GtsrbSpec,
    MnistSpec,
    SignsSpec,
)
from stnbench.testing.parts import DATASET_CHECKS, Opened

pytestmark = pytest.mark.slow

SIZE = 16

PERTURBED = DistortionSpec(rotation_deg=25, scale_min=0.7, scale_max=1.1, placement="random", corner_noise=0.1)
ELASTIC = DistortionSpec(scale_min=0.75, point_noise=1.5 / 28)
CLUTTERED = DistortionSpec(canvas=60 / 28, placement="random", clutter=6)

SPECS: dict[str, DatasetSpec] = {
    "gtsrb": GtsrbSpec(image_size=SIZE),
    "gtsrb_perturbed": GtsrbSpec(image_size=SIZE, distortion=PERTURBED),
    "gtsrb_elastic": GtsrbSpec(image_size=SIZE, distortion=ELASTIC),
    "signs": SignsSpec(image_size=SIZE, tracks_per_class=2, test_tracks_per_class=1),
    "signs_perturbed": SignsSpec(image_size=SIZE, tracks_per_class=2, test_tracks_per_class=1, distortion=PERTURBED),
    "digits": DigitsSpec(image_size=SIZE, copies=1, distortion=CLUTTERED),
    "digits_elastic": DigitsSpec(image_size=SIZE, copies=1, distortion=ELASTIC),
    "digits_addition": DigitsSpec(image_size=SIZE, copies=2, task="addition", distortion=PERTURBED),
    "mnist": MnistSpec(image_size=SIZE),
}

MARKS = {"signs_perturbed": pytest.mark.thorough}
"""A set that is signs with the distortion of gtsrb_perturbed."""

MADE_UP = {"gtsrb", "mnist"}
"""Sets of which the tests have a few images of a few classes, and not as many as the real ones announce."""


@pytest.fixture(scope="module", params=[pytest.param(name, marks=MARKS.get(name, ())) for name in SPECS])
def spec(request: pytest.FixtureRequest) -> DatasetSpec:
    """Each set in turn, as small as it can be, of images of SIZE pixels."""
    return SPECS[request.param]


@pytest.fixture(scope="module")
def dataset(spec: DatasetSpec, root: Path, fake_gtsrb: Any) -> Dataset:
    """The set, from made-up files where it is read from files."""
    if spec.kind == "gtsrb":
        fake_gtsrb.write_train(root)
        fake_gtsrb.write_test(root)
    if spec.kind == "mnist":
        write_mnist(root)
    return open_dataset(spec, root=root, workers=1)


@pytest.fixture(scope="module")
def root(spec: DatasetSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the set."""
    return tmp_path_factory.mktemp(spec.kind)


@pytest.fixture(scope="module")
def reopened(spec: DatasetSpec, dataset: Dataset, root: Path) -> Dataset:
    """The same set, opened anew from its cache."""
    return open_dataset(spec, root=root, workers=1)


@pytest.fixture(params=["train", "test"])
def half(request: pytest.FixtureRequest, dataset: Dataset) -> ImageSet:
    """Each half in turn."""
    return dataset.train() if request.param == "train" else dataset.test()


@pytest.mark.parametrize("check", DATASET_CHECKS)
def test_every_data_set_keeps_its_promises(check: str, spec: DatasetSpec, dataset: Dataset, reopened: Dataset) -> None:
    """What ``stnbench check-part`` asks of a data set of a user's own."""
    if check in {"announced size", "every class to train on"} and spec.kind in MADE_UP:
        return
    DATASET_CHECKS[check](Opened(spec=spec, dataset=dataset, again=lambda: reopened))


def test_the_digest_is_that_of_images_and_labels(half: ImageSet) -> None:
    """Anyone can compute it again."""
    assert half.digest == images_digest(half.images, half.labels)


def test_images_are_shared_read_only(half: ImageSet) -> None:
    """Processes map the same pages, and none may write them."""
    assert isinstance(half.images, np.memmap)
    assert not half.images.flags.writeable
