"""What every data set keeps to, whichever it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_mnist import write_mnist

from stnbench.data.base import Dataset, ImageSet
from stnbench.data.build import dataset_info, open_dataset
from stnbench.data.cache import images_digest
from stnbench.data.splits import split_tracks
from stnbench.spec.data import (
    DatasetSpec,
    DigitsSpec,
    DistortionSpec,
    GtsrbSpec,
    MnistSpec,
    OneTrackSplitSpec,
    SignsSpec,
    TrackSplitSpec,
)

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
    "digits": DigitsSpec(image_size=SIZE, copies=2, distortion=CLUTTERED),
    "digits_elastic": DigitsSpec(image_size=SIZE, copies=1, distortion=ELASTIC),
    "digits_addition": DigitsSpec(image_size=SIZE, copies=2, task="addition", distortion=PERTURBED),
    "mnist": MnistSpec(image_size=SIZE),
}

SLOW = {"signs", "signs_perturbed"}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SPECS]
)
def spec(request: pytest.FixtureRequest) -> DatasetSpec:
    """Each set in turn, as small as it can be, of images of SIZE pixels."""
    return SPECS[request.param]


@pytest.fixture(scope="module")
def dataset(spec: DatasetSpec, tmp_path_factory: pytest.TempPathFactory, fake_gtsrb: Any) -> Dataset:
    """The set, from made-up files where it is read from files."""
    root: Path = tmp_path_factory.mktemp(spec.kind)
    if spec.kind == "gtsrb":
        fake_gtsrb.write_train(root)
        fake_gtsrb.write_test(root)
    if spec.kind == "mnist":
        write_mnist(root)
    return open_dataset(spec, root=root, workers=1)


@pytest.fixture(params=["train", "test"])
def half(request: pytest.FixtureRequest, dataset: Dataset) -> ImageSet:
    """Each half in turn."""
    return dataset.train() if request.param == "train" else dataset.test()


def test_every_array_has_one_row_an_image(spec: DatasetSpec, half: ImageSet) -> None:
    """Types and shapes are those of the contract, and those that were known beforehand."""
    n = len(half)
    assert n > 0
    expected = {
        "images": (np.uint8, (n, *dataset_info(spec).image_shape)),
        "labels": (np.int64, (n,)),
        "tracks": (np.int64, (n,)),
        "frames": (np.int64, (n,)),
        "roi": (np.float32, (n, 4)),
        "original_size": (np.int64, (n, 2)),
    }
    assert {name: (getattr(half, name).dtype, getattr(half, name).shape) for name in expected} == expected
    assert half.pose is None or (half.pose.dtype, half.pose.shape) == (np.float32, (n, 3, 3))
    points = half.control_points
    assert points is None or (points.dtype, points.shape) == (np.float32, (n, 16, 2))
    assert points is None or half.pose is not None


def test_labels_name_classes(spec: DatasetSpec, dataset: Dataset, half: ImageSet) -> None:
    """Every label has a readable name of its own, known beforehand."""
    names = list(dataset.class_names)
    assert names == list(dataset_info(spec).class_names)
    assert len(set(names)) == len(names)
    assert half.labels.min() >= 0
    assert half.labels.max() < len(names)


def test_boxes_lie_in_the_image(half: ImageSet) -> None:
    """Normalised, not empty, and in the order x1, y1, x2, y2."""
    assert (np.abs(half.roi) <= 1).all()
    assert (half.roi[:, :2] < half.roi[:, 2:]).all()
    assert (half.original_size >= 1).all()


def test_the_pose_carries_the_sign_into_its_box(half: ImageSet) -> None:
    """Where the pose is known, the middle of the sign lies in its box, and the last element is 1."""
    if half.pose is not None:
        assert np.allclose(half.pose[:, 2, 2], 1)
        middle = half.pose[:, :2, 2]
        assert (half.roi[:, :2] <= middle).all()
        assert (middle <= half.roi[:, 2:]).all()


def test_tracks_are_of_one_class_and_frames_count_from_zero(half: ImageSet) -> None:
    """Known tracks have each frame once; unknown ones are -1 throughout."""
    if half.tracks.min() < 0:
        assert set(half.tracks.tolist()) == set(half.frames.tolist()) == {-1}
        return
    for track in np.unique(half.tracks):
        rows = half.tracks == track
        assert len(np.unique(half.labels[rows])) == 1
        assert sorted(half.frames[rows].tolist()) == list(range(rows.sum()))


def test_training_tracks_are_known_and_can_be_split(dataset: Dataset) -> None:
    """Both kinds of split apply to the training half."""
    train = dataset.train()
    for spec in (TrackSplitSpec(), OneTrackSplitSpec()):
        split = split_tracks(spec, train.labels, train.tracks)
        assert len(split.train) + len(split.validation) == len(train)


def test_the_digest_is_that_of_images_and_labels(half: ImageSet) -> None:
    """Anyone can compute it again."""
    assert half.digest == images_digest(half.images, half.labels)


def test_halves_differ(dataset: Dataset) -> None:
    """No image is in both halves."""
    train = {image.tobytes() for image in dataset.train().images}
    assert train.isdisjoint(image.tobytes() for image in dataset.test().images)


def test_images_are_shared_read_only(half: ImageSet) -> None:
    """Processes map the same pages, and none may write them."""
    assert isinstance(half.images, np.memmap)
    assert not half.images.flags.writeable


def test_opening_again_gives_the_same(dataset: Dataset) -> None:
    """A half does not change between two askings."""
    assert dataset.train().digest == dataset.train().digest
