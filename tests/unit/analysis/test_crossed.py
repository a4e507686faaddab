"""Differences over seeds and images, McNemar's test on tracks, and how many seeds are needed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from scipy import stats

from stnbench.analysis.effects import paired_difference, t_estimate
from stnbench.analysis.ensembles import EXACT_METHOD, NORMAL_METHOD, crossed_difference, improvement_over_seeds, mcnemar
from stnbench.analysis.simultaneous import chance_interval, chance_to_tell

ALONE = np.arange(12)
TRACKS = np.repeat(np.arange(4), 3)
answers = st_numpy.arrays(bool, st.tuples(st.integers(2, 4), st.just(12)))


def test_seeds_that_agree_leave_a_t_interval_over_images() -> None:
    """Six equal seeds, every image its own track: mean and standard error are those of single images' differences."""
    config, base = np.array([[True] * 9 + [False] * 3] * 6), np.array([[True] * 6 + [False] * 4 + [True] * 2] * 6)
    found = crossed_difference(config, base, ALONE, is_tracked=False)
    assert found is not None
    difference = found.difference
    differences = config[0].astype(float) - base[0]
    error = differences.std(ddof=1) / math.sqrt(12)
    fourth = ((differences - differences.mean()) ** 4).sum()
    squares = ((differences - differences.mean()) ** 2).sum()
    freedom = min(11.0, 2 * squares**2 / (fourth - squares**2 / 12))
    assert difference.mean == pytest.approx(1 / 12)
    assert difference.high == pytest.approx(1 / 12 + stats.t.ppf(0.975, freedom) * error)
    assert difference.p_value == pytest.approx(2 * stats.t.sf(1 / 12 / error, freedom))
    assert (difference.n, difference.method) == (6, "t over seeds and images")


def test_one_seed_is_about_images_alone() -> None:
    """Two networks have the interval that six equal seeds have, under a name that says so; no chance for a new seed."""
    rng = np.random.default_rng(2)
    config, base = rng.random((2, 1, 12)) < 0.6
    one = crossed_difference(config, base, TRACKS, is_tracked=True)
    six = crossed_difference(np.repeat(config, 6, axis=0), np.repeat(base, 6, axis=0), TRACKS, is_tracked=True)
    assert one is not None
    assert six is not None
    assert (one.difference.low, one.difference.high) == pytest.approx((six.difference.low, six.difference.high))
    assert (one.difference.n, one.difference.method, one.improvement) == (1, "t over tracks, one seed", None)


def test_images_of_a_track_count_as_one() -> None:
    """Every image three times over, in tracks of three, says no more than the images once."""
    rng = np.random.default_rng(0)
    config, base = rng.random((2, 3, 12)) < 0.7
    once = crossed_difference(config, base, ALONE, is_tracked=True)
    thrice = crossed_difference(
        np.repeat(config, 3, axis=1), np.repeat(base, 3, axis=1), np.repeat(ALONE, 3), is_tracked=True
    )
    assert once is not None
    assert thrice is not None
    assert once.difference.method == "t over seeds and tracks"
    for name in ("mean", "low", "high", "p_value"):
        assert getattr(thrice.difference, name) == pytest.approx(getattr(once.difference, name))


@given(answers, st.data())
def test_the_interval_is_never_narrower_than_over_seeds(config: np.ndarray, data: st.DataObject) -> None:
    """Nor is it surer: its p is not below that of t over seeds; and exchanged configs give the mirrored result."""
    base = data.draw(st_numpy.arrays(bool, config.shape))
    found = crossed_difference(config, base, TRACKS, is_tracked=True)
    mirrored = crossed_difference(base, config, TRACKS, is_tracked=True)
    over_seeds = paired_difference(*(dict(enumerate(rows.mean(axis=1).tolist())) for rows in (config, base)))
    assert found is not None
    assert mirrored is not None
    assert over_seeds is not None
    difference = found.difference
    assert difference.low is not None
    assert difference.high is not None
    assert difference.mean == pytest.approx(over_seeds.mean)
    assert difference.low == pytest.approx(-(mirrored.difference.high or 0.0))
    if over_seeds.low is not None and over_seeds.high is not None:
        assert difference.high - difference.low >= over_seeds.high - over_seeds.low - 1e-12
        assert difference.p_value >= over_seeds.p_value - 1e-12
    if found.improvement is not None:
        assert 0 <= (found.improvement.low or 0) <= found.improvement.mean <= (found.improvement.high or 1) <= 1


def test_equal_answers_are_no_difference() -> None:
    """Configurations that are right on the same images differ by 0, with p = 1, and nothing is said of chances."""
    config = np.random.default_rng(1).random((4, 12)) < 0.8
    found = crossed_difference(config, config, TRACKS, is_tracked=True)
    assert found is not None
    assert (found.difference.mean, found.difference.p_value, found.improvement) == (0.0, 1.0, None)
    assert mcnemar(config, config, TRACKS).p_value == 1.0


def test_equal_differences_of_few_seeds_prove_nothing() -> None:
    """Two seeds that differ by the same number of images have p = 1, as over seeds alone."""
    base = np.zeros((2, 12), bool)
    config = base.copy()
    config[0, :4] = config[1, 4:8] = True
    found = crossed_difference(config, base, ALONE, is_tracked=False)
    assert found is not None
    assert found.difference.mean == pytest.approx(1 / 3)
    assert found.difference.p_value == 1.0


def test_one_track_says_nothing_of_others() -> None:
    """There is no interval over tracks from one."""
    config = np.ones((3, 12), bool)
    assert crossed_difference(config, ~config, np.zeros(12, np.int64), is_tracked=True) is None


def test_chance_to_be_ahead_of_a_known_effect() -> None:
    """One more of 20 values, one standard deviation ahead: the predictive t distribution, and the exact interval."""
    values = np.linspace(-1.5, 1.5, 20)
    values = 1 + values / values.std(ddof=1)
    found = improvement_over_seeds(t_estimate(values.tolist()))
    assert found is not None
    assert found.mean == pytest.approx(stats.t.cdf(1 / math.sqrt(1 + 1 / 20), 19))
    for bound, tail in ((found.low, 0.975), (found.high, 0.025)):
        assert bound is not None
        effect = stats.norm.ppf(bound)
        assert stats.nct.cdf(math.sqrt(20), 19, effect * math.sqrt(20)) == pytest.approx(tail, abs=1e-6)
    assert improvement_over_seeds(t_estimate([0.5])) is None
    assert chance_interval(0.0, 3, 2.0, tail=0.025)[0] == 0.5


def test_mcnemar_of_single_images_is_the_binomial_test() -> None:
    """One seed and no tracks: 9 images that only the config has right against 2, p = 0.0654 (exact, two-sided)."""
    config = np.array([[True] * 9 + [False] * 2 + [True]])
    base = np.array([[False] * 9 + [True] * 2 + [True]])
    found = mcnemar(config, base, ALONE)
    assert (found.only_config, found.only_base, found.method) == (9, 2, EXACT_METHOD)
    assert found.p_value == pytest.approx(stats.binomtest(2, 11).pvalue)


@given(answers, st.data())
def test_mcnemar_flips_whole_tracks(config: np.ndarray, data: st.DataObject) -> None:
    """Its p is the share of all ways to exchange the configurations track by track that give as large a difference."""
    base = data.draw(st_numpy.arrays(bool, config.shape))
    by_track = (config.astype(int) - base).sum(axis=0).reshape(4, 3).sum(axis=1)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1)
    share = (np.abs(by_track @ signs) >= abs(by_track.sum())).mean()
    assert mcnemar(config, base, TRACKS).p_value == pytest.approx(share)


def test_mcnemar_of_many_tracks_is_normal() -> None:
    """From 201 tracks on that differ the p-value is the normal limit, within 0.02 of the exact one of 200."""
    config = np.zeros((1, 201), bool)
    config[0, :115] = True
    many, fewer = mcnemar(config, ~config, np.arange(201)), mcnemar(config[:, 1:], ~config[:, 1:], np.arange(200))
    assert (many.method, fewer.method) == (NORMAL_METHOD, EXACT_METHOD)
    assert many.p_value == pytest.approx(fewer.p_value, abs=0.02)


@pytest.mark.parametrize("level", [0.05, 0.05 / 3, 0.05 / 136])
@pytest.mark.parametrize("effect", [0.0, 0.2, 1.0, 5.0])
def test_the_chance_to_tell_is_that_of_the_noncentral_t(effect: float, level: float) -> None:
    """For every number of seeds of a paired t test, as SciPy's distribution has it."""
    seeds = np.arange(2, 200)
    limits = stats.t.ppf(1 - level / 2, seeds - 1)
    exact = stats.nct.sf(limits, seeds - 1, effect * np.sqrt(seeds))
    found = chance_to_tell(effect * np.sqrt(seeds), (seeds - 1).astype(float), limits)
    np.testing.assert_allclose(found, exact, atol=1e-9)


@pytest.mark.slow
def test_a_chance_of_nought_is_never_as_good_as_any() -> None:
    """A chance that prints as 0 (or 100) % has an interval that ends on its side of 50 %, from two seeds on."""
    for scale, freedom in ((1.0, 1.0), (math.sqrt(2), 1.0), (1.2, 1.7), (math.sqrt(3), 2.0), (math.sqrt(10), 9.0)):
        for size in np.geomspace(0.1, 1e6, 60):
            chance, low, high = chance_interval(-size, freedom, scale, tail=0.025)
            mirrored = chance_interval(size, freedom, scale, tail=0.025)
            assert 0 <= low <= chance <= high <= 1
            assert (1 - chance, 1 - high, 1 - low) == pytest.approx(mirrored)
            assert chance >= 0.005 or high < 0.5


def test_equals_are_seldom_called_sure() -> None:
    """Of 4,000 pairs of equals with two seeds, at most 8 % are said to be ahead in less than 5 or more than 95 %.

    The interval holds one half in 93 to 97 % of them.
    """
    rows = np.random.default_rng(21).standard_normal((4000, 2)).tolist()
    found = [improvement_over_seeds(t_estimate(row)) for row in rows]
    known = [estimate for estimate in found if estimate is not None]
    assert np.mean([abs(estimate.mean - 0.5) > 0.45 for estimate in known]) <= 0.08
    held = np.mean([(estimate.low or 0) <= 0.5 <= (estimate.high or 1) for estimate in known])
    assert 0.93 <= held <= 0.97
