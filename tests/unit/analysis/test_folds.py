"""The accuracy over the folds of a cross-validation, with its interval."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.analysis.effects import t_estimate
from stnbench.analysis.verdicts import FOLDS_METHOD, folds_accuracy
from stnbench.core.errors import SpecError

FOLDS = st.lists(st.tuples(st.integers(0, 100), st.integers(100, 1000)), min_size=1, max_size=10)


def test_golden() -> None:
    """10, 20 and 30 errors of 1,000 each: t of 2 degrees, 4.3027, times a deviation of 0.57735 points, over 2 %."""
    found = folds_accuracy([10, 20, 30], [1000, 1000, 1000])
    assert (found.n, found.method, found.clipped) == (3, FOLDS_METHOD, False)
    assert found.mean == pytest.approx(0.98)
    assert found.low == pytest.approx(1 - 0.02 * 3.46279, abs=1e-6)  # exp(4.302653 * 0.0057735 / 0.02)
    assert found.high == pytest.approx(1 - 0.02 / 3.46279, abs=1e-6)


@given(folds=FOLDS)
def test_the_accuracy_is_that_of_all_images_and_lies_in_its_interval(folds: list[tuple[int, int]]) -> None:
    """Whatever the sizes of folds, the mean is 1 - errors / images, and the interval lies in [0, 1]."""
    errors, images = zip(*folds, strict=True)
    found = folds_accuracy(errors, images)
    assert found.mean == pytest.approx(1 - sum(errors) / sum(images))
    if found.low is not None and found.high is not None:
        assert 0 <= found.low <= found.mean <= found.high <= 1
    assert (found.low is None) == (len(folds) == 1 or sum(errors) == 0)


@given(errors=st.lists(st.integers(480, 520), min_size=3, max_size=10))
def test_where_errors_vary_little_it_is_t_over_the_folds(errors: list[int]) -> None:
    """For equal folds whose accuracies are much alike, the logarithm changes nothing that matters."""
    found, plain = folds_accuracy(errors, [1000] * len(errors)), t_estimate([1 - wrong / 1000 for wrong in errors])
    assert found.mean == pytest.approx(plain.mean)
    assert found.low == pytest.approx(plain.low, abs=0.006)
    assert found.high == pytest.approx(plain.high, abs=0.006)


def test_one_wild_fold_is_cut_at_0() -> None:
    """An interval that would reach below 0 ends there, and says so."""
    found = folds_accuracy([0, 900], [1000, 1000])
    assert (found.low, found.clipped) == (0.0, True)


def test_no_folds_are_an_error() -> None:
    """There is nothing to be said of them."""
    with pytest.raises(SpecError, match="no folds"):
        folds_accuracy([], [])
