"""Optuna's importances of a sweep's axes."""

from collections.abc import Sequence

import numpy as np
import pytest

from stnbench.planning.samplers import FEWEST_CONFIGURATIONS, axis_importances
from stnbench.spec.planner import IntSpan
from stnbench.spec.sweep import Axis, Choice, Labels, Override, SweepSpec


def axis(name: str, choices: int) -> Axis:
    """An axis with so many choices."""
    values = (Choice(label=f"{name}{value}", overrides=(Override(key=name, value=value),)) for value in range(choices))
    return Axis(name=name, choices=tuple(values))


SWEEP = SweepSpec(name="three", question="?", axes=(axis("a", 3), axis("b", 4), axis("c", 2)))


def configs_of(sweep: SweepSpec, *, without: Sequence[str] = ()) -> list[tuple[Labels, float]]:
    """Every point; its value is decided by a, a little by b, and not by c. ``without`` takes b from some of a."""
    rng = np.random.default_rng(0)
    found = []
    for point in sweep.points():
        labels = dict(point.labels)
        value = 0.02 * int(labels["a"][1]) + 0.004 * int(labels["b"][1]) + rng.normal(0, 0.001)
        kept = tuple(item for item in point.labels if item[0] != "b" or labels["a"] not in without)
        found.append((kept, float(value)))
    return found


def test_the_axis_that_decides_is_the_most_important() -> None:
    """Both evaluators put a first, each adds up to 1, and the same configs in any order give the same numbers again."""
    configs = configs_of(SWEEP)
    found = axis_importances(SWEEP, configs)
    assert list(found) == ["a", "b", "c"]
    assert found["a"].ped_anova > found["b"].ped_anova > found["c"].ped_anova
    fanova = [item.fanova for item in found.values()]
    assert fanova == sorted(fanova, key=lambda share: -(share or 0))
    assert sum(item.ped_anova for item in found.values()) == pytest.approx(1)
    assert sum(item.fanova or 0 for item in found.values()) == pytest.approx(1)
    assert axis_importances(SWEEP, configs) == found


def test_an_axis_under_conditions_has_no_fanova() -> None:
    """PED-ANOVA weighs it all the same."""
    found = axis_importances(SWEEP, configs_of(SWEEP, without=["a0"]))
    assert found["b"].fanova is None
    assert found["a"].fanova is not None
    assert found["b"].ped_anova > 0


def test_ranges_are_numbers() -> None:
    """Of a range, a value and its neighbour are alike: 40 values, each once, are weighed."""
    span = Axis(name="n", span=IntSpan(low=1, high=40, step=1))
    sweep = SweepSpec(name="range", question="?", axes=(span, axis("c", 2)))
    configs = [
        ((("n", choice.label), ("c", f"c{index % 2}")), 0.9 - abs(index - 20) / 100)
        for index, choice in enumerate(span.values)
    ]
    found = axis_importances(sweep, configs)
    assert found["n"].ped_anova > 0.9


def test_little_is_not_weighed() -> None:
    """Too few configurations, equal ones, or axes with one label in use say nothing."""
    configs = configs_of(SWEEP)
    assert axis_importances(SWEEP, configs[: FEWEST_CONFIGURATIONS - 1]) == {}
    assert axis_importances(SWEEP, [(labels, 0.5) for labels, _ in configs]) == {}
    assert axis_importances(SWEEP, [((("a", "a0"),), value) for _, value in configs]) == {}


def test_large_sweeps_have_no_fanova() -> None:
    """Its time grows with the square of the configurations."""
    sweep = SweepSpec(name="large", question="?", axes=(axis("a", 9), axis("b", 9), axis("c", 2)))
    found = axis_importances(sweep, configs_of(sweep))
    assert {item.fanova for item in found.values()} == {None}
    assert found["a"].ped_anova > 0.5


def test_axes_of_many_labels_have_no_fanova() -> None:
    """Its time doubles with each label of an axis without an order: 16 families would take minutes."""
    sweep = SweepSpec(name="families", question="?", axes=(axis("a", 16), axis("b", 2), axis("c", 2)))
    found = axis_importances(sweep, configs_of(sweep))
    assert {item.fanova for item in found.values()} == {None}
    assert found["a"].ped_anova > 0.5
