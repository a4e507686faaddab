"""The comparison of configurations over seeds: fit, families of simultaneous intervals, verdicts, ranks."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from stnbench.analysis.inference import LEVEL, wilson_estimate
from stnbench.analysis.moderated import BlockModel, Mixture, Runs
from stnbench.analysis.power import POWER, SEEDS_MAX
from stnbench.analysis.simultaneous import (
    critical_value,
    exceedance,
    many_to_one_table,
    pairs_table,
)
from stnbench.analysis.verdicts import DEFAULT_MARGIN, Comparison, Decision, Effect, Failures, Pair, Verdict
from stnbench.core.errors import SpecError

PAIRS_METHOD: Final = "all pairs, moderated t"
BASELINE_METHOD: Final = "many to one, moderated t"
IMAGES_METHOD: Final = "images of one seed"
SEEDS_METHOD: Final = "over seeds, moderated"
OWN_SEEDS_METHOD: Final = "t over seeds"
WILSON_METHOD: Final = "Wilson, one run"
NO_METHOD: Final = "none"

COLLAPSED_SHARE: Final = 0.5
"""A run with less than this share of the accuracy of its configuration's best run has collapsed."""

_UNLIKELY: Final = 1e-3
_ANGLES: Final = np.linspace(0.0, 2 * np.pi, 65)[:-1]

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Seed = int | str


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredRun:
    """One run: images right of those scored. ``correct`` is None for one that ended without a score (diverged).

    ``has_collapsed`` is None where nobody looked; then a run that recognises less than half of what its configuration's
    best run does, by more than chance, has.
    """

    configuration: str
    seed: Seed
    correct: float | None
    images: int
    has_collapsed: bool | None = None


def compare_configurations(
    runs: Sequence[ScoredRun],
    *,
    margin: float = DEFAULT_MARGIN,
    baselines: Mapping[str, str] | None = None,
    equal_parameter_baselines: Mapping[str, str] | None = None,
    is_provisional: bool = False,
    all_pairs: bool = False,
) -> Comparison:
    """Compare all configurations of one task; see ``fit_and_compare``."""
    return fit_and_compare(
        runs,
        margin=margin,
        baselines=baselines,
        equal_parameter_baselines=equal_parameter_baselines,
        is_provisional=is_provisional,
        all_pairs=all_pairs,
    )[0]


def fit_and_compare(
    runs: Sequence[ScoredRun],
    *,
    margin: float = DEFAULT_MARGIN,
    baselines: Mapping[str, str] | None = None,
    equal_parameter_baselines: Mapping[str, str] | None = None,
    is_provisional: bool = False,
    all_pairs: bool = False,
) -> "tuple[Comparison, Fitted | None]":
    """Compare all configurations of one task, and keep the fit for further questions; None where no run has a score.

    Args:
        runs: those that have ended, at most one for a configuration and seed.
        margin: of equivalence, a share.
        baselines: by configuration, the one without a transformer that its gain is over.
        equal_parameter_baselines: likewise, with as many parameters.
        is_provisional: whether more runs are to come.
        all_pairs: whether the differences of all pairs are wanted.
    Raises: SpecError for two runs of one configuration and seed, and for counts that cannot be.
    """
    _check(runs)
    names = sorted(dict.fromkeys(run.configuration for run in runs))
    seeds = tuple(sorted(dict.fromkeys(run.seed for run in runs), key=_order))
    collapsed = _collapsed(runs)
    failures = {name: _failures(name, runs, collapsed) for name in names}
    sound = [run for run in runs if run.correct is not None and id(run) not in collapsed]
    expected = {name: sum(run.configuration == name for run in runs) for name in names}
    provisional = is_provisional or any(count < len(seeds) for count in expected.values())
    if not sound:
        decisions = tuple(_without_mean(name, failures[name]) for name in names)
        nothing = Comparison(
            decisions=decisions,
            margin=margin,
            seeds=seeds,
            is_provisional=provisional,
            run_deviation=None,
            prior_freedom=None,
            notes=("No run has a score.",) if runs else (),
        )
        return nothing, None
    fitted = Fitted(sound)
    comparison = fitted.compare(margin, baselines or {}, equal_parameter_baselines or {}, all_pairs=all_pairs)
    decisions = tuple(replace(item, failures=failures[item.configuration]) for item in comparison.decisions)
    missing = tuple(_without_mean(name, failures[name]) for name in names if name not in fitted.place)
    provisional = provisional and (fitted.model.has_blocks or is_provisional or len(seeds) == 1)
    found = replace(
        comparison, decisions=(*decisions, *missing), seeds=seeds, is_provisional=provisional, notes=comparison.notes
    )
    return replace(found, notes=(*_cautions(found), *found.notes)), fitted


def _check(runs: Sequence[ScoredRun]) -> None:
    seen: set[tuple[str, Seed]] = set()
    for run in runs:
        name = f"configuration '{run.configuration}', seed {run.seed}"
        if (run.configuration, run.seed) in seen:
            raise SpecError(f"{name} occurs twice", remedy="give one run for each configuration and seed")
        seen.add((run.configuration, run.seed))
        if run.correct is None:
            continue
        if run.images < 1:
            raise SpecError(f"{name}: {run.images} images", remedy="give at least one image")
        if not 0 <= run.correct <= run.images:
            raise SpecError(
                f"{name}: {run.correct:g} of {run.images} images are correct", remedy="give 0 <= correct <= images"
            )


def _order(seed: Seed) -> tuple[bool, Seed, str]:
    return (True, 0, seed) if isinstance(seed, str) else (False, seed, "")


def _collapsed(runs: Sequence[ScoredRun]) -> set[int]:
    """The ids of runs that have collapsed."""
    best: dict[str, float] = {}
    for run in runs:
        if run.correct is not None and not run.has_collapsed:
            best[run.configuration] = max(best.get(run.configuration, 0.0), run.correct / run.images)
    return {id(run) for run in runs if _has_collapsed(run, best.get(run.configuration, 0.0))}


def _has_collapsed(run: ScoredRun, best: float) -> bool:
    """Whether a run fell from what the best one of its configuration reached, or was seen to have collapsed."""
    if run.correct is None or run.has_collapsed is not None:
        return run.correct is not None and bool(run.has_collapsed)
    if run.correct / run.images >= COLLAPSED_SHARE * best:
        return False
    halfway = (1 + COLLAPSED_SHARE) / 2 * best
    return bool(special.bdtr(math.floor(run.correct), run.images, halfway) < _UNLIKELY)


def _failures(name: str, runs: Sequence[ScoredRun], collapsed: set[int]) -> Failures:
    own = [run for run in runs if run.configuration == name]
    lost = sum(run.correct is None for run in own)
    fallen = sum(id(run) in collapsed for run in own)
    rate = wilson_estimate(lost + fallen, len(own))
    return Failures(
        runs=len(own), diverged=lost, collapsed=fallen, low=float(rate.low or 0.0), high=float(rate.high or 0.0)
    )


def _without_mean(name: str, failures: Failures) -> Decision:
    return Decision(
        configuration=name,
        seeds=(),
        mean=None,
        low=None,
        high=None,
        method=NO_METHOD,
        rank_low=None,
        rank_high=None,
        verdict=None,
        failures=failures,
    )


def _cautions(comparison: Comparison) -> list[str]:
    """What must be known before anything else."""
    found = []
    best = comparison.best
    if best and best.failures and best.failures.failed:
        found.append(
            f"{best.configuration} has the highest mean, and {best.failures.failed} of its {best.failures.runs} runs "
            "failed: the mean is of the others."
        )
    failed = sum(item.failures.failed for item in comparison.decisions if item.failures)
    if failed:
        found.append(f"{failed} runs diverged or collapsed: they are a rate of their own and in no mean.")
    if comparison.is_provisional:
        found.append("Provisional: runs are missing; means are adjusted for the seeds that each configuration has.")
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Family:
    """Differences of pairs of one family: p-values and limits, and what they were made of."""

    first: Places
    second: Places
    p_values: Floats
    low: Floats
    high: Floats


class Fitted:
    """A fit of configuration and seed to sound runs, of which families of comparisons are asked."""

    def __init__(self, runs: Sequence[ScoredRun]) -> None:
        self.names = sorted(dict.fromkeys(run.configuration for run in runs))
        self.place = {name: place for place, name in enumerate(self.names)}
        self._seeds = sorted(dict.fromkeys(run.seed for run in runs), key=_order)
        places = {seed: place for place, seed in enumerate(self._seeds)}
        self._own_seeds: list[list[Seed]] = [[] for _ in self.names]
        for run in sorted(runs, key=lambda item: _order(item.seed)):
            self._own_seeds[self.place[run.configuration]].append(run.seed)
        self.model = BlockModel(
            Runs(
                configurations=np.array([self.place[run.configuration] for run in runs]),
                seeds=np.array([places[run.seed] for run in runs]),
                correct=np.array([run.correct for run in runs], dtype=np.float64),
                images=np.array([run.images for run in runs], dtype=np.float64),
            )
        )
        images = [float(run.images) for run in runs]
        places_of_runs = [self.place[run.configuration] for run in runs]
        self._images = np.bincount(places_of_runs, weights=images).astype(np.float64)
        self.has_variance = self.model.freedom > 0
        self._picked = self.model.moderated() if self.has_variance else None
        self._fixed = self.model.moderated(pooled_where_even=True) if self.has_variance else None

    @property
    def means(self) -> Floats:
        """(configurations,) adjusted mean accuracies, in the order of ``names``."""
        return self.model.means

    def compare(
        self, margin: float, baselines: Mapping[str, str], equal: Mapping[str, str], *, all_pairs: bool
    ) -> Comparison:
        """All families at once; see ``compare_configurations``."""
        order = sorted(range(len(self.names)), key=lambda place: (-self.means[place], self.names[place]))
        best, others = order[0], np.array(order[1:], dtype=np.int64)
        deltas = self._pairs(others, np.full(len(others), best))
        gains, equal_gains = self._gains(baselines), self._gains(equal)
        lows, highs = self._ranks(gains, baselines)
        means = self._mean_limits()
        decisions = []
        for rank, place in enumerate(order):
            delta = self._effect(deltas, rank - 1, PAIRS_METHOD) if rank else None
            planned = self._planned(place, best, gains, baselines)
            if planned is not None and planned.is_told:
                delta = planned
            verdict = Verdict.BEST if delta is None else _verdict(delta, margin, is_told=self.has_variance)
            decisions.append(
                Decision(
                    configuration=self.names[place],
                    seeds=tuple(self._own_seeds[place]),
                    mean=float(self.means[place]),
                    low=means[place][0],
                    high=means[place][1],
                    method=means[place][2],
                    rank_low=int(lows[place]),
                    rank_high=int(highs[place]),
                    verdict=verdict,
                    delta=delta,
                    gain=gains.get(place),
                    gain_equal_parameters=equal_gains.get(place),
                    seeds_needed=self._seeds_needed(place, best, margin) if verdict is Verdict.UNDECIDED else None,
                )
            )
        return Comparison(
            decisions=tuple(decisions),
            margin=margin,
            seeds=tuple(self._seeds),
            is_provisional=False,
            run_deviation=self._run_deviation(),
            prior_freedom=float(1 / (self._picked.weights @ (1 / self._picked.freedoms))) if self._picked else None,
            notes=tuple(self._notes()),
            pairs=tuple(self._all_pairs(order)) if all_pairs else (),
        )

    def _notes(self) -> list[str]:
        if len(self.names) == 1:
            return []
        if not self.has_variance:
            single = len(self._seeds) == 1
            return [
                "One seed: intervals are over its images alone and say nothing of other seeds: nothing is decided."
                if single
                else "No configuration has two seeds in common with another: nothing is decided."
            ]
        notes = [
            f"Seeds are blocks; variances are moderated across configurations on the scale of {self.model.scale.name}."
        ]
        if not self.model.has_blocks:
            notes = ["Configurations share too few seeds to adjust for them: differences between seeds count as noise."]
        return notes

    def _run_deviation(self) -> float | None:
        if self._picked is None:
            return None
        return float(np.median(np.sqrt(self._picked.expected) * self.model.slopes()))

    def _all_pairs(self, order: Sequence[int]) -> list[Pair]:
        first, second = np.triu_indices(len(order), 1)
        ordered = np.array(order)
        family = self._pairs(ordered[first], ordered[second])
        return [
            Pair(
                first=self.names[family.first[row]],
                second=self.names[family.second[row]],
                difference=self._effect(family, row, PAIRS_METHOD),
            )
            for row in range(len(first))
        ]

    def _effect(self, family: _Family, row: int, method: str) -> Effect:
        first, second = int(family.first[row]), int(family.second[row])
        mean = float(self.means[first] - self.means[second])
        low, high, p_value = float(family.low[row]), float(family.high[row]), float(family.p_values[row])
        is_known = math.isfinite(low) and math.isfinite(high)
        return Effect(
            n=self.model.common_seeds(first, second),
            mean=mean,
            low=min(low, mean) if is_known else None,
            high=max(high, mean) if is_known else None,
            p_adjusted=None if math.isnan(p_value) else p_value,
            method=method if self.has_variance else IMAGES_METHOD,
        )

    def _pairs(self, first: Places, second: Places) -> _Family:
        """Some of all pairs, simultaneous for all of them, for which of them are looked at is chosen by the data."""
        table = pairs_table(max(len(self.names), 2))
        if self._picked is None:
            return self._over_images(first, second, tests=len(self.names) * (len(self.names) - 1) // 2)
        tables = [table] * len(self._picked.weights)
        return self._family(first, second, self._picked, tables, LEVEL)

    def _gains(self, baselines: Mapping[str, str]) -> dict[int, Effect]:
        """The effects of configurations over their baselines: a family for each baseline, Bonferroni's among those."""
        known = {
            self.place[name]: self.place[base]
            for name, base in baselines.items()
            if name in self.place and base in self.place and name != base
        }
        found: dict[int, Effect] = {}
        bases = sorted(set(known.values()))
        for base in bases:
            first = np.array([place for place, own in known.items() if own == base], dtype=np.int64)
            second = np.full(len(first), base)
            family = self._against(first, second, level=LEVEL / len(bases))
            family = replace(family, p_values=np.minimum(family.p_values * len(bases), 1.0))
            found |= {int(place): self._effect(family, row, BASELINE_METHOD) for row, place in enumerate(first)}
        return found

    def _against(self, first: Places, second: Places, *, level: float) -> _Family:
        if self._fixed is None:
            return self._over_images(first, second, tests=len(first) * round(LEVEL / level))
        model = self.model
        tables = []
        for variances in self._fixed.variances:
            of_means = model.of_means(variances)
            tables.append(many_to_one_table(of_means[first], float(of_means[second[0]])))
        return self._family(first, second, self._fixed, tables, level)

    def _family(
        self, first: Places, second: Places, mixture: Mixture, tables: Sequence[Floats], level: float
    ) -> _Family:
        if not len(first):
            return _Family(first, second, np.zeros(0), np.zeros(0), np.zeros(0))
        errors, inverses = self._errors(first, second, mixture)
        centres = self.model.centres
        distance = np.abs(centres[first] - centres[second])

        def chance(reached: Floats) -> Floats:
            """(pairs,) that a family reaches so far, averaged over the grid."""
            rows = [
                weight * exceedance(reached / error, inverse, table)
                for weight, error, inverse, table in zip(mixture.weights, errors, inverses, tables, strict=True)
                if weight > 1e-6
            ]
            return np.asarray(np.sum(rows, axis=0))

        half = _reach(chance, np.sqrt(mixture.weights @ errors**2), level)
        limits = self._limits(first, second, half, mixture)
        return _Family(first, second, chance(distance), *limits)

    def _errors(self, first: Places, second: Places, mixture: Mixture) -> tuple[Floats, Floats]:
        """(grid, pairs): standard errors of differences of centres, and one over their degrees of freedom."""
        of_means = self.model.of_means(mixture.variances)
        one, other = of_means[:, first], of_means[:, second]
        extra = np.stack([self.model.seeds_part(first, second, row) for row in mixture.variances])
        inverse = (one**2 * mixture.inverse[:, first] + other**2 * mixture.inverse[:, second]) / (one**2 + other**2)
        return np.sqrt(one + other + extra), inverse

    def _limits(self, first: Places, second: Places, half: Floats, mixture: Mixture) -> tuple[Floats, Floats]:
        """Limits of differences of accuracies where those of centres reach ``half`` to either side.

        The difference of accuracies is taken to its extremes over the ellipse of the two centres that goes with that
        interval, so that its interval holds 0 exactly where the other one does.
        """
        of_means = self.model.of_means(mixture.expected)
        one, other = np.sqrt(of_means[first]), np.sqrt(of_means[second])
        whole = np.hypot(one, other)
        steepest = np.arctan2(-other, one)[:, None]
        angles = np.concatenate(
            [np.broadcast_to(_ANGLES, (len(first), len(_ANGLES))), steepest, steepest + np.pi], axis=1
        )
        size = (half / whole)[:, None]
        centres = self.model.centres
        ahead = centres[first][:, None] + size * one[:, None] * np.cos(angles)
        behind = centres[second][:, None] + size * other[:, None] * np.sin(angles)
        if self.model.scale.name == "accuracy":
            distance = centres[first] - centres[second]
            return np.maximum(distance - half, -1.0), np.minimum(distance + half, 1.0)
        values = self.model.means_at(ahead) - self.model.means_at(behind)
        return values.min(axis=1), values.max(axis=1)

    def _over_images(self, first: Places, second: Places, *, tests: int) -> _Family:
        """One seed: as if its images were drawn for either side, with Newcombe's interval (1998) at Bonferroni's level.

        Both sides saw the same images, which makes it wide; it decides nothing (see ``_verdict``).
        """
        z = float(special.ndtri(1 - LEVEL / max(tests, 1) / 2))
        low, high = _wilson(self.means, self._images, z)
        one, other = self.means[first], self.means[second]
        down = np.sqrt((one - low[first]) ** 2 + (high[second] - other) ** 2)
        up = np.sqrt((high[first] - one) ** 2 + (other - low[second]) ** 2)
        distance = one - other
        return _Family(first, second, np.full(len(first), np.nan), distance - down, distance + up)

    def _planned(
        self, place: int, best: int, gains: Mapping[int, Effect], baselines: Mapping[str, str]
    ) -> Effect | None:
        """The difference to the best where one of the two is the baseline of the other, from that planned family."""
        if place in gains and baselines.get(self.names[place]) == self.names[best]:
            return gains[place]
        if best in gains and baselines.get(self.names[best]) == self.names[place]:
            return gains[best].turned
        return None

    def _ranks(self, gains: Mapping[int, Effect], baselines: Mapping[str, str]) -> tuple[Places, Places]:
        """Best and worst rank of each configuration that the decided pairs leave open.

        Pairs are decided among all pairs, or, of a configuration and its baseline, in the family of that baseline,
        which was planned before anything was seen. Either family keeps its 5 %.
        """
        count = len(self.names)
        better = np.zeros(count, dtype=np.int64)
        worse = np.zeros(count, dtype=np.int64)
        if self._picked is not None and count > 1:
            first, second = np.triu_indices(count, 1)
            errors, inverses = self._errors(first, second, self._picked)
            distance = self.model.centres[first] - self.model.centres[second]
            table = pairs_table(count)
            p_values = np.zeros(len(first))
            for weight, error, inverse in zip(self._picked.weights, errors, inverses, strict=True):
                if weight > 1e-6:
                    p_values += weight * exceedance(np.abs(distance) / error, inverse, table)
            told = p_values <= LEVEL
            places = {pair: row for row, pair in enumerate(zip(first.tolist(), second.tolist(), strict=True))}
            for place, gain in gains.items():
                base = self.place[baselines[self.names[place]]]
                told[places[min(place, base), max(place, base)]] |= gain.is_told
            np.add.at(better, np.where(distance > 0, second, first)[told], 1)
            np.add.at(worse, np.where(distance > 0, first, second)[told], 1)
        return 1 + better, count - worse

    def _mean_limits(self) -> list[tuple[float | None, float | None, str]]:
        """Single intervals of the means over all seeds there might be.

        The mean of a seed's effect and of the configuration's own noise have variances of different degrees of freedom:
        the interval is that of the sum of two t variables (Behrens and Fisher).
        """
        model, counts = self.model, self.model.counts
        if self._picked is None or (counts == 1).all():
            z = float(special.ndtri(1 - LEVEL / 2))
            low, high = _wilson(self.means, self._images, z)
            return [(float(one), float(other), WILSON_METHOD) for one, other in zip(low, high, strict=True)]
        mixture = self._picked
        expected = mixture.expected
        shared = model.seeds_variance / len(self._seeds)
        usual = float(self.model.of_means(expected).mean()) / len(self.names) if shared else 0.0
        own = np.maximum(model.of_means(expected) - usual, 0.05 * model.of_means(expected))
        inverse = mixture.weights @ mixture.inverse
        half = _two_t_half(math.sqrt(shared), max(len(self._seeds) - 1, 1), np.sqrt(own), 1 / inverse)
        low = model.means_at(model.centres - half)
        high = model.means_at(model.centres + half)
        return [
            (float(min(one, mean)), float(max(other, mean)), SEEDS_METHOD)
            for one, other, mean in zip(low, high, self.means, strict=True)
        ]

    def _seeds_needed(self, place: int, best: int, margin: float) -> int | None:
        """With how many seeds a configuration would be decided against the best, with a chance of 80 %.

        Exact for the noncentral t distribution, at the level that a pair has within all pairs; variances as estimated.
        """
        model = self.model
        if self._picked is None:
            return None
        variances = model.of_means(self._picked.expected) * model.counts
        deviation = math.sqrt(float(variances[place] + variances[best]))
        distance = abs(float(model.centres[place] - model.centres[best]))
        slope = float(model.slopes()[[place, best]].mean())
        prior = float(1 / (self._picked.weights @ (1 / self._picked.freedoms)))
        return seeds_to_decide(
            distance / deviation,
            margin / slope / deviation,
            configurations=len(self.names),
            prior_freedom=prior,
            at_least=int(max(model.counts[place], model.counts[best])) + 1,
        )

    def contrast_family(self, weights: Floats, table: Floats) -> list[tuple[float, float, float, float]]:
        """Contrasts of mean accuracies, simultaneous for a family: mean, low, high and adjusted p of each.

        Args:
            weights: (contrasts, configurations), each adding up to 0.
            table: of the family.
        Raises: SpecError without degrees of freedom for noise.
        """
        if self._picked is None:
            raise SpecError("contrasts of one seed were asked for", remedy="run a second seed")
        mixture, slopes = self._picked, self.model.slopes()
        of_means = self.model.of_means(mixture.variances) * slopes**2
        parts = weights[None] ** 2 * of_means[:, None]
        variances = parts.sum(axis=2)
        inverse = (parts**2 * mixture.own_inverse[:, None]).sum(axis=2) / np.maximum(variances**2, 1e-300)
        inverse += (parts * mixture.shared_inverse[:, None]).sum(axis=2) / np.maximum(variances, 1e-300)
        inverse = np.clip(inverse, mixture.least_inverse, 1.0)
        estimates = weights @ self.means
        errors = np.sqrt(variances)

        def chance(reached: Floats) -> Floats:
            rows = [
                weight * exceedance(reached / error, own, table)
                for weight, error, own in zip(mixture.weights, errors, inverse, strict=True)
            ]
            return np.asarray(np.sum(rows, axis=0))

        half = _reach(chance, np.sqrt(mixture.weights @ variances), LEVEL)
        p_values = chance(np.abs(estimates))
        return [
            (float(mean), float(mean - reach), float(mean + reach), float(p_value))
            for mean, reach, p_value in zip(estimates, half, p_values, strict=True)
        ]


def _reach(chance: Callable[[Floats], Floats], usual: Floats, level: float) -> Floats:
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
    effect: float, margin: float, *, configurations: int, prior_freedom: float, at_least: int = 2
) -> int | None:
    """With how many seeds a pair among all pairs is decided with a chance of 80 %: told apart, or found equivalent.

    Args:
        effect: the difference over the standard deviation of a seed's difference.
        margin: of equivalence, likewise.
        configurations: how many are compared.
        prior_freedom: of the moderated variances.
        at_least: the smallest number that comes into question.
    Returns: None above ``SEEDS_MAX``.
    """
    share = (configurations - 1) / configurations
    inverses, limits = _pair_limits(max(configurations, 2))

    def decides(seeds: int) -> bool:
        freedom = min(prior_freedom, 1e6) + (seeds - 1) * share
        limit = float(np.exp(np.interp(1 / freedom, inverses, limits)))
        root = math.sqrt(seeds)
        told = 1 - float(special.nctdtr(freedom, effect * root, limit)) if effect * root < 30 + limit else 1.0
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
def _pair_limits(configurations: int) -> tuple[Floats, Floats]:
    """One over degrees of freedom, rising, and the logarithms of limits of a pair among all pairs with these."""
    inverses = np.array([1e-6, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 1.0])
    table = pairs_table(configurations)
    return inverses, np.log([critical_value(1 / inverse, table, LEVEL) for inverse in inverses])


def _verdict(delta: Effect, margin: float, *, is_told: bool) -> Verdict:
    if not is_told or delta.low is None or delta.high is None:
        return Verdict.UNDECIDED
    if delta.p_adjusted is not None and delta.p_adjusted <= LEVEL and delta.mean < 0:
        return Verdict.LOWER
    return Verdict.EQUIVALENT if delta.is_within(margin) else Verdict.UNDECIDED


def _wilson(shares: Floats, images: Floats, z: float) -> tuple[Floats, Floats]:
    """Wilson's interval (1927) of shares of so many images."""
    middle = (shares + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * np.sqrt(shares * (1 - shares) / images + z**2 / (4 * images**2))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def _two_t_half(first: float, first_freedom: float, second: Floats, second_freedom: Floats) -> Floats:
    """How far the sum of two independent t variables, each times its scale, reaches with the chance of 95 %."""
    if first <= 1e-12 * float(second.max(initial=0.0)):
        return np.asarray(second * special.stdtrit(second_freedom, 1 - LEVEL / 2))
    nodes, weights = np.polynomial.legendre.leggauss(32)
    places = special.stdtrit(second_freedom[:, None], (nodes + 1) / 2) * second[:, None]
    low = np.zeros(len(second))
    high = 2 * (first * special.stdtrit(first_freedom, 0.9995) + second * special.stdtrit(second_freedom, 0.9995))
    for _ in range(40):
        middle = (low + high) / 2
        outside = special.stdtr(first_freedom, (places - middle[:, None]) / first)
        outside = outside + special.stdtr(first_freedom, (-places - middle[:, None]) / first)
        is_short = (outside * weights / 2).sum(axis=1) > LEVEL
        low, high = np.where(is_short, middle, low), np.where(is_short, high, middle)
    return np.asarray(high)
