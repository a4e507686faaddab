"""Intervals and comparisons by pure functions, and main effects and interactions of the axes of a sweep."""

import functools
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

from stnbench.core.errors import SpecError

# Intervals and comparisons, computed by pure functions. Every result names its n and its method.
#
# Seeds are the unit: a mean over n seeds has a Student t interval, and two configurations are compared by their
# difference on common seeds, because all configurations of one seed see the same data order. Accuracies are shares in
# [0, 1].


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
    """Return the mean of ``of`` less ``base`` over their common seeds, or None if they have none.

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


# The layout of configurations on axes, and which of them can be compared with all else equal.


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedConfiguration:
    """A configuration: its label on every axis that it has, and its accuracy by seed."""

    labels: Mapping[str, str]
    scores: Mapping[int, float]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Blocks:
    """Configurations in whole blocks.

    Each block has every combination of the labels of ``axes``, with the same other labels.

    Attributes:
        axes: the names of the axes.
        labels: of each axis.
        seeds: those that all these configurations have.
        scores: of shape (blocks, labels of the first axis, labels of the second axis, ..., seeds).
    """

    axes: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...]
    scores: "NDArray[np.float64]"

    @property
    def configs(self) -> int:
        """Return the number of configurations."""
        import numpy as np  # the import takes 0.1 s

        return int(np.prod(self.scores.shape[:-1]))


def usual_seeds(configs: Iterable[PlacedConfiguration]) -> tuple[int, ...]:
    """Return the seeds that most configurations have, sorted; of equally frequent sets the largest."""
    sets = Counter(tuple(sorted(config.scores)) for config in configs)
    return max(sets, key=lambda seeds: (sets[seeds], len(seeds), seeds), default=())


def whole_blocks(configs: Sequence[PlacedConfiguration], *axes: str) -> Blocks | None:
    """Collect the whole blocks of configurations on these axes; None if there is no whole block.

    Configurations that lack one of the axes, or a score for one of the usual seeds of the others, are left out, and so
    are blocks in which a combination is missing. Labels are in the order of appearance.
    """
    import numpy as np  # the import takes 0.1 s

    there = [config for config in configs if all(axis in config.labels for axis in axes)]
    seeds = usual_seeds(there)
    there = [config for config in there if config.scores.keys() >= set(seeds)]
    labels = tuple(tuple(dict.fromkeys(config.labels[axis] for config in there)) for axis in axes)
    blocks: dict[frozenset[tuple[str, str]], dict[tuple[str, ...], PlacedConfiguration]] = {}
    for config in there:
        others = frozenset((name, label) for name, label in config.labels.items() if name not in axes)
        blocks.setdefault(others, {})[tuple(config.labels[axis] for axis in axes)] = config
    combinations = list(product(*labels))
    whole = [block for block in blocks.values() if len(block) == len(combinations)]
    if not seeds or not whole:
        return None
    scores = [[block[combination].scores[seed] for combination in combinations for seed in seeds] for block in whole]
    shape = (len(whole), *map(len, labels), len(seeds))
    return Blocks(axes=axes, labels=labels, seeds=seeds, scores=np.array(scores).reshape(shape))


BLOCKS_METHOD: Final = "whole blocks"
LEAST_SQUARES_METHOD: Final = "least squares"
_ABSENT: Final = "\0"
"""The label of a configuration on an axis that it does not have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AxisEffects:
    """The effects of one axis, in the order of ``labels``: differences from the mean over the axis's labels.

    ``means`` are the accuracies that belong to them, ``configs`` the number of configurations that they are computed
    from.
    """

    axis: str
    labels: tuple[str, ...]
    means: tuple[float, ...]
    effects: tuple[Estimate, ...]
    configs: int
    method: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class InteractionTest:
    """The interaction of two axes, with an F test if there are several seeds.

    ``means`` and ``residuals`` have the shape (labels of the first axis, labels of the second axis).
    """

    blocks: Blocks
    means: "NDArray[np.float64]"
    residuals: "NDArray[np.float64]"
    statistic: float | None
    p_value: float | None


def main_effects(configs: Sequence[PlacedConfiguration], axis: str) -> AxisEffects | None:
    """Estimate the effects of an axis with all else equal.

    If whole blocks hold at least half of the configurations on the axis, the effects are the means of the blocks.
    Otherwise they are those of an additive model of all axes, fitted to these configurations by least squares. Either
    way there is one number for each seed, and the interval is that of t over seeds. Configurations without a score for
    one of the usual seeds are left out.

    Returns:
        None if the axis has a single label, or its effects are not determined because it varies together with another
        axis.
    """
    there = [config for config in configs if axis in config.labels]
    labels = list(dict.fromkeys(config.labels[axis] for config in there))
    if len(labels) < 2:
        return None
    blocks = whole_blocks(there, axis)
    if blocks is not None and 2 * blocks.configs >= len(there) and len(blocks.labels[0]) == len(labels):
        by_seed = blocks.scores.mean(axis=0)
        return _effects(axis, labels, by_seed, configs=blocks.configs, method=BLOCKS_METHOD)
    return _least_squares(there, axis, labels)


def interaction(configs: Sequence[PlacedConfiguration], first: str, second: str) -> InteractionTest | None:
    """Test whether the effect of one axis depends on the other, in whole blocks of both; None if there is none.

    The F test is that of a layout with seeds as blocks: the interaction's mean square over that of its interaction with
    seeds. It assumes that the deviations of seeds are independent and have equal variances.
    """
    blocks = whole_blocks(configs, first, second)
    if blocks is None or min(map(len, blocks.labels)) < 2:
        return None
    by_seed = blocks.scores.mean(axis=0)
    overall = by_seed.mean(axis=(0, 1), keepdims=True)
    left = by_seed - by_seed.mean(axis=1, keepdims=True) - by_seed.mean(axis=0, keepdims=True) + overall
    residuals = left.mean(axis=2)
    seeds = len(blocks.seeds)
    freedom = (len(blocks.labels[0]) - 1) * (len(blocks.labels[1]) - 1)
    noise = float(((left - residuals[:, :, None]) ** 2).sum())
    statistic = p_value = None
    if seeds > 1 and noise > 0:
        from scipy import special  # the import takes 0.1 s

        statistic = seeds * float((residuals**2).sum()) * (seeds - 1) / noise
        p_value = float(special.fdtrc(freedom, freedom * (seeds - 1), statistic))
    return InteractionTest(
        blocks=blocks, means=by_seed.mean(axis=2), residuals=residuals, statistic=statistic, p_value=p_value
    )


def variance_explained(labels: Sequence[str], values: Sequence[float]) -> float | None:
    """Compute eta squared: the share of the values' variance that lies between the labels.

    None if all values are equal, or if there are more than half as many labels as values, where it is always large.
    """
    import numpy as np  # the import takes 0.1 s

    kinds = sorted(set(labels))
    numbers = np.asarray(values, dtype=np.float64)
    total = float(((numbers - numbers.mean()) ** 2).sum()) if len(numbers) else 0.0
    if total == 0 or 2 * len(kinds) > len(values):
        return None
    own = np.searchsorted(kinds, list(labels))
    counts, sums = np.bincount(own), np.bincount(own, weights=numbers)
    return float((counts * (sums / counts - numbers.mean()) ** 2).sum()) / total


def _effects(
    axis: str, labels: Sequence[str], by_seed: "NDArray[np.float64]", *, configs: int, method: str
) -> AxisEffects:
    """Compute effects from an array (labels, seeds) of accuracies."""
    differences = by_seed - by_seed.mean(axis=0)
    return AxisEffects(
        axis=axis,
        labels=tuple(labels),
        means=tuple(by_seed.mean(axis=1).tolist()),
        effects=tuple(t_estimate(row) for row in differences.tolist()),
        configs=configs,
        method=method,
    )


def _least_squares(configs: Sequence[PlacedConfiguration], axis: str, labels: Sequence[str]) -> AxisEffects | None:
    import numpy as np  # the import takes 0.1 s

    seeds = usual_seeds(configs)
    there = [config for config in configs if config.scores.keys() >= set(seeds)]
    others = dict.fromkeys(name for config in there for name in config.labels if name != axis)
    columns = [_dummies([config.labels.get(name, _ABSENT) for config in there]) for name in others]
    # An axis with almost as many labels as configurations would explain everything and determine nothing.
    columns = [column for column in columns if 2 * (column.shape[1] + 1) <= len(there)]
    own = _dummies([config.labels[axis] for config in there], labels)
    rest = np.hstack([np.ones((len(there), 1)), *columns])
    design = np.hstack([own, rest])
    rank = np.linalg.matrix_rank
    if 2 * len(labels) > len(there) or rank(design) < rank(rest) + own.shape[1]:
        return None
    scores = np.array([[config.scores[seed] for seed in seeds] for config in there])
    found = np.linalg.lstsq(design, scores, rcond=None)[0][: own.shape[1]]
    effects = np.vstack([found, -found.sum(axis=0)])  # effects add up to 0
    return _effects(axis, labels, effects + scores.mean(axis=0), configs=len(there), method=LEAST_SQUARES_METHOD)


def _dummies(labels: Sequence[str], kinds: Sequence[str] = ()) -> "NDArray[np.float64]":
    """Return one column for each kind of label but the last, which is -1 in all, so that coefficients add up to 0."""
    import numpy as np  # the import takes 0.1 s

    kinds = list(kinds or dict.fromkeys(labels))
    places = {kind: place for place, kind in enumerate(kinds)}
    whole = np.eye(len(kinds))[[places[label] for label in labels]]
    return np.asarray(whole[:, :-1] - whole[:, -1:])
