"""A committee of networks: the class of the largest mean probability over its members, and what it gains over them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stnbench.analysis.crossed import crossed_difference
from stnbench.analysis.inference import (
    NO_METHOD,
    Estimate,
    McNemar,
    accuracy_estimate,
    wilson_estimate,
)
from stnbench.analysis.mcnemar import mcnemar
from stnbench.core.errors import SpecError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Votes:
    """What the members said of the same images.

    Attributes:
        probabilities: one array (images, classes) a member.
        predictions: (members, images), the label that each gave by itself.
        labels: (images,), the true ones.
        tracks: (images,), from 0 on without gaps; every image its own where they are not known.
        is_tracked: whether they are known.
    """

    probabilities: Sequence[NDArray[np.float16]]
    predictions: NDArray[np.int64]
    labels: NDArray[np.int64]
    tracks: NDArray[np.int64]
    is_tracked: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Diversity:
    """How differently members err: means over all pairs of two, of who is right (Kuncheva and Whitaker 2003).

    ``disagreement`` is the share of images that exactly one of the two classifies correctly, ``double_fault`` the share
    that both get wrong. A committee gains where the first is large and the second small.
    """

    disagreement: float
    double_fault: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitteeGain:
    """The committee's accuracy less that of one member, or of the mean of all, on the same images.

    ``test`` takes the networks as they are and asks about other images; ``only_cell`` of it counts where the committee
    alone is right, ``only_base`` where the member alone is, pooled over members.
    """

    difference: Estimate
    test: McNemar


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitteeScore:
    """A committee on one set of images.

    ``accuracy`` has Wilson's interval over images; ``members`` are theirs, in order, and ``mean_member`` is their mean
    with a t interval over members. ``best`` is the place of the member that is best on these images, the first of
    equals: picked by the same images, it is a little better than it will be on others.
    """

    images: int
    correct: int
    accuracy: Estimate
    members: tuple[Estimate, ...]
    mean_member: Estimate
    best: int
    over_mean: CommitteeGain
    over_best: CommitteeGain
    diversity: Diversity


def score_committee(votes: Votes) -> CommitteeScore:
    """The committee of these members; of classes with equal mean probabilities the first one is taken.

    Raises: SpecError for fewer than two members, or members that have not the same images and classes.
    """
    _require_same_shape(votes)
    images = len(votes.labels)
    is_right = votes.predictions == votes.labels
    committee = mean_probabilities(votes.probabilities).argmax(axis=1) == votes.labels
    correct = is_right.sum(axis=1).tolist()
    best = int(np.argmax(correct))
    return CommitteeScore(
        images=images,
        correct=int(committee.sum()),
        accuracy=wilson_estimate(int(committee.sum()), images),
        members=tuple(wilson_estimate(count, images) for count in correct),
        mean_member=accuracy_estimate(correct, [images] * len(correct)),
        best=best,
        over_mean=_gain(committee, is_right, votes),
        over_best=_gain(committee, is_right[best : best + 1], votes),
        diversity=measure_diversity(is_right),
    )


def mean_probabilities(members: Sequence[NDArray[np.float16]]) -> NDArray[np.float64]:
    """The mean over members, (images, classes); exact but for the last division, so their order changes nothing."""
    total = np.zeros(members[0].shape, np.float64)
    for probabilities in members:
        total += probabilities
    return total / len(members)


def measure_diversity(is_right: NDArray[np.bool_]) -> Diversity:
    """From (members, images), of two members or more, who is right."""
    members, images = is_right.shape
    pairs = np.triu_indices(members, k=1)
    right, wrong = is_right.astype(np.float64), (~is_right).astype(np.float64)
    both_right, both_wrong = (right @ right.T)[pairs], (wrong @ wrong.T)[pairs]  # counts, and so exact
    return Diversity(
        disagreement=float((images - both_right - both_wrong).mean()) / images,
        double_fault=float(both_wrong.mean()) / images,
    )


def _gain(committee: NDArray[np.bool_], members: NDArray[np.bool_], votes: Votes) -> CommitteeGain:
    """Over the members (n, images) together, of which each is compared with the committee."""
    repeated = np.broadcast_to(committee, members.shape)
    crossed = crossed_difference(repeated, members, votes.tracks, is_tracked=votes.is_tracked)
    if crossed is None:
        mean = float(committee.mean() - members.mean())
        difference = Estimate(n=len(members), mean=mean, low=None, high=None, method=NO_METHOD)
    else:
        method = crossed.difference.method.replace("one seed", "one member").replace("seeds", "members")
        difference = replace(crossed.difference, method=method)
    return CommitteeGain(difference=difference, test=mcnemar(repeated, members, votes.tracks))


def _require_same_shape(votes: Votes) -> None:
    members, images = votes.predictions.shape
    shapes = {probabilities.shape for probabilities in votes.probabilities}
    if members < 2 or len(votes.probabilities) != members:
        raise SpecError(f"a committee of {members} was asked for", remedy="give two members or more")
    if len(shapes) > 1 or {rows for rows, _ in shapes} != {images} or len(votes.labels) != images:
        problem = f"members have probabilities of the shapes {sorted(shapes)} for {len(votes.labels)} images"
        raise SpecError(problem, remedy="all must be of the same images and classes")
