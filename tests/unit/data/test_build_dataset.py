"""A specification names its data set."""

from pathlib import Path
from typing import Any

import pytest

from stnbench.core.errors import DataMissingError
from stnbench.data.build import DistortedPhotographs, dataset_info, open_dataset
from stnbench.data.digits import Digits
from stnbench.data.gtsrb import Gtsrb
from stnbench.data.signs import Signs
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


@pytest.mark.parametrize("distortion", [None, TURNED])
def test_what_may_not_build_opens_what_is_there(
    distortion: DistortionSpec | None, tmp_path: Path, fake_gtsrb: Any
) -> None:
    """A half without a cache is missing, also where its source is there; one with a cache is the same images."""
    fake_gtsrb.write_train(tmp_path)
    fake_gtsrb.write_test(tmp_path)
    specs: list[DatasetSpec] = [
        GtsrbSpec(image_size=16, distortion=distortion),
        SignsSpec(image_size=8, tracks_per_class=2, test_tracks_per_class=1, distortion=distortion),
        DigitsSpec(image_size=8, copies=1),
    ]
    for spec in specs:
        closed = open_dataset(spec, root=tmp_path / "data", source=tmp_path, workers=1, builds=False)
        for half in (closed.train, closed.test):
            with pytest.raises(DataMissingError, match="there is no cache"):
                half()
        assert not (tmp_path / "data").exists()
    made = open_dataset(specs[0], root=tmp_path / "data", source=tmp_path, workers=1).train()
    opened = open_dataset(specs[0], root=tmp_path / "data", source=tmp_path, workers=1, builds=False)

    assert opened.train().digest == made.digest
    with pytest.raises(DataMissingError):
        opened.test()
