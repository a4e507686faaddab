"""Durations are read with their unit."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import SpecError
from stnbench.core.text import parse_duration_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("0.5h", 1800),
        ("1h30m", 5400),
        ("2 h", 7200),
        ("10min", 600),
        ("1d", 86_400),
    ],
)
def test_durations_are_read_with_their_unit(text: str, seconds: float) -> None:
    """Seconds, minutes, hours and days, alone or one after another."""
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["2", "90", "0.5", " 7 "])
def test_a_number_without_a_unit_is_refused(text: str) -> None:
    """Two what? The remedy offers the number with each unit."""
    with pytest.raises(SpecError, match=rf"has no unit: write {text.strip()}s, {text.strip()}m or {text.strip()}h"):
        parse_duration_s(text)


@pytest.mark.parametrize("text", ["", "h", "-1s", "0s", "nan", "inf", "2 days", "1h 30", "1h-2m", "9" * 5000, "٣h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """The message shows how to write one, and stays short."""
    with pytest.raises(SpecError, match="30m") as caught:
        parse_duration_s(text)
    assert len(str(caught.value)) < 200


@given(st.text(max_size=30))
def test_any_text_is_a_duration_or_a_clear_error(text: str) -> None:
    """Nothing else is raised, whatever is typed, and what is accepted is above zero."""
    seconds = 1.0
    with contextlib.suppress(SpecError):
        seconds = parse_duration_s(text)
    assert seconds > 0
