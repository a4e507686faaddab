"""The interface of planners."""

import dataclasses
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from stnbench.analysis.fitted import ScoredRun
from stnbench.core.errors import BeyondLimitsError, InfeasibleError
from stnbench.spec.planner import GridPlannerSpec, SamplerSpec
from stnbench.spec.result import TransformerHealth, TrialState
from stnbench.spec.sweep import EQUAL_PARAMETERS, LABEL_SEPARATOR, Axis, LimitsSpec, Point, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.tables import PlannedTrial


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """The outcome of a trial as a planner may know it, without a test score.

    ``validation_accuracy`` is in [0, 1]; that of a pruned trial is of its last epoch. ``flops`` are those of the
    forward pass of one image, known for complete trials.
    """

    trial_id: str
    state: TrialState
    validation_accuracy: float | None
    flops: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """The state of a running trial after epoch ``epoch`` of ``epochs``, with validation scores only."""

    trial_id: str
    epoch: int
    epochs: int
    validation_accuracy: float
    health: tuple[TransformerHealth, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """A trial of the sweep from earlier runs, as it is in the store; see ``Observation``.

    ``epochs`` are the validation accuracies of its epochs, the first one first; the last one of a repeated epoch.
    """

    planned: PlannedTrial
    state: TrialState
    validation_accuracy: float | None
    epochs: tuple[float, ...] = ()
    flops: int | None = None


ComposePoint = Callable[[Point], TrialSpec]
"""A function that returns the trial of a point, with some seed; it raises SpecError for an invalid point."""


class Planner(ABC):
    """A source of trials, which proposes them until it is exhausted.

    Not thread safe. All randomness comes from a seed given at construction, so the same answers give the same
    proposals.
    """

    def resume(self, known: Sequence[Known]) -> None:
        """Continue from earlier runs of the sweep, given in the planned order; before the first ``ask``.

        Trials that the sweep still includes are proposed again, final trials too, so that the runner keeps them in the
        sweep and reports their results: it never runs a final trial again. Does nothing if all trials are proposed in
        any case.
        """
        del known

    def learn(self, known: Sequence[Known]) -> None:
        """Learn from complete trials of another sweep; before ``resume`` and the first ``ask``.

        Only planners whose proposals depend on answers use them.
        """
        del known

    @abstractmethod
    def ask(self) -> Sequence[PlannedTrial]:
        """Return trials to run now, in the wanted order; empty if the planner waits for answers or is exhausted.

        Raises:
            SpecError: if the sweep is not valid.
        """

    @abstractmethod
    def tell(self, observation: Observation) -> None:
        """Learn how a proposed trial ended; repeated calls have no further effect."""

    def should_prune(self, progress: Progress) -> bool:
        """Check whether a running trial should end now, because others show that it will not be among the best."""
        del progress
        return False

    def thawed(self, *, is_idle: bool) -> Sequence[str]:
        """Return the ids of pruned trials that go on from their checkpoints now, the first one first.

        Args:
            is_idle: whether nothing runs, nothing waits, and ``ask`` returns nothing now.
        """
        del is_idle
        return ()

    @property
    @abstractmethod
    def is_exhausted(self) -> bool:
        """Return whether ``ask`` will never again return a trial."""


# The configurations of a grid and their baselines, without seeds.


BASELINE_LABEL = "no ST"
NOMINAL_IMAGES = 10_000
"""The assumed number of images of a split whose size a planner does not know."""

SURVEYED_MAX = 1000
"""The largest number of points of a sampled space that are checked before it is searched."""


def grid_configurations(sweep: SweepSpec, compose: ComposePoint) -> list[PlannedTrial]:
    """Return the baselines and the configurations of every grid, each once, with some seed.

    Baselines without transformers come first, then those with equal parameters, then the configurations. Points that
    give the same trial (such as a localisation network's size without a transformer) are one configuration. Those
    beyond the limits of the sweep are left out.

    Raises:
        SpecError: if a point is not valid.
        BeyondLimitsError: if no configuration keeps the limits.
    """
    configs: dict[str, tuple[Point, TrialSpec]] = {}
    beyond: BeyondLimitsError | None = None
    for point in sweep.points():
        try:
            spec = compose(point)
        except BeyondLimitsError as error:
            beyond = error
            continue
        configs.setdefault(spec.config_id, (point, spec))
    if beyond is not None and not configs:
        raise beyond
    baselines = [*_baselines(configs, axes_of_transformers(sweep))] if sweep.baselines else []
    if sweep.baselines == EQUAL_PARAMETERS:
        baselines += _equal_size_baselines(configs)
    return [*baselines, *(PlannedTrial(spec=spec, point=point, label=point.label) for point, spec in configs.values())]


def with_seeds(configs: Iterable[PlannedTrial], seeds: Iterable[int]) -> list[PlannedTrial]:
    """Return every configuration with every seed: all with the first before any with the second."""
    seeded = itertools.product(seeds, list(configs))
    return [dataclasses.replace(config, spec=config.spec.with_seed(seed)) for seed, config in seeded]


def scored_run(config_id: str, seed: int, accuracy: float) -> ScoredRun:
    """Return the run for a comparison of a trial that was reported to a planner.

    Planners receive shares and not counts: a share counts as known to half of one of ``NOMINAL_IMAGES`` images.

    Args:
        config_id: of the configuration.
        seed: of the trial.
        accuracy: its validation accuracy, a share in [0, 1].
    """
    return ScoredRun(configuration=config_id, seed=seed, correct=accuracy * NOMINAL_IMAGES, images=NOMINAL_IMAGES)


def survey(sweep: SweepSpec, compose: ComposePoint) -> Iterator[TrialSpec]:
    """Yield trials that represent everything that the sweep may propose.

    Of a sampled range only the lowest value is used, and at most ``SURVEYED_MAX`` points of a sampled space.

    Raises:
        SpecError: if a point is not valid.
    """
    if not isinstance(sweep.planner, SamplerSpec):
        yield from (config.spec for config in grid_configurations(sweep, compose))
        return
    grids = [tuple(map(_pinned, grid)) for grid in sweep.grids]
    pinned = dataclasses.replace(sweep, axes=grids[0], more_axes=tuple(grids[1:]), planner=GridPlannerSpec())
    for point in itertools.islice(pinned.points(), SURVEYED_MAX):
        try:
            yield compose(point)
        except InfeasibleError:
            continue


def axes_of_transformers(sweep: SweepSpec) -> frozenset[str]:
    """Return the names of the axes that change only transformers and their localisation networks."""
    keys: dict[str, set[str]] = {}
    for axis in (axis for grid in sweep.grids for axis in grid):
        keys.setdefault(axis.name, set()).update(axis.keys)
    parts = ("locnet", "transformer")
    return frozenset(
        name for name, own in keys.items() if own and all(key.rpartition("@")[2].startswith(parts) for key in own)
    )


def baseline_of(point: Point, spec: TrialSpec, left_out: frozenset[str]) -> PlannedTrial:
    """Return the baseline without transformers of a proposed configuration, labelled without the axes ``left_out``."""
    labels = tuple((name, label) for name, label in point.labels if name not in left_out)
    label = LABEL_SEPARATOR.join([*(label for _, label in labels), BASELINE_LABEL])
    return PlannedTrial(spec=spec.baseline(), point=Point(labels=labels), label=label, is_baseline=True)


def _pinned(axis: Axis) -> Axis:
    return axis if axis.span is None else dataclasses.replace(axis, span=None, choices=axis.values[:1])


def _baselines(configs: dict[str, tuple[Point, TrialSpec]], left_out: frozenset[str]) -> Iterator[PlannedTrial]:
    """Yield the baselines without transformers that are not configurations of the grid themselves.

    Each keeps the labels that all of its configurations share, except those on the axes ``left_out``, which change only
    parts that a baseline lacks.
    """
    groups: dict[str, list[tuple[Point, TrialSpec]]] = {}
    for point, spec in configs.values():
        baseline = spec.baseline()
        if baseline.config_id not in configs:
            groups.setdefault(baseline.config_id, []).append((point, baseline))
    # A label that every configuration of the sweep has is not informative; one that only these have is.
    everywhere = _shared(point for point, _ in configs.values())
    for group in groups.values():
        shared = _shared(point for point, _ in group)
        first, baseline = group[0]
        labels = tuple(
            (name, label) for name, label in first.labels if (name, label) in shared and name not in left_out
        )
        telling = [label for name, label in labels if (name, label) not in everywhere]
        yield PlannedTrial(
            spec=baseline,
            point=Point(labels=labels),
            label=LABEL_SEPARATOR.join([*telling, BASELINE_LABEL]),
            is_baseline=True,
        )


def _equal_size_baselines(configs: dict[str, tuple[Point, TrialSpec]]) -> Iterator[PlannedTrial]:
    """Yield, for each configuration with transformers, a wider baseline with as many parameters.

    Configurations of the same size share a baseline. It keeps the labels that all of its configurations share, and is
    labelled with its sizes.
    """
    from stnbench.models.scored_network import equal_size_baseline  # imports torch

    groups: dict[str, list[tuple[Point, TrialSpec]]] = {}
    for point, spec in configs.values():
        try:
            baseline = equal_size_baseline(spec)
        except InfeasibleError:  # reported for the configuration itself
            continue
        if spec.transformers and baseline.config_id not in configs and baseline != spec.baseline():
            groups.setdefault(baseline.config_id, []).append((point, baseline))
    for group in groups.values():
        shared = _shared(point for point, _ in group)
        first, baseline = group[0]
        labels = tuple(item for item in first.labels if item in shared)
        sizes = f"{BASELINE_LABEL}, wider: {','.join(map(str, baseline.network.sizes))}"
        label = LABEL_SEPARATOR.join([*(label for _, label in labels), sizes])
        yield PlannedTrial(spec=baseline, point=Point(labels=labels), label=label, is_baseline=True)


def _shared(points: Iterable[Point]) -> set[tuple[str, str]]:
    sets: Sequence[set[tuple[str, str]]] = [set(point.labels) for point in points]
    return set.intersection(*sets) if sets else set()


# Limits of cost: configurations beyond them are left out when they are planned, each with its reason.


Measure = Callable[[TrialSpec], dict[str, float]]
"""A function that returns costs by the names of ``LimitsSpec``; raises InfeasibleError if no network can be built."""


@dataclass(kw_only=True, slots=True)
class LimitedCompose:
    """A composer of points that refuses those beyond the limits; ``refused`` holds their labels and reasons.

    Configurations that cannot be built pass, because they are reported when they are planned.
    """

    compose: ComposePoint
    limits: LimitsSpec
    measure: Measure
    refused: dict[str, str] = field(default_factory=dict)
    _reasons: dict[str, str] = field(default_factory=dict)

    def __call__(self, point: Point) -> TrialSpec:
        """Return the trial of a point. Errors of composing are passed on.

        Raises:
            BeyondLimitsError: if the configuration costs too much.
        """
        spec = self.compose(point)
        if spec.config_id not in self._reasons:
            try:
                self._reasons[spec.config_id] = self.limits.exceeded_by(**self.measure(spec))
            except InfeasibleError:
                self._reasons[spec.config_id] = ""
        reason = self._reasons[spec.config_id]
        if reason:
            self.refused[point.label] = reason
            raise BeyondLimitsError(f"{point.label}: {reason}", remedy="raise the limits of the sweep")
        return spec


def measure_trial(spec: TrialSpec) -> dict[str, float]:
    """Return the exact costs of a trial's network, computed before it runs, and its estimated GPU memory in MiB.

    Raises:
        InfeasibleError: if no network can be built.
    """
    from stnbench.models.scored_network import assess_cost, estimate_gpu_mib  # imports torch

    cost = assess_cost(spec)
    return {"parameters": cost.parameters, "flops": cost.flops, "memory_mib": estimate_gpu_mib(spec)}
