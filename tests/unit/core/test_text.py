"""Text from outside, made safe to print."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.text import printable


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
