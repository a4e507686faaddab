"""How many seeds a comparison needs, and how likely one cell is to beat another: the noncentral t distribution."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

POWER: Final = 0.8
"""The chance of telling a difference that is there, by which "enough seeds" is measured."""

SEEDS_MAX: Final = 100_000
"""Where even so many would not do, nothing is said."""

_STATISTIC_MAX: Final = 1e4


def seeds_needed(effects: Sequence[float], *, level: float) -> list[int | None]:
    """With how many seeds a two-sided paired t test tells a difference with the chance ``POWER``.

    Exact for the noncentral t distribution; the tail on the wrong side is left out, as is usual.

    Args:
        effects: each a difference over the standard deviation of the pairs' differences, as far as it is known.
        level: of the test, after correction.
    Returns: seeds from 2 on; None for an effect of 0 or one that is not finite, and above ``SEEDS_MAX``.
    """
    import numpy as np  # a third of a second that only those who ask pay

    sizes = np.abs(np.asarray(effects, dtype=np.float64))
    can_tell = np.isfinite(sizes) & (sizes > 0)
    sizes = np.where(can_tell, sizes, 1.0)
    low, high = np.full(sizes.shape, 1), np.full(sizes.shape, SEEDS_MAX)
    can_tell &= _power(sizes, high, level) >= POWER
    while (high - low > 1).any():  # ``low`` is never enough, ``high`` always is
        middle = (low + high) // 2
        is_enough = _power(sizes, np.maximum(middle, 2), level) >= POWER
        low, high = np.where(is_enough, low, middle), np.where(is_enough, middle, high)
    return [int(seeds) if found else None for seeds, found in zip(high, can_tell, strict=True)]


def _power(sizes: "NDArray[np.float64]", seeds: "NDArray[np.int_]", level: float) -> "NDArray[np.float64]":
    """The chance that the test tells a difference of each size with so many seeds."""
    import numpy as np  # as above
    from scipy import special

    freedom = np.asarray(seeds - 1, dtype=np.float64)
    return chance_to_tell(sizes * np.sqrt(seeds), freedom, special.stdtrit(freedom, 1 - level / 2))


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
