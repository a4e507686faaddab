"""The comparison of ``stnbench.analysis`` for many complete layouts of the same size at once.

``compare_configurations`` takes 20 to 60 ms a sweep, which is hours for thousands of draws of many worlds. These are
the same formulas on arrays of draws, for layouts without missing or failed runs. Verdicts and gains of the first draws
of every world are compared with those of ``compare_configurations``.
"""

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from stnbench.analysis import moderated, simultaneous
from stnbench.analysis.moderated import PRIOR_FREEDOMS, SCALES, Accuracy
from stnbench.analysis.simultaneous import exceedance, many_to_one_table, mean_reach, pairs_table

Floats = NDArray[np.float64]

CAUTION: Final = 0.25
_STATISTICS: Final = np.geomspace(0.05, 400.0, 220)
_INVERSES: Final = np.linspace(0.0, 1.0, 61)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_STEPS: Final = np.linspace(-30.0, 30.0, 6001)


@dataclass(frozen=True, slots=True, eq=False)
class Mixtures:
    """A ``Mixture`` for each draw: a leading axis in all but ``freedoms`` and ``own_inverse``, of shape (grid,)."""

    weights: Floats
    freedoms: Floats
    variances: Floats
    own_inverse: Floats
    kept: Floats
    information: Floats
    inverse: Floats


class Layouts:
    """Fits of draws of complete layouts, from images right of shape (draws, configurations, seeds)."""

    def __init__(self, correct: Floats, images: int) -> None:
        self.draws, self.count, self.seeds_count = correct.shape
        self.freedom = (self.count - 1) * (self.seeds_count - 1)
        self.own_freedom = self.freedom / self.count
        self.means = correct.mean(axis=2) / images
        self._choose_scale(correct, images)
        self._fit(correct, images)
        self.trend = self._find_trend()
        own = self.squares / self.own_freedom
        usual = self.squares.sum(axis=1, keepdims=True) / self.freedom
        self.scaled = np.maximum(own, np.maximum(1e-6 * usual, self.floor)) / self.trend

    @staticmethod
    def _residuals(values: Floats) -> tuple[Floats, Floats, Floats]:
        seeds = values.mean(axis=1, keepdims=True) - values.mean(axis=(1, 2), keepdims=True)
        left = values - seeds
        centres = left.mean(axis=2, keepdims=True)
        return seeds[:, 0], centres[..., 0], left - centres

    def _choose_scale(self, correct: Floats, images: int) -> None:
        if self.freedom < 8:
            self.scale = np.full(self.draws, len(SCALES) - 1)
            return
        runs, found = self.count * self.seeds_count, []
        for scale in SCALES:
            values = scale.of(scale.shares(correct, np.full_like(correct, images)))
            squares = (self._residuals(values)[2] ** 2).sum(axis=(1, 2))
            found.append(-runs / 2 * np.log(squares) - np.log(scale.slope(values)).sum(axis=(1, 2)))
        self.scale = np.argmax(found, axis=0)

    def _fit(self, correct: Floats, images: int) -> None:
        shape = (self.draws, self.count)
        self.centres, self.squares, self.floor = np.empty(shape), np.empty(shape), np.empty(shape)
        self.inflation, self.seeds = np.ones(shape), np.empty((self.draws, self.seeds_count))
        for number, scale in enumerate(SCALES):
            rows = self.scale == number
            if not rows.any():
                continue
            shares = scale.shares(correct[rows], np.full_like(correct[rows], images))
            seeds, centres, residuals = self._residuals(scale.of(shares))
            if not isinstance(scale, Accuracy):
                low, high = centres - 1.0, centres + 1.0
                for _ in range(40):
                    centres = (low + high) / 2
                    is_short = scale.share_of(centres[..., None] + seeds[:, None]).mean(axis=2) < shares.mean(axis=2)
                    low, high = np.where(is_short, centres, low), np.where(is_short, high, centres)
            slopes = scale.slope(centres[..., None] + seeds[:, None])
            half = moderated.HALF_IMAGE / images
            inside = scale.of(np.clip(scale.share_of(centres), half, 1 - half))
            self.seeds[rows], self.centres[rows], self.squares[rows] = seeds, centres, (residuals**2).sum(axis=2)
            self.inflation[rows] = self.seeds_count * (slopes**2).sum(axis=2) / slopes.sum(axis=2) ** 2
            self.floor[rows] = (half / scale.slope(inside)) ** 2

    def _find_trend(self) -> Floats:
        flat = np.ones((self.draws, self.count))
        if self.freedom < 20 or self.count < 10:
            return flat
        logs = np.log(np.maximum(self.squares / self.own_freedom, self.floor))
        distance = self.centres - self.centres.mean(axis=1, keepdims=True)
        squares = (distance**2).sum(axis=1)
        slope = (distance * logs).sum(axis=1) / squares
        left = logs - logs.mean(axis=1, keepdims=True) - slope[:, None] * distance
        error = np.sqrt((left**2).sum(axis=1) / (self.count - 2) / squares)
        is_seen = 2 * special.stdtr(self.count - 2, -np.abs(slope) / error) <= 0.01
        return np.where(is_seen[:, None], np.exp(slope[:, None] * distance), flat)

    def mixtures(self, freedoms: Floats = PRIOR_FREEDOMS, caution: float = 0.0) -> Mixtures:
        """Moderated variances; see ``BlockModel.moderated``."""
        freedom, own, prior = self.own_freedom, self.scaled[:, None], freedoms[None, :, None]
        low = np.log(self.scaled.min(axis=1))[:, None] - 3 + 0 * freedoms
        high = np.log(self.scaled.max(axis=1))[:, None] + 3 + 0 * freedoms
        for _ in range(34):
            middle = (low + high) / 2
            ratio = freedom * own / (prior * np.exp(middle)[..., None])
            is_above = ((freedom + prior) * ratio / (1 + ratio)).sum(axis=2) > freedom * self.count
            low, high = np.where(is_above, middle, low), np.where(is_above, high, middle)
        ratio = freedom * own / (prior * np.exp(middle)[..., None])
        information = np.maximum(((freedom + prior) / 2 * ratio / (1 + ratio) ** 2).sum(axis=2), 1e-9)
        terms = freedom / 2 * np.log(ratio) - (freedom + prior) / 2 * np.log1p(ratio)
        logs = (terms - special.betaln(freedom / 2, prior / 2)).sum(axis=2) - np.log(information) / 2
        logs -= caution * np.log(freedoms)
        weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        weights = np.where(weights >= 1e-3, weights, 0.0)
        level = np.exp(middle)[..., None]
        variances = (prior * level + freedom * own) / (prior + freedom)
        own_inverse = 1 / (freedoms + freedom)
        shared_inverse = (freedoms / (freedoms + freedom)) ** 2 / (2 * information)
        inverse = np.clip(own_inverse + shared_inverse, 1 / self.freedom, 1.0)
        return Mixtures(
            weights=weights / weights.sum(axis=1, keepdims=True),
            freedoms=freedoms,
            variances=np.maximum(variances * self.trend[:, None], self.floor[:, None]),
            own_inverse=own_inverse,
            kept=prior * level / (prior * level + freedom * own),
            information=information,
            inverse=np.broadcast_to(inverse[..., None], variances.shape),
        )

    def verdicts(self) -> Floats:
        """Adjusted p-values (draws, configurations) of the differences to the best; 1 for the best itself."""
        mixtures = self.mixtures(caution=CAUTION)
        of_means = mixtures.variances * self.inflation[:, None] / self.seeds_count
        rows, best = np.arange(self.draws), self.means.argmax(axis=1)
        base, kept = of_means[rows, :, best][..., None], mixtures.kept[rows, :, best][..., None]
        errors, inverse = _errors(base, kept, of_means, mixtures)
        distance = np.abs(self.centres[rows, best][:, None] - self.centres)
        p_values = np.zeros((self.draws, self.count))
        for place, own in enumerate(mixtures.own_inverse):
            freedom = round(float(1 / own), 9)
            chances = _chances(self.count, freedom, distance / errors[:, place], inverse[:, place])
            p_values += mixtures.weights[:, place, None] * chances
        p_values[rows, best] = 1.0
        return p_values

    def is_even(self) -> NDArray[np.bool_]:
        """Whether the variances of a draw are pooled; see ``BlockModel.is_even``."""
        if self.count < 3:
            return np.ones(self.draws, dtype=bool)
        limit = moderated._even_scatter((round(self.own_freedom, 3),) * self.count)  # noqa: SLF001 - the same limit
        return np.log(self.scaled).var(axis=1, ddof=1) <= limit

    def gains(self, *, all_members: bool) -> Floats:
        """Adjusted p-values (draws, configurations - 1) of the differences to the first configuration.

        Without ``all_members`` only the two largest differences of a sweep whose variances are not pooled are tested;
        the others are 1.
        """
        even, pooled = self.is_even(), self.mixtures(np.array([moderated.POOLED_FREEDOM]))
        of_means = pooled.variances * self.inflation[:, None] / self.seeds_count
        errors, inverse = _errors(of_means[..., :1], pooled.kept[..., :1], of_means[..., 1:], pooled, slice(1, None))
        distance = np.abs(self.centres[:, 1:] - self.centres[:, :1])
        table = many_to_one_table(np.ones(self.count - 1), 1.0)
        found = np.ones(distance.shape)
        statistics = (distance / errors[:, 0])[even]
        found[even] = exceedance(statistics.ravel(), inverse[even, 0].ravel(), table).reshape(statistics.shape)
        uneven = self.mixtures(PRIOR_FREEDOMS[:1])
        for row in np.nonzero(~even)[0]:
            found[row] = self._gains_of(row, uneven, distance[row], all_members=all_members)
        return found

    def _gains_of(self, row: int, mixtures: Mixtures, distance: Floats, *, all_members: bool) -> Floats:
        of_means = mixtures.variances[row] * self.inflation[row] / self.seeds_count
        base, others = float(of_means[0, 0]), of_means[0, 1:]
        errors = np.sqrt(base + others)
        kept = (base * mixtures.kept[row, 0, 0] + others * mixtures.kept[row, 0, 1:]) / (base + others)
        freedom = 1 / np.clip(kept**2 / (2 * mixtures.information[row, 0]), 1e-6, 1.0)
        members = np.argsort(-distance / errors)[: len(distance) if all_members else 2]
        degrees = freedom[members, None]
        low, high = -(6 / np.sqrt(degrees) + 14 / degrees), 6 / np.sqrt(degrees)
        logs = (high + low) / 2 + (high - low) / 2 * _NODES
        density = degrees * logs - degrees * np.exp(2 * logs) / 2
        weights = np.exp(density - density.max(axis=1, keepdims=True)) * _WEIGHTS
        weights /= weights.sum(axis=1, keepdims=True)
        reached = ((distance / errors)[members, None] * np.exp(logs)).ravel()
        own = round(float(1 / mixtures.own_inverse[0]), 9)
        chances, quantile_weights = (half[32:] for half in simultaneous._quantiles())  # noqa: SLF001 - the same nodes
        shared = np.sqrt(base) * special.stdtrit(own, chances)
        limits = (reached[:, None] * errors)[..., None]
        deviations = np.sqrt(others)[:, None]
        inside = _cdf((limits - shared) / deviations, own) - _cdf((-limits - shared) / deviations, own)
        exceeded = 1 - 2 * (np.prod(inside, axis=1) * quantile_weights).sum(axis=1)
        found = np.ones(len(distance))
        found[members] = (exceeded.reshape(len(members), -1) * weights).sum(axis=1)
        return found

    def means_hold(self, accuracy: float) -> NDArray[np.bool_]:
        """Whether the single interval of each mean holds ``accuracy``, of shape (draws, configurations)."""
        mixtures = self.mixtures(caution=CAUTION)
        expected = np.einsum("nk,nkc->nc", mixtures.weights, mixtures.variances)
        of_means = expected * self.inflation / self.seeds_count
        own = np.maximum(of_means - of_means.mean(axis=1, keepdims=True) / self.count, 0.05 * of_means)
        inverse = np.einsum("nk,nkc->nc", mixtures.weights, mixtures.inverse)
        shared = self.seeds.var(axis=1, ddof=1) / self.seeds_count
        held = np.zeros((self.draws, self.count), dtype=bool)
        for row in range(self.draws):
            half = mean_reach(float(shared[row]), self.seeds_count - 1, own[row], 1 / inverse[row])
            scale = SCALES[self.scale[row]]
            low, high = (
                scale.share_of(end[:, None] + self.seeds[row]).mean(axis=1)
                for end in (self.centres[row] - half, self.centres[row] + half)
            )
            held[row] = (low <= accuracy) & (accuracy <= high)
        return held


def _errors(
    base: Floats, kept: Floats, of_means: Floats, mixtures: Mixtures, places: slice = slice(None)
) -> tuple[Floats, Floats]:
    """Standard errors of differences to ``base`` and their reciprocal degrees of freedom; see ``Fitted._errors``."""
    shared = (base * kept + of_means * mixtures.kept[..., places]) / (base + of_means)
    return np.sqrt(base + of_means), np.clip(shared**2 / (2 * mixtures.information[..., None]), 0.0, 1.0)


@functools.lru_cache(maxsize=256)
def _chances_table(count: int, freedom: float) -> Floats:
    shape = (len(_STATISTICS), len(_INVERSES))
    statistics = np.broadcast_to(_STATISTICS[:, None], shape).ravel()
    found = exceedance(statistics, np.broadcast_to(_INVERSES, shape).ravel(), pairs_table(count, freedom))
    return np.log(np.maximum(found, 1e-300)).reshape(shape)


def _chances(count: int, freedom: float, statistics: Floats, inverse: Floats) -> Floats:
    table, step = _chances_table(count, freedom), np.log(_STATISTICS[1] / _STATISTICS[0])
    first = np.log(np.maximum(statistics, _STATISTICS[0]) / _STATISTICS[0]) / step
    places = [np.minimum(first, len(table) - 1).ravel(), (inverse * (len(_INVERSES) - 1)).ravel()]
    return np.exp(ndimage.map_coordinates(table, places, order=1)).reshape(statistics.shape)


@functools.lru_cache(maxsize=64)
def _cdf_table(freedom: float) -> Floats:
    return np.asarray(special.stdtr(freedom, np.sinh(_STEPS)))


def _cdf(values: Floats, freedom: float) -> Floats:
    places = np.clip((np.arcsinh(values) + 30.0) * 100.0, 0.0, 5999.0)
    first = places.astype(np.int64)
    table = _cdf_table(freedom)
    rest = places - first
    return table[first] * (1 - rest) + table[np.minimum(first + 1, 6000)] * rest
