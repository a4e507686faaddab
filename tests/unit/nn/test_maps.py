"""Sizes of maps agree with what torch makes."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stnbench.nn.initialization import MapSize, conv


@settings(max_examples=30, deadline=None)
@given(height=st.integers(8, 20), width=st.integers(8, 20), kernel=st.integers(1, 7), padding=st.integers(0, 3))
def test_sizes_are_those_of_torch(height: int, width: int, kernel: int, padding: int) -> None:
    """Convolution and pooling give the height and width that torch gives."""
    size = MapSize(2, height, width).convolved(3, kernel=kernel, padding=padding).pooled()
    with torch.device("meta"):
        maps = torch.nn.MaxPool2d(2)(conv(2, 3, kernel=kernel, padding=padding)(torch.empty(1, 2, height, width)))
    assert tuple(maps.shape[1:]) == (size.channels, size.height, size.width)
    assert size.numbers == maps[0].numel()


def test_a_map_without_rows_or_columns_is_empty() -> None:
    """One pixel is a map, none is not; a kernel larger than the map leaves less than none."""
    assert not MapSize(1, 1, 1).is_empty
    assert MapSize(1, 1, 4).pooled().is_empty
    assert MapSize(1, 2, 2).convolved(1, kernel=7, padding=0).is_empty
    assert str(MapSize(3, 4, 5)) == "3 x 4 x 5"
