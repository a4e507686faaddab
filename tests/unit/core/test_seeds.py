"""Seeds are derived by purpose."""

from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.identity import derive_seed

PURPOSES = st.lists(st.sampled_from(["init", "order", "augment"]) | st.integers(0, 100), max_size=3)


@given(st.integers(0, 2**31), PURPOSES)
def test_same_purpose_same_seed(seed: int, purpose: list[str | int]) -> None:
    """The same arguments give the same number, below 2**63."""
    assert derive_seed(seed, *purpose) == derive_seed(seed, *purpose)
    assert 0 <= derive_seed(seed, *purpose) < 2**63


@given(st.integers(0, 2**31), PURPOSES, PURPOSES)
def test_other_purpose_other_seed(seed: int, one: list[str | int], other: list[str | int]) -> None:
    """Two purposes, and two seeds, do not share a stream."""
    if one != other:
        assert derive_seed(seed, *one) != derive_seed(seed, *other)
    assert derive_seed(seed, *one) != derive_seed(seed + 1, *one)
