"""What a locale lacks is written as people write it without."""

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.command import forgive_encoding


def written(text: str, encoding: str) -> bytes:
    """What a stream of an encoding has of a text."""
    raw = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        stream = io.TextIOWrapper(raw, encoding=encoding)
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", io.StringIO())  # which cannot be set up, and is left alone
        forgive_encoding()
        stream.write(text)
        stream.flush()
    return raw.getvalue()


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("latin-1", b"92.0 [91-93], 3 \xd7 3 \xb7 J\xf6rg ? \\udcff"),
        ("ascii", b"92.0 [91-93], 3 x 3 * J?rg ? \\udcff"),
        ("utf-8", "92.0 [91\u201393], 3 \xd7 3 · Jörg 木 \\udcff".encode()),
    ],
)
def test_a_dash_becomes_a_hyphen(encoding: str, shown: bytes) -> None:
    """A letter that cannot be written at all becomes a question mark; what the encoding has stays."""
    assert written("92.0 [91\u201393], 3 \xd7 3 · Jörg 木 \udcff", encoding) == shown


@given(st.text(st.characters()), st.sampled_from(["ascii", "latin-1", "cp1252", "cp437", "koi8-r", "utf-8"]))
def test_any_text_can_be_written_in_any_locale(text: str, encoding: str) -> None:
    """No command ends of one character."""
    assert len(written(text, encoding)) >= len(text) - text.count("\n")
