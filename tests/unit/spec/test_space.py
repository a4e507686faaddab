"""Ranges become values, in one place."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_spaces import DECAY, MOMENTUM, RATE, choices, conditional, floats, integers
from narrowed import only

from stnbench.core.errors import SpecError
from stnbench.spec.codec import from_plain, to_plain
from stnbench.spec.planner import (
    RESOLUTION,
    FloatSpan,
    IntSpan,
    OptunaPlannerSpec,
    RacingPlannerSpec,
    RandomPlannerSpec,
    ThresholdPrunerSpec,
)
from stnbench.spec.sweep import SweepSpec


def test_steps_hold_both_ends() -> None:
    """Tenths are tenths, without the dust of floating point; an end that is no step is not reached."""
    assert FloatSpan(low=0.0, high=0.3, step=0.1).numbers() == (0.0, 0.1, 0.2, 0.3)
    assert FloatSpan(low=0.0, high=0.35, step=0.1).numbers() == (0.0, 0.1, 0.2, 0.3)
    assert IntSpan(low=1, high=4).numbers() == (1, 2, 3, 4)
    assert IntSpan(low=1, high=6, step=2).numbers() == (1, 3, 5)


def test_so_many_values_are_spread_evenly_on_their_scale() -> None:
    """Five values over two decades are half decades."""
    assert FloatSpan(low=0.001, high=0.1, log=True, values=5).numbers() == (0.001, 0.003162, 0.01, 0.03162, 0.1)
    assert IntSpan(low=16, high=256, log=True, values=5).numbers() == (16, 32, 64, 128, 256)
    assert IntSpan(low=1, high=4, values=9).numbers() == (1, 2, 3, 4)


@settings(deadline=None)
@given(
    low=st.floats(1e-6, 1e3), ratio=st.floats(1.01, 1e6), log=st.booleans(), shift=st.sampled_from([0.0, -1.0, 100.0])
)
def test_a_range_is_a_lattice_that_is_finer_than_any_trial_can_tell(
    low: float, ratio: float, log: bool, shift: float
) -> None:
    """Neighbours are apart, in order, both ends are there, and each number is read back from its text."""
    span = FloatSpan(low=low if log else low + shift, high=low * ratio if log else low * ratio + shift, log=log)
    numbers = span.numbers()

    assert len(numbers) == RESOLUTION + 1
    assert list(numbers) == sorted(set(numbers))
    assert numbers[0] == span.low
    assert numbers[-1] == pytest.approx(span.high, rel=1e-12)
    assert all(float(str(number)) == number for number in numbers)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (FloatSpan, {"low": 1.0, "high": 1.0}, "lower end first"),
        (FloatSpan, {"low": 0.0, "high": 1.0, "log": True}, "above 0"),
        (FloatSpan, {"low": 0.1, "high": 1.0, "log": True, "step": 0.1}, "values"),
        (FloatSpan, {"low": 0.1, "high": 1.0, "step": 0.1, "values": 3}, "not both"),
        (FloatSpan, {"low": 0.1, "high": 1.0, "step": 2.0}, "longer than the range"),
        (IntSpan, {"low": 1, "high": 5, "values": 1}, "from 2"),
        (IntSpan, {"low": 1, "high": 1_000_000}, "say step: or values:"),
    ],
)
def test_a_range_that_cannot_be_meant_is_refused(kind: type, fields: dict[str, object], message: str) -> None:
    """The message says what to write instead."""
    with pytest.raises(SpecError, match=message):
        kind(**fields)


def test_an_axis_is_there_where_its_condition_holds() -> None:
    """Points without it have no label of it, and the axes below it go on."""
    sweep = SweepSpec(
        name="s",
        question="?",
        axes=(
            choices(MOMENTUM, 0.0, 0.9),
            conditional(choices(DECAY, 0.1, 0.2), MOMENTUM, "momentum=0.9"),
            choices(RATE, 1, 2),
        ),
    )

    assert [point.label for point in sweep.points()] == [
        "momentum=0.0 · learning_rate=1",
        "momentum=0.0 · learning_rate=2",
        "momentum=0.9 · weight_decay=0.1 · learning_rate=1",
        "momentum=0.9 · weight_decay=0.1 · learning_rate=2",
        "momentum=0.9 · weight_decay=0.2 · learning_rate=1",
        "momentum=0.9 · weight_decay=0.2 · learning_rate=2",
    ]


def test_a_sweep_comes_back_from_the_store_as_it_was() -> None:
    """Ranges, conditions, options and pruners are plain data."""
    sweep = SweepSpec(
        name="s",
        question="?",
        axes=(
            choices(MOMENTUM, 0.0, 0.9),
            conditional(floats(DECAY, 1e-5, 0.1, log=True), MOMENTUM, "momentum=0.9"),
            integers("training.epochs", 1, 9),
        ),
        planner=OptunaPlannerSpec(sampler="CmaEsSampler", options={"sigma0": 0.5, "popsize": 4}),
        pruner=ThresholdPrunerSpec(outside_share=0.9),
    )

    assert from_plain(SweepSpec, to_plain(sweep), where="the store") == sweep


def test_a_sweep_stored_before_there_were_planners_is_read() -> None:
    """Axes without ranges and conditions, and a sweep without a pruner, mean what they meant."""
    sweep = SweepSpec(name="s", question="?", axes=(choices(RATE, 0.1, 0.2),))
    plain = to_plain(sweep)
    del plain["pruner"]
    for axis in only(list, plain["axes"]):
        del axis["span"], axis["when"]

    assert from_plain(SweepSpec, plain, where="the store") == sweep


def test_a_grid_of_a_range_needs_steps() -> None:
    """The message says what makes it possible; samplers need none, and a task is no range."""
    sweep = SweepSpec(name="s", question="?", axes=(floats(RATE, 0.1, 0.2),), planner=RandomPlannerSpec())
    with pytest.raises(SpecError, match=r"learning_rate.*say step: or values:"):
        dataclasses.replace(sweep, planner=RacingPlannerSpec())
    with pytest.raises(SpecError, match="within"):
        dataclasses.replace(sweep, axes=(choices(RATE, 1, 2),), within=RATE)
    with pytest.raises(SpecError, match="stands above"):
        dataclasses.replace(sweep, axes=(conditional(choices(RATE, 1, 2), MOMENTUM, "momentum=1"),))
