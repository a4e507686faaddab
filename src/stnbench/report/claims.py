"""The claims of 2015, each tested with a sweep's own trials, pure.

They are those of the ``docs/bench.md`` that came with the published tables. Each becomes one number a seed, so that the
seeds are what an interval is over; whether the effect is there is decided by t at 5 %.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from stnbench.analysis.inference import LEVEL, Estimate, holm_adjusted, paired_difference, t_estimate
from stnbench.analysis.ranks import page_trend
from stnbench.report.agreement import Claim, ClaimVerdict
from stnbench.spec.published import PublishedResult

SMALL_HIDDEN_MAX: Final = 100
"""The localisation networks of 2015's table of small ones are those whose last size is at most this."""

LARGER_IS_BETTER: Final = "Larger localisation networks are better"
RESTRICTION_HELPS: Final = "Restriction to scale and translation helps small localisation networks"
TRANSFORMER_HELPS: Final = "A spatial transformer always helps"
IMAGES_MATTER: Final = "Local contrast normalisation of the images helps"
NETWORK_MATTERS: Final = "Contrastive normalisation in the network helps"

CLAIMS: Final = (LARGER_IS_BETTER, RESTRICTION_HELPS, TRANSFORMER_HELPS, IMAGES_MATTER, NETWORK_MATTERS)

_POINTS: Final = "in accuracy"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredCell:
    """A cell with its accuracy by seed; all cells of a claim have the same seeds.

    ``parameters`` and ``twin_parameters`` are numbers of weights, None where they are not known; ``twin`` has the
    accuracies of the same network without transformers, and ``twin_published`` what was published of it.
    """

    result: PublishedResult
    scores: Mapping[int, float]
    parameters: int | None = None
    twin: Mapping[int, float] | None = None
    twin_parameters: int | None = None
    twin_published: float | None = None

    @property
    def locnet_parameters(self) -> int | None:
        """The parameters of its localisation networks."""
        if self.parameters is None or self.twin_parameters is None:
            return None
        return self.parameters - self.twin_parameters


def judge_claims(cells: Sequence[ScoredCell]) -> list[Claim]:
    """Every claim for which there are cells, in the order of ``CLAIMS``."""
    small = [cell for cell in cells if cell.result.locnets and _is_small(cell.result)]
    found = (
        _larger_is_better(cells),
        _paired(RESTRICTION_HELPS, small, {"transformer": ("scale_translation", "affine")}),
        _transformer_helps(cells),
        _paired(IMAGES_MATTER, cells, {"local_norm": (True, False)}),
        _paired(NETWORK_MATTERS, cells, {"contrastive_norm": (True, False)}),
    )
    return [claim for claim in found if claim is not None]


def _is_small(result: PublishedResult) -> bool:
    return all(sizes[-1] <= SMALL_HIDDEN_MAX for _, sizes in result.locnets)


def _key(result: PublishedResult, **changed: object) -> PublishedResult:
    """What a configuration is, without what was measured of it."""
    return dataclasses.replace(result, table="", accuracy=0.0, **changed)  # type: ignore[arg-type]


def _paired(name: str, cells: Sequence[ScoredCell], trait: Mapping[str, tuple[object, object]]) -> Claim | None:
    """Cells with the first value of a trait less those with the second, all else equal."""
    ((key, (with_it, without)),) = trait.items()
    others = {_key(cell.result): cell for cell in cells if getattr(cell.result, key) == without}
    pairs = [
        (cell, others[_key(cell.result, **{key: without})])
        for cell in cells
        if getattr(cell.result, key) == with_it and _key(cell.result, **{key: without}) in others
    ]
    if not pairs:
        return None
    effect = _mean_by_seed([_difference(cell.scores, other.scores) for cell, other in pairs])
    ahead = sum(statistics.fmean(_difference(cell.scores, other.scores).values()) > 0 for cell, other in pairs)
    return Claim(
        name=name,
        verdict=_judge(effect),
        effect=effect,
        unit=_POINTS,
        comparisons=len(pairs),
        cells=2 * len(pairs),
        method="mean paired difference by seed, t over seeds",
        detail=f"above 0 in {ahead} of {len(pairs)} pairs",
        published_effect=statistics.fmean(cell.result.accuracy - other.result.accuracy for cell, other in pairs),
    )


def _transformer_helps(cells: Iterable[ScoredCell]) -> Claim | None:
    """Every cell against its twin: all must gain, by t with Holm's correction for their number."""
    gains: list[Estimate] = []
    by_cell: list[dict[int, float]] = []
    published: list[float | None] = []
    for cell in cells:
        gain = paired_difference(cell.scores, cell.twin) if cell.result.locnets and cell.twin else None
        if gain is not None and cell.twin:
            gains.append(gain)
            by_cell.append(_difference(cell.scores, cell.twin))
            published.append(None if cell.twin_published is None else cell.result.accuracy - cell.twin_published)
    if not gains:
        return None
    corrected = holm_adjusted([gain.p_value for gain in gains], tests=len(gains))
    told = [gain.mean for gain, p_value in zip(gains, corrected, strict=True) if p_value <= LEVEL]
    helped = sum(mean > 0 for mean in told)
    if any(mean < 0 for mean in told):
        verdict = ClaimVerdict.DOES_NOT_HOLD
    else:
        verdict = ClaimVerdict.HOLDS if helped == len(gains) else ClaimVerdict.UNDECIDED
    known = [gain for gain in published if gain is not None]
    theirs = f"; in 2015 {sum(gain > 0 for gain in known)} of {len(known)}" if known else ""
    ahead = sum(gain.mean > 0 for gain in gains)
    return Claim(
        name=TRANSFORMER_HELPS,
        verdict=verdict,
        effect=_mean_by_seed(by_cell),
        unit=_POINTS,
        comparisons=len(gains),
        cells=len(gains),
        method="gain over the twin by cell, t over seeds with Holm's correction: all must gain",
        detail=f"{ahead} of {len(gains)} cells gain, {helped} of them significantly, "
        f"{len(told) - helped} lose significantly{theirs}",
        published_effect=statistics.fmean(known) if len(known) == len(published) else None,
    )


def _larger_is_better(cells: Iterable[ScoredCell]) -> Claim | None:
    """Series of cells that differ in the size of their localisation networks alone: one slope a seed over them all."""
    series: dict[tuple[PublishedResult, tuple[int, ...]], list[tuple[float, ScoredCell]]] = {}
    for cell in cells:
        size = cell.locnet_parameters
        if size is not None and size > 0:
            key = _key(cell.result, locnet1=None, locnet2=None, locnet3=None)
            places = tuple(place for place, _ in cell.result.locnets)
            series.setdefault((key, places), []).append((math.log2(size), cell))
    usable = [items for items in series.values() if len({size for size, _ in items}) > 1]
    if not usable:
        return None
    seeds = sorted(set.intersection(*(set(cell.scores) for items in usable for _, cell in items)))

    def slope(accuracy: Callable[[ScoredCell], float]) -> float:
        """The common slope of all series, each about its own mean."""
        top = bottom = 0.0
        for items in usable:
            middle = statistics.fmean(size for size, _ in items)
            top += sum((size - middle) * accuracy(cell) for size, cell in items)
            bottom += sum((size - middle) ** 2 for size, _ in items)
        return top / bottom

    effect = t_estimate([slope(lambda cell, seed=seed: cell.scores[seed]) for seed in seeds])  # type: ignore[misc]
    blocks = list(itertools.product(seeds, usable))
    trend = page_trend(
        [np.array([size for size, _ in items]) for _, items in blocks],
        [np.array([cell.scores[seed] for _, cell in items]) for seed, items in blocks],
    )
    page = f"Page's test over {len(blocks)} series of a seed: p = {trend.p_value:.2g}" if trend else "all equal"
    return Claim(
        name=LARGER_IS_BETTER,
        verdict=_judge(effect),
        effect=effect,
        unit="per doubling of their parameters",
        comparisons=len(usable),
        cells=sum(map(len, usable)),
        method="common slope over series by seed, t over seeds",
        detail=page,
        published_effect=slope(lambda cell: cell.result.accuracy),
    )


def _difference(of: Mapping[int, float], base: Mapping[int, float]) -> dict[int, float]:
    return {seed: of[seed] - base[seed] for seed in sorted(of.keys() & base.keys())}


def _mean_by_seed(differences: Sequence[Mapping[int, float]]) -> Estimate:
    """The mean of differences for each seed that all of them have, then over seeds."""
    seeds = sorted(set.intersection(*(set(item) for item in differences)))
    return t_estimate([statistics.fmean(item[seed] for item in differences) for seed in seeds])


def _judge(effect: Estimate) -> ClaimVerdict:
    if effect.p_value > LEVEL:
        return ClaimVerdict.UNDECIDED
    return ClaimVerdict.HOLDS if effect.mean > 0 else ClaimVerdict.DOES_NOT_HOLD
