"""The verdict on a transformer follows from its record alone."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.spec.codec import from_json, to_json
from stnbench.spec.result import (
    FAR_MOVEMENT,
    LOST_SHARE,
    MOST_OUTSIDE,
    NEGLIGIBLE_MOVEMENT,
    EpochRecord,
    Failure,
    FailureKind,
    TransformerHealth,
    Verdict,
    helps,
    judge,
    judge_attempt,
    worst,
)
from stnbench.spec.transformer import PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrialSpec

OLD = TransformerHealth(
    place=1,
    theta_mean=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    theta_std=(0.0,) * 6,
    outside_share=0.1,
    identity_distance=0.2,
    determinant_mean=0.8,
)
"""A record of the first version."""

FINE = replace(
    OLD, movement=0.4, movement_spread=0.3, lost_share=0.0, accuracy_identity=0.05, accuracy_mean=0.05, theta_error=0.1
)
CHANCE, LEARNT, IMAGES = 0.1, 0.8, 1000


def epoch(*verdicts: Verdict | None) -> EpochRecord:
    """An epoch with a transformer for each verdict."""
    health = tuple(replace(FINE, place=place, verdict=verdict) for place, verdict in enumerate(verdicts, 1))
    return EpochRecord(
        epoch=1,
        step=10,
        train_loss=1.0,
        validation_loss=1.0,
        validation_accuracy=0.5,
        learning_rate=0.1,
        train_duration_s=1.0,
        evaluate_duration_s=1.0,
        health=health,
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "healthy"),
        ({"outside_share": MOST_OUTSIDE + 0.01}, "collapsed"),
        ({"outside_share": MOST_OUTSIDE - 0.01}, "healthy"),
        ({"lost_share": LOST_SHARE + 0.01}, "collapsed"),
        ({"lost_share": LOST_SHARE - 0.01}, "healthy"),
        ({"movement": 20.0}, "healthy"),
        ({"movement": NEGLIGIBLE_MOVEMENT / 2, "movement_spread": NEGLIGIBLE_MOVEMENT / 4}, "identity"),
        ({"movement_spread": NEGLIGIBLE_MOVEMENT / 2}, "constant"),
        ({"movement_spread": 0.0, "outside_share": 1.0}, "collapsed"),
        ({"finite_share": 0.999}, "diverged"),
        ({"finite_share": 0.0, "outside_share": 0.0, "movement": 0.0, "movement_spread": 0.0}, "diverged"),
    ],
)
def test_each_verdict_has_its_reason(changes: dict[str, Any], expected: str) -> None:
    """Of a network that has learnt; the worse reason comes first where two apply."""
    assert judge(replace(FINE, **changes), accuracy=LEARNT, chance=CHANCE, images=IMAGES) == expected


@pytest.mark.parametrize(
    ("accuracy", "movement", "expected"),
    [
        (0.1, FAR_MOVEMENT * 1.1, "collapsed"),
        (0.1, FAR_MOVEMENT * 0.9, "unhelpful"),
        (0.2, FAR_MOVEMENT * 1.1, "healthy"),
    ],
)
def test_chance_alone_is_no_collapse(accuracy: float, movement: float, expected: str) -> None:
    """Nor is a large movement alone; both together are."""
    assert judge(replace(FINE, movement=movement), accuracy=accuracy, chance=CHANCE, images=IMAGES) == expected


HELP = [
    ({}, "healthy"),
    ({"accuracy_mean": LEARNT}, "unhelpful"),
    ({"accuracy_mean": LEARNT - 0.01}, "unhelpful"),  # 10 of 1,000 images, of which 410 are read wrong by either
    ({"accuracy_mean": LEARNT - 0.06}, "healthy"),
    ({"accuracy_mean": 0.9}, "unhelpful"),
    ({"accuracy_mean": None, "accuracy_identity": None}, None),
    ({"accuracy_mean": None, "accuracy_identity": LEARNT}, "unhelpful"),
    ({"accuracy_identity": LEARNT, "accuracy_mean": 0.1}, "unhelpful"),
    ({"theta_error": 0.2, "theta_error_identity": 0.4}, "healthy"),
    ({"theta_error": 0.4, "theta_error_identity": 0.4}, "unhelpful"),
    ({"theta_error": None, "theta_error_identity": 0.4}, "healthy"),
    ({"movement_spread": 0.0, "accuracy_mean": 0.9}, "constant"),
]


@pytest.mark.parametrize(("changes", "expected"), HELP)
def test_treating_images_differently_is_healthy_only_where_it_helps(
    changes: dict[str, float | None], expected: str | None
) -> None:
    """More images are read right than under any constant, evidently, and signs stand stiller where that is known."""
    health = replace(FINE, **changes)  # type: ignore[arg-type]
    assert judge(health, accuracy=LEARNT, chance=CHANCE, images=IMAGES) == expected


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 100_000))
def test_what_helps_fewer_images_helps_more_of_them_as_well(accuracy: float, mean: float, images: int) -> None:
    """The evidence grows with the images, and never turns against an accuracy that is lower without it."""
    health = replace(FINE, accuracy_identity=None, accuracy_mean=mean)
    found = helps(health, accuracy=accuracy, images=images)
    assert not (found and accuracy <= mean)
    assert not found or helps(health, accuracy=accuracy, images=2 * images)


def test_a_record_of_the_first_version_is_read_and_not_judged() -> None:
    """What is stored stays readable; what it does not say is not made up."""
    stored = (
        '{"place":1,"theta_mean":[1.0,0.0,0.0,0.0,1.0,0.0],"theta_std":[0.0,0.0,0.0,0.0,0.0,0.0],'
        '"outside_share":0.1,"identity_distance":0.2,"determinant_mean":0.8}'
    )
    assert from_json(TransformerHealth, stored, where="the store") == OLD
    assert judge(OLD, accuracy=LEARNT, chance=CHANCE, images=IMAGES) is None


@given(st.sampled_from([None, *Verdict]))
def test_a_verdict_survives_the_store(verdict: Verdict | None) -> None:
    """It is a word in JSON, and a verdict again afterwards."""
    health = replace(FINE, verdict=verdict, gradient_ratio=0.5)
    assert from_json(TransformerHealth, to_json(health), where="the store") == health


@given(st.lists(st.sampled_from([None, *Verdict])))
def test_the_worst_is_as_severe_as_any(verdicts: list[Verdict | None]) -> None:
    """It is one of them, none of them is worse, and it does not depend on their order; it is None without any."""
    known = [verdict for verdict in verdicts if verdict is not None]
    found = worst(verdicts)
    assert found == worst(reversed(verdicts))
    assert (found in known) if known else (found is None)
    assert all(found is not None and found.severity >= verdict.severity for verdict in known)


def test_severity_grows_from_healthy_to_diverged() -> None:
    """The numbers that MLflow shows."""
    assert [verdict.severity for verdict in Verdict] == [0, 1, 2, 3, 4, 5]
    assert (Verdict.HEALTHY.severity, Verdict.DIVERGED.severity) == (0, 5)


def test_a_network_is_as_its_worst_transformer() -> None:
    """One that was not judged, as a control, does not count."""
    assert epoch(Verdict.HEALTHY, Verdict.COLLAPSED, None).verdict is Verdict.COLLAPSED
    assert epoch(None).verdict is None
    assert epoch().verdict is None


def test_an_attempt_is_as_its_last_epoch_unless_it_diverged() -> None:
    """A failure of another kind says nothing of health; a network without a transformer that learns has none."""
    learning = TrialSpec(transformers=(PlacedTransformerSpec(place=1),))
    control = PlacedTransformerSpec(place=1, transformer=TransformerSpec(family="fixed_zoom"), locnet=None)
    epochs = [epoch(Verdict.COLLAPSED), epoch(Verdict.HEALTHY)]
    diverged, lost = (Failure(kind=kind, message="m") for kind in (FailureKind.DIVERGED, FailureKind.KILLED))
    assert judge_attempt(learning, epochs) is Verdict.HEALTHY
    assert judge_attempt(learning, epochs, lost) is Verdict.HEALTHY
    assert judge_attempt(learning, epochs, diverged) is Verdict.DIVERGED
    assert judge_attempt(learning, [], diverged) is Verdict.DIVERGED
    assert judge_attempt(learning, []) is None
    assert judge_attempt(TrialSpec(), [], diverged) is None
    assert judge_attempt(TrialSpec(transformers=(control,)), [epoch(None)], diverged) is None
