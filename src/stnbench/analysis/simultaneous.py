"""Probabilities of the largest of several studentised differences, for families of comparisons.

A family is described by a *table*: the chance that the largest absolute standardised difference exceeds w where all
standard errors are known, on a grid of w. With estimated ones it is averaged over the distribution of the estimate, as
for Tukey's and Dunnett's tests (Hochberg and Tamhane 1987, Multiple Comparison Procedures, chapters 3 and 5).
"""

import functools
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate, special

Floats = NDArray[np.float64]

_WIDEST: Final = 12.0
_GRID: Final = np.linspace(0.0, _WIDEST, 481)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_COARSE: Final = np.linspace(0.0, 8.5, 86)
_HERMITE = np.polynomial.hermite_e.hermegauss(32)
_HALF_NODES: Final = _HERMITE[0][16:]  # what is integrated is even
_HALF_WEIGHTS: Final = _HERMITE[1][16:] / _HERMITE[1][16:].sum()
_AT_ONCE: Final = 50_000
_FREEDOM_MAX: Final = 1e6
_INVERSES: Final = np.linspace(0.0, 1.0, 61)
_STATISTICS: Final = np.geomspace(0.05, 400.0, 220)


@functools.lru_cache(maxsize=256)
def pairs_table(configurations: int) -> Floats:
    """The table of all pairs of so many independent means: of their range over the root of 2 (Tukey's)."""
    nodes, weights = np.polynomial.legendre.leggauss(120)
    places = 9.0 * nodes
    density = 9.0 * weights * np.exp(-(places**2) / 2) / np.sqrt(2 * np.pi)
    within = special.ndtr(places + np.sqrt(2) * _GRID[:, None]) - special.ndtr(places)
    return np.asarray(np.clip(1 - configurations * (density * within ** (configurations - 1)).sum(axis=1), 0.0, 1.0))


def many_to_one_table(variances: Floats, base: float) -> Floats:
    """The table of several independent means against one (Dunnett's), each with its own variance.

    Differences to a common base are correlated through it alone, which leaves one integral (Dunnett 1964).

    Args:
        variances: of the means that are compared.
        base: the variance of the mean that they are compared with.
    """
    kinds, counts = np.unique(np.round(variances / base, 9), return_counts=True)
    shared = 1 / np.sqrt(1 + kinds)[:, None, None]
    own = np.sqrt(1 - shared**2)
    grid = _COARSE[:, None]
    inside = special.ndtr((grid - shared * _HALF_NODES) / own) - special.ndtr((-grid - shared * _HALF_NODES) / own)
    if counts.max() > 1:
        inside = inside ** counts[:, None, None]
    exceeded = 1 - (inside.prod(axis=0) * _HALF_WEIGHTS).sum(axis=1)
    fine = interpolate.CubicSpline(_COARSE, exceeded)(np.minimum(_GRID, _COARSE[-1]))
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
