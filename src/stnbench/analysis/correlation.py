"""What a rank correlation says. No numpy here: who only passes it on stays light."""

from dataclasses import dataclass
from typing import Final

KENDALL: Final = "Kendall tau-b"
SPEARMAN: Final = "Spearman rho"

INTERVAL_METHOD: Final = "posterior draws of cell means over seeds"
NO_INTERVAL_METHOD: Final = "no interval from fewer than 6 cells or 2 seeds"


@dataclass(frozen=True, kw_only=True, slots=True)
class RankCorrelation:
    """A rank correlation with its 95 % interval and the p of a permutation test of none.

    The interval is None with fewer than six cells or two seeds. ``value`` is that of the means at hand, which noise
    draws towards 0: it may lie at the lower end of the interval.
    """

    measure: str
    cells: int
    seeds: int
    value: float
    low: float | None
    high: float | None
    method: str
    p_value: float
