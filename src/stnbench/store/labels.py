"""Predicted labels as bytes: unsigned little-endian integers end to end, one byte each where that is enough."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from stnbench.core.errors import StoreError


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedLabels:
    """Labels as bytes; ``dtype`` is ``uint8`` or ``uint16``."""

    dtype: str
    data: bytes


def pack_labels(labels: Sequence[int]) -> PackedLabels:
    """Labels as bytes.

    Raises: StoreError for a label outside 0 to 65535.
    """
    largest = max(labels, default=0)
    if largest > 0xFFFF or min(labels, default=0) < 0:
        wrong = next(label for label in labels if not 0 <= label <= 0xFFFF)
        raise StoreError(f"the predicted label {wrong} cannot be stored", remedy="labels are from 0 to 65535")
    if largest <= 0xFF:
        return PackedLabels(dtype="uint8", data=bytes(labels))
    return PackedLabels(dtype="uint16", data=struct.pack(f"<{len(labels)}H", *labels))


def unpack_labels(packed: PackedLabels) -> tuple[int, ...]:
    """The labels of the bytes."""
    if packed.dtype == "uint8":
        return tuple(packed.data)
    return struct.unpack(f"<{len(packed.data) // 2}H", packed.data)
