"""A committee of networks: the class of the largest mean probability over its members, and what it gains over them."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.analysis.inference import (
    CONFIDENCE,
    ENOUGH_SEEDS,
    NO_METHOD,
    Estimate,
    McNemar,
    accuracy_estimate,
    t_quantile,
    two_sided_p,
    wilson_estimate,
)
from stnbench.analysis.simultaneous import chance_interval
from stnbench.core.errors import SpecError

# A difference over seeds and images both: every seed sees the same images, and images come in tracks.
#
# What is estimated is the mean over all seeds and all images (tracks) there might be, of which those at hand were
# drawn; the interval over seeds alone is about these images only.


TRACKS_METHOD: Final = "t over seeds and tracks"
IMAGES_METHOD: Final = "t over seeds and images"
ONE_SEED_TRACKS_METHOD: Final = "t over tracks, one seed"
ONE_SEED_IMAGES_METHOD: Final = "t over images, one seed"
CHANCE_METHOD: Final = "noncentral t"


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossed:
    """A mean difference with its interval over seeds and images, and the chance that a new run is ahead.

    The new run has a new seed and is scored on as many new images. ``improvement`` is None for one seed, and where
    nothing varies.
    """

    difference: Estimate
    improvement: Estimate | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Variances:
    """Of the mean: between seeds, between tracks, and of what is left (each of the first two has that in it, too)."""

    seeds: float
    tracks: float
    rest: float
    seeds_freedom: int
    tracks_freedom: float

    @property
    def total(self) -> float:
        """Between seeds and between tracks, less the rest that was counted twice; not below either of them."""
        return max(self.seeds + self.tracks - self.rest, self.seeds, self.tracks)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the total, by Satterthwaite's rule."""
        parts = [(self.tracks, self.tracks_freedom)]
        if self.seeds_freedom:
            parts += [(self.seeds, self.seeds_freedom), (self.rest, self.seeds_freedom * self.tracks_freedom)]
        return self.total**2 / sum(variance**2 / freedom for variance, freedom in parts)


def crossed_difference(
    cell: NDArray[np.bool_], base: NDArray[np.bool_], tracks: NDArray[np.int64], *, is_tracked: bool
) -> Crossed | None:
    """The difference in accuracy of two cells on common seeds and images; None where there is one track only.

    From one seed it is about these two networks on other images, and says nothing of other seeds; the method says so.

    The variance of the mean is that of a two-way layout with random seeds and random tracks (as Cameron, Gelbach and
    Miller 2011 put it together for clusters in two ways), with a t interval of Satterthwaite's degrees of freedom. Few
    tracks hold most errors of a good network, so tracks count for as many degrees of freedom as the fourth moment of
    their differences says, which is less. The interval is not narrower than that over seeds alone, nor is the p-value
    smaller: of three seeds the degrees of freedom promise more than they keep, far out in the tails where corrections
    for many pairs look.

    A percentile bootstrap that draws seeds and tracks is too narrow for few seeds; ``test_promises.py`` measures both.

    Args:
        cell: (seeds, images) whether it is right.
        base: likewise, of what it is compared with, in the same order of seeds.
        tracks: (images,) from 0 on without gaps; every image its own where they are not known.
        is_tracked: whether they are known, which the method says.
    """
    images, seeds = cell.shape[1], len(cell)
    sizes = np.bincount(tracks)
    if len(sizes) < 2:
        return None
    differences = cell.astype(np.float64) - base
    sums = np.array([np.bincount(tracks, weights=row) for row in differences])
    mean = float(sums.sum()) / (seeds * images)
    variances = _variances((sums - mean * sizes) * (len(sizes) / images))
    return Crossed(
        difference=_estimate(mean, variances, seeds=seeds, is_tracked=is_tracked),
        improvement=_improvement(mean, variances, seeds=seeds) if seeds > 1 else None,
    )


def improvement_over_seeds(difference: Estimate) -> Estimate | None:
    """The chance that a new seed is ahead on the same images; None for one seed or a difference that never varies."""
    if difference.spread is None:
        return None
    variance = difference.spread**2 / difference.n
    only = _Variances(seeds=variance, tracks=0.0, rest=0.0, seeds_freedom=difference.n - 1, tracks_freedom=math.inf)
    return _improvement(difference.mean, only, seeds=difference.n)


def _variances(parts: NDArray[np.float64]) -> _Variances:
    """Of the mean of ``parts`` (seeds, tracks), which is 0."""
    seeds, tracks = parts.shape
    by_track = parts.mean(axis=0)
    squares, fourths = float((by_track**2).sum()), float((by_track**4).sum())
    excess = fourths - squares**2 / tracks
    freedom = min(max(2 * squares**2 / excess, 1.0), tracks - 1.0) if excess > 0 else tracks - 1.0
    between_tracks = squares / ((tracks - 1) * tracks)
    if seeds == 1:
        return _Variances(seeds=0.0, tracks=between_tracks, rest=0.0, seeds_freedom=0, tracks_freedom=freedom)
    by_seed = parts.mean(axis=1)
    left = parts - by_seed[:, None] - by_track
    return _Variances(
        seeds=float((by_seed**2).sum()) / ((seeds - 1) * seeds),
        tracks=between_tracks,
        rest=float((left**2).sum()) / ((seeds - 1) * (tracks - 1) * seeds * tracks),
        seeds_freedom=seeds - 1,
        tracks_freedom=freedom,
    )


def _estimate(mean: float, variances: _Variances, *, seeds: int, is_tracked: bool) -> Estimate:
    if seeds == 1:
        method = ONE_SEED_TRACKS_METHOD if is_tracked else ONE_SEED_IMAGES_METHOD
    else:
        method = TRACKS_METHOD if is_tracked else IMAGES_METHOD
    if variances.total == 0:
        p_value = 0.0 if mean != 0 and seeds >= ENOUGH_SEEDS else 1.0
        return Estimate(n=seeds, mean=mean, low=mean, high=mean, method=method, tested_p=p_value)
    tests = [(variances.total, variances.freedom)]
    is_coarse = math.sqrt(variances.seeds) < sys.float_info.epsilon  # all seeds differ by the same number of images
    if not is_coarse:
        tests.append((variances.seeds, variances.seeds_freedom))
    half = max(t_quantile(freedom) * math.sqrt(variance) for variance, freedom in tests)
    p_value = max(two_sided_p(mean / math.sqrt(variance), freedom) for variance, freedom in tests)
    if is_coarse and 1 < seeds < ENOUGH_SEEDS:
        p_value = 1.0
    return Estimate(n=seeds, mean=mean, low=mean - half, high=mean + half, method=method, tested_p=p_value)


def _improvement(mean: float, variances: _Variances, *, seeds: int) -> Estimate | None:
    drawn = seeds * max(variances.seeds, variances.rest) + max(variances.tracks - variances.rest, 0.0)
    if drawn == 0 or variances.total == 0:
        return None
    scale = math.sqrt(drawn / variances.total)
    statistic = mean / math.sqrt(variances.total)
    chance, low, high = chance_interval(statistic, variances.freedom, scale, tail=(1 - CONFIDENCE) / 2)
    return Estimate(n=seeds, mean=chance, low=low, high=high, method=CHANCE_METHOD)


# McNemar's test for networks scored on the same images, where images come in tracks and networks in seeds.


EXACT_METHOD: Final = "McNemar, exact, whole tracks"
NORMAL_METHOD: Final = "McNemar, normal, whole tracks"
_EXACT_CLUSTERS_MAX: Final = 200
"""Up to so many tracks with a difference the distribution is summed out; beyond it is normal to the third digit."""


def mcnemar(cell: NDArray[np.bool_], base: NDArray[np.bool_], tracks: NDArray[np.int64]) -> McNemar:
    """Compare two cells on the same images.

    For one seed, and images that are each a track of their own, it is McNemar's exact test. The images of a track are
    near copies and the seeds of a cell see the same images, so neither are independent: under the null hypothesis the
    two cells could be exchanged on a whole track, in all seeds at once, and nothing less. So the signs of the tracks'
    differences are flipped (as Durkalski et al. 2003 do for clustered pairs in the normal limit).

    Args:
        cell: (seeds, images) whether it is right.
        base: likewise, of what it is compared with, in the same order of seeds.
        tracks: (images,) from 0 on without gaps.
    """
    differences = (cell.astype(np.int64) - base).sum(axis=0)
    by_track = np.bincount(tracks, weights=differences).round().astype(np.int64)
    by_track = by_track[by_track != 0]
    is_exact = len(by_track) <= _EXACT_CLUSTERS_MAX
    return McNemar(
        seeds=len(cell),
        images=cell.shape[1],
        tracks=int(tracks.max()) + 1,
        only_cell=int((cell & ~base).sum()),
        only_base=int((base & ~cell).sum()),
        p_value=_exact_p(by_track) if is_exact else _normal_p(by_track),
        method=EXACT_METHOD if is_exact else NORMAL_METHOD,
    )


def _exact_p(differences: NDArray[np.int64]) -> float:
    """The chance that signs drawn at random give a sum as far from 0, by summing out all of them."""
    sizes = np.abs(differences)
    total = int(sizes.sum())
    chances = np.zeros(2 * total + 1)
    chances[total] = 1.0
    for size in sizes[sizes > 0].tolist():
        halves = chances / 2
        chances = np.zeros_like(halves)  # what leaves at the ends is 0: the outer places are still empty
        chances[size:] += halves[:-size]
        chances[:-size] += halves[size:]
    reached = abs(int(differences.sum()))
    sums = np.abs(np.arange(-total, total + 1))
    return min(1.0, float(chances[sums >= reached].sum()))


def _normal_p(differences: NDArray[np.int64]) -> float:
    from scipy import special  # half a second that only those who ask pay

    statistic = abs(float(differences.sum())) / float(np.sqrt((differences.astype(np.float64) ** 2).sum()))
    return float(2 * special.ndtr(-statistic))


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
