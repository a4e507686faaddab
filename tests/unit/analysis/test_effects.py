"""Main effects and interactions of axes, with all configurations and with some missing; Pareto fronts."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stnbench.analysis.effects import (
    BLOCKS_METHOD,
    LEAST_SQUARES_METHOD,
    PlacedConfiguration,
    interaction,
    main_effects,
    usual_seeds,
    variance_explained,
    whole_blocks,
)
from stnbench.analysis.ranks import pareto_front

SIZE, FAMILY, PLACE = {"10": 0.0, "20": 0.02, "30": 0.04}, {"affine": 0.0, "tps": -0.03}, {"1": 0.0, "2": 0.01}


def grid(*, seeds: int = 3, together: float = 0.0) -> list[PlacedConfiguration]:
    """Configs whose accuracies are three effects added up, and one of size 30 with tps, and some noise by seed."""
    rng = np.random.default_rng(0)
    configs = []
    for size, family, place in product(SIZE, FAMILY, PLACE):
        mean = 0.9 + SIZE[size] + FAMILY[family] + PLACE[place] + together * ((size, family) == ("30", "tps"))
        noise = 0.001 * rng.standard_normal(seeds)
        labels = {"size": size, "family": family, "place": place}
        configs.append(PlacedConfiguration(labels=labels, scores=dict(enumerate((mean + noise).tolist(), 1))))
    return configs


def test_whole_blocks_give_the_effects() -> None:
    """Of a full grid: size 10 is 2 points below the mean of sizes, 30 as much above, from all twelve configurations."""
    found = main_effects(grid(), "size")
    assert found is not None
    assert (found.labels, found.configs, found.method) == (("10", "20", "30"), 12, BLOCKS_METHOD)
    assert [effect.mean for effect in found.effects] == pytest.approx([-0.02, 0.0, 0.02], abs=0.002)
    assert sum(effect.mean for effect in found.effects) == pytest.approx(0)
    assert found.means == pytest.approx((0.89, 0.91, 0.93), abs=0.002)
    assert {effect.n for effect in found.effects} == {3}
    assert all(effect.low is not None and effect.method == "t over seeds" for effect in found.effects)


def test_a_missing_configuration_leaves_its_block_out() -> None:
    """Without one configuration, its block of three sizes does not count; what is left is balanced."""
    configs = grid()
    found = main_effects(configs[1:], "size")
    assert found is not None
    assert (found.configs, found.method) == (9, BLOCKS_METHOD)
    assert [effect.mean for effect in found.effects] == pytest.approx([-0.02, 0.0, 0.02], abs=0.002)


def test_few_whole_blocks_give_way_to_least_squares() -> None:
    """Where whole blocks hold less than half of the configs, an additive model of all of them has the effects."""
    gone = {("10", "affine", "1"), ("20", "tps", "1"), ("30", "affine", "2"), ("10", "tps", "2")}
    configs = [config for config in grid() if tuple(config.labels.values()) not in gone]
    found = main_effects(configs, "size")
    assert found is not None
    assert (found.configs, found.method) == (8, LEAST_SQUARES_METHOD)
    assert [effect.mean for effect in found.effects] == pytest.approx([-0.02, 0.0, 0.02], abs=0.003)


def test_axes_that_go_together_are_not_told_apart() -> None:
    """Where every size has its own family, nothing is said of either; nor of an axis with one label, or none."""
    together = {("10", "affine"), ("20", "tps")}
    configs = [config for config in grid() if (config.labels["size"], config.labels["family"]) in together]
    assert main_effects(configs, "size") is None
    assert main_effects(configs, "family") is None
    assert main_effects(configs, "place") is not None
    assert main_effects([config for config in configs if config.labels["size"] == "10"], "size") is None
    assert main_effects(configs, "nothing") is None


def test_configurations_without_the_axis_do_not_count() -> None:
    """An axis that is there under conditions only is judged by the configurations that it is there for."""
    configs = [*grid(), PlacedConfiguration(labels={"size": "10", "family": "none"}, scores={1: 0.5, 2: 0.5, 3: 0.5})]
    found = main_effects(configs, "place")
    assert found is not None
    assert found.configs == 12


def test_configurations_that_lack_a_seed_do_not_count() -> None:
    """The seeds are those that most configurations have; more seeds of some do no harm."""
    configs = grid()
    more = PlacedConfiguration(labels=configs[0].labels, scores={**configs[0].scores, 4: 0.1})
    fewer = PlacedConfiguration(labels=configs[1].labels, scores={1: 0.9})
    assert usual_seeds([more, fewer, *configs[2:]]) == (1, 2, 3)
    blocks = whole_blocks([more, fewer, *configs[2:]], "size")
    assert blocks is not None
    assert (blocks.seeds, blocks.configs, blocks.scores.shape) == ((1, 2, 3), 9, (3, 3, 3))
    assert whole_blocks([], "size") is None


def test_interaction_of_two_by_two_is_a_t_test() -> None:
    """F is the square of t of the one contrast there is, over seeds; residuals are a quarter of it each."""
    configs = [config for config in grid(seeds=5, together=0.02) if config.labels["size"] != "20"]
    found = interaction(configs, "size", "family")
    assert found is not None
    by_seed = found.blocks.scores.mean(axis=0)
    contrast = by_seed[0, 0] - by_seed[0, 1] - by_seed[1, 0] + by_seed[1, 1]
    tested = stats.ttest_1samp(contrast, 0)
    assert found.statistic == pytest.approx(tested.statistic**2)
    assert found.p_value == pytest.approx(tested.pvalue)
    assert found.residuals == pytest.approx(np.array([[1, -1], [-1, 1]]) * contrast.mean() / 4)
    assert found.residuals[1, 1] == pytest.approx(0.005, abs=0.001)


def test_effects_that_add_up_do_not_interact() -> None:
    """Of a grid without an interaction F is small; with one seed there is no test; one axis twice has no block."""
    found = interaction(grid(seeds=5), "size", "family")
    assert found is not None
    assert found.p_value is not None
    assert found.p_value > 0.05
    assert np.abs(found.residuals).max() < 0.002
    alone = interaction(grid(seeds=1), "size", "family")
    assert alone is not None
    assert alone.p_value is None
    assert interaction(grid(), "size", "nothing") is None


def test_f_tests_keep_their_level() -> None:
    """Of 1,000 layouts without an interaction, 3 to 7 % have p <= 0.05."""
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(1000):
        configs = [
            PlacedConfiguration(labels={"a": a, "b": b}, scores=dict(enumerate(rng.normal(0.9, 0.01, 4).tolist())))
            for a, b in product("xyz", "uv")
        ]
        test = interaction(configs, "a", "b")
        assert test is not None
        assert test.p_value is not None
        found += test.p_value <= 0.05
    assert 0.03 <= found / 1000 <= 0.07


def test_variance_explained() -> None:
    """All of it where labels decide, none where they do not; nothing is said of labels as many as values."""
    assert variance_explained(["a", "a", "b", "b"], [1.0, 1.0, 3.0, 3.0]) == pytest.approx(1)
    assert variance_explained(["a", "b", "a", "b"], [1.0, 1.0, 3.0, 3.0]) == pytest.approx(0)
    assert variance_explained(["a", "b", "a", "b"], [1.0, 2.0, 3.0, 4.0]) == pytest.approx(0.2)
    assert variance_explained(["a", "b", "c", "a"], [1.0, 2.0, 3.0, 4.0]) is None
    assert variance_explained(["a", "a", "b", "b"], [1.0, 1.0, 1.0, 1.0]) is None
    assert variance_explained([], []) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=10))
def test_pareto_front(points: list[tuple[int, int]]) -> None:
    """None on it is beaten by another point, each one off it is equalled or beaten by one on it, in order of cost."""
    front = pareto_front([cost for cost, _ in points], [value for _, value in points])

    def beats(one: tuple[int, int], other: tuple[int, int]) -> bool:
        return one[0] <= other[0] and one[1] >= other[1]

    for place in front:
        assert not any(beats(point, points[place]) and point != points[place] for point in points)
    for place, point in enumerate(points):
        assert place in front or any(beats(points[best], point) for best in front)
    assert [points[place] for place in front] == sorted(points[place] for place in front)
