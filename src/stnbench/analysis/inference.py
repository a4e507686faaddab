"""Intervals and comparisons, computed by pure functions. Every result names its n and its method.

Seeds are the unit: a mean over n seeds has a Student t interval, and two configurations are compared by their
difference on common seeds, because all configurations of one seed see the same data order. Accuracies are shares in [0,
1].
"""

import functools
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stnbench.core.errors import SpecError

CONFIDENCE = 0.95
LEVEL = 1 - CONFIDENCE
T_METHOD = "t over seeds"
WILSON_METHOD = "Wilson, one run"
NO_METHOD = "none"

ENOUGH_SEEDS = 6
"""With fewer pairs the smallest p of the exact two-sided Wilcoxon test, 2 / 2**n, stays above 0.05."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean with its 95 % interval; ``low`` and ``high`` are None if n is too small for an interval.

    ``clipped`` is whether the interval reached beyond the possible range and was cut there. ``spread`` is the standard
    deviation between seeds, None for one seed; an interval from a spread of 0 has no width and proves nothing.
    ``tested_p`` is the p-value of a mean of 0 if the interval is not that of t over seeds.
    """

    n: int
    mean: float
    low: float | None
    high: float | None
    method: str
    clipped: bool = False
    spread: float | None = None
    tested_p: float | None = None

    @property
    def p_value(self) -> float:
        """Return the p-value of the two-sided t test of a mean of 0; 1 if n is too small.

        A spread of 0 has p = 0 from ``ENOUGH_SEEDS`` on, and p = 1 for fewer.
        """
        if self.tested_p is not None:
            return self.tested_p
        if self.spread is None or self.mean == 0:
            return 1.0
        if self.spread == 0:
            return 0.0 if self.n >= ENOUGH_SEEDS else 1.0
        return two_sided_p(self.mean * math.sqrt(self.n) / self.spread, self.n - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class McNemar:
    """McNemar's test of two configurations, pooled over their common seeds.

    ``only_config`` and ``only_base`` count pairs of an image and a seed on which that configuration alone is right;
    ``tracks`` is the number of tracks of all images. ``p_value`` is two-sided. It is about these networks on other
    images, and says nothing about other seeds.
    """

    seeds: int
    images: int
    tracks: int
    only_config: int
    only_base: int
    p_value: float
    method: str


def t_estimate(values: Sequence[float]) -> Estimate:
    """Return the mean with its Student t interval at 95 %; a single value has no interval.

    Raises:
        SpecError: if there is no value.
    """
    if not values:
        raise SpecError("a mean of no values was asked for", remedy="give at least one")
    n, mean = len(values), statistics.fmean(values)
    if n == 1:
        return Estimate(n=1, mean=mean, low=None, high=None, method=NO_METHOD)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))  # stdev takes 10 times as long
    if spread < sys.float_info.epsilon:  # equal differences of shares may differ by rounding
        spread = 0.0
    half = t_quantile(n - 1) * spread / math.sqrt(n)
    return Estimate(n=n, mean=mean, low=mean - half, high=mean + half, method=T_METHOD, spread=spread)


def wilson_estimate(correct: int, images: int) -> Estimate:
    """Return the accuracy of one run with Wilson's 95 % interval over its images (Wilson 1927).

    The interval covers the choice of images only, not that of the seed.
    """
    low, high = _wilson_interval(correct, images)
    return Estimate(n=1, mean=correct / images, low=low, high=high, method=WILSON_METHOD)


def accuracy_estimate(correct: Sequence[int], images: Sequence[int]) -> Estimate:
    """Return the mean accuracy of one configuration's runs: t over seeds from two runs on, Wilson for one.

    Args:
        correct: images classified correctly, one number for each seed.
        images: images scored, one number for each seed.

    Raises:
        SpecError: if there is no run.
    """
    if len(correct) == 1:
        return wilson_estimate(correct[0], images[0])
    return _clip(t_estimate([right / total for right, total in zip(correct, images, strict=True)]))


def share_estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of shares in [0, 1], one for each seed, with a t interval that is cut at 0 and 1.

    Raises:
        SpecError: if there is no value.
    """
    return _clip(t_estimate(values))


def paired_difference(of: Mapping[int, float], base: Mapping[int, float]) -> Estimate | None:
    """Return the mean of ``of`` less ``base`` over their common seeds; None if they have none.

    One common seed gives a difference without an interval.
    """
    common = sorted(of.keys() & base.keys())
    return t_estimate([of[seed] - base[seed] for seed in common]) if common else None


def pairs_among(configs: int) -> int:
    """Return the number of pairs of configurations: the size of the family in which the best was picked."""
    return configs * (configs - 1) // 2


def holm_adjusted(p_values: Sequence[float], *, tests: int) -> list[float]:
    """Correct p-values by Holm's method.

    A hypothesis is rejected at every level that is not below its adjusted p-value.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, p_values[index] * (tests - rank)))
        adjusted[index] = largest
    return adjusted


def _clip(estimate: Estimate) -> Estimate:
    low, high = estimate.low, estimate.high
    if low is None or high is None or (low >= 0 and high <= 1):
        return estimate
    return Estimate(
        n=estimate.n,
        mean=estimate.mean,
        low=max(low, 0.0),
        high=min(high, 1.0),
        method=estimate.method,
        clipped=True,
        spread=estimate.spread,
    )


@functools.lru_cache(maxsize=4096)
def t_quantile(freedom: float) -> float:
    """Return Student's t at the upper end of the interval, for possibly fractional degrees of freedom."""
    from scipy import special  # the import takes 0.1 s

    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))


@functools.lru_cache(maxsize=65536)
def two_sided_p(statistic: float, freedom: float) -> float:
    """Return the two-sided p-value of a t statistic, for possibly fractional degrees of freedom."""
    from scipy import special  # as above

    return float(2 * special.stdtr(freedom, -abs(statistic)))


@functools.lru_cache(maxsize=4096)
def _wilson_interval(correct: int, images: int) -> tuple[float, float]:
    from scipy import stats  # as above

    interval = stats.binomtest(correct, images).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


# Rank correlations. This module does not import numpy, so that code that only passes results on stays light.


KENDALL: Final = "Kendall tau-b"
SPEARMAN: Final = "Spearman rho"

INTERVAL_METHOD: Final = "posterior draws of configuration means over seeds"
NO_INTERVAL_METHOD: Final = "no interval from fewer than 6 configurations or 2 seeds"


@dataclass(frozen=True, kw_only=True, slots=True)
class RankCorrelation:
    """A rank correlation with its 95 % interval and the p-value of a permutation test of no correlation.

    The interval is None with fewer than six configurations or two seeds. ``value`` is the correlation of the observed
    means, which noise draws towards 0: it may lie at the lower end of the interval.
    """

    measure: str
    configs: int
    seeds: int
    value: float
    low: float | None
    high: float | None
    method: str
    p_value: float
