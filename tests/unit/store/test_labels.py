"""Predicted labels come back from their bytes as they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import StoreError
from stnbench.store.labels import PackedLabels, pack_labels, unpack_labels


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
