"""Comparisons of a sweep's configurations, group by group with strength borrowed across them, and its answer."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from stnbench.analysis.answer import Group, Placed, build_answer
from stnbench.analysis.comparison import compare_configurations, fit_and_compare
from stnbench.analysis.effects import LEVEL, Estimate
from stnbench.analysis.fitted import Fitted, ScoredRun
from stnbench.analysis.ranks import summarise_tasks
from stnbench.analysis.verdicts import (
    FOLDS_METHOD,
    Answer,
    Comparison,
    Decision,
    Effect,
    TaskSummary,
    Verdict,
    folds_accuracy,
)
from stnbench.report.findings import FoldsFinding
from stnbench.report.scored import ScoredConfiguration, by_group, first_known
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import EQUAL_PARAMETERS, LABEL_SEPARATOR, SweepSpec

DIVERGED: Final = "diverged"
PAIRS_MAX: Final = 60
"""The largest number of configurations in a group for which the differences of all pairs are kept."""


class Baselines:
    """The baselines that configurations with transformers can be compared with, among those that have a score."""

    def __init__(self, sweep: SweepSpec, configs: Sequence[ScoredConfiguration]) -> None:
        self._by_id = {config.config_id: config for config in configs if config.score}
        self._wider: dict[str, list[tuple[int, ScoredConfiguration]]] = {}
        plain = {config.baseline_config_id for config in configs if not config.is_baseline}
        for config in self._by_id.values() if sweep.baselines == EQUAL_PARAMETERS else ():
            parameters = parameters_of(config)
            if config.is_baseline and config.config_id not in plain and parameters is not None:
                self._wider.setdefault(config.bare_id, []).append((parameters, config))

    def plain(self, config: ScoredConfiguration) -> ScoredConfiguration | None:
        """Return the same network without transformers, or None where the configuration has no such baseline."""
        return None if config.baseline_config_id == config.config_id else self._by_id.get(config.baseline_config_id)

    def equal_size(self, config: ScoredConfiguration) -> ScoredConfiguration | None:
        """Return the equal-parameter baseline: of the wider networks without transformers, the nearest in parameters.

        It is None where the sweep has none for the configuration.
        """
        wanted = parameters_of(config)
        if config.baseline_config_id == config.config_id or wanted is None or config.bare_id not in self._wider:
            return None
        return min(self._wider[config.bare_id], key=lambda item: (abs(item[0] - wanted), item[1].config_id))[1]


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """The decisions about a sweep on one split.

    Attributes:
        groups: (name, configurations) in the order of the sweep, the best first; scores are adjusted means.
        decisions: by configuration.
        comparisons: (name, comparison) of each group.
        answer: to the sweep's question; None where no configuration has a score.
        tasks: the summary over the groups; None where all configurations are one group.
    """

    groups: tuple[tuple[str, tuple[ScoredConfiguration, ...]], ...]
    decisions: Mapping[str, Decision]
    comparisons: tuple[tuple[str, Comparison], ...]
    answer: Answer | None
    tasks: TaskSummary | None

    @property
    def configs(self) -> list[ScoredConfiguration]:
        """Return all configurations, group by group."""
        return [config for _, own in self.groups for config in own]


def decide(sweep: SweepSpec, configs: Sequence[ScoredConfiguration]) -> Decided:
    """Compare the configurations of each group. The same configurations give the same decisions."""
    bases = Baselines(sweep, configs)
    answered, groups = [], []
    decisions: dict[str, Decision] = {}
    for name, own in by_group(sweep, configs):
        comparison, fitted = _compare(sweep, own, bases)
        mine = {item.configuration: item for item in comparison.decisions}
        decisions |= mine
        ranked = sorted(own, key=lambda config: _order(config, mine))
        groups.append((name, tuple(_with_score(config, mine.get(config.config_id)) for config in ranked)))
        answered.append(Group(name=name, comparison=comparison, fitted=fitted, placed=_placed(sweep, own, bases)))
    named = {
        group.name: {item.configuration: _task_label(item, group.name) or sweep.name for item in group.placed}
        for group in answered
    }
    tasks = None
    if len(answered) > 1:
        tasks = summarise_tasks({group.name: group.comparison for group in answered}, named)
    has_score = any(group.comparison.best for group in answered)
    return Decided(
        groups=tuple(groups),
        decisions=decisions,
        comparisons=tuple((group.name, group.comparison) for group in answered),
        answer=build_answer(answered, tasks=tasks) if has_score else None,
        tasks=tasks,
    )


def look_level(sweep: SweepSpec) -> float:
    """Return the error rate of each family of comparisons: 5 % over the number of planned looks (Bonferroni)."""
    return LEVEL / max(len(sweep.look_seeds), 1)


def parameters_of(config: ScoredConfiguration) -> int | None:
    """Return the number of parameters of a configuration's network, or None where it is not known."""
    return first_known(run.parameters for run in config.runs)


def estimate_of_effect(effect: Effect | None) -> Estimate | None:
    """Return a difference as an estimate, which tables of findings show; its p-value is 1 where it has none."""
    if effect is None:
        return None
    return Estimate(
        n=effect.n,
        mean=effect.mean,
        low=effect.low,
        high=effect.high,
        method=effect.method,
        tested_p=1.0 if effect.p_adjusted is None else effect.p_adjusted,
    )


def _compare(
    sweep: SweepSpec, own: Sequence[ScoredConfiguration], bases: Baselines
) -> tuple[Comparison, Fitted | None]:
    """Compare the configurations of one group.

    Baselines in another group are fitted with this one a second time, and only the gains are taken from that fit.
    """
    plain = {config.config_id: base.config_id for config in own if (base := bases.plain(config))}
    equal = {config.config_id: base.config_id for config in own if (base := bases.equal_size(config))}
    is_open = any(run.state in {TrialState.PLANNED, TrialState.RUNNING} for config in own for run in config.runs)

    def fit(configs: Sequence[ScoredConfiguration]) -> tuple[Comparison, Fitted | None]:
        return fit_and_compare(
            [run for config in configs for run in _runs(config)],
            margin=sweep.margin / 100,
            baselines=plain,
            equal_parameter_baselines=equal,
            is_provisional=is_open,
            level=look_level(sweep),
            all_pairs=bool(sweep.within) and len(configs) <= PAIRS_MAX,
        )

    comparison, fitted = fit(own)
    there = {config.config_id for config in own}
    found = (bases.plain(config) or bases.equal_size(config) for config in own)
    elsewhere = {base.config_id: base for base in found if base is not None and base.config_id not in there}
    if not elsewhere:
        return comparison, fitted
    wider, fitted = fit([*own, *elsewhere.values()])
    gains = {item.configuration: item for item in wider.decisions}
    decisions = tuple(
        replace(
            item,
            gain=gains[item.configuration].gain,
            gain_equal_parameters=gains[item.configuration].gain_equal_parameters,
        )
        for item in comparison.decisions
    )
    return replace(comparison, decisions=decisions), fitted


def _runs(config: ScoredConfiguration) -> list[ScoredRun]:
    """Return the runs that ended with a score or diverged; other failures say nothing about a configuration."""
    found = []
    for run in config.runs:
        is_scored = run.state == TrialState.COMPLETE and run.correct is not None and run.images
        if is_scored or (run.state == TrialState.FAILED and run.failure_kind == DIVERGED):
            found.append(
                ScoredRun(
                    configuration=config.config_id,
                    seed=run.seed,
                    correct=run.correct if is_scored else None,
                    images=run.images or 0,
                )
            )
    return found


def _order(config: ScoredConfiguration, decisions: Mapping[str, Decision]) -> tuple[float, str, str]:
    decision = decisions.get(config.config_id)
    mean = decision.mean if decision else None
    is_best = decision is not None and decision.delta is None and mean is not None
    return (-2.0 if is_best else 1.0 if mean is None else -mean, config.label, config.config_id)


def _with_score(config: ScoredConfiguration, decision: Decision | None) -> ScoredConfiguration:
    if decision is None or decision.mean is None:
        return replace(config, score=None)
    score = Estimate(n=decision.n, mean=decision.mean, low=decision.low, high=decision.high, method=decision.method)
    return replace(config, score=score)


def _placed(sweep: SweepSpec, own: Sequence[ScoredConfiguration], bases: Baselines) -> list[Placed]:
    placed = []
    for config in own:
        base = bases.plain(config)
        placed.append(
            Placed(
                configuration=config.config_id,
                label=config.label,
                axes={name: label for name, label in config.axes if name != sweep.within},
                baseline=base.config_id if base else "",
                has_axes=not config.is_baseline,
            )
        )
    return placed


def _task_label(item: Placed, task: str) -> str:
    """Return the name of a configuration over all tasks: its label without that of the task, empty if it is no more."""
    return LABEL_SEPARATOR.join(part for part in item.label.split(LABEL_SEPARATOR) if part != task)


# Findings over all folds of a cross-validation, from its configurations.


FOLD_KEY: Final = "split.fold"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fold:
    """The score of a recipe's networks on one fold; ``errors`` is their mean number of errors."""

    networks: int
    images: int
    errors: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recipe:
    """Configurations that differ only in their fold; the keys of ``folds`` are places on the axis, from 0."""

    group: str
    label: str
    folds: Mapping[int, _Fold]

    @property
    def accuracies(self) -> dict[int, float]:
        """Return the accuracy of each fold, in [0, 1]."""
        return {place: 1 - fold.errors / fold.images for place, fold in self.folds.items()}


def find_over_folds(sweep: SweepSpec, configs: Sequence[ScoredConfiguration]) -> tuple[FoldsFinding, ...]:
    """Find the results of a sweep with an axis of folds over all of them, the best first in each group.

    Args:
        sweep: the specification of its last run.
        configs: its configurations on the validation split.

    Returns:
        A finding for each group; an empty tuple for a sweep without an axis of folds.
    """
    axes = [axis for grid in sweep.grids for axis in grid if axis.keys == {FOLD_KEY}]
    if not axes:
        return ()
    name = axes[0].name
    labels = [*dict.fromkeys(choice.label for axis in axes if axis.name == name for choice in axis.values)]
    groups: dict[str, list[_Recipe]] = {}
    for recipe in _recipes(sweep, configs, name, labels):
        groups.setdefault(recipe.group, []).append(recipe)
    return tuple(finding for recipes in groups.values() for finding in _compared(recipes, folds=len(labels)))


def _recipes(
    sweep: SweepSpec, configs: Sequence[ScoredConfiguration], axis: str, labels: Sequence[str]
) -> list[_Recipe]:
    """Return the recipes with a score on two folds or more."""
    found: dict[tuple[str, str], dict[int, _Fold]] = {}
    for config in configs:
        own = dict(config.axes)
        scored = [(run.correct, run.images) for run in config.runs if run.correct is not None and run.images]
        if not scored or own.get(axis) not in labels:
            continue
        group = "" if sweep.within == axis else own.get(sweep.within, "")
        label = LABEL_SEPARATOR.join(part for part in config.label.split(LABEL_SEPARATOR) if part != own[axis])
        images = scored[0][1]
        errors = images - statistics.fmean(correct for correct, _ in scored)
        fold = _Fold(networks=len(scored), images=images, errors=errors)
        found.setdefault((group, label or sweep.name), {})[labels.index(own[axis])] = fold
    return [_Recipe(group=group, label=label, folds=folds) for (group, label), folds in found.items() if len(folds) > 1]


def _compared(recipes: Sequence[_Recipe], *, folds: int) -> list[FoldsFinding]:
    """Compare each recipe with the best, with folds as blocks where other comparisons have seeds."""
    runs = [
        ScoredRun(
            configuration=recipe.label,
            seed=place,
            correct=fold.images - fold.errors,
            images=fold.images,
            has_collapsed=False,
        )
        for recipe in recipes
        for place, fold in recipe.folds.items()
    ]
    found = {recipe.label: _finding(recipe, folds) for recipe in recipes}
    rows = []
    for decision in compare_configurations(runs).decisions:
        difference = estimate_of_effect(decision.delta)
        rows.append(
            replace(
                found[decision.configuration],
                standing=decision.verdict or Verdict.UNDECIDED,
                difference=difference and replace(difference, method=FOLDS_METHOD),
                corrected_p=difference.p_value if difference else None,
            )
        )
    return rows


def _finding(recipe: _Recipe, folds: int) -> FoldsFinding:
    own = recipe.folds.values()
    errors, images = [fold.errors for fold in own], [fold.images for fold in own]
    return FoldsFinding(
        group=recipe.group,
        label=recipe.label,
        folds=folds,
        scored_folds=len(own),
        networks=sum(fold.networks for fold in own),
        images=sum(images),
        errors=sum(errors),
        accuracy=folds_accuracy(errors, images),
        standing=Verdict.BEST,
    )
