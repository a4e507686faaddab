"""Labels and places of images as bytes: unsigned little-endian integers end to end.

Labels take one byte each where that is enough, or two; places four.
"""

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
        raise StoreError(f"the label {wrong} cannot be stored", remedy="labels are from 0 to 65535")
    if largest <= 0xFF:
        return PackedLabels(dtype="uint8", data=bytes(labels))
    return PackedLabels(dtype="uint16", data=struct.pack(f"<{len(labels)}H", *labels))


def pack_places(places: Sequence[int]) -> bytes:
    """Places of images, or numbers of tracks, as bytes. Raises: StoreError for one outside 0 to 2**32 - 1."""
    try:
        return struct.pack(f"<{len(places)}I", *places)
    except struct.error as error:
        raise StoreError(
            f"a place or track cannot be stored: {error}", remedy="they are from 0 to 2**32 - 1"
        ) from error


def unpack_places(data: bytes) -> tuple[int, ...]:
    """The places of the bytes."""
    return struct.unpack(f"<{len(data) // 4}I", data)


def unpack_labels(packed: PackedLabels) -> tuple[int, ...]:
    """The labels of the bytes."""
    if packed.dtype == "uint8":
        return tuple(packed.data)
    return struct.unpack(f"<{len(packed.data) // 2}H", packed.data)
