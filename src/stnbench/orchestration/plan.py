"""The plan of a sweep before it runs, computed without I/O from the planned trials and the known results."""

import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from stnbench.core.errors import InfeasibleError
from stnbench.core.identity import Json
from stnbench.core.text import Price, counted, written_kwh
from stnbench.orchestration.progress import duration
from stnbench.spec.data import (
    GTSRB_TRAIN_IMAGES,
    AllSplitSpec,
    DatasetSpec,
    FoldSplitSpec,
    OneTrackSplitSpec,
    SplitSpec,
    TrackSplitSpec,
    TrainingHalf,
)
from stnbench.spec.planner import (
    PlannerSpec,
)
from stnbench.spec.result import Cost, TrialState, other_half
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.queries import StoreReader
from stnbench.store.tables import PlannedTrial

UNKNOWN_TRAIN_IMAGES = GTSRB_TRAIN_IMAGES
"""Number of training images assumed for an external data set that does not declare its size."""

EXPERIENCE_MAX = 1000
"""Number of complete trials for estimating the time: the latest, which are of this machine if any are."""

Assess = Callable[[TrialSpec], Cost]
"""Function that returns the cost of a trial's network before it runs; raises InfeasibleError if it cannot be built."""


Measure = Callable[[TrialSpec], float]
"""Function that returns the expected duration of a trial's training in seconds, measured on this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Experience:
    """Training FLOPs of one complete trial, the seconds they took, and their energy; None if it was not measured."""

    work_flops: float
    duration_s: float
    energy_kwh: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDigests:
    """Digests of the images found here, and of those that complete trials read.

    Attributes:
        found: digest of each half of the data sets that have a cache here.
        recorded: digests that complete trials recorded, by trial id.
        superseded: digests of images that the source of a data set had and no longer has, where its images are not
            prepared.
    """

    found: Mapping[DatasetSpec, Mapping[str, str]] = field(default_factory=dict)
    recorded: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    superseded: Mapping[DatasetSpec, Collection[str]] = field(default_factory=dict)

    def difference(self, spec: TrialSpec) -> str:
        """Return how the images of a complete trial differ from those found now; empty if no difference is known."""
        recorded, found = self.recorded.get(spec.trial_id, {}), self.found.get(spec.dataset, {})
        half = other_half(recorded, found)
        if half is not None:
            return f"{spec.dataset.kind}: {half} digest {recorded[half]}, now {found[half]}"
        gone = self.superseded.get(spec.dataset, ())
        half = next((half for half, digest in recorded.items() if half not in found and digest in gone), None)
        if half is not None:
            return f"{spec.dataset.kind}: {half} digest {recorded[half]}, now other images, which are not prepared yet"
        return ""

    def is_checked(self, spec: TrialSpec) -> bool:
        """Check whether all images that a complete trial recorded were compared."""
        recorded = self.recorded.get(spec.trial_id, {})
        return bool(recorded) and recorded.keys() <= self.found.get(spec.dataset, {}).keys()


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigurationPlan:
    """Plan of one configuration: its numbers of trials, and the cost of each, or the reason why it cannot be built.

    ``work_flops`` are the FLOPs of one trial's training, ``trial_s`` is its expected duration, None if it was not
    measured. Trials that are complete with other images than those found now do not count as complete:
    ``differences`` describes each. For ``unchecked`` complete trials it is not known.
    """

    config_id: str
    label: str
    is_baseline: bool
    trials: int
    complete: int
    cost: Cost | None
    infeasible: str
    work_flops: float
    differences: tuple[str, ...] = ()
    unchecked: int = 0
    trial_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPlan:
    """Plan of a whole sweep.

    ``overlapping_points`` is the number of points of the axes whose trial another point has too; ``notes`` name the
    settings without effect, with the number of points. ``expected_s`` is the time for the open trials with all slots
    busy: from the measured durations where ``is_measured``, else at ``flops_per_s``, the median of ``experience``
    complete trials; both are None without either. ``beyond`` holds the labels of configurations left out because they
    exceed the sweep's cost limits, with the reason. ``expected_kwh`` is the energy of the open trials at the median
    energy per FLOP of those complete trials that were measured; None if none was.
    """

    sweep: SweepSpec
    configs: tuple[ConfigurationPlan, ...]
    trials: int
    complete: int
    overlapping_points: int
    notes: tuple[tuple[str, int], ...]
    slots: int
    expected_s: float | None
    flops_per_s: float | None
    experience: int
    beyond: tuple[tuple[str, str], ...] = ()
    is_measured: bool = False
    expected_kwh: float | None = None

    @property
    def device_hours(self) -> float | None:
        """Return the hours that the open trials are expected to take, of all slots together, or None if unknown."""
        return None if self.expected_s is None else self.expected_s * self.slots / 3600

    @property
    def differences(self) -> tuple[str, ...]:
        """Return how the images of complete trials differ from those found now, one entry per trial."""
        return tuple(difference for config in self.configs for difference in config.differences)

    @property
    def unchecked(self) -> int:
        """Return the number of complete trials for which it is not known whether they read the images found now."""
        return sum(config.unchecked for config in self.configs)


def plan_sweep(  # noqa: PLR0913 - everything that is known of a sweep, by name
    sweep: SweepSpec,
    planned: Sequence[PlannedTrial],
    *,
    states: Mapping[str, TrialState],
    assess: Assess,
    experience: Sequence[Experience],
    slots: int,
    points: int,
    notes: Mapping[str, int],
    images: ImageDigests | None = None,
    beyond: Mapping[str, str] | None = None,
    measure: Measure | None = None,
) -> SweepPlan:
    """Return the plan of a sweep whose axes span ``points`` points; each open configuration is measured if asked."""
    by_config: dict[str, list[PlannedTrial]] = {}
    for trial in planned:
        by_config.setdefault(trial.spec.config_id, []).append(trial)
    configs = tuple(
        _measured(
            _plan_configuration(config_id, trials, states, assess, images or ImageDigests()), trials[0].spec, measure
        )
        for config_id, trials in by_config.items()
    )
    rates = [item.work_flops / item.duration_s for item in experience if item.duration_s > 0]
    rate = statistics.median(rates) if rates else None
    left = sum((config.trials - config.complete) * config.work_flops for config in configs)
    left_s = left / rate if rate else None
    if measure is not None:
        left_s = sum((config.trials - config.complete) * (config.trial_s or 0.0) for config in configs)
    return SweepPlan(
        sweep=sweep,
        configs=configs,
        trials=len(planned),
        complete=sum(config.complete for config in configs),
        overlapping_points=max(0, points - len(beyond or ()) - sum(not config.is_baseline for config in configs)),
        notes=tuple(sorted(notes.items())),
        slots=slots,
        expected_s=None if left_s is None else left_s / slots,
        flops_per_s=rate,
        experience=len(rates),
        beyond=tuple((beyond or {}).items()),
        is_measured=measure is not None,
        expected_kwh=_expected_kwh(left, experience),
    )


def _expected_kwh(work_flops: float, experience: Sequence[Experience]) -> float | None:
    """Return the energy of training FLOPs at the median of the measured trials, or None if none was measured."""
    known = [
        item.energy_kwh / item.work_flops for item in experience if item.energy_kwh is not None and item.work_flops
    ]
    return work_flops * statistics.median(known) if known else None


def read_experience(store: StoreReader) -> list[Experience]:
    """Return the FLOPs and times of the ``EXPERIENCE_MAX`` complete trials of a store that ended last."""
    return [
        Experience(
            work_flops=training_flops(timing.spec, timing.cost),
            duration_s=timing.train_duration_s,
            energy_kwh=timing.energy_kwh,
        )
        for timing in store.latest_timings(EXPERIENCE_MAX)
    ]


def training_flops(spec: TrialSpec, cost: Cost) -> float:
    """Return the FLOPs of a whole training: a forward and a backward pass cost about three forward passes."""
    return 3.0 * cost.flops * training_images(spec) * spec.training.epochs


def training_images(spec: TrialSpec) -> int:
    """Return the number of images of an epoch without opening the data; for GTSRB that of the official set."""
    if spec.training.train_images is not None:
        return spec.training.train_images
    half = spec.dataset.training_half
    if half is None:
        return UNKNOWN_TRAIN_IMAGES
    images, _, _ = half
    return images if isinstance(spec.split, AllSplitSpec) else images - _held_out(spec.split, half)


def validation_images(spec: TrialSpec) -> int:
    """Return the number of images scored after every epoch without opening the data; a tenth where it is unknown."""
    half = spec.dataset.training_half
    return UNKNOWN_TRAIN_IMAGES // 10 if half is None else _held_out(spec.split, half)


def _held_out(split: SplitSpec, half: TrainingHalf) -> int:
    total, classes, frames = half
    match split:
        case TrackSplitSpec(tracks_per_class=held_out):
            return classes * held_out * frames
        case FoldSplitSpec(folds=folds):
            return total // folds
        case AllSplitSpec() | OneTrackSplitSpec():
            return classes * frames
        case _:
            assert_never(split)


def _measured(config: ConfigurationPlan, spec: TrialSpec, measure: Measure | None) -> ConfigurationPlan:
    """Return the plan of a configuration with its measured duration, if it can be built and trials are left."""
    is_open = config.cost is not None and config.complete < config.trials
    return replace(config, trial_s=measure(spec)) if measure and is_open else config


def _plan_configuration(
    config_id: str,
    trials: Sequence[PlannedTrial],
    states: Mapping[str, TrialState],
    assess: Assess,
    images: ImageDigests,
) -> ConfigurationPlan:
    first = trials[0]
    cost, infeasible = None, ""
    try:
        cost = assess(first.spec)
    except InfeasibleError as error:
        infeasible = str(error)
    complete = [trial.spec for trial in trials if states.get(trial.spec.trial_id) is TrialState.COMPLETE]
    differences = tuple(filter(None, map(images.difference, complete)))
    return ConfigurationPlan(
        config_id=config_id,
        label=first.label,
        is_baseline=first.is_baseline,
        trials=len(trials),
        complete=len(complete) - len(differences),
        cost=cost,
        infeasible=infeasible,
        work_flops=training_flops(first.spec, cost) if cost else 0.0,
        differences=differences,
        unchecked=sum(not images.difference(spec) and not images.is_checked(spec) for spec in complete),
    )


# Output of a plan as plain lines and as one JSON object.


def plan_lines(plan: SweepPlan, price: Price | None = None) -> Iterator[str]:
    """Yield the plan as plain lines, one per configuration, with the remaining cost if a device hour has a price."""
    yield f"{plan.sweep.name}: {plan.sweep.question}"
    width = max((len(config.label) for config in plan.configs), default=0)
    width = max(width, len("configuration"))
    timed = f"  {'a trial':>8}" if plan.is_measured else ""
    yield f"{'configuration':{width}}  {'complete':>8}  {'parameters':>11}  {'MFLOPs':>8}{timed}"
    for config in plan.configs:
        timed = "" if config.trial_s is None else f"  {duration(config.trial_s):>8}"
        yield _configuration_line(config, width) + timed
    yield from (f"{label:{width}}  {'-':>8}  BEYOND THE LIMITS: {reason}" for label, reason in plan.beyond)
    infeasible = sum(bool(config.infeasible) for config in plan.configs)
    also = f", {infeasible} infeasible" if infeasible else ""
    also += f", {len(plan.beyond)} beyond the limits" if plan.beyond else ""
    configs, trials = counted(len(plan.configs), "configuration"), counted(plan.trials, "trial")
    yield f"{configs}{also}, {trials}, {plan.complete} complete"
    for difference, count in Counter(plan.differences).items():
        yield f"{counted(count, 'trial')} complete with other images, which do not count and stop a run ({difference})"
    if plan.unchecked:
        trials = counted(plan.unchecked, "complete trial")
        yield f"not checked: whether {trials} read the images found here (no cache of them: stnbench data prepare)"
    if plan.overlapping_points > 0:
        points = counted(plan.overlapping_points, "point")
        yield f"{points} of the axes: the same trial as another, or as an equal-parameter baseline"
    for note, count in plan.notes:
        yield f"note: {note} ({counted(count, 'point')})"
    yield _expected(plan)
    if price is not None and plan.device_hours is not None:
        yield f"expected price: {price.of(plan.device_hours)}"
    if plan.expected_kwh is not None and plan.complete < plan.trials:
        yield f"expected energy: {written_kwh(plan.expected_kwh)}"


def plan_json(plan: SweepPlan, price: Price | None = None) -> dict[str, Json]:
    """Return the plan as JSON values.

    ``open_ended`` means that configurations, trials and the expected time are those of a search's first proposals;
    ``budget`` holds the total number of trials and seeds that it may request, null for no limit.
    """
    budget = _budget(plan.sweep.planner)
    infeasible = [*((config.label, config.infeasible) for config in plan.configs if config.infeasible), *plan.beyond]
    return {
        "sweep": plan.sweep.name,
        "question": plan.sweep.question,
        "planner": plan.sweep.planner.kind,
        "open_ended": budget is not None,
        "budget": budget,
        "cells": len(plan.configs),
        "trials": plan.trials,
        "complete": plan.complete,
        "infeasible": [{"cell": label, "reason": reason} for label, reason in infeasible],
        "overlapping_points": plan.overlapping_points,
        "slots": plan.slots,
        "expected_s": plan.expected_s,
        "measured": plan.is_measured,
        "price": None if price is None else {**price.plain(plan.device_hours)},
        "expected_kwh": plan.expected_kwh,
        "cell_list": [
            {
                "cell": config.label,
                "cell_id": config.config_id,
                "baseline": config.is_baseline,
                "trials": config.trials,
                "complete": config.complete,
                "parameters": config.cost.parameters if config.cost else None,
                "flops": config.cost.flops if config.cost else None,
                "trial_s": config.trial_s,
            }
            for config in plan.configs
        ],
        "images": {
            "same": plan.complete - plan.unchecked,
            "other": len(plan.differences),
            "not_checked": plan.unchecked,
        },
        "notes": [{"note": note, "points": points} for note, points in plan.notes],
    }


def _budget(planner: PlannerSpec) -> dict[str, Json] | None:
    """Return the numbers of trials and seeds that a planner may request in total, or None for a grid."""
    return None if planner.is_grid else {"trials": planner.trials_max, "seeds": planner.seeds_max}


def _configuration_line(config: ConfigurationPlan, width: int) -> str:
    done = f"{config.complete}/{config.trials}"
    if config.cost is None:
        return f"{config.label:{width}}  {done:>8}  INVALID: {config.infeasible}"
    return f"{config.label:{width}}  {done:>8}  {config.cost.parameters:>11,}  {config.cost.flops / 1e6:>8.1f}"


def _expected(plan: SweepPlan) -> str:
    if plan.complete == plan.trials:
        return "nothing is left to run"
    if plan.expected_s is None:
        until = "unknown until a trial is complete in this store, or with --measure"
        return f"expected time: {until} ({counted(plan.slots, 'slot')})"
    if plan.is_measured:
        how = "training steps and scoring timed here one at a time, without start-up and opening data"
        return f"expected time: {duration(plan.expected_s)} on {counted(plan.slots, 'slot')} ({how})"
    pace = f"{(plan.flops_per_s or 0) / 1e9:.1f} GFLOP/s, the median of {counted(plan.experience, 'complete trial')}"
    return f"expected time: {duration(plan.expected_s)} on {counted(plan.slots, 'slot')} (at {pace})"
