"""Binary portable pixmaps (P6), the format of every image of GTSRB."""

import re

import numpy as np
from numpy.typing import NDArray

from stnbench.core.errors import DataCorruptError

_GAP = rb"(?:\s|#[^\n]*\n)++"
_HEADER = re.compile(rb"P6" + _GAP + rb"(\d{1,5})" + _GAP + rb"(\d{1,5})" + _GAP + rb"(\d{1,5})\s")

REMEDY = "extract or download the archive again"


def parse_ppm(data: bytes, name: str) -> NDArray[np.uint8]:
    """The pixels of a P6 file of 8 bits a channel, uint8 (height, width, 3), RGB; a read-only view of ``data``.

    Source: the netpbm project's format description. ``name`` is the file, for messages.
    Raises: DataCorruptError if it is no such file, or has too few or too many bytes.
    """
    header = _HEADER.match(data)
    if header is None:
        raise DataCorruptError(f"{name} is not a PPM image (it starts with {data[:8]!r})", remedy=REMEDY)
    width, height, maximum = (int(number) for number in header.groups())
    if maximum != 255 or not width or not height:
        problem = f"{name} is a PPM image of {width}x{height} pixels with values to {maximum}, expected to 255"
        raise DataCorruptError(problem, remedy=REMEDY)
    size = height * width * 3
    found = len(data) - header.end()
    if found != size:
        raise DataCorruptError(f"{name} has {found} bytes of pixels instead of {size}", remedy=REMEDY)
    return np.frombuffer(data, np.uint8, size, header.end()).reshape(height, width, 3)
