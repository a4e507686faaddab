"""Importances of the axes of a sweep, by Optuna's evaluators."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stnbench.core.identity import derive_seed
from stnbench.planning.samplers import quiet
from stnbench.spec.sweep import Labels, SweepSpec

if TYPE_CHECKING:
    import optuna

FEWEST_CELLS: Final = 10
"""The smallest number of configurations: PED-ANOVA compares five good ones with as many others."""

_GOOD_CELLS: Final = 5
_GOOD_SHARE: Final = 0.1
_FANOVA_TREES: Final = 32
_FANOVA_CELLS_MAX: Final = 100
"""The largest number of configurations for fANOVA, whose time grows with its square, to minutes for 1,000."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AxisImportance:
    """The importance of one axis; each number is normalised so that those of all axes add up to 1.

    ``ped_anova`` measures what the best tenth of configurations (at least five of them) have in common, ``fanova`` what
    explains the variance of all. ``fanova`` is None for an axis that some configurations lack, which fANOVA cannot
    handle, and if there are so many configurations that it would take minutes.
    """

    ped_anova: float
    fanova: float | None


def axis_importances(sweep: SweepSpec, cells: Sequence[tuple[Labels, float]]) -> dict[str, AxisImportance]:
    """Compute the importance of every axis on which configurations differ, by name.

    The same configurations give the same numbers. The methods are PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255)
    and fANOVA (Hutter et al. 2014).

    Args:
        sweep: the sweep of the axes.
        cells: labels and value of each configuration; higher values are better.

    Returns:
        The importances; empty for fewer than ``FEWEST_CELLS`` configurations, or if all are equally good.
    """
    if len(cells) < FEWEST_CELLS or len({value for _, value in cells}) == 1:
        return {}
    places = _places(sweep, cells)
    everywhere = [name for name in places if all(name in dict(labels) for labels, _ in cells)]
    if not places:
        return {}
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about axes that some configurations lack
        ped_anova = _ped_anova(_study(places, cells), list(places), cells=len(cells))
        fanova = _fanova(sweep, places, cells, everywhere)
    return {name: AxisImportance(ped_anova=ped_anova[name], fanova=fanova.get(name)) for name in places}


def _places(sweep: SweepSpec, cells: Sequence[tuple[Labels, float]]) -> dict[str, tuple[bool, dict[str, int]]]:
    """Return, for every axis with two labels or more, whether they are ordered numbers, and the index of each label."""
    found = dict.fromkeys(item for labels, _ in cells for item in labels)
    places: dict[str, tuple[bool, dict[str, int]]] = {}
    for axis in (axis for grid in sweep.grids for axis in grid if axis.name not in places):
        own = [label for name, label in found if name == axis.name]
        order = {choice.label: place for place, choice in enumerate(axis.values)}
        is_range = axis.span is not None and all(label in order for label in own)
        if len(own) > 1:
            ranked = order if is_range else {label: place for place, label in enumerate(sorted(own))}
            places[axis.name] = is_range, {label: ranked[label] for label in own}
    return places


def _study(places: Mapping[str, tuple[bool, dict[str, int]]], cells: Sequence[tuple[Labels, float]]) -> "optuna.Study":
    """Build a study that minimises from configurations, because the evaluators agree on that direction."""
    import optuna

    kinds: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.IntDistribution(min(own.values()), max(own.values()))
        if is_range
        else optuna.distributions.CategoricalDistribution(range(len(own)))
        for name, (is_range, own) in places.items()
    }
    study = optuna.create_study(direction="minimize")
    trials = []
    for labels, value in cells:
        parameters = {name: places[name][1][label] for name, label in labels if name in places}
        own = {name: kinds[name] for name in parameters}
        trials.append(optuna.trial.create_trial(value=-value, params=parameters, distributions=own))
    study.add_trials(trials)
    return study


def _ped_anova(study: "optuna.Study", names: Sequence[str], *, cells: int) -> dict[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator

    share = min(0.5, max(_GOOD_SHARE, _GOOD_CELLS / cells))
    found = PedAnovaImportanceEvaluator(target_quantile=share).evaluate(study, params=list(names))
    return _normalised(found)


def _fanova(
    sweep: SweepSpec,
    places: Mapping[str, tuple[bool, dict[str, int]]],
    cells: Sequence[tuple[Labels, float]],
    names: Sequence[str],
) -> dict[str, float]:
    if not names or len(cells) > _FANOVA_CELLS_MAX:
        return {}
    from optuna.importance import FanovaImportanceEvaluator

    seed = derive_seed(0, "fanova", sweep.name) % 2**32
    study = _study({name: places[name] for name in names}, cells)
    return _normalised(FanovaImportanceEvaluator(seed=seed, n_trees=_FANOVA_TREES).evaluate(study, params=list(names)))


def _normalised(found: Mapping[str, float]) -> dict[str, float]:
    total = sum(found.values())
    return {name: float(value / total) if total > 0 else 0.0 for name, value in found.items()}
