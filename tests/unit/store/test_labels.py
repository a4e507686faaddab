"""Labels and places come back from their bytes as they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import StoreError
from stnbench.store.rows import PackedLabels, pack_labels, pack_places, unpack_labels, unpack_places


@given(st.lists(st.integers(0, 0xFFFF)))
def test_labels_come_back(labels: list[int]) -> None:
    """Any labels from 0 to 65535 survive, and none takes more than two bytes."""
    packed = pack_labels(labels)
    assert unpack_labels(packed) == tuple(labels)
    assert len(packed.data) == len(labels) * (1 if packed.dtype == "uint8" else 2)


@pytest.mark.parametrize(
    ("labels", "packed"),
    [
        ((), PackedLabels(dtype="uint8", data=b"")),
        ((0, 42, 255), PackedLabels(dtype="uint8", data=b"\x00\x2a\xff")),
        ((0, 256), PackedLabels(dtype="uint16", data=b"\x00\x00\x00\x01")),
    ],
)
def test_the_bytes_are_little_endian(labels: tuple[int, ...], packed: PackedLabels) -> None:
    """The format is fixed, whatever machine writes it; one byte a label is used where that is enough."""
    assert pack_labels(labels) == packed


@pytest.mark.parametrize("label", [-1, 65536])
def test_a_label_that_does_not_fit_is_refused(label: int) -> None:
    """No label is cut to fit."""
    with pytest.raises(StoreError, match=f"label {label} cannot"):
        pack_labels((3, label))


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_places_come_back(places: list[int]) -> None:
    """Any places of four bytes survive, little-endian."""
    data = pack_places(places)
    assert unpack_places(data) == tuple(places)
    assert data == b"".join(place.to_bytes(4, "little") for place in places)


@pytest.mark.parametrize("place", [-1, 2**32])
def test_a_place_that_does_not_fit_is_refused(place: int) -> None:
    """A track of -1 is unknown, and is left out by who stores it."""
    with pytest.raises(StoreError, match="cannot be stored"):
        pack_places((3, place))
