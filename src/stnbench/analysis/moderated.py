"""Configurations and seeds as a randomised block layout, with variances moderated across configurations.

A run is the effect of its configuration, plus that of its seed, plus noise with a variance that depends on the
configuration. Each variance is drawn towards that of all configurations, as Smyth (2004) does for genes: variances are
modelled as draws from a scaled inverse chi-squared distribution, whose degrees of freedom say how similar they are. Few
seeds contain little information about that number, so that it is not a point estimate here: probabilities are averages
over a grid of it, weighted by its marginal likelihood and a prior.
"""

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special
from typing_extensions import override

from stnbench.core.identity import derive_seed

# Scales on which the runs of a sweep may have equal variances: accuracy, its arcsine, its log-odds.


Floats = NDArray[np.float64]

HALF_IMAGE: Final = 0.5
"""The resolution of a count of images, as in the continuity correction."""


class Scale(ABC):
    """A monotone function of accuracy, with its inverse."""

    name: str

    @abstractmethod
    def shares(self, correct: Floats, images: Floats) -> Floats:
        """Return accuracies, corrected so that ``of`` is finite."""

    @abstractmethod
    def of(self, share: Floats) -> Floats:
        """Return the value of an accuracy on the scale."""

    @abstractmethod
    def share_of(self, value: Floats) -> Floats:
        """Return the accuracy of a value; beyond the ends, that of the nearest possible value."""

    @abstractmethod
    def slope(self, value: Floats) -> Floats:
        """Return the derivative of ``share_of``."""


class Accuracy(Scale):
    """Accuracy itself."""

    name = "accuracy"

    @override
    def shares(self, correct: Floats, images: Floats) -> Floats:
        return correct / images

    @override
    def of(self, share: Floats) -> Floats:
        return share

    @override
    def share_of(self, value: Floats) -> Floats:
        return np.asarray(np.clip(value, 0.0, 1.0))

    @override
    def slope(self, value: Floats) -> Floats:
        return np.ones_like(value)


class Arcsine(Scale):
    """Twice the arcsine of the root, which stabilises the variance of counts of independent images (Anscombe 1948)."""

    name = "arcsine of the root of accuracy"

    @override
    def shares(self, correct: Floats, images: Floats) -> Floats:
        return (correct + 0.375) / (images + 0.75)

    @override
    def of(self, share: Floats) -> Floats:
        return np.asarray(2 * np.arcsin(np.sqrt(share)))

    @override
    def share_of(self, value: Floats) -> Floats:
        return np.asarray(np.sin(np.clip(value, 0.0, np.pi) / 2) ** 2)

    @override
    def slope(self, value: Floats) -> Floats:
        return np.asarray(np.maximum(np.sin(np.clip(value, 0.0, np.pi)) / 2, 1e-6))


class LogOdds(Scale):
    """Log-odds, with half an image added on either side (Anscombe 1956)."""

    name = "log-odds of accuracy"

    @override
    def shares(self, correct: Floats, images: Floats) -> Floats:
        return (correct + HALF_IMAGE) / (images + 2 * HALF_IMAGE)

    @override
    def of(self, share: Floats) -> Floats:
        return np.asarray(special.logit(share))

    @override
    def share_of(self, value: Floats) -> Floats:
        return np.asarray(special.expit(value))

    @override
    def slope(self, value: Floats) -> Floats:
        return np.asarray(special.expit(value) * special.expit(-value))


SCALES: Final[tuple[Scale, ...]] = (LogOdds(), Arcsine(), Accuracy())


Places = NDArray[np.int64]

PRIOR_FREEDOMS: Final = np.array([2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0])
"""The grid; log-normal standard deviations of 0.3 and 0.5 correspond to about 7 and 3."""

POOLED_FREEDOM: Final = 1e9
"""Prior degrees of freedom at which all variances are equal."""

_LEAST_WEIGHT: Final = 1e-3
"""The smallest weight of prior degrees of freedom that are kept."""

_FREEDOM_FOR_SCALE: Final = 8
"""The smallest number of degrees of freedom for choosing the scale."""

_FREEDOM_FOR_TREND: Final = 20
_CONFIGURATIONS_FOR_TREND: Final = 10
_TREND_LEVEL: Final = 0.01
_EVEN: Final = 0.37
"""See ``is_even``. The largest hundredth that keeps the error of a baseline's family within 6 % in all simulated
layouts with log-normal standard deviations of 0.5 (docs/statistics.md)."""

_SCATTERS: Final = 20_000
"""The number of draws of the scatter of equal variances."""

_CONFIGURATIONS_FOR_SCATTER: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Scored runs: a configuration and a seed (numbered from 0 without gaps), images right and images scored."""

    configurations: Places
    seeds: Places
    correct: Floats
    images: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Moderated variances for each prior degrees of freedom of a grid.

    Attributes:
        weights: of the prior degrees of freedom, of shape (grid,), adding up to 1.
        freedoms: prior degrees of freedom, of shape (grid,).
        variances: of one run, of shape (grid, configurations).
        own_inverse: reciprocal degrees of freedom of each variance itself, of shape (grid, configurations).
        shared_inverse: the part of the shared estimate in that, of shape (grid, configurations).
        kept: the share of each variance that comes from that estimate, of shape (grid, configurations).
        information: about the logarithm of that estimate, of shape (grid,).
        least_inverse: the reciprocal of the residual degrees of freedom of all configurations together, a lower bound.
    """

    weights: Floats
    freedoms: Floats
    variances: Floats
    own_inverse: Floats
    shared_inverse: Floats
    kept: Floats
    information: Floats
    least_inverse: float

    @property
    def inverse(self) -> Floats:
        """Return the reciprocal degrees of freedom of these variances, of shape (grid, configurations)."""
        return np.asarray(np.clip(self.own_inverse + self.shared_inverse, self.least_inverse, 1.0))

    @property
    def expected(self) -> Floats:
        """Return the variances of a run, averaged over the grid, of shape (configurations,)."""
        return np.asarray(self.weights @ self.variances)


class BlockModel:
    """The fit of configuration and seed to any number of scored runs.

    If the runs fall into parts that share no seed, effects of seeds cannot be separated from those of configurations:
    then they count as noise (``has_blocks`` is False).

    Attributes:
        scale: on which the layout is fitted.
        counts: the number of runs, of shape (configurations,).
        means: mean accuracy, adjusted to all seeds, of shape (configurations,).
        centres: values on the scale with which the model gives each configuration its mean over its seeds, of shape
            (configurations,).
        seeds: effects of seeds on the scale, of shape (seeds,), adding up to 0.
        freedom: residual degrees of freedom, of all configurations together.
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self.counts = np.bincount(runs.configurations).astype(np.float64)
        self._count_of_seeds = int(runs.seeds.max()) + 1
        self._design()
        self.scale = self._choose_scale()
        values, residuals = self._fit(self.scale)
        self._adjust(values)
        self.own_freedom = np.bincount(runs.configurations, weights=1 - self._leverage).astype(np.float64)
        self.own_freedom[self.own_freedom < 1e-9] = 0.0
        self._squares = np.bincount(runs.configurations, weights=residuals**2)
        self._floor = self._coarseness()
        self._trend = self._find_trend()

    def _design(self) -> None:
        """Build the design of seeds within configurations: seeds' columns less their projection on configurations."""
        runs, seeds = self._runs, self._count_of_seeds
        configs = np.zeros((len(self.counts), seeds))
        np.add.at(configs, (runs.configurations, runs.seeds), 1.0)
        self._shares = configs / self.counts[:, None]
        within = np.diag(configs.sum(axis=0)) - configs.T @ self._shares
        self._inverse = np.linalg.pinv(within, hermitian=True, rcond=1e-9)
        rank = int(np.linalg.matrix_rank(within, hermitian=True, tol=1e-9 * max(1.0, float(within.max()))))
        self.has_blocks = rank == seeds - 1 and seeds > 1 and len(self.counts) > 1
        columns = np.zeros((len(runs.seeds), seeds))
        columns[np.arange(len(runs.seeds)), runs.seeds] = 1.0
        self._columns = (columns - self._shares[runs.configurations]) * self.has_blocks
        own = ((self._columns @ self._inverse) * self._columns).sum(axis=1)
        self._leverage = 1 / self.counts[runs.configurations] + own
        self.freedom = len(runs.seeds) - len(self.counts) - (seeds - 1) * self.has_blocks

    def _fit(self, scale: Scale) -> tuple[Floats, Floats]:
        runs = self._runs
        values = scale.of(scale.shares(runs.correct, runs.images))
        self.seeds = self._inverse @ (self._columns.T @ values)
        left = values - self.seeds[runs.seeds]
        centres = np.bincount(runs.configurations, weights=left) / self.counts
        return values, left - centres[runs.configurations]

    def _choose_scale(self) -> Scale:
        """Choose the scale on which runs have the most equal variances, by profile likelihood (Box and Cox 1964).

        With few degrees of freedom it is accuracy.
        """
        if self.freedom < _FREEDOM_FOR_SCALE:
            return Accuracy()
        best, highest = SCALES[0], -np.inf
        for scale in SCALES:
            values, residuals = self._fit(scale)
            total = float((residuals**2).sum())
            if total <= 1e-18:
                return SCALES[0]
            likelihood = -len(values) / 2 * np.log(total) - float(np.log(scale.slope(values)).sum())
            if likelihood > highest:
                best, highest = scale, likelihood
        return best

    def _adjust(self, values: Floats) -> None:
        """Find the centres and the adjusted means.

        The centres give each configuration its observed mean accuracy on its seeds.
        """
        runs, scale, counts = self._runs, self.scale, self.counts
        places = runs.configurations
        shares = scale.shares(runs.correct, runs.images)
        wanted = np.bincount(places, weights=shares) / counts
        effects = self.seeds[runs.seeds]
        centres = np.bincount(places, weights=values - effects) / counts
        low, high = centres - 1.0, centres + 1.0
        spread = np.ptp(self.seeds) + 1e-12
        low, high = low - spread - np.abs(values).max(), high + spread + np.abs(values).max()
        for _ in range(60 if scale.name != "accuracy" else 0):
            centres = (low + high) / 2
            reached = np.bincount(places, weights=scale.share_of(centres[places] + effects)) / counts
            low, high = np.where(reached < wanted, centres, low), np.where(reached < wanted, high, centres)
        self.centres = centres
        slopes = scale.slope(centres[places] + effects)
        sums = np.bincount(places, weights=slopes)
        self._inflation = counts * np.bincount(places, weights=slopes**2) / sums**2
        raw = np.bincount(places, weights=runs.correct / runs.images) / counts
        own = np.bincount(places, weights=self._plain_share(centres[places] + effects)) / counts
        whole = self._plain_share(centres[:, None] + self.seeds).mean(axis=1)
        is_whole = (self._shares > 0).all(axis=1)
        self.means = np.clip(np.where(is_whole, raw, raw + whole - own), 0.0, 1.0)

    def _plain_share(self, value: Floats) -> Floats:
        """Convert values to accuracies without clipping, because means of clipped values would be biased."""
        return value if self.scale.name == "accuracy" else self.scale.share_of(value)

    def _coarseness(self) -> Floats:
        """Return the variance of a run on the scale that corresponds to half an image, of shape (configurations,)."""
        places = self._runs.configurations
        images = np.bincount(places, weights=self._runs.images) / self.counts
        shares = np.clip(self.scale.share_of(self.centres), HALF_IMAGE / images, 1 - HALF_IMAGE / images)
        return np.asarray((HALF_IMAGE / images / self.scale.slope(self.scale.of(shares))) ** 2)

    def _find_trend(self) -> Floats:
        """Return the factor by which variances depend on the centre, of shape (configurations,).

        It is 1 unless the data show a dependence.
        """
        flat = np.ones(len(self.counts))
        with_freedom = self.own_freedom > 0
        if self.freedom < _FREEDOM_FOR_TREND or with_freedom.sum() < _CONFIGURATIONS_FOR_TREND:
            return flat
        freedom = self.own_freedom[with_freedom]
        own = np.maximum(self._squares[with_freedom] / freedom, self._floor[with_freedom])
        logs = _logarithms(own, freedom)
        weights = 1 / (special.polygamma(1, freedom / 2) + 0.3)
        centres = self.centres[with_freedom]
        middle = np.average(centres, weights=weights)
        squares = float((weights * (centres - middle) ** 2).sum())
        if squares <= 0:
            return flat
        slope = float((weights * (centres - middle) * logs).sum()) / squares
        left = logs - np.average(logs, weights=weights) - slope * (centres - middle)
        degrees = len(logs) - 2
        error = np.sqrt(float((weights * left**2).sum()) / degrees / squares)
        if error <= 0 or 2 * special.stdtr(degrees, -abs(slope) / error) > _TREND_LEVEL:
            return flat
        inside = np.clip(self.centres, centres.min(), centres.max())
        return np.asarray(np.exp(slope * (inside - middle)))

    @property
    def is_even(self) -> bool:
        """Return whether the variances scatter little even for equal ones.

        The scatter is the variance of their logarithms; it is compared with that of draws of equal variances with the
        same degrees of freedom, of which at most the share ``_EVEN`` scatter less.
        """
        known = self.own_freedom > 0
        freedom = self.own_freedom[known]
        if len(freedom) < _CONFIGURATIONS_FOR_SCATTER:
            return True
        scatter = float(_logarithms(self._scaled()[known], freedom).var(ddof=1))
        return scatter <= _even_scatter(tuple(sorted(np.round(freedom, 3).tolist())))

    def _scaled(self) -> Floats:
        """Return each configuration's variance over the trend, of shape (configurations,).

        Variances of coarse scores are raised to that of half an image.
        """
        own = self._squares / np.maximum(self.own_freedom, 1e-9)
        known = self.own_freedom > 0
        usual = float(self._squares.sum()) / max(self.freedom, 1)
        own = np.maximum(own, np.maximum(1e-6 * usual, self._floor))
        return np.asarray(np.where(known, own / self._trend, 1.0))

    def moderated(self, *, caution: float = 0.0) -> Mixture:
        """Return variances of a run, for each of the prior degrees of freedom.

        Args:
            caution: prior weights are proportional to the degrees of freedom to the power of minus this: 0 is neutral,
                larger values take variances as more unequal unless the data show otherwise.
        """
        return self._mixture(PRIOR_FREEDOMS, PRIOR_FREEDOMS**-caution)

    def uneven(self) -> Mixture:
        """Return variances of a run that are as unequal as the grid of prior degrees of freedom allows."""
        return self._mixture(PRIOR_FREEDOMS[:1], np.ones(1))

    def pooled(self) -> Mixture:
        """Return the common variance of a run under equal variances."""
        return self._mixture(np.array([POOLED_FREEDOM]), np.ones(1))

    def _mixture(self, freedoms: Floats, prior: Floats) -> Mixture:
        known = self.own_freedom > 0
        own, freedom = self._scaled()[known], self.own_freedom[known]
        usual, information, likelihoods = _marginal(own, freedom, freedoms)
        logs = likelihoods + np.log(prior)
        weights = np.exp(logs - logs.max())
        weights /= weights.sum()
        kept = weights >= _LEAST_WEIGHT
        weights, freedoms = weights[kept] / weights[kept].sum(), freedoms[kept]
        usual, information = usual[kept], information[kept]
        prior_freedom, level = freedoms[:, None], usual[:, None]
        whole = self.own_freedom
        variances = (prior_freedom * level + whole * self._scaled()) / (prior_freedom + whole)
        share = prior_freedom / (prior_freedom + whole)
        return Mixture(
            weights=weights,
            freedoms=freedoms,
            variances=np.maximum(variances * self._trend, self._floor),
            own_inverse=1 / (prior_freedom + whole),
            shared_inverse=share**2 / (2 * information[:, None]),
            kept=prior_freedom * level / (prior_freedom * level + whole * self._scaled()),
            information=information,
            least_inverse=1 / max(self.freedom, 1),
        )

    def of_means(self, variances: Floats) -> Floats:
        """Return variances of centres (..., configurations) from those of a run, without common effects of seeds."""
        return variances * self._inflation / self.counts

    def seeds_part(self, first: Places, second: Places, variances: Floats) -> Floats:
        """Return the variance that unequal seeds add to differences of centres (pairs,), from variances of a run."""
        apart = self._shares[first] - self._shares[second]
        if not self.has_blocks or not np.abs(apart).max(initial=0.0) > 1e-12:
            return np.zeros(len(first))
        mapped = self._columns @ self._inverse
        covariance = (mapped * variances[self._runs.configurations][:, None]).T @ mapped
        return np.asarray(((apart @ covariance) * apart).sum(axis=1))

    def common_seeds(self, first: int, second: int) -> int:
        """Return the number of seeds that both configurations have."""
        return int(((self._shares[first] > 0) & (self._shares[second] > 0)).sum())

    def means_at(self, centres: Floats) -> Floats:
        """Return the mean accuracy over all seeds that belongs to centres of any shape."""
        return np.asarray(self.scale.share_of(centres[..., None] + self.seeds).mean(axis=-1))

    def slopes(self) -> Floats:
        """Return the derivative of the mean accuracy with respect to the centre, of shape (configurations,)."""
        return np.asarray(self.scale.slope(self.centres[:, None] + self.seeds).mean(axis=-1))

    @property
    def seeds_variance(self) -> float:
        """Return the variance of the estimated effects of seeds; 0 if they are not separated from noise."""
        return float(self.seeds.var(ddof=1)) if self.has_blocks else 0.0


def _logarithms(variances: Floats, freedom: Floats) -> Floats:
    """Return the logarithms of estimated variances, without the bias that their degrees of freedom give them."""
    return np.asarray(np.log(variances) - special.digamma(freedom / 2) + np.log(freedom / 2))


@functools.lru_cache(maxsize=64)
def _even_scatter(freedoms: tuple[float, ...]) -> float:
    """Return the quantile ``_EVEN`` of the scatter of equal variances with these degrees of freedom, by simulation."""
    freedom = np.array(freedoms)
    random = np.random.default_rng(derive_seed(len(freedoms), "scatter"))
    rows = _SCATTERS
    scatters = _logarithms(random.chisquare(freedom, (rows, len(freedom))) / freedom, freedom).var(axis=1, ddof=1)
    return float(np.quantile(scatters, _EVEN))


def _marginal(own: Floats, freedom: Floats, prior: Floats) -> tuple[Floats, Floats, Floats]:
    """Compute the marginal likelihood of each prior degrees of freedom.

    The likelihood is that of variances over the usual one as draws of F, integrated over the usual one (Laplace).

    Returns:
        The usual variance, the information about its logarithm, and the log likelihood, each of the shape of ``prior``.
    """
    freedoms, owns, priors = freedom[None], own[None], prior[:, None]
    low = np.full(len(prior), np.log(own.min()) - 3)
    high = np.full(len(prior), np.log(own.max()) + 3)
    for _ in range(40):
        middle = (low + high) / 2
        ratio = freedoms * owns / (priors * np.exp(middle)[:, None])
        is_above = ((freedoms + priors) * ratio / (1 + ratio)).sum(axis=1) > freedom.sum()
        low, high = np.where(is_above, middle, low), np.where(is_above, high, middle)
    ratio = freedoms * owns / (priors * np.exp(middle)[:, None])
    information = np.maximum(((freedoms + priors) / 2 * ratio / (1 + ratio) ** 2).sum(axis=1), 1e-9)
    terms = freedoms / 2 * np.log(ratio) - (freedoms + priors) / 2 * np.log1p(ratio)
    likelihood = (terms - special.betaln(freedoms / 2, priors / 2)).sum(axis=1)
    return np.exp(middle), information, likelihood + np.log(2 * np.pi / information) / 2
