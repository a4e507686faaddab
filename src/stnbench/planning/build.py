"""From the specification of a sweep to its planner."""

from typing import assert_never

from stnbench.core.errors import SpecError
from stnbench.planning.base import ComposePoint, Planner
from stnbench.planning.grid import GridPlanner
from stnbench.planning.health import HealthJudge
from stnbench.planning.pruning import Judge, OptunaJudge, PruningPlanner, ThresholdJudge
from stnbench.planning.racing import RacingPlanner
from stnbench.planning.sampling import SamplingPlanner
from stnbench.planning.until_decided import UntilDecidedPlanner
from stnbench.spec.planner import (
    AshaPrunerSpec,
    GridPlannerSpec,
    HealthPrunerSpec,
    HyperbandPrunerSpec,
    MedianPrunerSpec,
    Nsga2PlannerSpec,
    OptunaPlannerSpec,
    PrunerSpec,
    RacingPlannerSpec,
    RandomPlannerSpec,
    ThresholdPrunerSpec,
    TpePlannerSpec,
    UntilDecidedPlannerSpec,
)
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.spec.trial import TrialSpec


def build_planner(sweep: SweepSpec, compose: ComposePoint, *, slots: int = 1) -> Planner:
    """The planner that a sweep asks for, and its pruner; ``slots`` is how many trials run at once.

    Optuna is imported only where one of them needs it.
    Raises: SpecError for a sampler that does not exist or cannot be used; composing raises it for trials that hold out
        nothing where validation scores decide.
    """
    decides = sweep.pruner is not None or not isinstance(sweep.planner, GridPlannerSpec)
    planner = _build(sweep, _holding_out(compose) if decides else compose, slots)
    if sweep.pruner is None:
        return planner
    return PruningPlanner(planner, _judge(sweep.pruner, sweep.name), sweep)


def _build(sweep: SweepSpec, compose: ComposePoint, slots: int) -> Planner:
    match sweep.planner:
        case GridPlannerSpec():
            return GridPlanner(sweep, compose)
        case RacingPlannerSpec() as spec:
            return RacingPlanner(sweep, spec, compose)
        case UntilDecidedPlannerSpec() as spec:
            return UntilDecidedPlanner(sweep, spec, compose)
        case RandomPlannerSpec() | TpePlannerSpec() | Nsga2PlannerSpec() | OptunaPlannerSpec() as spec:
            return SamplingPlanner(sweep, spec, compose, slots=slots)
        case _:
            assert_never(sweep.planner)


def _holding_out(compose: ComposePoint) -> ComposePoint:
    def held_out(point: Point) -> TrialSpec:
        spec = compose(point)
        if not spec.has_held_out_images:
            problem = "split=all trains on its validation images, and a search or a pruner decides by them"
            raise SpecError(problem, remedy="search with held-out tracks: split=folds or split=tracks")
        return spec

    return held_out


def _judge(spec: PrunerSpec, sweep: str) -> Judge:
    match spec:
        case ThresholdPrunerSpec():
            return ThresholdJudge(spec)
        case HealthPrunerSpec():
            return HealthJudge(spec)
        case AshaPrunerSpec() | HyperbandPrunerSpec() | MedianPrunerSpec():
            return OptunaJudge(spec, sweep)
        case _:
            assert_never(spec)
