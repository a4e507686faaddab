"""Construction of planners from the specification of a sweep."""

from collections.abc import Sequence

from typing_extensions import override

from stnbench.core.errors import SpecError
from stnbench.planning.base import ComposePoint, Observation, Planner
from stnbench.planning.configurations import grid_configurations, with_seeds
from stnbench.planning.pruning import HealthJudge, Judge, PruningPlanner, ThresholdJudge
from stnbench.planning.sampling import SamplingPlanner
from stnbench.planning.seeds import RacingPlanner, UntilDecidedPlanner
from stnbench.spec.planner import (
    PLANNERS,
    PRUNERS,
    GridPlannerSpec,
    HealthPrunerSpec,
    PrunerSpec,
    RacingPlannerSpec,
    SamplerSpec,
    ThresholdPrunerSpec,
    UntilDecidedPlannerSpec,
)
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.records import PlannedTrial

# The planner of grids: every point of their axes that is not excluded, with every seed.


class GridPlanner(Planner):
    """A planner that proposes everything at once; answers change nothing.

    Seeds run in rounds, all configurations with the first seed before any with the second, so that a sweep that is
    stopped early has run every configuration.
    """

    def __init__(self, sweep: SweepSpec, compose: ComposePoint) -> None:
        self._sweep = sweep
        self._compose = compose
        self._asked = False

    @override
    def ask(self) -> Sequence[PlannedTrial]:
        if self._asked:
            return ()
        self._asked = True
        return with_seeds(grid_configurations(self._sweep, self._compose), self._sweep.seeds)

    @override
    def tell(self, observation: Observation) -> None:
        del observation

    @property
    @override
    def is_exhausted(self) -> bool:
        return self._asked


def build_planner(sweep: SweepSpec, compose: ComposePoint, *, slots: int = 1) -> Planner:
    """Build the planner of a sweep, with its pruner; ``slots`` is the number of trials that run at once.

    Optuna is imported only if one of them needs it.

    Raises:
        SpecError: if the sampler does not exist or cannot be used; also raised on composing a trial without held-out
            images if validation scores decide.
    """
    decides = sweep.pruner is not None or not sweep.planner.is_grid
    planner = _build(sweep, _holding_out(compose) if decides else compose, slots)
    if sweep.pruner is None:
        return planner
    return PruningPlanner(planner, _judge(sweep.pruner, sweep.name), sweep)


def _build(sweep: SweepSpec, compose: ComposePoint, slots: int) -> Planner:
    planner = PLANNERS.implementation(sweep.planner.kind)(sweep, sweep.planner, compose, slots)
    if not isinstance(planner, Planner):
        problem = f"the planner {sweep.planner.kind} is {type(planner).__name__}"
        raise SpecError(problem, remedy="register a class that extends stnbench.planning.base.Planner")
    return planner


def grid(sweep: SweepSpec, spec: GridPlannerSpec, compose: ComposePoint, slots: int) -> Planner:
    """Return the planner of every point."""
    del spec, slots
    return GridPlanner(sweep, compose)


def racing(sweep: SweepSpec, spec: RacingPlannerSpec, compose: ComposePoint, slots: int) -> Planner:
    """Return the planner of a race."""
    del slots
    return RacingPlanner(sweep, spec, compose)


def until_decided(sweep: SweepSpec, spec: UntilDecidedPlannerSpec, compose: ComposePoint, slots: int) -> Planner:
    """Return the planner that adds seeds where verdicts are missing."""
    del slots
    return UntilDecidedPlanner(sweep, spec, compose)


def search(sweep: SweepSpec, spec: SamplerSpec, compose: ComposePoint, slots: int) -> Planner:
    """Return the planner that asks one of Optuna's samplers."""
    return SamplingPlanner(sweep, spec, compose, slots=slots)


def _holding_out(compose: ComposePoint) -> ComposePoint:
    def held_out(point: Point) -> TrialSpec:
        spec = compose(point)
        if not spec.has_held_out_images:
            problem = "split=all trains on its validation images, and a search or a pruner decides by them"
            raise SpecError(problem, remedy="search with held-out tracks: split=folds or split=tracks")
        return spec

    return held_out


def _judge(spec: PrunerSpec, sweep: str) -> Judge:
    judge = PRUNERS.implementation(spec.kind)(spec, sweep)
    if not isinstance(judge, Judge):
        problem = f"the pruner {spec.kind} is {type(judge).__name__}"
        raise SpecError(problem, remedy="register a class that extends stnbench.planning.pruning.Judge")
    return judge


def threshold(spec: ThresholdPrunerSpec, sweep: str) -> Judge:
    """Return the judge that compares each trial with fixed limits."""
    del sweep
    return ThresholdJudge(spec)


def health(spec: HealthPrunerSpec, sweep: str) -> Judge:
    """Return the judge of transformers that have collapsed."""
    del sweep
    return HealthJudge(spec)
