"""Tests of the claims of 2015 with a sweep's trials, as pure functions.

The claims are those of the ``docs/bench.md`` that came with the published tables. Each is a contrast of the fit that
the leaderboard is made of, tested at 5 %, with its interval, which bounds an effect that is undecided.
"""

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from stnbench.analysis.comparison import fit_and_compare
from stnbench.analysis.effects import LEVEL, NO_METHOD, Estimate, accuracy_estimate, wilson_estimate
from stnbench.analysis.fitted import Fitted, ScoredRun
from stnbench.analysis.ranks import rank_correlations, ranks_of
from stnbench.analysis.simultaneous import single_table
from stnbench.analysis.verdicts import Comparison, Effect
from stnbench.report.findings import Agreement, AgreementRow, Claim, ClaimVerdict
from stnbench.spec.data import Split
from stnbench.spec.sweep import PublishedConfiguration, PublishedResult, PublishedTable

SMALL_HIDDEN_MAX: Final = 100
"""The largest last size of a localisation network that counts as small, as in 2015's table of small ones."""

LARGER_IS_BETTER: Final = "Larger localisation networks are better"
RESTRICTION_HELPS: Final = "Restriction to scale and translation helps small localisation networks"
TRANSFORMER_HELPS: Final = "A spatial transformer always helps"
IMAGES_MATTER: Final = "Local contrast normalisation of the images helps"
NETWORK_MATTERS: Final = "Contrastive normalisation in the network helps"

CLAIMS: Final = (LARGER_IS_BETTER, RESTRICTION_HELPS, TRANSFORMER_HELPS, IMAGES_MATTER, NETWORK_MATTERS)

_POINTS: Final = "in accuracy"


_CONTRAST: Final = "contrast of configurations, moderated t"


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchedConfiguration:
    """A configuration with a score and a published result.

    Attributes:
        configuration: its name in the fit.
        result: the published result.
        baseline: the name in the fit of the same network without transformers; None where the configuration is such a
            network itself, or the fit has none.
        parameters: its number of weights; None where that is not known.
        baseline_parameters: the number of weights of the same network without transformers; None if that is not known.
        baseline_published: the published accuracy of that network, in [0, 1]; None where there is none.
    """

    configuration: str
    result: PublishedResult
    baseline: str | None = None
    parameters: int | None = None
    baseline_parameters: int | None = None
    baseline_published: float | None = None

    @property
    def locnet_parameters(self) -> int | None:
        """Return the number of parameters of the localisation networks, or None where that is not known."""
        if self.parameters is None or self.baseline_parameters is None:
            return None
        return self.parameters - self.baseline_parameters


class Judge:
    """A tester of claims, from a comparison of configurations and the fit that it was made of."""

    def __init__(self, comparison: Comparison, fitted: Fitted) -> None:
        self._fitted = fitted
        self._gains = {item.configuration: item.gain for item in comparison.decisions}
        self._seeds = len(comparison.seeds)

    def claims(self, configs: Sequence[MatchedConfiguration]) -> list[Claim]:
        """Return every claim for which there are configurations, in the order of ``CLAIMS``."""
        there = [config for config in configs if config.configuration in self._fitted.place]
        small = [config for config in there if config.result.locnets and _is_small(config.result)]
        found = (
            self._larger_is_better(there),
            self._paired(RESTRICTION_HELPS, small, {"transformer": ("scale_translation", "affine")}),
            self._transformer_helps(there),
            self._paired(IMAGES_MATTER, there, {"local_norm": (True, False)}),
            self._paired(NETWORK_MATTERS, there, {"contrastive_norm": (True, False)}),
        )
        return [claim for claim in found if claim is not None]

    def _paired(
        self, name: str, configs: Sequence[MatchedConfiguration], trait: Mapping[str, tuple[object, object]]
    ) -> Claim | None:
        """Test the mean of configurations with the first value of a trait less those with the second, all else equal.

        Returns None where no two configurations differ in the trait alone.
        """
        ((key, (with_it, without)),) = trait.items()
        others = {_key(config.result): config for config in configs if getattr(config.result, key) == without}
        pairs = [
            (config, others[_key(config.result, **{key: without})])
            for config in configs
            if getattr(config.result, key) == with_it and _key(config.result, **{key: without}) in others
        ]
        if not pairs:
            return None
        weights: dict[str, float] = {}
        for config, other in pairs:
            for of, sign in ((config, 1), (other, -1)):
                weights[of.configuration] = weights.get(of.configuration, 0.0) + sign / len(pairs)
        effect = self._contrast(weights)
        ahead = sum(self._mean(config) > self._mean(other) for config, other in pairs)
        return Claim(
            name=name,
            verdict=_judge(effect),
            effect=effect,
            unit=_POINTS,
            comparisons=len(pairs),
            configs=2 * len(pairs),
            method=f"mean paired difference: {effect.method}",
            detail=f"above 0 in {ahead} of {len(pairs)} pairs{_bound(effect)}",
            published_effect=statistics.fmean(
                config.result.accuracy - other.result.accuracy for config, other in pairs
            ),
        )

    def _transformer_helps(self, configs: Sequence[MatchedConfiguration]) -> Claim | None:
        """Test every configuration against its baseline; the claim holds if all gain, simultaneously."""
        known = [
            (config, gain)
            for config in configs
            if config.result.locnets and (gain := self._gains[config.configuration])
        ]
        if not known:
            return None
        gains = [gain for _, gain in known]
        told = [gain.mean for gain in gains if gain.is_told and gain.p_adjusted is not None]
        helped = sum(mean > 0 for mean in told)
        if any(mean < 0 for mean in told):
            verdict = ClaimVerdict.DOES_NOT_HOLD
        else:
            verdict = ClaimVerdict.HOLDS if helped == len(gains) else ClaimVerdict.UNDECIDED
        published = [
            config.result.accuracy - config.baseline_published
            for config, _ in known
            if config.baseline_published is not None
        ]
        theirs = f"; in 2015 {sum(gain > 0 for gain in published)} of {len(published)}" if published else ""
        ahead = sum(gain.mean > 0 for gain in gains)
        return Claim(
            name=TRANSFORMER_HELPS,
            verdict=verdict,
            effect=self._mean_gain([config for config, _ in known]),
            unit=_POINTS,
            comparisons=len(gains),
            configs=len(gains),
            method=f"gain over the baseline by configuration, all must gain: {gains[0].method}",
            detail=f"{ahead} of {len(gains)} configurations gain, {helped} of them significantly; {len(told) - helped} "
            f"lose significantly{_least(gains) if verdict is ClaimVerdict.UNDECIDED else ''}{theirs}",
            published_effect=statistics.fmean(published) if len(published) == len(gains) else None,
        )

    def _mean_gain(self, configs: Sequence[MatchedConfiguration]) -> Estimate:
        weights: dict[str, float] = {}
        for config in configs:
            for name, sign in ((config.configuration, 1), (config.baseline or config.configuration, -1)):
                weights[name] = weights.get(name, 0.0) + sign / len(configs)
        return self._contrast(weights)

    def _larger_is_better(self, configs: Sequence[MatchedConfiguration]) -> Claim | None:
        """Test one slope over all series of configurations that differ only in the size of their localisation networks.

        The slope is in accuracy per doubling of the parameters of the localisation networks.
        """
        series: dict[tuple[PublishedResult, tuple[int, ...]], list[tuple[float, MatchedConfiguration]]] = {}
        for config in configs:
            size = config.locnet_parameters
            if size is not None and size > 0:
                key = _key(config.result, locnet1=None, locnet2=None, locnet3=None)
                places = tuple(place for place, _ in config.result.locnets)
                series.setdefault((key, places), []).append((math.log2(size), config))
        usable = [items for items in series.values() if len({size for size, _ in items}) > 1]
        if not usable:
            return None
        weights: dict[str, float] = {}
        published = bottom = 0.0
        for items in usable:
            middle = statistics.fmean(size for size, _ in items)
            bottom += sum((size - middle) ** 2 for size, _ in items)
            weights |= {config.configuration: size - middle for size, config in items}
            published += sum((size - middle) * config.result.accuracy for size, config in items)
        effect = self._contrast({name: weight / bottom for name, weight in weights.items()})
        return Claim(
            name=LARGER_IS_BETTER,
            verdict=_judge(effect),
            effect=effect,
            unit="per doubling of their parameters",
            comparisons=len(usable),
            configs=sum(map(len, usable)),
            method=f"common slope over series: {effect.method}",
            detail=f"{len(usable)} series, each about its own mean{_bound(effect)}",
            published_effect=published / bottom,
        )

    def _contrast(self, weights: Mapping[str, float]) -> Estimate:
        """Return a weighted sum of mean accuracies, for weights that add up to 0; one seed gives no interval."""
        row = np.zeros(len(self._fitted.names))
        for name, weight in weights.items():
            row[self._fitted.place[name]] = weight
        if not self._fitted.has_variance:
            mean = float(row @ self._fitted.means)
            return Estimate(n=self._seeds, mean=mean, low=None, high=None, method=NO_METHOD, tested_p=1.0)
        ((mean, low, high, p_value),) = self._fitted.contrast_family(row[None], single_table())
        return Estimate(n=self._seeds, mean=mean, low=low, high=high, method=_CONTRAST, tested_p=p_value)

    def _mean(self, config: MatchedConfiguration) -> float:
        return float(self._fitted.means[self._fitted.place[config.configuration]])


def _is_small(result: PublishedResult) -> bool:
    return all(sizes[-1] <= SMALL_HIDDEN_MAX for _, sizes in result.locnets)


def _key(result: PublishedResult, **changed: object) -> PublishedResult:
    """Return the properties of a configuration, without the table and the accuracy of its published result."""
    return dataclasses.replace(result, table="", accuracy=0.0, **changed)  # type: ignore[arg-type]


def _judge(effect: Estimate) -> ClaimVerdict:
    if effect.p_value > LEVEL:
        return ClaimVerdict.UNDECIDED
    return ClaimVerdict.HOLDS if effect.mean > 0 else ClaimVerdict.DOES_NOT_HOLD


def _bound(effect: Estimate) -> str:
    """Return the bounds of an undecided effect as text; empty where it is decided or has no interval."""
    if effect.p_value <= LEVEL or effect.low is None or effect.high is None:
        return ""
    return f"; below {100 * effect.low:+.2f} pp and above {100 * effect.high:+.2f} pp is excluded"


def _least(gains: Sequence[Effect]) -> str:
    """Return the most that configurations lose, simultaneously, as text.

    It is empty with one seed, whose intervals exclude nothing.
    """
    lows = [gain.low for gain in gains if gain.low is not None and gain.p_adjusted is not None]
    return f"; a gain below {100 * min(lows):+.2f} pp is excluded for all" if len(lows) == len(gains) else ""


# Agreement with published results, from a sweep's trials.


@dataclass(slots=True)
class _Configuration:
    """The scored trials of a configuration; ``scores`` are (images classified correctly, images) by seed."""

    label: str
    baseline_config_id: str
    parameters: int | None
    scores: dict[int, tuple[int, int]] = field(default_factory=dict)

    def accuracies(self, seeds: Sequence[int]) -> dict[int, float] | None:
        """Return the accuracy by seed, in [0, 1], or None where one of these seeds is missing."""
        if not self.scores.keys() >= set(seeds):
            return None
        return {seed: self.scores[seed][0] / self.scores[seed][1] for seed in seeds}


def build_agreement(table: PublishedTable, trials: pd.DataFrame, *, split: Split = "validation") -> Agreement | None:
    """Build the agreement of a sweep's configurations with published results.

    Configurations are compared on the seeds that most of them have; those that lack one of these are left out. The same
    frame gives the same agreement.

    Args:
        table: the published results.
        trials: the sweep's trials (``analysis.frames.TRIAL_COLUMNS``).
        split: the split of our accuracies.

    Returns:
        None if no configuration has both accuracies.
    """
    configs = _read_configurations(trials, split)
    there = [item for item in table.configs if item.config_id in configs]
    seeds = _usual_seeds([configs[item.config_id] for item in there])
    scored = {item.config_id: item for item in there if configs[item.config_id].accuracies(seeds) is not None}
    if not seeds or not scored:
        return None
    ordered = sorted(
        scored.values(), key=lambda item: (-item.result.accuracy, configs[item.config_id].label, item.config_id)
    )
    ours = np.array([list((configs[item.config_id].accuracies(seeds) or {}).values()) for item in ordered])
    theirs = np.array([item.result.accuracy for item in ordered])
    correlations = rank_correlations(ours, theirs)
    claims = _claims(ordered, configs, seeds)
    tested = {claim.name for claim in claims}
    return Agreement(
        published=table.name,
        published_split="test",
        published_images=table.images,
        split=split,
        seeds=seeds,
        rows=tuple(
            _row(item, configs[item.config_id], seeds, table.images, (float(our_rank), float(their_rank)))
            for item, our_rank, their_rank in zip(ordered, ranks_of(-ours.mean(axis=1)), ranks_of(-theirs), strict=True)
        ),
        tau=correlations[0] if correlations else None,
        rho=correlations[1] if correlations else None,
        claims=tuple(claims),
        untested=tuple(name for name in CLAIMS if name not in tested),
        left_out=len(there) - len(scored),
    )


def _row(
    item: PublishedConfiguration, config: _Configuration, seeds: Sequence[int], images: int, ranks: tuple[float, float]
) -> AgreementRow:
    right, there = zip(*(config.scores[seed] for seed in seeds), strict=True)
    return AgreementRow(
        config_id=item.config_id,
        label=config.label,
        ours=accuracy_estimate(right, there),
        published=wilson_estimate(round(item.result.accuracy * images), images),
        our_rank=ranks[0],
        published_rank=ranks[1],
    )


def _claims(
    items: Sequence[PublishedConfiguration], configs: Mapping[str, _Configuration], seeds: Sequence[int]
) -> list[Claim]:
    """Test the claims, with strength borrowed from all configurations of the sweep, published or not."""
    baselines = {
        name: config.baseline_config_id for name, config in configs.items() if config.baseline_config_id != name
    }
    runs = [
        ScoredRun(configuration=name, seed=seed, correct=right, images=images)
        for name, config in configs.items()
        for seed, (right, images) in config.scores.items()
        if seed in seeds
    ]
    comparison, fitted = fit_and_compare(runs, baselines=baselines)
    if fitted is None:
        return []
    published = {item.config_id: item.result.accuracy for item in items}
    found = []
    for item in items:
        base = baselines.get(item.config_id)
        found.append(
            MatchedConfiguration(
                configuration=item.config_id,
                baseline=base if base in fitted.place else None,
                result=item.result,
                parameters=configs[item.config_id].parameters,
                baseline_parameters=configs[base].parameters if base is not None and base in configs else None,
                baseline_published=None if base is None else published.get(base),
            )
        )
    return Judge(comparison, fitted).claims(found)


def _usual_seeds(configs: Sequence[_Configuration]) -> tuple[int, ...]:
    """Return the set of seeds that most configurations have; of equally frequent sets, the largest."""
    sets = Counter(tuple(sorted(config.scores)) for config in configs if config.scores)
    return max(sets, key=lambda seeds: (sets[seeds], len(seeds), seeds), default=())


def _read_configurations(trials: pd.DataFrame, split: Split) -> dict[str, _Configuration]:
    """Return the configurations of a frame by identity, including those without a score yet."""
    names = ("cell_id", "label", "baseline_cell_id", "seed", "parameters", f"{split}_correct", f"{split}_images")
    configs: dict[str, _Configuration] = {}
    for config_id, label, baseline_config_id, seed, parameters, correct, images in zip(
        *(_values(trials[name]) for name in names), strict=True
    ):
        config = configs.setdefault(
            config_id, _Configuration(label=label, baseline_config_id=baseline_config_id, parameters=None)
        )
        config.parameters = config.parameters if parameters is None else int(parameters)
        if correct is not None and images:
            config.scores[int(seed)] = (int(correct), int(images))
    return configs


def _values(column: "pd.Series[Any]") -> list[Any]:
    """Return a column as Python values, None for missing ones."""
    return [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]
