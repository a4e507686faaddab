"""The fit of configuration and seed to runs, with families of simultaneous comparisons."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from stnbench.analysis.effects import LEVEL, NO_METHOD, WILSON_METHOD
from stnbench.analysis.moderated import BlockModel, Mixture, Runs
from stnbench.analysis.simultaneous import (
    exceedance,
    many_to_one_table,
    mean_reach,
    pairs_table,
    reach,
    seeds_to_decide,
    wilson_limits,
)
from stnbench.analysis.verdicts import SEEDS_METHOD, Comparison, Decision, Effect, Pair, Verdict
from stnbench.core.errors import SpecError

PAIRS_METHOD: Final = "all pairs, moderated t"
BASELINE_METHOD: Final = "many to one, moderated t"
IMAGES_METHOD: Final = "images of one seed"

_CAUTION: Final = 0.25
"""See ``BlockModel.moderated``. By simulation, for an error of 6 % with log-normal standard deviations of 0.5."""

_ANGLES: Final = np.linspace(0.0, 2 * np.pi, 65)[:-1]

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Seed = int | str


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredRun:
    """One run: images right of those scored. ``correct`` is None for a run that ended without a score (diverged).

    ``has_collapsed`` is None if unknown; then a run has collapsed if it recognises less than half as many
    images as its configuration's best run, by more than chance.
    """

    configuration: str
    seed: Seed
    correct: float | None
    images: int
    has_collapsed: bool | None = None


def seed_order(seed: Seed) -> tuple[bool, Seed, str]:
    """Return the sort key of a seed: numbers before names."""
    return (True, 0, seed) if isinstance(seed, str) else (False, seed, "")


@dataclass(frozen=True, slots=True, eq=False)
class _Family:
    """Differences of pairs of one family, with their p-values and limits."""

    first: Places
    second: Places
    p_values: Floats
    low: Floats
    high: Floats


class Fitted:
    """A fit of configuration and seed to runs that did not fail, which answers families of comparisons."""

    def __init__(self, runs: Sequence[ScoredRun], *, level: float = LEVEL) -> None:
        """Fit the runs; ``level`` is the error rate of each family of comparisons."""
        self._level = level
        self.names = sorted(dict.fromkeys(run.configuration for run in runs))
        self.place = {name: place for place, name in enumerate(self.names)}
        self._seeds = sorted(dict.fromkeys(run.seed for run in runs), key=seed_order)
        places = {seed: place for place, seed in enumerate(self._seeds)}
        self._own_seeds: list[list[Seed]] = [[] for _ in self.names]
        for run in sorted(runs, key=lambda item: seed_order(item.seed)):
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
        self._picked = self.model.moderated(caution=_CAUTION) if self.has_variance else None
        self._planned = self._for_a_baseline() if self.has_variance else None

    def _for_a_baseline(self) -> Mixture:
        """Return variances for a family with one member in every comparison, whose variance affects all of them.

        They are pooled if they scatter little, which has the most power; otherwise they are taken as quite unequal.
        """
        return self.model.pooled() if self.model.is_even else self.model.uneven()

    @property
    def means(self) -> Floats:
        """Return the adjusted mean accuracies, of shape (configurations,), in the order of ``names``."""
        return self.model.means

    def compare(
        self, margin: float, baselines: Mapping[str, str], equal: Mapping[str, str], *, all_pairs: bool
    ) -> Comparison:
        """Compute all families at once; see ``compare_configurations``."""
        order = sorted(range(len(self.names)), key=lambda place: (-self.means[place], self.names[place]))
        return Comparison(
            decisions=tuple(self._decisions(order, margin, baselines, equal)),
            margin=margin,
            seeds=tuple(self._seeds),
            is_provisional=False,
            run_deviation=self._run_deviation(),
            prior_freedom=float(1 / (self._picked.weights @ (1 / self._picked.freedoms))) if self._picked else None,
            notes=tuple(self._notes()),
            pairs=tuple(self._all_pairs(order)) if all_pairs else (),
        )

    def _decisions(
        self, order: Sequence[int], margin: float, baselines: Mapping[str, str], equal: Mapping[str, str]
    ) -> Iterator[Decision]:
        best, others = order[0], np.array(order[1:], dtype=np.int64)
        deltas = self._pairs(others, np.full(len(others), best))
        gains, equal_gains = self._gains(baselines), self._gains(equal)
        lows, highs = self._ranks(gains, baselines)
        means = self._mean_limits()
        for rank, place in enumerate(order):
            delta = self._effect(deltas, rank - 1, PAIRS_METHOD) if rank else None
            verdict = Verdict.BEST if delta is None else self._verdict(delta, margin)
            yield Decision(
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

    def _notes(self) -> list[str]:
        if len(self.names) == 1:
            only = "One seed: the interval is over its images alone and says nothing of other seeds."
            return [] if self.has_variance else [only]
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
        """Compare some pairs, simultaneously for all pairs, because the data decide which ones are looked at."""
        if self._picked is None:
            return self._over_images(first, second, tests=len(self.names) * (len(self.names) - 1) // 2)
        tables = self._pairs_tables(self._picked)
        return self._family(first, second, self._picked, tables, self._level)

    def _pairs_tables(self, mixture: Mixture) -> list[Floats]:
        """Return the table of all pairs, for each of the prior degrees of freedom."""
        freedoms = 1 / mixture.own_inverse.mean(axis=1)
        return [pairs_table(max(len(self.names), 2), float(freedom)) for freedom in freedoms]

    def _gains(self, baselines: Mapping[str, str]) -> dict[int, Effect]:
        """Estimate the effects over baselines: a family for each baseline, simultaneously; see ``mean_reach``."""
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
            family = self._against(first, second, level=self._level / len(bases))
            family = replace(family, p_values=np.minimum(family.p_values * len(bases), 1.0))
            found |= {int(place): self._effect(family, row, BASELINE_METHOD) for row, place in enumerate(first)}
        return found

    def _against(self, first: Places, second: Places, *, level: float) -> _Family:
        if self._planned is None:
            return self._over_images(first, second, tests=len(first) * round(self._level / level))
        model = self.model
        members = np.append(first, second[0])
        tables = []
        for variances, own in zip(self._planned.variances, self._planned.own_inverse, strict=True):
            of_means = model.of_means(variances)
            tables.append(many_to_one_table(of_means[first], float(of_means[second[0]]), 1 / own[members]))
        return self._family(first, second, self._planned, tables, level)

    def _family(
        self, first: Places, second: Places, mixture: Mixture, tables: Sequence[Floats], level: float
    ) -> _Family:
        if not len(first):
            return _Family(first, second, np.zeros(0), np.zeros(0), np.zeros(0))
        errors, inverses = self._errors(first, second, mixture)
        centres = self.model.centres
        distance = np.abs(centres[first] - centres[second])

        def chance(reached: Floats) -> Floats:
            """Return the probability (pairs,) that a family reaches this far, averaged over the grid."""
            rows = [
                weight * exceedance(reached / error, inverse, table)
                for weight, error, inverse, table in zip(mixture.weights, errors, inverses, tables, strict=True)
                if weight > 1e-6
            ]
            return np.asarray(np.sum(rows, axis=0))

        half = reach(chance, np.sqrt(mixture.weights @ errors**2), level)
        limits = self._limits(first, second, half, mixture)
        return _Family(first, second, chance(distance), *limits)

    def _errors(self, first: Places, second: Places, mixture: Mixture) -> tuple[Floats, Floats]:
        """Return standard errors of differences of centres and reciprocal degrees of freedom, both (grid, pairs)."""
        of_means = self.model.of_means(mixture.variances)
        one, other = of_means[:, first], of_means[:, second]
        extra = np.stack([self.model.seeds_part(first, second, row) for row in mixture.variances])
        shared = (one * mixture.kept[:, first] + other * mixture.kept[:, second]) / (one + other)
        inverse = np.clip(shared**2 / (2 * mixture.information[:, None]), 0.0, 1.0)
        return np.sqrt(one + other + extra), inverse

    def _limits(self, first: Places, second: Places, half: Floats, mixture: Mixture) -> tuple[Floats, Floats]:
        """Return limits of differences of accuracies if those of centres reach ``half`` to either side.

        The difference of accuracies is taken to its extremes over the ellipse of the two centres that belongs to that
        interval, so that its interval holds 0 exactly if the other one does.
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
        """Compare with one seed, by Newcombe's interval (1998) over images at Bonferroni's level.

        It treats the images of the two sides as independent draws. Both sides saw the same images, which makes it wide;
        it decides nothing (see ``_verdict``).
        """
        z = float(special.ndtri(1 - self._level / max(tests, 1) / 2))
        low, high = wilson_limits(self.means, self._images, z)
        one, other = self.means[first], self.means[second]
        down = np.sqrt((one - low[first]) ** 2 + (high[second] - other) ** 2)
        up = np.sqrt((high[first] - one) ** 2 + (other - low[second]) ** 2)
        distance = one - other
        return _Family(first, second, np.full(len(first), np.nan), distance - down, distance + up)

    def _ranks(self, gains: Mapping[int, Effect], baselines: Mapping[str, str]) -> tuple[Places, Places]:
        """Return the best and worst rank of each configuration that the decided pairs leave open.

        Pairs are decided among all pairs or, for a configuration and its baseline, in the family of that baseline,
        which was planned in advance. Verdicts use the former only, so that naming a baseline does not change them.
        """
        count = len(self.names)
        better = np.zeros(count, dtype=np.int64)
        worse = np.zeros(count, dtype=np.int64)
        if self._picked is not None and count > 1:
            first, second = np.triu_indices(count, 1)
            errors, inverses = self._errors(first, second, self._picked)
            distance = self.model.centres[first] - self.model.centres[second]
            tables = self._pairs_tables(self._picked)
            p_values = np.zeros(len(first))
            for weight, error, inverse, table in zip(self._picked.weights, errors, inverses, tables, strict=True):
                if weight > 1e-6:
                    p_values += weight * exceedance(np.abs(distance) / error, inverse, table)
            told = p_values <= self._level
            places = {pair: row for row, pair in enumerate(zip(first.tolist(), second.tolist(), strict=True))}
            for place, gain in gains.items():
                base = self.place[baselines[self.names[place]]]
                told[places[min(place, base), max(place, base)]] |= gain.is_told
            np.add.at(better, np.where(distance > 0, second, first)[told], 1)
            np.add.at(worse, np.where(distance > 0, first, second)[told], 1)
        return 1 + better, count - worse

    def _mean_limits(self) -> list[tuple[float | None, float | None, str]]:
        """Return single intervals of the means over all possible seeds, with their method."""
        model = self.model
        if self._picked is None or (model.counts == 1).all():
            z = float(special.ndtri(1 - LEVEL / 2))
            low, high = wilson_limits(self.means, self._images, z)
            return [(float(one), float(other), WILSON_METHOD) for one, other in zip(low, high, strict=True)]
        half = mean_reach(*self._mean_errors(self._picked), level=LEVEL)
        low = model.means_at(model.centres - half)
        high = model.means_at(model.centres + half)
        return [
            (float(min(one, mean)), float(max(other, mean)), SEEDS_METHOD)
            for one, other, mean in zip(low, high, self.means, strict=True)
        ]

    def _mean_errors(self, mixture: Mixture) -> tuple[float, float, Floats, Floats]:
        """Return the variances of centres over all possible seeds with their degrees of freedom; see ``mean_reach``."""
        of_means = self.model.of_means(mixture.expected)
        shared = self.model.seeds_variance / len(self._seeds)
        usual = float(of_means.mean()) / len(self.names) if shared else 0.0
        own = np.maximum(of_means - usual, 0.05 * of_means)
        return shared, max(len(self._seeds) - 1, 1), own, 1 / (mixture.weights @ mixture.inverse)

    def means_against(self, share: float) -> list[Effect]:
        """Compare each mean over all possible seeds with a known share, simultaneously; see ``mean_reach``.

        Without degrees of freedom the differences have no intervals.
        """
        model, tests = self.model, len(self.names)
        sizes = [int(count) for count in model.counts]
        if self._picked is None:
            return [
                Effect(n=n, mean=float(mean - share), low=None, high=None, p_adjusted=None, method=NO_METHOD)
                for n, mean in zip(sizes, self.means, strict=True)
            ]
        errors = self._mean_errors(self._picked)
        half = mean_reach(*errors, level=self._level, tests=tests)
        lows, highs = (model.means_at(model.centres + side * half) - share for side in (-1, 1))
        distance = np.abs(model.centres - model.scale.of(np.asarray(share, dtype=np.float64)))
        least, most = np.full(tests, math.log(1e-12)), np.zeros(tests)
        for _ in range(40):
            middle = (least + most) / 2
            is_beyond = distance > mean_reach(*errors, level=np.exp(middle), tests=tests)
            least, most = np.where(is_beyond, least, middle), np.where(is_beyond, middle, most)
        p_values = np.exp(most)
        return [
            Effect(
                n=n,
                mean=float(mean),
                low=float(min(low, mean)),
                high=float(max(high, mean)),
                p_adjusted=float(p_value),
                method=SEEDS_METHOD,
            )
            for n, mean, low, high, p_value in zip(sizes, self.means - share, lows, highs, p_values, strict=True)
        ]

    def _seeds_needed(self, place: int, best: int, margin: float) -> int | None:
        """Return the number of seeds that decides a configuration against the best, with a probability of 80 %.

        It is exact for the noncentral t distribution, at the level that a pair has within all pairs, with variances as
        estimated.
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
            level=self._level,
            at_least=int(max(model.counts[place], model.counts[best])) + 1,
        )

    def _verdict(self, delta: Effect, margin: float) -> Verdict:
        if not self.has_variance or delta.low is None or delta.high is None:
            return Verdict.UNDECIDED
        if delta.p_adjusted is not None and delta.p_adjusted <= self._level and delta.mean < 0:
            return Verdict.LOWER
        return Verdict.EQUIVALENT if delta.is_within(margin) else Verdict.UNDECIDED

    def contrast_family(self, weights: Floats, table: Floats) -> list[tuple[float, float, float, float]]:
        """Return contrasts of mean accuracies, simultaneous for a family: mean, low, high and adjusted p-value of each.

        Args:
            weights: of shape (contrasts, configurations), each row adding up to 0.
            table: of the family.

        Raises:
            SpecError: if there are no degrees of freedom for noise.
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

        half = reach(chance, np.sqrt(mixture.weights @ variances), self._level)
        p_values = chance(np.abs(estimates))
        return [
            (float(mean), float(mean - reach), float(mean + reach), float(p_value))
            for mean, reach, p_value in zip(estimates, half, p_values, strict=True)
        ]
