"""Ensembles of networks: the class of the largest mean probability over the members, and the gain over them."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.analysis.effects import (
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

# Metrics: calibration, likelihood and the accuracy of the worst class, and errors on corrupted images.
#
# The functions are pure and need numpy only.


Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

BINS: Final = 15
"""The number of equally wide bins of confidence (Guo et al. 2017)."""

SMALLEST: Final = 2.0**-24
"""The smallest positive 16-bit number: an upper bound of a probability that was rounded to 0."""


def expected_calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Compute the expected calibration error (Naeini et al. 2015; Guo et al. 2017).

    Images are sorted into ``BINS`` equally wide bins (a, b] by the largest probability; the error is the mean over
    images of the distance between a bin's accuracy and its mean confidence.

    Args:
        probabilities: of shape (images, classes).
        labels: true classes, of shape (images,).
    """
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=is_right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def negative_log_likelihood(probabilities: Floats, labels: Labels) -> float:
    """Compute the mean negative logarithm of the true class's probability, clipped to at least ``SMALLEST``."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(true, SMALLEST)).mean())


def worst_class_accuracy(probabilities: Floats, labels: Labels) -> float:
    """Compute the lowest share of images classified correctly, over the classes that have any."""
    images = np.bincount(labels, minlength=probabilities.shape[1])
    right = np.bincount(labels[probabilities.argmax(axis=1) == labels], minlength=probabilities.shape[1])
    return float((right[images > 0] / images[images > 0]).min())


Errors = Mapping[str, Sequence[float]]
"""Errors on corrupted images, shares in [0, 1], by kind of corruption; one for each severity."""


def mean_corruption_error(errors: Errors, reference: Errors | None = None) -> float:
    """Compute the mean corruption error (mCE; Hendrycks and Dietterich 2019).

    The sum of a network's errors over the severities of a corruption is divided by that of a reference network, and
    the quotients are averaged over corruptions. Without a reference, it is the mean error: the unnormalised mCE.

    Args:
        errors: errors of the network.
        reference: errors of the reference network on the same corruptions; AlexNet in the paper.

    Returns:
        A share in [0, 1] without a reference, else a quotient, below 1 for a network better than the reference. A
        corruption under which the reference makes no error makes it infinite, or is left out if the network makes none.

    Raises:
        KeyError: if the reference lacks a corruption.
    """
    if reference is None:
        return float(np.mean([np.mean(own) for own in errors.values()]))
    return _mean_quotient([(sum(own), sum(reference[kind])) for kind, own in errors.items()])


def relative_corruption_error(errors: Errors, clean: float, reference: Errors, reference_clean: float) -> float:
    """Compute the relative mean corruption error (Hendrycks and Dietterich 2019).

    As ``mean_corruption_error``, of the errors that corruptions add to those on clean images. It separates a robust
    network from an accurate one.

    Args:
        errors: errors of the network.
        clean: its error on clean images.
        reference: errors of the reference network on the same corruptions.
        reference_clean: its error on clean images.
    """
    pairs = [
        (sum(own) - len(own) * clean, sum(reference[kind]) - len(reference[kind]) * reference_clean)
        for kind, own in errors.items()
    ]
    return _mean_quotient(pairs)


def _mean_quotient(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the mean of quotients; those of 0 and 0 are left out, NaN if all are."""
    quotients = [over / under if under else float("inf") for over, under in pairs if over or under]
    return float(np.mean(quotients)) if quotients else float("nan")


# A difference over both seeds and images: every seed sees the same images, and images come in tracks.
#
# The estimand is the mean over all possible seeds and all possible images (tracks), of which those at hand were drawn;
# the interval over seeds alone is about these images only.


TRACKS_METHOD: Final = "t over seeds and tracks"
IMAGES_METHOD: Final = "t over seeds and images"
ONE_SEED_TRACKS_METHOD: Final = "t over tracks, one seed"
ONE_SEED_IMAGES_METHOD: Final = "t over images, one seed"
CHANCE_METHOD: Final = "noncentral t"


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossed:
    """A mean difference with its interval over seeds and images, and the probability that a new run is ahead.

    The new run has a new seed and is scored on as many new images. ``improvement`` is None for one seed, and if nothing
    varies.
    """

    difference: Estimate
    improvement: Estimate | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Variances:
    """Variances of a mean: between seeds, between tracks, and of the rest, which each of the first two includes."""

    seeds: float
    tracks: float
    rest: float
    seeds_freedom: int
    tracks_freedom: float

    @property
    def total(self) -> float:
        """Return the variance between seeds plus that between tracks, less the rest that was counted twice.

        It is not below either of the two.
        """
        return max(self.seeds + self.tracks - self.rest, self.seeds, self.tracks)

    @property
    def freedom(self) -> float:
        """Return the degrees of freedom of the total, by Satterthwaite's rule."""
        parts = [(self.tracks, self.tracks_freedom)]
        if self.seeds_freedom:
            parts += [(self.seeds, self.seeds_freedom), (self.rest, self.seeds_freedom * self.tracks_freedom)]
        return self.total**2 / sum(variance**2 / freedom for variance, freedom in parts)


def crossed_difference(
    config: NDArray[np.bool_], base: NDArray[np.bool_], tracks: NDArray[np.int64], *, is_tracked: bool
) -> Crossed | None:
    """Estimate the difference in accuracy of two configurations on common seeds and images.

    With one seed, the estimate is about these two networks on other images, and says nothing about other seeds; the
    method states so.

    The variance of the mean is that of a two-way layout with random seeds and random tracks (combined as in Cameron,
    Gelbach and Miller 2011 for clusters in two ways), with a t interval of Satterthwaite's degrees of freedom. Few
    tracks hold most errors of a good network, so the degrees of freedom of tracks come from the fourth moment of their
    differences, which gives fewer. The interval is not narrower than that over seeds alone, nor is the p-value smaller:
    with three seeds the nominal degrees of freedom are too optimistic far out in the tails, where corrections for many
    pairs look.

    A percentile bootstrap that draws seeds and tracks is too narrow for few seeds; ``test_promises.py`` measures both.

    Args:
        config: whether the configuration is right, of shape (seeds, images).
        base: the same of the configuration that it is compared with, in the same order of seeds.
        tracks: of shape (images,), numbered from 0 without gaps; a separate track for every image if they are not
            known.
        is_tracked: whether tracks are known, which the method states.

    Returns:
        The difference; None if there is only one track.
    """
    images, seeds = config.shape[1], len(config)
    sizes = np.bincount(tracks)
    if len(sizes) < 2:
        return None
    differences = config.astype(np.float64) - base
    sums = np.array([np.bincount(tracks, weights=row) for row in differences])
    mean = float(sums.sum()) / (seeds * images)
    variances = _variances((sums - mean * sizes) * (len(sizes) / images))
    return Crossed(
        difference=_estimate(mean, variances, seeds=seeds, is_tracked=is_tracked),
        improvement=_improvement(mean, variances, seeds=seeds) if seeds > 1 else None,
    )


def improvement_over_seeds(difference: Estimate) -> Estimate | None:
    """Return the probability that a new seed is ahead on the same images.

    None for one seed, or for a difference that never varies.
    """
    if difference.spread is None:
        return None
    variance = difference.spread**2 / difference.n
    only = _Variances(seeds=variance, tracks=0.0, rest=0.0, seeds_freedom=difference.n - 1, tracks_freedom=math.inf)
    return _improvement(difference.mean, only, seeds=difference.n)


def _variances(parts: NDArray[np.float64]) -> _Variances:
    """Return the variances of the mean of ``parts`` (seeds, tracks), which is 0."""
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


# McNemar's test for networks of several seeds that are scored on the same images, which come in tracks.


EXACT_METHOD: Final = "McNemar, exact, whole tracks"
NORMAL_METHOD: Final = "McNemar, normal, whole tracks"
_EXACT_CLUSTERS_MAX: Final = 200
"""The largest number of tracks with a difference for the exact distribution; beyond, it is normal to 3 digits."""


def mcnemar(config: NDArray[np.bool_], base: NDArray[np.bool_], tracks: NDArray[np.int64]) -> McNemar:
    """Compare two configurations on the same images.

    For one seed, and images that are each a separate track, this is McNemar's exact test. The images of a track are
    near copies and the seeds of a configuration see the same images, so neither are independent: under the null
    hypothesis the two configurations are exchangeable only on a whole track, in all seeds at once. Hence the signs of
    the tracks' differences are flipped (as Durkalski et al. 2003 do for clustered pairs in the normal limit).

    Args:
        config: whether the configuration is right, of shape (seeds, images).
        base: the same of the configuration that it is compared with, in the same order of seeds.
        tracks: of shape (images,), numbered from 0 without gaps.
    """
    differences = (config.astype(np.int64) - base).sum(axis=0)
    by_track = np.bincount(tracks, weights=differences).round().astype(np.int64)
    by_track = by_track[by_track != 0]
    is_exact = len(by_track) <= _EXACT_CLUSTERS_MAX
    return McNemar(
        seeds=len(config),
        images=config.shape[1],
        tracks=int(tracks.max()) + 1,
        only_config=int((config & ~base).sum()),
        only_base=int((base & ~config).sum()),
        p_value=_exact_p(by_track) if is_exact else _normal_p(by_track),
        method=EXACT_METHOD if is_exact else NORMAL_METHOD,
    )


def _exact_p(differences: NDArray[np.int64]) -> float:
    """Return the probability that random signs give a sum at least as far from 0, by enumerating all of them."""
    sizes = np.abs(differences)
    total = int(sizes.sum())
    chances = np.zeros(2 * total + 1)
    chances[total] = 1.0
    for size in sizes[sizes > 0].tolist():
        halves = chances / 2
        chances = np.zeros_like(halves)  # only zeros leave at the ends
        chances[size:] += halves[:-size]
        chances[:-size] += halves[size:]
    reached = abs(int(differences.sum()))
    sums = np.abs(np.arange(-total, total + 1))
    return min(1.0, float(chances[sums >= reached].sum()))


def _normal_p(differences: NDArray[np.int64]) -> float:
    from scipy import special  # the import takes 0.5 s

    statistic = abs(float(differences.sum())) / float(np.sqrt((differences.astype(np.float64) ** 2).sum()))
    return float(2 * special.ndtr(-statistic))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Votes:
    """The outputs of the members for the same images.

    Attributes:
        probabilities: one array (images, classes) for each member.
        predictions: the label that each member predicts by itself, of shape (members, images).
        labels: the true labels, of shape (images,).
        tracks: of shape (images,), numbered from 0 without gaps; a separate track for every image if they are not
            known.
        is_tracked: whether tracks are known.
    """

    probabilities: Sequence[NDArray[np.float16]]
    predictions: NDArray[np.int64]
    labels: NDArray[np.int64]
    tracks: NDArray[np.int64]
    is_tracked: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Diversity:
    """The diversity of the members' errors: means over all pairs of members (Kuncheva and Whitaker 2003).

    ``disagreement`` is the share of images that exactly one of the two classifies correctly, ``double_fault`` the share
    that both get wrong. An ensemble gains where the first is large and the second small.
    """

    disagreement: float
    double_fault: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitteeGain:
    """The ensemble's accuracy less that of one member, or of the mean of all, on the same images.

    ``test`` takes the networks as they are and is about other images; its ``only_config`` counts images on which the
    ensemble alone is right, ``only_base`` those on which the member alone is, pooled over members.
    """

    difference: Estimate
    test: McNemar


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitteeScore:
    """The score of an ensemble on one set of images.

    ``accuracy`` has Wilson's interval over images; ``members`` are the members' accuracies, in order, and
    ``mean_member`` is their mean with a t interval over members. ``best`` is the index of the member that is best on
    these images, the first of equals: it is picked by the same images, so its accuracy is slightly optimistic.
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
    """Score the ensemble of these members; of classes with equal mean probabilities the first one is taken.

    Raises:
        SpecError: if there are fewer than two members, or the members differ in images or classes.
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
    """Return the mean over members, of shape (images, classes).

    It is exact but for the last division, so the order of the members changes nothing.
    """
    total = np.zeros(members[0].shape, np.float64)
    for probabilities in members:
        total += probabilities
    return total / len(members)


def measure_diversity(is_right: NDArray[np.bool_]) -> Diversity:
    """Compute the diversity of two members or more from an array (members, images) of who is right."""
    members, images = is_right.shape
    pairs = np.triu_indices(members, k=1)
    right, wrong = is_right.astype(np.float64), (~is_right).astype(np.float64)
    both_right, both_wrong = (right @ right.T)[pairs], (wrong @ wrong.T)[pairs]  # counts, and so exact
    return Diversity(
        disagreement=float((images - both_right - both_wrong).mean()) / images,
        double_fault=float(both_wrong.mean()) / images,
    )


def _gain(committee: NDArray[np.bool_], members: NDArray[np.bool_], votes: Votes) -> CommitteeGain:
    """Compute the gain over the members (n, images) together, each of which is compared with the ensemble."""
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
        raise SpecError(f"an ensemble of {members}", remedy="give two members or more")
    if len(shapes) > 1 or {rows for rows, _ in shapes} != {images} or len(votes.labels) != images:
        problem = f"members have probabilities of the shapes {sorted(shapes)} for {len(votes.labels)} images"
        raise SpecError(problem, remedy="all must be of the same images and classes")
