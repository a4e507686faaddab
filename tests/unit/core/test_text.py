"""Text from outside, made safe to print."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import SpecError
from stnbench.core.text import Price, printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20,20,20 · affine", "20,20,20 · affine"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\u202eb", "a\\u202eb"),
        ("two\nlines\tand  more ", "two lines and more"),
        ("\udc80", "\\udc80"),
        ("\U000e0001", "\\U000e0001"),
        ("\x9b2J", "\\x9b2J"),
        ("漢字", "漢字"),
    ],
)
def test_what_steers_a_terminal_is_shown_as_an_escape(text: str, expected: str) -> None:
    """Escape sequences and direction marks are visible and without effect; other text is as it was."""
    assert printable(text) == expected


@given(st.text())
def test_nothing_invisible_is_left(text: str) -> None:
    """Whatever the text is, the result is one printable line, and printing it again changes nothing."""
    shown = printable(text)
    assert all(unicodedata.category(letter)[0] != "C" for letter in shown)
    assert shown.splitlines() in ([], [shown])
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("2.50 EUR", "5.00 EUR (2.00 device hours at 2.50 EUR)"),
        (" 0.03 US $ ", "0.06 US $ (2.00 device hours at 0.03 US $)"),
        ("1000", "2,000.00 (2.00 device hours at 1,000.00)"),
        ("0 EUR", "0.00 EUR (2.00 device hours at 0.00 EUR)"),
    ],
)
def test_a_price_is_that_of_device_hours(written: str, said: str) -> None:
    """With any currency or none; cheap hours keep two digits."""
    price = Price.from_environment({"STNBENCH_PRICE": written})
    assert price is not None
    assert price.of(2.0) == said


@pytest.mark.parametrize("written", ["EUR 2", "-1 EUR", "nan", "inf EUR", "2,50 EUR"])
def test_what_is_no_price_is_refused(written: str) -> None:
    """In one line that names the variable; an empty one is none."""
    assert Price.from_environment({"STNBENCH_PRICE": " "}) is None
    with pytest.raises(SpecError, match="STNBENCH_PRICE is"):
        Price.from_environment({"STNBENCH_PRICE": written})
