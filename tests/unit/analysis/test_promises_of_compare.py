"""Error rates, coverage and power of the comparison of configurations, in made-up sweeps with a fixed seed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from stnbench.analysis.comparison import compare_configurations
from stnbench.analysis.effects import LEVEL
from stnbench.analysis.fitted import ScoredRun
from stnbench.analysis.verdicts import Comparison, Verdict

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

ACCURACY = 0.95
DEVIATION = 0.005
IMAGES = 4000


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Configurations, seeds, the width of the log-normal distribution of standard deviations, and runs at chance."""

    configurations: int
    seeds: int
    unevenness: float
    collapsed: float = 0.0


def comparisons(sweep: Sweep, *, behind: float, times: int) -> Iterator[Comparison]:
    """Comparisons of sweeps in which every fourth configuration is ``behind`` standard deviations of a run behind."""
    rng = np.random.default_rng([sweep.configurations, sweep.seeds, round(10 * sweep.unevenness)])
    shape = (sweep.configurations, sweep.seeds)
    means = ACCURACY - behind * DEVIATION * (np.arange(sweep.configurations) % 4 == 3)
    for _ in range(times):
        deviations = DEVIATION * np.exp(sweep.unevenness * rng.standard_normal(sweep.configurations))
        seeds = 2 * DEVIATION * rng.standard_normal(sweep.seeds)
        drawn = means[:, None] + seeds + deviations[:, None] * rng.standard_normal(shape)
        drawn[rng.random(shape) < sweep.collapsed] = 1 / 43
        runs = [
            ScoredRun(configuration=f"{place:02}", seed=seed, correct=round(min(share, 1.0) * IMAGES), images=IMAGES)
            for (place, seed), share in np.ndenumerate(drawn)
        ]
        yield compare_configurations(runs, baselines={f"{place:02}": "00" for place in range(1, len(drawn))})


def allowed(rate: float, times: int) -> float:
    """A rate and two standard errors of its estimate."""
    return rate + 2 * float(np.sqrt(rate * (1 - rate) / times))


@pytest.mark.parametrize(
    "sweep",
    [
        Sweep(configurations=17, seeds=2, unevenness=0.0),
        Sweep(configurations=17, seeds=2, unevenness=0.5),
        Sweep(configurations=17, seeds=3, unevenness=0.3, collapsed=0.02),
        Sweep(configurations=8, seeds=3, unevenness=0.5),
        Sweep(configurations=2, seeds=2, unevenness=0.5),
    ],
    ids=str,
)
def test_equal_configurations_are_seldom_told_apart(sweep: Sweep) -> None:
    """Of 60 sweeps of equal configurations, in at most 6 % (and sampling error) one is lower or gains.

    Single intervals hold the mean in at least 93 % (and sampling error).
    """
    times, lower, gains, held = 60, 0, 0, []
    for found in comparisons(sweep, behind=0.0, times=times):
        lower += any(item.verdict is Verdict.LOWER for item in found.decisions)
        gains += any(item.gain is not None and (item.gain.p_adjusted or 0.0) <= LEVEL for item in found.decisions)
        intervals = [(item.low or 0.0, item.high or 1.0) for item in found.decisions if item.mean is not None]
        held.append(np.mean([low <= ACCURACY <= high for low, high in intervals]))
    assert lower / times <= allowed(0.06, times)
    assert gains / times <= allowed(0.06, times)
    assert 1 - np.mean(held) <= allowed(0.07, times)


@pytest.mark.parametrize(("seeds", "promised"), [(2, 0.60), (3, 0.85)])
def test_five_standard_deviations_are_found(seeds: int, promised: float) -> None:
    """Of 17 configurations, those 5 standard deviations behind are lower as often as is promised."""
    told = []
    for found in comparisons(Sweep(configurations=17, seeds=seeds, unevenness=0.3), behind=5.0, times=20):
        told += [item.verdict is Verdict.LOWER for item in found.decisions if int(item.configuration) % 4 == 3]
    assert np.mean(told) >= promised
