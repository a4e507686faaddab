"""Limits and seeds: how far differences reach, with how many seeds they would be decided."""

import functools
import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from stnbench.analysis.inference import LEVEL
from stnbench.analysis.power import POWER, SEEDS_MAX, chance_to_tell
from stnbench.analysis.simultaneous import critical_value, pairs_table

Floats = NDArray[np.float64]

_HALVINGS: Final = 20
"""Of the width of an interval, which is then known to a millionth."""

_KNOWN: Final = 1e6
"""Degrees of freedom of a scale that is known: what is not is in the table."""


def reach(chance: Callable[[Floats], Floats], usual: Floats, level: float) -> Floats:
    """How far differences reach with the chance ``level``, in the neighbourhood of some multiples of ``usual``."""
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
    """With how many seeds a pair among all pairs is decided with a chance of 80 %: told apart, or found equivalent.

    Args:
        effect: the difference over the standard deviation of a seed's difference.
        margin: of equivalence, likewise.
        configurations: how many are compared.
        prior_freedom: of the moderated variances.
        at_least: the smallest number that comes into question.
        level: the error rate of the family of all pairs.
    Returns: None above ``SEEDS_MAX``.
    """
    share = (configurations - 1) / configurations
    inverses, limits = _pair_limits(max(configurations, 2), level)

    def decides(seeds: int) -> bool:
        freedom = min(prior_freedom, 1e6) + (seeds - 1) * share
        limit = float(np.exp(np.interp(1 / freedom, inverses, limits)))
        root = math.sqrt(seeds)
        # Either side has a variance with so many degrees of freedom, and their difference that of both.
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
    """Return one over degrees of freedom, rising, and logarithms of the limits of a pair among all pairs with these."""
    inverses = np.array([1e-6, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 1.0])
    tables = [pairs_table(configurations, 1 / inverse) for inverse in inverses]
    return inverses, np.log([critical_value(_KNOWN, table, level) for table in tables])


def wilson_limits(shares: Floats, images: Floats, z: float) -> tuple[Floats, Floats]:
    """Wilson's interval (1927) of shares of so many images."""
    middle = (shares + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * np.sqrt(shares * (1 - shares) / images + z**2 / (4 * images**2))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def two_t_reach(first: float, first_freedom: float, second: Floats, second_freedom: Floats) -> Floats:
    """How far the sum of two independent t variables, each times its scale, reaches with the chance of 95 %."""
    if first <= 1e-12 * float(second.max(initial=0.0)):
        return np.asarray(second * special.stdtrit(second_freedom, 1 - LEVEL / 2))
    nodes, weights = np.polynomial.legendre.leggauss(32)
    places = special.stdtrit(second_freedom[:, None], (nodes + 1) / 2) * second[:, None]
    low = np.zeros(len(second))
    high = 2 * (first * special.stdtrit(first_freedom, 0.9995) + second * special.stdtrit(second_freedom, 0.9995))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        outside = special.stdtr(first_freedom, (places - middle[:, None]) / first)
        outside = outside + special.stdtr(first_freedom, (-places - middle[:, None]) / first)
        is_short = (outside * weights / 2).sum(axis=1) > LEVEL
        low, high = np.where(is_short, middle, low), np.where(is_short, high, middle)
    return np.asarray(high)
