"""Identity is the content, whatever its order."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import SpecError
from stnbench.core.identity import Json, canonical_json, digest

KEYS = st.text(max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_digest_ignores_the_order_of_keys(mapping: dict[str, Json]) -> None:
    """A mapping and its reverse have one digest."""
    backwards = dict(reversed(mapping.items()))

    assert digest(mapping) == digest(backwards)


def test_digest_is_sixteen_hexadecimal_digits_that_never_change() -> None:
    """The digest of a known value is golden: a change would orphan every stored trial."""
    assert digest({"a": 1, "b": [1.5, "ü", None]}) == "f3865fe8d7c62724"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_have_no_identity(number: float) -> None:
    """NaN is not equal to itself, so it cannot identify anything."""
    with pytest.raises(SpecError, match="finite"):
        canonical_json({"x": number})
