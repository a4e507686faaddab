"""A specification names its data set."""

from pathlib import Path

import pytest

from stnbench.datasets.build import dataset_info, open_dataset
from stnbench.datasets.gtsrb.source import Gtsrb
from stnbench.datasets.signs.source import Signs
from stnbench.spec.data import CLASSES, DatasetSpec, GtsrbSpec, SignsSpec


@pytest.mark.parametrize(("spec", "kind"), [(GtsrbSpec(image_size=32), Gtsrb), (SignsSpec(image_size=32), Signs)])
def test_building_touches_no_file(spec: DatasetSpec, kind: type, tmp_path: Path) -> None:
    """What is known beforehand is what the set then says, and nothing is made until a half is asked for."""
    dataset = open_dataset(spec, root=tmp_path / "data", workers=1)
    assert isinstance(dataset, kind)
    assert list(dataset.class_names) == list(dataset_info(spec).class_names)
    assert len(dataset.class_names) == CLASSES
    assert dataset_info(spec).image_shape == (3, 32, 32)
    assert not (tmp_path / "data").exists()
