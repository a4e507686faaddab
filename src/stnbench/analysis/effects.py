"""Main effects and interactions of the axes of a sweep, also if some configurations are missing."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.analysis.inference import Estimate, t_estimate

# The layout of configurations on axes, and which of them can be compared with all else equal.


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedConfiguration:
    """A configuration: its label on every axis that it has, and its accuracy by seed."""

    labels: Mapping[str, str]
    scores: Mapping[int, float]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Blocks:
    """Configurations in whole blocks.

    Each block has every combination of the labels of ``axes``, with the same other labels.

    Attributes:
        axes: the names of the axes.
        labels: of each axis.
        seeds: those that all these configurations have.
        scores: of shape (blocks, labels of the first axis, labels of the second axis, ..., seeds).
    """

    axes: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...]
    scores: NDArray[np.float64]

    @property
    def configs(self) -> int:
        """Return the number of configurations."""
        return int(np.prod(self.scores.shape[:-1]))


def usual_seeds(configs: Iterable[PlacedConfiguration]) -> tuple[int, ...]:
    """Return the seeds that most configurations have, sorted; of equally frequent sets the largest."""
    sets = Counter(tuple(sorted(config.scores)) for config in configs)
    return max(sets, key=lambda seeds: (sets[seeds], len(seeds), seeds), default=())


def whole_blocks(configs: Sequence[PlacedConfiguration], *axes: str) -> Blocks | None:
    """Collect the whole blocks of configurations on these axes; None if there is no whole block.

    Configurations that lack one of the axes, or a score for one of the usual seeds of the others, are left out, and so
    are blocks in which a combination is missing. Labels are in the order of appearance.
    """
    there = [config for config in configs if all(axis in config.labels for axis in axes)]
    seeds = usual_seeds(there)
    there = [config for config in there if config.scores.keys() >= set(seeds)]
    labels = tuple(tuple(dict.fromkeys(config.labels[axis] for config in there)) for axis in axes)
    blocks: dict[frozenset[tuple[str, str]], dict[tuple[str, ...], PlacedConfiguration]] = {}
    for config in there:
        others = frozenset((name, label) for name, label in config.labels.items() if name not in axes)
        blocks.setdefault(others, {})[tuple(config.labels[axis] for axis in axes)] = config
    combinations = list(product(*labels))
    whole = [block for block in blocks.values() if len(block) == len(combinations)]
    if not seeds or not whole:
        return None
    scores = [[block[combination].scores[seed] for combination in combinations for seed in seeds] for block in whole]
    shape = (len(whole), *map(len, labels), len(seeds))
    return Blocks(axes=axes, labels=labels, seeds=seeds, scores=np.array(scores).reshape(shape))


BLOCKS_METHOD: Final = "whole blocks"
LEAST_SQUARES_METHOD: Final = "least squares"
_ABSENT: Final = "\0"
"""The label of a configuration on an axis that it does not have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AxisEffects:
    """The effects of one axis, in the order of ``labels``: differences from the mean over the axis's labels.

    ``means`` are the accuracies that belong to them, ``configs`` the number of configurations that they are computed
    from.
    """

    axis: str
    labels: tuple[str, ...]
    means: tuple[float, ...]
    effects: tuple[Estimate, ...]
    configs: int
    method: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class InteractionTest:
    """The interaction of two axes, with an F test if there are several seeds.

    ``means`` and ``residuals`` have the shape (labels of the first axis, labels of the second axis).
    """

    blocks: Blocks
    means: NDArray[np.float64]
    residuals: NDArray[np.float64]
    statistic: float | None
    p_value: float | None


def main_effects(configs: Sequence[PlacedConfiguration], axis: str) -> AxisEffects | None:
    """Estimate the effects of an axis with all else equal.

    If whole blocks hold at least half of the configurations on the axis, the effects are the means of the blocks.
    Otherwise they are those of an additive model of all axes, fitted to these configurations by least squares. Either
    way there is one number for each seed, and the interval is that of t over seeds. Configurations without a score for
    one of the usual seeds are left out.

    Returns:
        None if the axis has a single label, or its effects are not determined because it varies together with another
        axis.
    """
    there = [config for config in configs if axis in config.labels]
    labels = list(dict.fromkeys(config.labels[axis] for config in there))
    if len(labels) < 2:
        return None
    blocks = whole_blocks(there, axis)
    if blocks is not None and 2 * blocks.configs >= len(there) and len(blocks.labels[0]) == len(labels):
        by_seed = blocks.scores.mean(axis=0)
        return _effects(axis, labels, by_seed, configs=blocks.configs, method=BLOCKS_METHOD)
    return _least_squares(there, axis, labels)


def interaction(configs: Sequence[PlacedConfiguration], first: str, second: str) -> InteractionTest | None:
    """Test whether the effect of one axis depends on the other, in whole blocks of both; None if there is none.

    The F test is that of a layout with seeds as blocks: the interaction's mean square over that of its interaction with
    seeds. It assumes that the deviations of seeds are independent and have equal variances.
    """
    blocks = whole_blocks(configs, first, second)
    if blocks is None or min(map(len, blocks.labels)) < 2:
        return None
    by_seed = blocks.scores.mean(axis=0)
    overall = by_seed.mean(axis=(0, 1), keepdims=True)
    left = by_seed - by_seed.mean(axis=1, keepdims=True) - by_seed.mean(axis=0, keepdims=True) + overall
    residuals = left.mean(axis=2)
    seeds = len(blocks.seeds)
    freedom = (len(blocks.labels[0]) - 1) * (len(blocks.labels[1]) - 1)
    noise = float(((left - residuals[:, :, None]) ** 2).sum())
    statistic = p_value = None
    if seeds > 1 and noise > 0:
        from scipy import special  # the import takes 0.1 s

        statistic = seeds * float((residuals**2).sum()) * (seeds - 1) / noise
        p_value = float(special.fdtrc(freedom, freedom * (seeds - 1), statistic))
    return InteractionTest(
        blocks=blocks, means=by_seed.mean(axis=2), residuals=residuals, statistic=statistic, p_value=p_value
    )


def variance_explained(labels: Sequence[str], values: Sequence[float]) -> float | None:
    """Compute eta squared: the share of the values' variance that lies between the labels.

    None if all values are equal, or if there are more than half as many labels as values, where it is always large.
    """
    kinds = sorted(set(labels))
    numbers = np.asarray(values, dtype=np.float64)
    total = float(((numbers - numbers.mean()) ** 2).sum()) if len(numbers) else 0.0
    if total == 0 or 2 * len(kinds) > len(values):
        return None
    own = np.searchsorted(kinds, list(labels))
    counts, sums = np.bincount(own), np.bincount(own, weights=numbers)
    return float((counts * (sums / counts - numbers.mean()) ** 2).sum()) / total


def _effects(
    axis: str, labels: Sequence[str], by_seed: NDArray[np.float64], *, configs: int, method: str
) -> AxisEffects:
    """Compute effects from an array (labels, seeds) of accuracies."""
    differences = by_seed - by_seed.mean(axis=0)
    return AxisEffects(
        axis=axis,
        labels=tuple(labels),
        means=tuple(by_seed.mean(axis=1).tolist()),
        effects=tuple(t_estimate(row) for row in differences.tolist()),
        configs=configs,
        method=method,
    )


def _least_squares(configs: Sequence[PlacedConfiguration], axis: str, labels: Sequence[str]) -> AxisEffects | None:
    seeds = usual_seeds(configs)
    there = [config for config in configs if config.scores.keys() >= set(seeds)]
    others = dict.fromkeys(name for config in there for name in config.labels if name != axis)
    columns = [_dummies([config.labels.get(name, _ABSENT) for config in there]) for name in others]
    # An axis with almost as many labels as configurations would explain everything and determine nothing.
    columns = [column for column in columns if 2 * (column.shape[1] + 1) <= len(there)]
    own = _dummies([config.labels[axis] for config in there], labels)
    rest = np.hstack([np.ones((len(there), 1)), *columns])
    design = np.hstack([own, rest])
    rank = np.linalg.matrix_rank
    if 2 * len(labels) > len(there) or rank(design) < rank(rest) + own.shape[1]:
        return None
    scores = np.array([[config.scores[seed] for seed in seeds] for config in there])
    found = np.linalg.lstsq(design, scores, rcond=None)[0][: own.shape[1]]
    effects = np.vstack([found, -found.sum(axis=0)])  # effects add up to 0
    return _effects(axis, labels, effects + scores.mean(axis=0), configs=len(there), method=LEAST_SQUARES_METHOD)


def _dummies(labels: Sequence[str], kinds: Sequence[str] = ()) -> NDArray[np.float64]:
    """Return one column for each kind of label but the last, which is -1 in all, so that coefficients add up to 0."""
    kinds = list(kinds or dict.fromkeys(labels))
    places = {kind: place for place, kind in enumerate(kinds)}
    whole = np.eye(len(kinds))[[places[label] for label in labels]]
    return np.asarray(whole[:, :-1] - whole[:, -1:])
