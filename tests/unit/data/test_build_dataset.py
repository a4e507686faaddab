"""A specification names its data set."""

from pathlib import Path

import pytest

from stnbench.data.build import dataset_info, open_dataset
from stnbench.data.digits.source import Digits
from stnbench.data.distort.photographs import DistortedPhotographs
from stnbench.data.gtsrb.source import Gtsrb
from stnbench.data.signs.source import Signs
from stnbench.spec.data import CLASSES, DatasetSpec, DigitsSpec, DistortionSpec, GtsrbSpec, MnistSpec, SignsSpec

TURNED = DistortionSpec(rotation_deg=25)


@pytest.mark.parametrize(
    ("spec", "kind", "classes", "channels"),
    [
        (GtsrbSpec(image_size=32), Gtsrb, CLASSES, 3),
        (SignsSpec(image_size=32), Signs, CLASSES, 3),
        (GtsrbSpec(image_size=32, distortion=TURNED), DistortedPhotographs, CLASSES, 3),
        (SignsSpec(image_size=32, distortion=TURNED), DistortedPhotographs, CLASSES, 3),
        (DigitsSpec(image_size=32), Digits, 10, 1),
        (DigitsSpec(image_size=32, task="addition", distortion=TURNED), Digits, 19, 2),
        (MnistSpec(image_size=32), Digits, 10, 1),
    ],
)
def test_building_touches_no_file(spec: DatasetSpec, kind: type, classes: int, channels: int, tmp_path: Path) -> None:
    """What is known beforehand is what the set then says, and nothing is made until a half is asked for."""
    dataset = open_dataset(spec, root=tmp_path / "data", workers=1)
    assert isinstance(dataset, kind)
    assert list(dataset.class_names) == list(dataset_info(spec).class_names)
    assert len(dataset.class_names) == classes
    assert dataset_info(spec).image_shape == (channels, 32, 32)
    assert not (tmp_path / "data").exists()
