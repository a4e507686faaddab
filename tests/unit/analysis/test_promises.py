"""Intervals hold the truth as often as they say, and what is called different seldom is not: in made-up worlds.

Accuracies are near 99 %, images come in tracks, and configurations share images and seeds, as in a sweep. All draws are
seeded.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from made_up_answers import CONCENTRATED, SPREAD, World
from numpy.typing import NDArray
from scipy import special

from stnbench.analysis.effects import (
    Estimate,
    accuracy_estimate,
    holm_adjusted,
    paired_difference,
    pairs_among,
    t_estimate,
)
from stnbench.analysis.ensembles import Crossed, crossed_difference, improvement_over_seeds, mcnemar
from stnbench.analysis.verdicts import folds_accuracy

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

Fixed = tuple[NDArray[np.int64], float]
"""Images right (configurations, seeds), and the true accuracy."""

Pair = tuple[Crossed, NDArray[np.bool_]]
"""What is said of a pair of configurations, and its answers (configurations, seeds, images)."""

SEEDS = pytest.mark.parametrize("seeds", [3, 5, 10])


def holds(estimate: Estimate, truth: float) -> bool:
    """Whether the interval has the truth in it."""
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low <= truth <= estimate.high


def fixed_images(rng: np.random.Generator, *, configs: int, seeds: int, times: int) -> Iterator[Fixed]:
    """Images right (configs, seeds) on the same 60 tracks of 20 images each time, and the accuracy of all configs.

    Tracks are hard or easy, and every network has luck of its own on each.
    """
    hardness = rng.normal(5.5, 1.0, 60)
    points, weights = np.polynomial.hermite_e.hermegauss(101)
    spread = np.sqrt(0.4**2 + 0.5**2)
    truth = float((special.expit(hardness[:, None] + spread * points) * weights).sum() / (60 * weights.sum()))
    for _ in range(times):
        luck = 0.4 * rng.standard_normal((configs, seeds, 1)) + 0.5 * rng.standard_normal((configs, seeds, 60))
        yield rng.binomial(20, special.expit(hardness + luck)).sum(axis=2), truth


@SEEDS
def test_coverage_of_the_accuracy_over_seeds(seeds: int) -> None:
    """For 4,000 configs, 93 to 97 % of the 95 % intervals hold the mean of infinitely many seeds on the images."""
    rng = np.random.default_rng(1)
    held = [
        holds(accuracy_estimate(right[0].tolist(), [1200] * seeds), truth)
        for right, truth in fixed_images(rng, configs=1, seeds=seeds, times=4000)
    ]
    assert 0.93 <= np.mean(held) <= 0.97


@SEEDS
def test_coverage_of_the_paired_difference(seeds: int) -> None:
    """Of 4,000 pairs of equal configurations, 93 to 97 % of the intervals hold 0."""
    rng = np.random.default_rng(2)
    held = []
    for right, _ in fixed_images(rng, configs=2, seeds=seeds, times=4000):
        config, base = (dict(enumerate((row / 1200).tolist())) for row in right)
        difference = paired_difference(config, base)
        assert difference is not None
        held.append(holds(difference, 0.0))
    assert 0.93 <= np.mean(held) <= 0.97


def crossed(world: World, *, seeds: int, ahead: float, times: int, seed: int) -> Iterator[Pair]:
    """Pairs of configurations of which one is ahead, each time on other images."""
    rng = np.random.default_rng(seed)
    for _ in range(times):
        tracks = world.images(rng)
        right = world.answers(rng, tracks, seeds=seeds, ahead=(ahead, 0.0))
        found = crossed_difference(right[0], right[1], tracks, is_tracked=True)
        assert found is not None
        yield found, right


@SEEDS
@pytest.mark.parametrize("ahead", [0.0, 0.3])
def test_coverage_over_seeds_and_images(seeds: int, ahead: float) -> None:
    """Where errors are in many tracks, 93 to 97 % of the intervals hold the difference over all seeds and images."""
    truth = SPREAD.accuracy(ahead) - SPREAD.accuracy()
    held = [holds(found.difference, truth) for found, _ in crossed(SPREAD, seeds=seeds, ahead=ahead, times=700, seed=3)]
    assert 0.93 <= np.mean(held) <= 0.97


@SEEDS
@pytest.mark.parametrize("ahead", [0.0, 0.7])
def test_coverage_where_few_tracks_have_most_errors(seeds: int, ahead: float) -> None:
    """There the intervals are wider than they need be, not narrower: at least 93 % hold the difference."""
    truth = CONCENTRATED.accuracy(ahead) - CONCENTRATED.accuracy()
    trials = crossed(CONCENTRATED, seeds=seeds, ahead=ahead, times=400, seed=4)
    assert np.mean([holds(found.difference, truth) for found, _ in trials]) >= 0.93


def test_a_percentile_bootstrap_would_not_keep_the_promise() -> None:
    """Three seeds and the tracks drawn with replacement: less than 91 % of the intervals hold the difference."""
    rng, seeds = np.random.default_rng(5), 3
    held = []
    for _ in range(300):
        tracks = SPREAD.images(rng)
        right = SPREAD.answers(rng, tracks, seeds=seeds, ahead=(0.0, 0.0)).astype(float)
        sums = np.array([np.bincount(tracks, weights=row) for row in right[0] - right[1]])
        drawn_seeds = rng.multinomial(seeds, [1 / seeds] * seeds, 300)
        drawn_tracks = rng.multinomial(SPREAD.tracks, [1 / SPREAD.tracks] * SPREAD.tracks, 300)
        means = np.einsum("bs,st,bt->b", drawn_seeds, sums, drawn_tracks)
        low, high = np.quantile(means, [0.025, 0.975])
        held.append(low <= 0 <= high)
    assert np.mean(held) < 0.91


@pytest.mark.parametrize("world", [SPREAD, CONCENTRATED])
@pytest.mark.parametrize("folds", [5, 10])
def test_coverage_over_folds(folds: int, world: World) -> None:
    """Of networks of one seed, each on tracks of its own, 93 to 98 % of the intervals hold the accuracy of them all."""
    rng, truth, held = np.random.default_rng(11), world.accuracy(), []
    for _ in range(700):
        tracks = [world.images(rng) for _ in range(folds)]
        errors = [int((~world.answers(rng, own, seeds=1, ahead=(0.0,))).sum()) for own in tracks]
        held.append(holds(folds_accuracy(errors, [len(own) for own in tracks]), truth))
    assert 0.93 <= np.mean(held) <= 0.98


@SEEDS
@pytest.mark.parametrize("ahead", [0.0, 1.0])
def test_coverage_of_the_chance_to_be_ahead(seeds: int, ahead: float) -> None:
    """Over seeds alone: at least 93 % of the intervals hold the chance that a new seed is ahead."""
    rng, truth = np.random.default_rng(6), float(special.ndtr(ahead))
    found = [improvement_over_seeds(t_estimate(row)) for row in rng.normal(ahead, 1.0, (3000, seeds)).tolist()]
    assert np.mean([estimate is not None and holds(estimate, truth) for estimate in found]) >= 0.93


def test_coverage_of_the_chance_to_be_ahead_on_new_images() -> None:
    """Over seeds and images: at least 93 % hold the share of new runs, each on new images, that are ahead."""
    runs = [right for _, right in crossed(SPREAD, seeds=2, ahead=0.5, times=1000, seed=7)]
    ahead = np.concatenate([np.sign(right[0].mean(axis=1) - right[1].mean(axis=1)) for right in runs])
    truth = float((ahead > 0).mean() + (ahead == 0).mean() / 2)
    trials = crossed(SPREAD, seeds=5, ahead=0.5, times=400, seed=8)
    assert np.mean([found.improvement is not None and holds(found.improvement, truth) for found, _ in trials]) >= 0.93


def false_positives(world: World, *, configs: int, seeds: int, times: int) -> tuple[float, float]:
    """The share of sweeps of equal configs in which one is called different: over seeds and images, and over seeds."""
    rng = np.random.default_rng(10)
    over_images = over_seeds = 0
    for _ in range(times):
        tracks = world.images(rng)
        right = world.answers(rng, tracks, seeds=seeds, ahead=(0.0,) * configs)
        order = np.argsort(-right.mean(axis=(1, 2)), kind="stable")
        best, others = right[order[0]], right[order[1:]]
        found = [crossed_difference(config, best, tracks, is_tracked=True) for config in others]
        p_values = [item.difference.p_value if item else 1.0 for item in found]
        over_images += min(holm_adjusted(p_values, tests=pairs_among(configs))) <= 0.05
        scores = [dict(enumerate(right[place].mean(axis=1).tolist())) for place in order]
        alone = [paired_difference(score, scores[0]) for score in scores[1:]]
        p_values = [item.p_value if item else 1.0 for item in alone]
        over_seeds += min(holm_adjusted(p_values, tests=pairs_among(configs))) <= 0.05
    return over_images / times, over_seeds / times


@pytest.mark.parametrize("seeds", [3, 10])
@pytest.mark.parametrize("world", [SPREAD, CONCENTRATED], ids=["spread", "concentrated"])
def test_equal_configurations_are_seldom_told_apart_over_images(world: World, seeds: int) -> None:
    """Of 100 sweeps of 8 configs, equal over all images, at most 5 % call one different over seeds and images."""
    assert false_positives(world, configs=8, seeds=seeds, times=100)[0] <= 0.05


def test_over_seeds_alone_nothing_is_said_of_other_images() -> None:
    """Ten seeds tell two configs apart on one set of images although over all images they are equal, in over 10 %.

    That is why both intervals are shown.
    """
    over_images, over_seeds = false_positives(CONCENTRATED, configs=2, seeds=10, times=200)
    assert over_images <= 0.05
    assert over_seeds > 0.1


def test_mcnemar_keeps_its_level_in_tracks() -> None:
    """Of 1,000 pairs of equal networks, at most 6 % have p <= 0.05; taking images for independent, more than 10 %."""
    world = World(base=6.0, track=1.5, config_track=1.0, config_seed=0.0, rest=0.5, tracks=60)
    rng = np.random.default_rng(11)
    clustered = independent = 0
    for _ in range(1000):
        tracks = world.images(rng)
        right = world.answers(rng, tracks, seeds=3, ahead=(0.0, 0.0))
        clustered += mcnemar(right[0], right[1], tracks).p_value <= 0.05
        independent += mcnemar(right[0][:1], right[1][:1], np.arange(len(tracks))).p_value <= 0.05
    assert clustered / 1000 <= 0.06
    assert independent / 1000 > 0.1
