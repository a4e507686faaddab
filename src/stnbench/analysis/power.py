"""How many seeds a comparison needs, and how likely one cell is to beat another: the noncentral t distribution."""

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

POWER: Final = 0.8
"""The chance of telling a difference that is there, by which "enough seeds" is measured."""

SEEDS_MAX: Final = 100_000
"""Where even so many would not do, nothing is said."""

_STATISTIC_MAX: Final = 1e4


def chance_to_tell(
    noncentrality: "NDArray[np.float64]", freedom: "NDArray[np.float64]", limit: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """The chance that a t statistic exceeds a limit, from the noncentral t distribution.

    Args:
        noncentrality: the true difference over its standard error, not below 0.
        freedom: degrees of freedom of the standard error.
        limit: of the statistic.
    """
    import numpy as np  # as above
    from scipy import special

    below = np.asarray(special.nctdtr(freedom, noncentrality, limit))
    # Where the numbers are too large for SciPy: the normal approximation of Johnson and Welch (1940), then good enough.
    short = limit * (1 - 1 / (4 * freedom)) - noncentrality
    near = special.ndtr(short / np.sqrt(1 + limit**2 / (2 * freedom)))
    return np.asarray(1 - np.where(np.isfinite(below), below, near))


def chance_interval(statistic: float, freedom: float, scale: float, *, tail: float) -> tuple[float, float, float]:
    """The chance that a draw is above 0, from a t statistic of its mean, with its interval.

    The chance is that of the predictive distribution, a t distribution with the uncertainty of mean and spread in it:
    the plain estimate says below 5 or above 95 % for a fifth of all pairs of equals with two seeds.

    The draw is normal with the mean that was tested and ``scale`` times the standard error the statistic was made with:
    for n independent values, of which one more is drawn, ``scale`` is the root of n. The interval is that of the
    noncentrality, exact: an approximation by the normal distribution says "0 [0, 100]" with two seeds.

    Args:
        statistic: the mean over its standard error.
        freedom: degrees of freedom of the standard error, at least 1.
        scale: above 0.
        tail: the chance left out on either side, for example 0.025.
    Returns: the chance, its lower and its upper bound.
    """
    from scipy import special  # as above

    size = min(abs(statistic), _STATISTIC_MAX)  # beyond, SciPy's inverse fails, and the chance is 0 or 1
    bounds = [math.copysign(1.0, statistic) * float(special.nctdtrinc(freedom, p, size)) for p in (1 - tail, tail)]
    chance = float(special.stdtr(freedom, statistic / math.hypot(scale, 1.0)))
    low, high = (float(special.ndtr(value / scale)) for value in sorted(bounds))
    return chance, min(chance, low), max(chance, high)
