"""Probabilities of the largest of several studentised differences, for families of comparisons.

A family is described by a *table*: the probability that the largest absolute standardised difference exceeds w, on a
grid of w. Means are normal if their standard errors are known, and follow separate t distributions if each has a
separate estimate. The component that all estimates have in common is integrated out at the end, as for Tukey's and
Dunnett's tests (Hochberg and Tamhane 1987, Multiple Comparison Procedures, chapters 3 and 5).
"""

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate, special

from stnbench.analysis.effects import LEVEL

Floats = NDArray[np.float64]

_WIDEST: Final = 7.6
"""The inverse hyperbolic sine of the largest w, 1000; grids are even in it, because t has long tails."""

_GRID: Final = np.sinh(np.linspace(0.0, _WIDEST, 913))
_COARSE: Final = np.linspace(0.0, _WIDEST, 96)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_LOGITS, _LOGIT_WEIGHTS = np.polynomial.legendre.leggauss(64)
_FARTHEST: Final = 16.0
"""The limit, to either side, of integrals over the log-odds of the quantiles of a distribution."""

_AT_ONCE: Final = 50_000
_FREEDOM_MAX: Final = 1e6
_INVERSES: Final = np.linspace(0.0, 1.0, 61)
_STATISTICS: Final = np.geomspace(0.05, 400.0, 220)
_STEPS: Final = np.linspace(-30.0, 30.0, 6001)


@functools.lru_cache(maxsize=256)
def pairs_table(configurations: int, freedom: float = _FREEDOM_MAX) -> Floats:
    """Return the table of all pairs of independent means: that of their range over the root of 2 (Tukey's).

    Args:
        configurations: the number of means.
        freedom: degrees of freedom of the t distribution of each mean; normal by default.
    """
    chances, weights = _quantiles()
    places = _inverse_cdf(chances, freedom)
    coarse = np.sinh(_COARSE)[:, None]
    within = np.clip(_cdf(places + np.sqrt(2) * coarse, freedom) - chances, 0.0, 1.0)
    return _fine(1 - configurations * (weights * within ** (configurations - 1)).sum(axis=1))


def many_to_one_table(variances: Floats, base: float, freedoms: Floats | None = None) -> Floats:
    """Return the table of several independent means against one (Dunnett's), each with a separate variance.

    Differences to a common base are correlated through it alone, which leaves one integral (Dunnett 1964).

    Args:
        variances: of the means that are compared.
        base: the variance of the mean that they are compared with.
        freedoms: degrees of freedom of the t distribution of each mean, that of the base last; normal by default.
    """
    if freedoms is None:
        freedoms = np.full(len(variances) + 1, _FREEDOM_MAX)
    chances, weights = (half[len(_LOGITS) // 2 :] for half in _quantiles())  # the integrand is even
    shared = np.sqrt(base) * _inverse_cdf(chances, float(freedoms[-1]))
    reached = np.sinh(_COARSE)[:, None]
    logs = np.zeros((len(_COARSE), len(chances)))
    kinds, counts = np.unique(np.round(np.stack([variances / base, freedoms[:-1]]), 9), axis=1, return_counts=True)
    for (ratio, freedom), count in zip(kinds.T, counts, strict=True):
        own, limit = np.sqrt(ratio * base), reached * np.sqrt((1 + ratio) * base)
        inside = _cdf((limit - shared) / own, freedom) - _cdf((-limit - shared) / own, freedom)
        logs += count * np.log(np.maximum(inside, 1e-300))
    return _fine(1 - 2 * (np.exp(logs) * weights).sum(axis=1))


def _quantiles() -> tuple[Floats, Floats]:
    """Return nodes and weights of an integral over a distribution, dense at both ends."""
    chances = special.expit(_FARTHEST * _LOGITS)
    weights = _FARTHEST * _LOGIT_WEIGHTS * chances * (1 - chances)
    return chances, weights / weights.sum()


def _inverse_cdf(chances: Floats, freedom: float) -> Floats:
    is_normal = freedom >= _FREEDOM_MAX
    return np.asarray(special.ndtri(chances) if is_normal else special.stdtrit(freedom, chances))


def _cdf(values: Floats, freedom: float) -> Floats:
    """Evaluate Student's t distribution function; interpolated for speed."""
    if freedom >= _FREEDOM_MAX:
        return np.asarray(special.ndtr(values))
    return np.interp(np.arcsinh(values), _STEPS, _cdf_table(round(float(freedom), 9)))


@functools.lru_cache(maxsize=256)
def _cdf_table(freedom: float) -> Floats:
    return np.asarray(special.stdtr(freedom, np.sinh(_STEPS)))


def _fine(exceeded: Floats) -> Floats:
    """Return the table on the fine grid, from its values on the coarse one."""
    fine = interpolate.PchipInterpolator(_COARSE, np.clip(exceeded, 0.0, 1.0))(np.arcsinh(_GRID))
    return np.asarray(np.clip(fine, 0.0, 1.0))


@functools.lru_cache(maxsize=1)
def single_table() -> Floats:
    """Return the table of a single comparison."""
    return np.asarray(2 * special.ndtr(-_GRID))


def exceedance(statistics: Floats, inverse_freedom: Floats, table: Floats) -> Floats:
    """Return the probability that the largest of a family is above each statistic.

    Args:
        statistics: absolute differences over their standard errors, of any shape.
        inverse_freedom: the reciprocal degrees of freedom of the standard errors, of the same shape; 0 if they are
            known.
        table: of the family.
    """
    if statistics.size > _AT_ONCE:
        return _interpolated(statistics, inverse_freedom, table)
    freedom = 1 / np.maximum(inverse_freedom, 1 / _FREEDOM_MAX)
    low = -(6 / np.sqrt(freedom) + 14 / freedom)
    high = 6 / np.sqrt(freedom)
    half = ((high - low) / 2)[..., None]
    logs = ((high + low) / 2)[..., None] + half * _NODES
    degrees = freedom[..., None]
    density = degrees * logs - degrees * np.exp(2 * logs) / 2
    density += degrees / 2 * np.log(degrees / 2) - special.gammaln(degrees / 2) + np.log(2)
    weights = np.exp(density) * half * _WEIGHTS
    chances = np.interp(statistics[..., None] * np.exp(logs), _GRID, table)
    return np.asarray(np.clip((weights * chances).sum(axis=-1) / weights.sum(axis=-1), 0.0, 1.0))


def critical_value(freedom: float, table: Floats, level: float) -> float:
    """Return the statistic that the largest of a family exceeds with the probability ``level``."""
    low, high = 0.0, np.log(1e5)
    for _ in range(40):
        middle = (low + high) / 2
        exceeds = exceedance(np.array([np.exp(middle)]), np.array([1 / freedom]), table)[0] > level
        low, high = (middle, high) if exceeds else (low, middle)
    return float(np.exp(high))


def _interpolated(statistics: Floats, inverse_freedom: Floats, table: Floats) -> Floats:
    """Compute ``exceedance`` by interpolation on a grid, for many statistics at once."""
    from scipy import ndimage

    shape = (len(_STATISTICS), len(_INVERSES))
    rows = np.broadcast_to(_STATISTICS[:, None], shape).ravel()
    columns = np.broadcast_to(_INVERSES, shape).ravel()
    exact = exceedance(rows, columns, table)
    logs = np.log(np.maximum(exact, 1e-300)).reshape(shape)
    step = np.log(_STATISTICS[1] / _STATISTICS[0])
    first = np.log(np.maximum(statistics, _STATISTICS[0]) / _STATISTICS[0]) / step
    second = np.clip(inverse_freedom, 0, 1) * (len(_INVERSES) - 1)
    places = [np.minimum(first, shape[0] - 1).ravel(), np.broadcast_to(second, statistics.shape).ravel()]
    return np.asarray(np.exp(ndimage.map_coordinates(logs, places, order=1)).reshape(statistics.shape))


# The number of seeds that a comparison needs, and the probability that one configuration beats another, by the
# noncentral t distribution.


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

POWER: Final = 0.8
"""The probability of detecting a real difference with enough seeds."""

SEEDS_MAX: Final = 100_000
"""The largest number of seeds that is ever recommended."""

_STATISTIC_MAX: Final = 1e4


def chance_to_tell(
    noncentrality: "NDArray[np.float64]", freedom: "NDArray[np.float64]", limit: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """Return the probability that a t statistic exceeds a limit, from the noncentral t distribution.

    Args:
        noncentrality: the true difference over its standard error, not below 0.
        freedom: degrees of freedom of the standard error.
        limit: of the statistic.
    """
    import numpy as np  # as above
    from scipy import special

    below = np.asarray(special.nctdtr(freedom, noncentrality, limit))
    # For numbers too large for SciPy, the normal approximation of Johnson and Welch (1940) is accurate enough.
    short = limit * (1 - 1 / (4 * freedom)) - noncentrality
    near = special.ndtr(short / np.sqrt(1 + limit**2 / (2 * freedom)))
    return np.asarray(1 - np.where(np.isfinite(below), below, near))


def chance_interval(statistic: float, freedom: float, scale: float, *, tail: float) -> tuple[float, float, float]:
    """Return the probability that a new draw is above 0, with its interval, from a t statistic of the mean.

    The probability is that of the predictive distribution, a t distribution that includes the uncertainty of mean and
    spread: the plug-in estimate is below 5 % or above 95 % for a fifth of all pairs of equals with two seeds.

    The draw is normal with the mean that was tested and ``scale`` times the standard error of the statistic: for n
    independent values, of which one more is drawn, ``scale`` is the root of n. The interval is that of the
    noncentrality, exact: an approximation by the normal distribution yields "0 [0, 100]" with two seeds.

    Args:
        statistic: the mean over its standard error.
        freedom: degrees of freedom of the standard error, at least 1.
        scale: above 0.
        tail: the probability left out on either side, for example 0.025.

    Returns:
        The probability, its lower and its upper bound, in [0, 1].
    """
    from scipy import special  # as above

    size = min(abs(statistic), _STATISTIC_MAX)  # beyond, SciPy's inverse fails, and the probability is 0 or 1
    bounds = [math.copysign(1.0, statistic) * float(special.nctdtrinc(freedom, p, size)) for p in (1 - tail, tail)]
    chance = float(special.stdtr(freedom, statistic / math.hypot(scale, 1.0)))
    low, high = (float(special.ndtr(value / scale)) for value in sorted(bounds))
    return chance, min(chance, low), max(chance, high)


# Limits of differences, and the number of seeds that decide them.


_PASSING: Final = 1.5
"""See ``mean_reach``. With 1 (Cochran's) intervals hold up to 98.6 % with two seeds, with 2 as few as 90.7 %."""

_KNOWN: Final = 1e6
"""Degrees of freedom of a known scale; the uncertainty of scales is in the table."""


def reach(chance: Callable[[Floats], Floats], usual: Floats, level: float) -> Floats:
    """Return the differences that are exceeded with the probability ``level``, searched near multiples of ``usual``."""
    low, high = np.zeros(len(usual)), np.full(len(usual), math.log(1000.0))
    for _ in range(8):
        middle = (low + high) / 2
        is_short = chance(usual * np.exp(middle)) > level
        low, high = np.where(is_short, middle, low), np.where(is_short, high, middle)
    below, above = (np.log(np.maximum(chance(usual * np.exp(end)), 1e-300)) for end in (low, high))
    share = (below - math.log(level)) / np.where(below > above, below - above, 1.0)
    return np.asarray(usual * np.exp(low + np.clip(share, 0.0, 1.0) * (high - low)))


def seeds_to_decide(
    effect: float,
    margin: float,
    *,
    configurations: int,
    prior_freedom: float,
    at_least: int = 2,
    level: float = LEVEL,
) -> int | None:
    """Return the number of seeds that decides a pair among all pairs with a probability of 80 %.

    A pair is decided if its interval excludes zero or lies within the margin.

    Args:
        effect: the difference over the standard deviation of a seed's difference.
        margin: of equivalence, over the same standard deviation.
        configurations: the number of configurations compared.
        prior_freedom: degrees of freedom of the prior of the moderated variances.
        at_least: the smallest number of seeds to consider.
        level: the error rate of the family of all pairs.

    Returns:
        The number of seeds; None if it is above ``SEEDS_MAX``.
    """
    share = (configurations - 1) / configurations
    inverses, limits = _pair_limits(max(configurations, 2), level)

    def decides(seeds: int) -> bool:
        freedom = min(prior_freedom, 1e6) + (seeds - 1) * share
        limit = float(np.exp(np.interp(1 / freedom, inverses, limits)))
        root = math.sqrt(seeds)
        # The degrees of freedom of the variance of either side, and of that of their difference.
        told = float(chance_to_tell(*np.array([[effect * root], [2 * freedom], [limit]]))[0])
        room = (margin - effect) * root - limit
        return told >= POWER or (room > 0 and 1 - 2 * float(special.ndtr(-room)) >= POWER)

    low, high = at_least - 1, SEEDS_MAX
    if not decides(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


@functools.lru_cache(maxsize=64)
def _pair_limits(configurations: int, level: float) -> tuple[Floats, Floats]:
    """Return reciprocal degrees of freedom, rising, and the logarithms of the limits of a pair among all pairs."""
    inverses = np.array([1e-6, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 1.0])
    tables = [pairs_table(configurations, 1 / inverse) for inverse in inverses]
    return inverses, np.log([critical_value(_KNOWN, table, level) for table in tables])


def wilson_limits(shares: Floats, images: Floats, z: float) -> tuple[Floats, Floats]:
    """Return Wilson's interval (1927) of shares of ``images`` images."""
    middle = (shares + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * np.sqrt(shares * (1 - shares) / images + z**2 / (4 * images**2))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def mean_reach(
    shared: float,
    shared_freedom: float,
    own: Floats,
    own_freedom: Floats,
    *,
    level: float | Floats = LEVEL,
    tests: int = 1,
) -> Floats:
    """Return a limit of the absolute sum of two independent normal errors, each with an estimated variance.

    It lies between two limits: that of Satterthwaite's degrees of freedom (1946), which leaves out too much if the
    shared variance has far fewer degrees of freedom than the other, and one that passes from the second variance's
    quantile of t to the first one's with the share of the first (Cochran 1964), which is too wide if both have few. The
    limit of Behrens and Fisher is wider than either. ``docs/statistics.md`` has the coverage.

    Args:
        shared: the variance that all means have in common.
        shared_freedom: of that variance.
        own: the other variance, of shape (means,).
        own_freedom: of that variance, of shape (means,).
        level: the probability that any of the means exceeds its limit, one number or of shape (means,).
        tests: the number of means for which the limits hold at once, by Bonferroni's correction of the other variance;
            the error that all have in common needs none.
    """
    whole = np.maximum(shared + own, 1e-300)
    share = shared / whole
    freedom = 1 / (share**2 / shared_freedom + (1 - share) ** 2 / own_freedom)
    even = -special.stdtrit(freedom, level / tests / 2)
    first = -special.stdtrit(shared_freedom, level / 2)
    second = -special.stdtrit(own_freedom, level / tests / 2)
    passing = second + share**_PASSING * (first - second)
    alike = np.minimum(shared_freedom / own_freedom, 1.0)
    return np.asarray((alike * even + (1 - alike) * passing) * np.sqrt(whole))
