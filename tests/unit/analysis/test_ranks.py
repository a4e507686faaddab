"""Rank correlations, their intervals, and trends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stnbench.analysis.effects import RankCorrelation
from stnbench.analysis.ranks import (
    CONFIGURATIONS_FOR_INTERVAL,
    kendall_tau,
    noise_free_means,
    rank_correlations,
    ranks_of,
    spearman_rho,
)

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=30).filter(
    lambda items: len({one for one, _ in items}) > 1 and len({other for _, other in items}) > 1
)


@given(pairs)
def test_correlations_are_those_of_scipy(items: list[tuple[int, int]]) -> None:
    """Tau-b and rho with any ties."""
    first, second = (np.array(values, dtype=np.float64) for values in zip(*items, strict=True))

    assert kendall_tau(first[None], second)[0] == pytest.approx(stats.kendalltau(first, second).statistic, abs=1e-12)
    assert spearman_rho(first[None], second)[0] == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)
    assert ranks_of(first).tolist() == stats.rankdata(first).tolist()


def correlations(scores: np.ndarray, published: np.ndarray) -> tuple[RankCorrelation, RankCorrelation]:
    """Both correlations, which must be there."""
    found = rank_correlations(scores, published)
    assert found is not None
    return found


def test_the_p_value_of_few_configurations_is_exact() -> None:
    """Four configurations in the same order: 2 of 24 orders agree as far, as scipy's exact test says too."""
    published = np.array([0.1, 0.2, 0.3, 0.4])
    tau, rho = correlations(published[:, None] + np.zeros((4, 2)), published)

    assert (tau.value, rho.value) == pytest.approx((1, 1))
    assert tau.p_value == pytest.approx(2 / 24)
    assert tau.p_value == pytest.approx(stats.kendalltau(published, published, method="exact").pvalue)
    assert rho.p_value == pytest.approx(2 / 24)


def test_the_p_value_of_many_configurations_is_that_of_permutations() -> None:
    """4,999 orders drawn at random agree with scipy's exact p within what so many can tell."""
    random = np.random.default_rng(4)
    published = random.normal(size=14)
    scores = published[:, None] + random.normal(size=(14, 3))
    tau, _ = correlations(scores, published)

    exact = stats.kendalltau(scores.mean(axis=1), published, method="exact").pvalue
    assert tau.p_value == pytest.approx(exact, abs=0.01)
    assert correlations(scores, published)[0] == tau


def test_there_is_no_correlation_without_a_ranking() -> None:
    """Two configurations, or one accuracy for all."""
    assert rank_correlations(np.ones((2, 3)), np.array([1.0, 2.0])) is None
    assert rank_correlations(np.ones((5, 3)), np.arange(5.0)) is None
    assert rank_correlations(np.arange(10.0).reshape(5, 2), np.ones(5)) is None


@pytest.mark.parametrize(("configs", "seeds"), [(CONFIGURATIONS_FOR_INTERVAL - 1, 3), (CONFIGURATIONS_FOR_INTERVAL, 1)])
def test_there_is_no_interval_from_too_little(configs: int, seeds: int) -> None:
    """Five configurations, or one seed."""
    scores = np.random.default_rng(0).normal(size=(configs, seeds))
    tau, rho = correlations(scores, np.arange(float(configs)))

    assert (tau.low, tau.high, rho.low, rho.high) == (None, None, None, None)
    assert tau.method.startswith("no interval")


def test_ups_and_downs_that_all_configurations_share_are_no_noise() -> None:
    """A seed that is harder for all changes neither the correlation nor its interval."""
    random = np.random.default_rng(1)
    published = random.normal(size=10)
    scores = published[:, None] + 0.3 * random.normal(size=(10, 3))
    tau, rho = correlations(scores, published)
    harder, _ = correlations(scores - np.array([0.0, 5.0, 1.0]), published)

    assert tau.low is not None
    assert rho.low is not None
    assert (harder.value, harder.low, harder.high) == pytest.approx((tau.value, tau.low, tau.high), abs=1e-6)
    assert -1 <= tau.low <= tau.value <= tau.high <= 1  # type: ignore[operator]
    assert rho.low <= rho.value <= rho.high  # type: ignore[operator]


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize(("noise", "agreement", "clusters"), [(0.1, 0.7, False), (1.0, 0.95, False), (0.4, 0.95, True)])
def test_intervals_hold_the_correlation_without_noise(noise: float, agreement: float, *, clusters: bool) -> None:
    """In at least 88 of 100 cases, also where seeds are as noisy as configs differ, or configs come in clusters."""
    random = np.random.default_rng(7)
    held = 0
    for _ in range(100):
        truth, other = random.normal(size=(2, 15))
        if clusters:
            truth, other = 0.3 * truth + np.repeat([0.0, -2.0, -4.0], 5), 0.3 * other
        published = agreement * truth + np.sqrt(1 - agreement**2) * other
        scores = truth[:, None] + noise * random.normal(size=(15, 3)) + 0.3 * random.normal(size=3)
        drawn = kendall_tau(noise_free_means(scores, published), published)
        low, high = np.quantile(drawn, [0.025, 0.975])
        held += low - 1e-9 <= kendall_tau(truth[None], published)[0] <= high + 1e-9
    assert held >= 88
