"""What a rule finds that knows how variances are distributed, but not the variances.

A part of ``make bench-statistics``.

The rule has the log-normal prior from which the standard deviations of a world are drawn, in one form with their usual
size and in one without it (a flat prior). Given the variances that were seen, it draws errors of means from what is
then likely, and calls lower what is so far below the best that equal configurations would be in 5 or 6 % of such draws.
So it errs exactly as often as it says, on average over such worlds; no rule can do so for each single set of variances.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SIZES: Final = np.arange(-4.4, 4.41, 0.1)
"""Logarithms of standard deviations."""

_LEVELS: Final = np.arange(-2.4, 2.41, 0.1)
"""Logarithms of the usual standard deviation."""

_PREDICTED: Final = 3000
_ERRORS: Final = (0.05, 0.06)
_WORLDS: Final = ((17, 2), (17, 3), (23, 3))
_BEHIND: Final = (0.0, 2.0, 3.0, 5.0)


class _Sweeps:
    """Sweeps of one size whose standard deviations are log-normal of a width, with a rule that knows this width."""

    def __init__(self, count: int, seeds: int, width: float, *, knows_level: bool, rng: np.random.Generator) -> None:
        self._count, self._seeds, self._width, self._rng = count, seeds, width, rng
        self._levels = np.zeros(1) if knows_level else _LEVELS
        prior = np.exp(-(((_SIZES - self._levels[:, None]) / width) ** 2) / 2)
        self._prior = np.maximum(prior / prior.sum(axis=1, keepdims=True), 1e-300)

    def told(self, behind: Floats) -> Floats:
        """For each of the errors (2,) which of one sweep's configurations (count,) are called lower."""
        count, freedom = self._count, self._seeds - 1
        deviations = np.exp(self._width * self._rng.standard_normal(count))
        means = -behind + deviations * self._rng.standard_normal(count) / np.sqrt(self._seeds)
        seen = deviations**2 * self._rng.chisquare(freedom, count) / freedom
        logs = -freedom * _SIZES - freedom * seen[:, None] / 2 * np.exp(-2 * _SIZES)
        likelihood = np.exp(logs - logs.max(axis=1, keepdims=True))
        level_logs = np.log(np.maximum(self._prior @ likelihood.T, 1e-300)).sum(axis=1)
        weights = np.exp(level_logs - level_logs.max())
        drawn = self._rng.multinomial(_PREDICTED, weights / weights.sum())
        errors, expected = [], np.zeros(count)
        for place in np.nonzero(drawn)[0]:
            posterior = self._prior[place] * likelihood
            posterior /= posterior.sum(axis=1, keepdims=True)
            expected += drawn[place] / _PREDICTED * (posterior @ np.exp(2 * _SIZES)) / self._seeds
            chances = self._rng.random((count, drawn[place]))
            sizes = np.stack(
                [np.searchsorted(row, own) for row, own in zip(posterior.cumsum(axis=1), chances, strict=True)]
            )
            noise = self._rng.standard_normal(sizes.shape) / np.sqrt(self._seeds)
            errors.append(np.exp(_SIZES)[np.minimum(sizes, len(_SIZES) - 1)] * noise)
        predicted = np.concatenate(errors, axis=1)
        highest = predicted.argmax(axis=0)
        distance = (predicted.max(axis=0) - predicted) / np.sqrt(expected[highest] + expected[:, None])
        limits = np.quantile(distance.max(axis=0), [1 - error for error in _ERRORS])
        best = int(means.argmax())
        return (means[best] - means) / np.sqrt(expected[best] + expected) > limits[:, None]


def measure_bound(*, draws: int, width: float = 0.5, seed: int = 0) -> Iterator[str]:
    """The lines of a table of what such rules find."""
    yield "## What a rule that knows how variances are distributed finds"
    yield ""
    yield (
        f"Standard deviations are log-normal {width}, and the rule knows this width, with the usual standard deviation "
        f"or without it. {draws:,} sweeps each. In percent: *false* and *5* as above, at 5 and at 6 % by what the rule "
        "itself computes."
    )
    yield ""
    yield "| configurations | seeds | the rule knows | false at 5 | 5 at 5 | false at 6 | 5 at 6 |"
    yield "|---|---|---|---|---|---|---|"
    for count, seeds in _WORLDS:
        behind = np.resize(np.array(_BEHIND), count)
        for knows_level in (True, False):
            rng = np.random.default_rng([seed, count, seeds])
            sweeps = _Sweeps(count, seeds, width, knows_level=knows_level, rng=rng)
            false = np.mean([sweeps.told(np.zeros(count)).any(axis=1) for _ in range(draws)], axis=0)
            power = np.mean([sweeps.told(behind)[:, behind == _BEHIND[-1]].mean(axis=1) for _ in range(draws)], axis=0)
            cells = " | ".join(f"{100 * one:.1f} | {100 * other:.0f}" for one, other in zip(false, power, strict=True))
            known = "width and usual size" if knows_level else "width"
            yield f"| {count} | {seeds} | {known} | {cells} |"
