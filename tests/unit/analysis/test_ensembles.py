"""Committees by hand, by definition, and what holds of all of them."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stnbench.analysis.ensembles import Votes, mean_probabilities, measure_diversity, score_committee
from stnbench.core.errors import SpecError


def votes(
    probabilities: Sequence[NDArray[np.float16]], labels: Sequence[int], tracks: Sequence[int] | None = None
) -> Votes:
    """The votes of members that each take their most probable class."""
    return Votes(
        probabilities=probabilities,
        predictions=np.array([member.argmax(axis=1) for member in probabilities], np.int64),
        labels=np.array(labels, np.int64),
        tracks=np.arange(len(labels)) if tracks is None else np.array(tracks, np.int64),
        is_tracked=tracks is not None,
    )


def drawn(members: int, images: int, classes: int, seed: int) -> list[NDArray[np.float16]]:
    """Networks that know something: the label of image i is i modulo the number of classes."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=2.0, size=(members, images, classes))
    logits[:, np.arange(images), np.arange(images) % classes] += 2.0
    shares = np.exp(logits - logits.max(axis=2, keepdims=True))
    return list((shares / shares.sum(axis=2, keepdims=True)).astype(np.float16))


def of_two_classes(*first: float) -> NDArray[np.float16]:
    """A member by the probability of class 0 of each image."""
    return np.array([(share, 1 - share) for share in first], np.float16)


def test_a_committee_by_hand() -> None:
    """The unsure member that is wrong is outvoted by the sure one that is right, and the other way round."""
    labels = [0, 0, 1, 1, 0]
    found = score_committee(
        votes(
            [
                of_two_classes(0.9, 0.4, 0.6, 0.1, 0.2),  # right: 0 and 3
                of_two_classes(0.4, 0.8, 0.1, 0.3, 0.1),  # right: 1, 2 and 3
            ],
            labels,
        )
    )
    assert (found.images, found.correct, found.best) == (5, 4, 1)
    assert [round(member.mean, 3) for member in found.members] == [0.4, 0.6]
    assert found.mean_member.mean == pytest.approx(0.5)
    assert found.diversity.disagreement == pytest.approx(3 / 5)
    assert found.diversity.double_fault == pytest.approx(1 / 5)
    assert found.over_best.difference.mean == pytest.approx(0.2)
    assert found.over_mean.difference.mean == pytest.approx(0.3)
    assert (found.over_best.test.only_config, found.over_best.test.only_base) == (1, 0)
    assert (found.over_mean.test.only_config, found.over_mean.test.only_base) == (3, 0)
    assert found.over_best.test.p_value == pytest.approx(1.0)


def test_the_test_against_the_best_is_mcnemars_exact_one() -> None:
    """With every image its own track: 8 images that the committee alone has right, none the member: p = 2 / 2**8."""
    wrong_at_the_end = of_two_classes(*[0.99] * 12, *[0.45] * 8)
    wrong_at_the_start = of_two_classes(*[0.4] * 8, *[0.99] * 12)
    found = score_committee(votes([wrong_at_the_end, wrong_at_the_start], [0] * 20))
    assert (found.correct, found.best) == (20, 0)
    assert (found.over_best.test.only_config, found.over_best.test.only_base) == (8, 0)
    assert found.over_best.test.p_value == pytest.approx(2 / 2**8)


@given(members=st.integers(2, 6), images=st.integers(2, 40), classes=st.integers(2, 5), seed=st.integers(0, 1000))
def test_the_order_of_members_changes_nothing(members: int, images: int, classes: int, seed: int) -> None:
    """Neither the accuracy nor diversity, nor the gains; equal means to the last bit."""
    given_order = drawn(members, images, classes, seed)
    labels = [image % classes for image in range(images)]
    one, other = score_committee(votes(given_order, labels)), score_committee(votes(given_order[::-1], labels))
    assert (mean_probabilities(given_order) == mean_probabilities(given_order[::-1])).all()
    assert one.accuracy == other.accuracy
    assert one.diversity.disagreement == pytest.approx(other.diversity.disagreement)
    assert one.over_mean.test == other.over_mean.test
    assert one.over_best.difference.mean == pytest.approx(other.over_best.difference.mean)


@given(members=st.integers(2, 5), seed=st.integers(0, 1000))
def test_a_committee_of_copies_is_its_member(members: int, seed: int) -> None:
    """No gain, no disagreement, and as many double faults as errors."""
    (member,) = drawn(1, 30, 4, seed)
    labels = [image % 4 for image in range(30)]
    found = score_committee(votes([member] * members, labels))
    assert found.correct == int((member.argmax(axis=1) == labels).sum())
    assert (found.diversity.disagreement, found.over_best.difference.mean) == (0, 0)
    assert found.diversity.double_fault == pytest.approx(1 - found.accuracy.mean)
    assert (found.over_mean.test.only_config, found.over_mean.test.p_value) == (0, 1.0)


@given(members=st.integers(2, 6), seed=st.integers(0, 1000))
def test_diversity_is_the_mean_over_pairs(members: int, seed: int) -> None:
    """As the definitions of Kuncheva and Whitaker (2003) read, pair by pair and image by image."""
    is_right = np.random.default_rng(seed).random((members, 25)) < 0.7
    pairs = [(one, other) for one in range(members) for other in range(one)]
    disagreement = np.mean([(is_right[one] != is_right[other]).mean() for one, other in pairs])
    double_fault = np.mean([(~is_right[one] & ~is_right[other]).mean() for one, other in pairs])
    found = measure_diversity(is_right)
    assert found.disagreement == pytest.approx(disagreement)
    assert found.double_fault == pytest.approx(double_fault, abs=1e-12)


def test_many_independent_members_beat_one() -> None:
    """Ten networks that err independently: the committee errs far less, and McNemar's test says so."""
    labels = [image % 5 for image in range(400)]
    found = score_committee(votes(drawn(10, 400, 5, seed=3), labels))
    assert found.accuracy.mean > found.members[found.best].mean + 0.1
    assert found.over_best.test.p_value < 1e-6
    assert found.over_mean.difference.low is not None
    assert found.over_mean.difference.low > 0.1
    assert "members" in found.over_mean.difference.method


def test_images_of_a_track_count_together() -> None:
    """The same votes on near copies prove less: p is larger, and the interval wider."""
    labels = [image // 10 % 5 for image in range(400)]
    members = [np.repeat(member, 10, axis=0) for member in drawn(4, 40, 5, seed=1)]
    alone = score_committee(votes(members, labels))
    tracked = score_committee(votes(members, labels, tracks=[image // 10 for image in range(400)]))
    assert alone.over_best.difference.mean == pytest.approx(tracked.over_best.difference.mean)
    assert 0 < alone.over_best.test.p_value < tracked.over_best.test.p_value
    assert "tracks" in tracked.over_best.difference.method


def test_one_track_has_no_interval() -> None:
    """There is nothing to say about other tracks."""
    found = score_committee(votes(drawn(2, 6, 3, seed=0), [0, 1, 2, 0, 1, 2], tracks=[0] * 6))
    assert found.over_best.difference.low is None
    assert found.over_mean.difference.mean == pytest.approx(found.accuracy.mean - found.mean_member.mean)


def test_one_member_is_no_committee() -> None:
    """It takes two."""
    with pytest.raises(SpecError, match="two members"):
        score_committee(votes(drawn(1, 6, 3, seed=0), [0] * 6))


@pytest.mark.parametrize("other", [drawn(1, 6, 4, seed=0)[0], drawn(1, 7, 3, seed=0)[0]])
def test_members_of_other_classes_or_images_are_refused(other: NDArray[np.float16]) -> None:
    """Their probabilities cannot be averaged."""
    (member,) = drawn(1, 6, 3, seed=0)
    given_votes = Votes(
        probabilities=[member, other],
        predictions=np.zeros((2, 6), np.int64),
        labels=np.zeros(6, np.int64),
        tracks=np.arange(6),
        is_tracked=False,
    )
    with pytest.raises(SpecError, match="same images and classes"):
        score_committee(given_votes)
