"""Findings of a sweep from its frames, as pure functions: differences, gains, effects, interactions, importances."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stnbench.analysis.effects import (
    InteractionTest,
    PlacedConfiguration,
    holm_adjusted,
    interaction,
    main_effects,
    paired_difference,
    pairs_among,
    variance_explained,
)
from stnbench.analysis.ensembles import Crossed, crossed_difference, improvement_over_seeds, mcnemar
from stnbench.analysis.ranks import pareto_front
from stnbench.analysis.verdicts import Verdict
from stnbench.planning.samplers import FEWEST_CONFIGURATIONS, axis_importances
from stnbench.report.decided import Baselines, Decided, decide, estimate_of_effect, find_over_folds, parameters_of
from stnbench.report.findings import (
    Findings,
    GainFinding,
    Importance,
    Interaction,
    MainEffect,
    PairFinding,
    ParetoFront,
)
from stnbench.report.scored import Run, ScoredConfiguration, mean_of, read_configurations
from stnbench.spec.data import Split
from stnbench.spec.planner import SamplerSpec
from stnbench.spec.sweep import Labels, SweepSpec

# The correctness of each trial on each image, and the pairs of configurations that can be compared image by image.


ReadPredictions = Callable[[Sequence[str]], pd.DataFrame]
"""A reader of the predictions of trials, given by identity, on one split (``frames_rows.PREDICTION_COLUMNS``)."""

_TRIALS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pairing:
    """Two configurations on their common seeds and the same images, all arrays in one order.

    Attributes:
        config: bool (seeds, images), whether the configuration classifies the image correctly.
        base: bool (seeds, images), the same of the configuration that it is compared with.
        tracks: int64 (images,), from 0 on without gaps; one an image where tracks are not known.
        is_tracked: whether tracks are known.
    """

    config: NDArray[np.bool_]
    base: NDArray[np.bool_]
    tracks: NDArray[np.int64]
    is_tracked: bool


class Answers:
    """The predictions of some configurations, as far as the store has them (see ``pairing``)."""

    def __init__(self, images: pd.DataFrame, configs: Iterable[ScoredConfiguration], read: ReadPredictions) -> None:
        """Read the predictions.

        Args:
            images: the sets that trials were scored on (``analysis.frames.IMAGE_COLUMNS``), only of the split at hand.
            configs: the configurations whose predictions are read.
            read: reads predictions from the store.
        """
        sets = images.groupby("image_set", observed=True)["track"]
        self._tracks = {str(digest): _tracks(own) for digest, own in sets}
        self._right: dict[str, NDArray[np.bool_]] = {}
        known = [run.trial_id for config in configs for run in config.runs if run.image_set in self._tracks]
        for start in range(0, len(known), _TRIALS_AT_ONCE):
            found = read(known[start : start + _TRIALS_AT_ONCE])
            right = found["correct"].to_numpy(dtype=bool, na_value=False)
            for trial_id, places in found.groupby("trial_id", observed=True).indices.items():
                self._right[str(trial_id)] = right[places]

    def pairing(self, config: ScoredConfiguration, base: ScoredConfiguration) -> Pairing | None:
        """Return two configurations on their common seeds.

        It is None where one was scored on other images, or where the store does not have the predictions of both.
        """
        runs, bases = _by_seed(config), _by_seed(base)
        pairs = [(runs[seed], bases[seed]) for seed in sorted(runs.keys() & bases.keys())]
        sets = {run.image_set for pair in pairs for run in pair}
        if len(sets) != 1 or any(run.trial_id not in self._right for pair in pairs for run in pair):
            return None
        tracks, is_tracked = self._tracks[str(sets.pop())]
        return Pairing(
            config=np.array([self._right[run.trial_id] for run, _ in pairs]),
            base=np.array([self._right[run.trial_id] for _, run in pairs]),
            tracks=tracks,
            is_tracked=is_tracked,
        )


def _by_seed(config: ScoredConfiguration) -> Mapping[int, Run]:
    return {run.seed: run for run in config.runs if run.correct is not None}


def _tracks(tracks: "pd.Series[Any]") -> tuple[NDArray[np.int64], bool]:
    """Return the tracks of a set's images, int64 (images,), numbered without gaps, and whether they are known."""
    if tracks.isna().any():
        return np.arange(len(tracks)), False
    return np.unique(tracks.to_numpy(dtype=np.int64), return_inverse=True)[1].astype(np.int64), True


# Main effects, interactions and importances of the axes of a sweep.


MOST_LABELS: Final = 40
"""The largest number of labels of an axis with main effects: more are a range that a planner draws from."""

MOST_AXES: Final = 12
"""The number of axes, from the first, whose pairs are tested for interactions."""

LayoutFindings = tuple[tuple[MainEffect, ...], tuple[Interaction, ...], tuple[Importance, ...], tuple[str, ...]]


def layout_findings(sweep: SweepSpec, configs: Sequence[ScoredConfiguration]) -> LayoutFindings:
    """Find main effects, interactions and importances of the axes, with remarks on those that cannot be estimated.

    Baselines without transformers, which are not part of the axes, are left out. The axis that a sweep compares within
    is a task: other axes are compared within it, and it has no effect itself.

    Returns:
        Four tuples, all empty if configurations differ on fewer than two axes.
    """
    scored = [config for config in configs if not config.is_baseline and config.score]
    labels = {name: dict.fromkeys(dict(config.axes).get(name) for config in scored) for name in _axes(scored)}
    axes = [name for name, own in labels.items() if len(own) > 1 and name != sweep.within]
    if len(axes) < 2:
        return (), (), (), ()
    placed = [PlacedConfiguration(labels=dict(config.axes), scores=config.scores) for config in scored]
    few = [name for name in axes if len(labels[name]) <= MOST_LABELS]
    effects = {name: found for name in few if (found := main_effects(placed, name)) is not None}
    rows = tuple(
        MainEffect(axis=name, label=label, mean=mean, effect=effect, configs=found.configs, method=found.method)
        for name, found in effects.items()
        for label, mean, effect in zip(found.labels, found.means, found.effects, strict=True)
    )
    importances = tuple(_importances(sweep, scored, axes))
    remarks = [*_unknown([name for name in axes if name not in effects])]
    if not any(item.ped_anova is not None for item in importances):
        remarks.append(f"Optuna's importances need {FEWEST_CONFIGURATIONS} configurations of different accuracy.")
    return rows, tuple(_interactions(placed, few[:MOST_AXES])), importances, tuple(remarks)


def _axes(configs: Sequence[ScoredConfiguration]) -> list[str]:
    return list(dict.fromkeys(name for config in configs for name, _ in config.axes))


def _interactions(configs: Sequence[PlacedConfiguration], axes: Sequence[str]) -> Iterator[Interaction]:
    found: list[InteractionTest] = [
        test for first, second in combinations(axes, 2) if (test := interaction(configs, first, second)) is not None
    ]
    tested = [test.p_value for test in found if test.p_value is not None]
    corrected = iter(holm_adjusted(tested, tests=len(tested)))
    for test in found:
        yield Interaction(
            first=test.blocks.axes[0],
            second=test.blocks.axes[1],
            first_labels=test.blocks.labels[0],
            second_labels=test.blocks.labels[1],
            means=tuple(map(tuple, test.means.tolist())),
            residuals=tuple(map(tuple, test.residuals.tolist())),
            seeds=len(test.blocks.seeds),
            configs=test.blocks.configs,
            statistic=test.statistic,
            p_value=test.p_value,
            corrected_p=None if test.p_value is None else next(corrected),
        )


def _importances(sweep: SweepSpec, configs: Sequence[ScoredConfiguration], axes: Sequence[str]) -> Iterator[Importance]:
    """Yield the importance of each axis, from mean accuracies less the mean of their group."""
    groups: dict[str, list[float]] = {}
    means = [(config, dict(config.axes).get(sweep.within, ""), config.score.mean) for config in configs if config.score]
    for _, group, mean in means:
        groups.setdefault(group, []).append(mean)
    base = {group: statistics.fmean(own) for group, own in groups.items()}
    points: list[tuple[Labels, float]] = [
        (tuple(item for item in config.axes if item[0] in axes), mean - base[group]) for config, group, mean in means
    ]
    found = axis_importances(sweep, points)
    for name in axes:
        there = [(dict(labels)[name], value) for labels, value in points if name in dict(labels)]
        own = found.get(name)
        yield Importance(
            axis=name,
            configs=len(there),
            variance_explained=variance_explained([label for label, _ in there], [value for _, value in there]),
            ped_anova=own.ped_anova if own else None,
            fanova=own.fanova if own else None,
        )


def _unknown(axes: Sequence[str]) -> Iterator[str]:
    if axes:
        yield (
            f"No main effects of {', '.join(axes)}: too many choices for the number of configurations, or the axis "
            "goes along with another one."
        )


# Differences and gains between configurations, and all findings of a sweep.


MOST_ANSWERED: Final = 120
"""The number of configurations compared image by image: the best of every group, and their baselines besides."""

FEWEST_ANSWERED: Final = 5
"""The least such number in each group, whatever the number of groups."""

COSTS: Final = ("parameters", "flops", "epoch_duration_s")

Groups = Sequence[tuple[str, Sequence[ScoredConfiguration]]]


def find(
    sweep: SweepSpec,
    trials: pd.DataFrame,
    images: pd.DataFrame,
    read_predictions: ReadPredictions,
    *,
    split: Split = "validation",
) -> Findings:
    """Find the results of a sweep's trials on one split beyond their ranking. The same frames give the same findings.

    Args:
        sweep: the specification of its last run.
        trials: ``analysis.frames.TRIAL_COLUMNS``.
        images: the sets that the trials were scored on, ``analysis.frames.IMAGE_COLUMNS``.
        read_predictions: reads the predictions of trials on this split.
        split: validation or test.
    """
    read = read_configurations(trials, split)
    decided = decide(sweep, read)
    known = {config.config_id: config for config in decided.configs}
    configs = [known[config.config_id] for config in read]
    groups = [(group, [config for config in own if config.score]) for group, own in decided.groups]
    groups = [(group, own) for group, own in groups if own]
    baselines = Baselines(sweep, configs)
    limit = max(FEWEST_ANSWERED, MOST_ANSWERED // max(len(groups), 1))
    compared = _compared(groups, baselines, limit)
    answers = Answers(images[images["split"] == split], compared.values(), read_predictions)
    pairs = [pair for group, own in groups for pair in _pairs(group, own, answers, compared, decided)]
    gains = [gain for group, own in groups for gain in _gains(group, own, baselines, answers, decided)]
    main_effects, interactions, importances, remarks = layout_findings(sweep, configs)
    return Findings(
        split=split,
        folds=find_over_folds(sweep, configs) if split == "validation" else (),
        pairs=tuple(pairs),
        gains=tuple(gains),
        main_effects=main_effects,
        interactions=interactions,
        importances=importances,
        pareto=tuple(front for group, own in groups for front in _fronts(group, own)),
        notes=(*_notes(sweep, groups, pairs, limit), *remarks),
    )


def _compared(groups: Groups, baselines: Baselines, limit: int) -> dict[str, ScoredConfiguration]:
    best = [config for _, own in groups for config in own[:limit]]
    bases = [
        baseline for config in best for baseline in (baselines.plain(config), baselines.equal_size(config)) if baseline
    ]
    return {config.config_id: config for config in (*best, *bases)}


def _pairs(
    group: str,
    configs: Sequence[ScoredConfiguration],
    answers: Answers,
    compared: Mapping[str, ScoredConfiguration],
    decided: Decided,
) -> Iterator[PairFinding]:
    """Compare every configuration of a group with the first one, which is the best."""
    best, *others = configs
    pairings = [answers.pairing(config, best) if config.config_id in compared else None for config in others]
    crossed = [_crossed(pairing) for pairing in pairings]
    corrected = holm_adjusted(
        [item.difference.p_value if item else 1.0 for item in crossed], tests=pairs_among(len(configs))
    )
    for config, pairing, item, p_value in zip(others, pairings, crossed, corrected, strict=True):
        decision = decided.decisions[config.config_id]
        difference = estimate_of_effect(decision.delta)
        paired = paired_difference(config.scores, best.scores)
        over_seeds = improvement_over_seeds(paired) if paired else None
        yield PairFinding(
            group=group,
            config_id=config.config_id,
            label=config.label,
            best_config_id=best.config_id,
            best_label=best.label,
            standing=decision.verdict or Verdict.UNDECIDED,
            difference=difference,
            corrected_p=difference.p_value if difference else 1.0,
            over_images=item.difference if item else None,
            over_images_corrected_p=p_value if item else None,
            mcnemar=mcnemar(pairing.config, pairing.base, pairing.tracks) if pairing else None,
            improvement=item.improvement if item else over_seeds,
            seeds_needed=decision.seeds_needed,
        )


def _gains(
    group: str, configs: Sequence[ScoredConfiguration], baselines: Baselines, answers: Answers, decided: Decided
) -> Iterator[GainFinding]:
    for config in configs:
        for baseline, is_equal_size in ((baselines.plain(config), False), (baselines.equal_size(config), True)):
            decision = decided.decisions[config.config_id]
            difference = estimate_of_effect(decision.gain_equal_parameters if is_equal_size else decision.gain)
            if baseline is None or difference is None:
                continue
            crossed = _crossed(answers.pairing(config, baseline))
            own, base = parameters_of(config), parameters_of(baseline)
            yield GainFinding(
                group=group,
                config_id=config.config_id,
                label=config.label,
                baseline_config_id=baseline.config_id,
                is_equal_size=is_equal_size,
                parameter_ratio=base / own if own and base else None,
                difference=difference,
                over_images=crossed.difference if crossed else None,
            )


def _crossed(pairing: Pairing | None) -> Crossed | None:
    """Return the difference over seeds and images.

    It is None if predictions are missing, or if there is only one seed, which has no variance.
    """
    if pairing is None or len(pairing.config) < 2:
        return None
    return crossed_difference(pairing.config, pairing.base, pairing.tracks, is_tracked=pairing.is_tracked)


def _fronts(group: str, configs: Sequence[ScoredConfiguration]) -> Iterator[ParetoFront]:
    """Yield the Pareto front for every cost that two configurations or more have."""
    for cost in COSTS:
        known = []
        for config in configs:
            value, score = mean_of(getattr(run, cost) for run in config.runs), config.score
            if value is not None and score is not None:
                known.append((config, float(value), score.mean))
        if len(known) > 1:
            front = [known[place] for place in pareto_front([item[1] for item in known], [item[2] for item in known])]
            yield ParetoFront(
                group=group,
                cost=cost,
                config_ids=tuple(config.config_id for config, _, _ in front),
                labels=tuple(config.label for config, _, _ in front),
                costs=tuple(value for _, value, _ in front),
                means=tuple(mean for _, _, mean in front),
            )


def _notes(sweep: SweepSpec, groups: Groups, pairs: Sequence[PairFinding], limit: int) -> Iterator[str]:
    if pairs and not any(pair.mcnemar for pair in pairs):
        yield (
            "It is not known which images these scores are of, or configurations were scored on different ones: no "
            "comparison over images is made."
        )
    elif any(len(configs) > limit for _, configs in groups):
        of_group = " of each group" if len(groups) > 1 else ""
        yield f"Only the {limit} best configurations{of_group} and their baselines are compared image by image."
    if isinstance(sweep.planner, SamplerSpec):
        yield "The planner chose configurations by earlier results: effects and importances are those of its choice."
