"""Intervals and comparisons of configurations."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from stnbench.analysis.effects import (
    ENOUGH_SEEDS,
    accuracy_estimate,
    holm_adjusted,
    paired_difference,
    t_estimate,
    wilson_estimate,
)
from stnbench.core.errors import SpecError

shares = st.floats(0.0, 1.0)


def test_t_interval_has_the_published_width() -> None:
    """For 5 values the half width is 2.776 standard errors (Student's table, 4 degrees of freedom)."""
    values = [0.90, 0.92, 0.94, 0.96, 0.98]
    found = t_estimate(values)
    half = 2.776 * math.sqrt(0.001) / math.sqrt(5)
    assert found.n == 5
    assert found.method == "t over seeds"
    assert found.mean == pytest.approx(0.94)
    assert (found.low, found.high) == pytest.approx((0.94 - half, 0.94 + half), abs=1e-5)


def test_t_interval_of_two_seeds_is_wide() -> None:
    """With one degree of freedom the half width is 12.706 standard errors, and it is shown so."""
    found = t_estimate([0.97, 0.98])
    assert found.high is not None
    assert found.high - found.mean == pytest.approx(12.706 * 0.005, abs=1e-5)


def test_coverage_of_t_interval() -> None:
    """Of 2,000 simulated configurations of 5 seeds, 93 to 97 % of the intervals hold the true mean."""
    rng = np.random.default_rng(0)
    configs = rng.normal(0.9, 0.01, size=(2000, 5)).tolist()
    estimates = [t_estimate(values) for values in configs]
    held = sum((found.low or 0.0) <= 0.9 <= (found.high or 0.0) for found in estimates)
    assert 0.93 <= held / 2000 <= 0.97


def test_coverage_of_wilson_interval() -> None:
    """Of 2,000 simulated runs with accuracy 0.985 on 1,290 images, 93 to 97 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    held = 0
    for correct in rng.binomial(1290, 0.985, size=2000).tolist():
        found = wilson_estimate(correct, 1290)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.985 <= found.high
    assert 0.93 <= held / 2000 <= 0.97


def test_wilson_interval_has_the_published_bounds() -> None:
    """9 of 10 correct: [0.5958, 0.9821] (Wilson 1927; the score interval without continuity correction)."""
    found = accuracy_estimate([9], [10])
    assert (found.n, found.method) == (1, "Wilson, one run")
    assert (found.low, found.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=8))
def test_accuracy_interval_is_possible_and_holds_the_mean(correct: list[int]) -> None:
    """0 <= low <= mean <= high <= 1 for all runs, and clipping is said exactly where it was needed."""
    found = accuracy_estimate(correct, [100] * len(correct))
    assert found.low is not None
    assert found.high is not None
    assert 0.0 <= found.low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.high <= 1.0
    if len(correct) > 1:
        free = t_estimate([right / 100 for right in correct])
        assert found.clipped == ((free.low or 0.0) < 0 or (free.high or 0.0) > 1)


@given(st.lists(shares, min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_order_of_seeds_changes_nothing(values: list[float], random: Random) -> None:
    """A mean and its interval do not depend on the order of the seeds."""
    shuffled = list(values)
    random.shuffle(shuffled)
    assert t_estimate(shuffled) == t_estimate(values)


def test_no_value_is_an_error() -> None:
    """A mean of nothing is refused."""
    with pytest.raises(SpecError, match="no values"):
        t_estimate([])


def test_one_value_has_no_interval() -> None:
    """One difference is a difference without an interval, and says that no method gave one."""
    found = t_estimate([0.01])
    assert (found.n, found.low, found.high, found.method) == (1, None, None, "none")


def test_difference_is_paired_by_seed() -> None:
    """Only common seeds count, each against itself: what all configurations of one seed share cancels out."""
    base = {1: 0.10, 2: 0.50, 3: 0.90, 7: 0.0}
    found = paired_difference({1: 0.12, 2: 0.51, 3: 0.93, 9: 1.0}, base)
    assert found is not None
    assert found.n == 3
    assert found.mean == pytest.approx(0.02)
    assert found.low is not None
    assert found.low == pytest.approx(0.02 - 4.3027 * 0.01 / math.sqrt(3), abs=1e-6)


def test_no_common_seed_gives_no_difference() -> None:
    """Configurations that share no seed are not compared."""
    assert paired_difference({1: 0.5}, {2: 0.5}) is None


@pytest.mark.parametrize("pairs", [3, 5, 6, 10])
def test_enough_seeds_are_those_that_an_exact_test_can_use(pairs: int) -> None:
    """Six pairs are the first on which the exact Wilcoxon test can reach 0.05, when all differences agree."""
    smallest_p = scipy_stats.wilcoxon(np.arange(1, pairs + 1), method="exact").pvalue
    assert (smallest_p <= 0.05) == (pairs >= ENOUGH_SEEDS)


def test_holm_rejects_as_published() -> None:
    """Holm's step-down: 0.01 and 0.013 pass their levels of 0.05 / 4 and 0.05 / 3, 0.03 fails 0.05 / 2, and stops."""
    assert holm_adjusted([0.03, 0.01, 0.04, 0.013], tests=4) == pytest.approx([0.06, 0.04, 0.06, 0.04])
    assert holm_adjusted([], tests=0) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_between_bonferroni_and_no_correction(p_values: list[float]) -> None:
    """It rejects all that Bonferroni rejects, and nothing that is not below the level by itself."""
    rejected = [p_value <= 0.05 for p_value in holm_adjusted(p_values, tests=len(p_values))]
    for p_value, is_rejected in zip(p_values, rejected, strict=True):
        assert is_rejected or p_value > 0.05 / len(p_values)
        assert not is_rejected or p_value <= 0.05
