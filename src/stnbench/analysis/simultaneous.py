"""Probabilities of the largest of several studentised differences, for families of comparisons.

A family is described by a *table*: the chance that the largest absolute standardised difference exceeds w, on a grid
of w. Means are normal where their standard errors are known, and follow t distributions of their own where each has
its own estimate. What all estimates have in common is averaged over at the end, as for Tukey's and Dunnett's tests
(Hochberg and Tamhane 1987, Multiple Comparison Procedures, chapters 3 and 5).
"""

import functools
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate, special

Floats = NDArray[np.float64]

_WIDEST: Final = 7.6
"""The inverse hyperbolic sine of the largest w, 1000: grids are even in it, as t distributions have long tails."""

_GRID: Final = np.sinh(np.linspace(0.0, _WIDEST, 913))
_COARSE: Final = np.linspace(0.0, _WIDEST, 96)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_LOGITS, _LOGIT_WEIGHTS = np.polynomial.legendre.leggauss(64)
_FARTHEST: Final = 16.0
"""Integrals over a distribution go over the log-odds of its quantiles, so far to either side."""

_AT_ONCE: Final = 50_000
_FREEDOM_MAX: Final = 1e6
_INVERSES: Final = np.linspace(0.0, 1.0, 61)
_STATISTICS: Final = np.geomspace(0.05, 400.0, 220)
_STEPS: Final = np.linspace(-30.0, 30.0, 6001)


@functools.lru_cache(maxsize=256)
def pairs_table(configurations: int, freedom: float = _FREEDOM_MAX) -> Floats:
    """Return the table of all pairs of so many independent means: of their range over the root of 2 (Tukey's).

    Args:
        configurations: how many.
        freedom: degrees of freedom of the t distribution that each mean has; normal by default.
    """
    chances, weights = _quantiles()
    places = _inverse_cdf(chances, freedom)
    coarse = np.sinh(_COARSE)[:, None]
    within = np.clip(_cdf(places + np.sqrt(2) * coarse, freedom) - chances, 0.0, 1.0)
    return _fine(1 - configurations * (weights * within ** (configurations - 1)).sum(axis=1))


def many_to_one_table(variances: Floats, base: float, freedoms: Floats | None = None) -> Floats:
    """Return the table of several independent means against one (Dunnett's), each with its own variance.

    Differences to a common base are correlated through it alone, which leaves one integral (Dunnett 1964).

    Args:
        variances: of the means that are compared.
        base: the variance of the mean that they are compared with.
        freedoms: degrees of freedom of the t distribution that each mean has, that of the base last; normal by default.
    """
    if freedoms is None:
        freedoms = np.full(len(variances) + 1, _FREEDOM_MAX)
    chances, weights = (half[len(_LOGITS) // 2 :] for half in _quantiles())  # what is integrated is even
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
    """Chances and weights of an integral over a distribution, dense at both of its ends."""
    chances = special.expit(_FARTHEST * _LOGITS)
    weights = _FARTHEST * _LOGIT_WEIGHTS * chances * (1 - chances)
    return chances, weights / weights.sum()


def _inverse_cdf(chances: Floats, freedom: float) -> Floats:
    is_normal = freedom >= _FREEDOM_MAX
    return np.asarray(special.ndtri(chances) if is_normal else special.stdtrit(freedom, chances))


def _cdf(values: Floats, freedom: float) -> Floats:
    """Student's t; interpolated, as it is needed very often."""
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
    """The table of one comparison."""
    return np.asarray(2 * special.ndtr(-_GRID))


def exceedance(statistics: Floats, inverse_freedom: Floats, table: Floats) -> Floats:
    """The chance that the largest of a family is above each statistic.

    Args:
        statistics: absolute differences over their standard errors, any shape.
        inverse_freedom: one over the degrees of freedom of the standard errors, likewise; 0 where they are known.
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
    """The statistic that the largest of a family exceeds with the chance ``level``."""
    low, high = 0.0, np.log(1e5)
    for _ in range(40):
        middle = (low + high) / 2
        exceeds = exceedance(np.array([np.exp(middle)]), np.array([1 / freedom]), table)[0] > level
        low, high = (middle, high) if exceeds else (low, middle)
    return float(np.exp(high))


def _interpolated(statistics: Floats, inverse_freedom: Floats, table: Floats) -> Floats:
    """As ``exceedance``, between the values of a grid: for very many at once."""
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
