"""The parser of P6 images takes whole files and refuses every other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import DataCorruptError
from stnbench.data.gtsrb import parse_ppm


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([b"\n", b" ", b"\t\n", b"\n# made by hand\n"]))
def test_whole_files_are_read(height: int, width: int, gap: bytes) -> None:
    """Pixels come as rows of RGB, whatever white space or comments stand in the header."""
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    data = gap.join([b"P6", str(width).encode(), str(height).encode(), b"255\n"]) + pixels.tobytes()
    assert parse_ppm(data, "x.ppm").tolist() == pixels.tolist()


def test_pixels_that_look_like_white_space_are_pixels() -> None:
    """One character ends the header; what follows is data."""
    assert parse_ppm(b"P6 1 1 255\n\n #", "x.ppm").tolist() == [[[10, 32, 35]]]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not a PPM"),
        (b"P5 1 1 255\n\0\0\0", "not a PPM"),
        (b"\xff\xd8\xff\xe0 jpeg", "not a PPM"),
        (b"P6 1 -1 255\n\0\0\0", "not a PPM"),
        (b"P6 1 1", "not a PPM"),
        (b"P6 0 1 255\n", "0x1 pixels"),
        (b"P6 1 1 65535\n\0\0\0\0\0\0", "values to 65535"),
        (b"P6 2 2 255\n" + b"\0" * 11, "11 bytes of pixels instead of 12"),
        (b"P6 2 2 255\n" + b"\0" * 13, "13 bytes of pixels instead of 12"),
    ],
)
def test_other_files_are_refused(data: bytes, problem: str) -> None:
    """The file and what is wrong with it are named."""
    with pytest.raises(DataCorruptError, match=rf"x\.ppm .*{problem}"):
        parse_ppm(data, "x.ppm")
