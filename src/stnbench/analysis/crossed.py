"""A difference over seeds and images both: every seed sees the same images, and images come in tracks.

What is estimated is the mean over all seeds and all images (tracks) there might be, of which those at hand were drawn;
the interval over seeds alone is about these images only.
"""

import math
import sys
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.analysis.inference import CONFIDENCE, ENOUGH_SEEDS, Estimate, t_quantile, two_sided_p
from stnbench.analysis.power import chance_interval

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
