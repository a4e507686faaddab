"""An Optuna study of cells, in memory: points come out, answers go in.

Only this module, ``samplers`` and ``pruning`` know Optuna. The study is no record: our store is, and the study is
rebuilt from it, each known point asked as if it had been proposed now.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, assert_never

from stnbench.core.errors import TransitionError
from stnbench.core.seeds import derive_seed
from stnbench.planning.samplers import quiet, sampler_maker
from stnbench.spec.planner import Nsga2PlannerSpec, SearchPlannerSpec
from stnbench.spec.space import FloatSpan, IntSpan
from stnbench.spec.states import TrialState
from stnbench.spec.sweep import Axis, Labels, Point, SweepSpec

if TYPE_CHECKING:
    import optuna

_GRID = "grid"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A point, and the trial of Optuna that proposes it: one proposal is one cell."""

    point: Point
    trial: "optuna.Trial"


@dataclass(frozen=True, kw_only=True, slots=True)
class CellAnswer:
    """How a cell ended: the means over its seeds. ``epochs`` is how far its least far trial got."""

    state: TrialState
    accuracy: float = 0.0
    flops: int | None = None
    epochs: int = 0


class CellStudy:
    """Proposes points of a sweep's axes. Each proposal is drawn by a sampler with a seed of its own.

    So what is proposed depends on the seed, the number of the proposal and the answers before it, whether the study was
    rebuilt meanwhile or not; CMA-ES with a margin alone also depends on what it drew and did not get answered.
    Raises: SpecError for a sampler that cannot be used.
    """

    def __init__(self, sweep: SweepSpec, spec: SearchPlannerSpec) -> None:
        import optuna

        self._sweep = sweep
        self._spec = spec
        self._make_sampler = sampler_maker(spec)
        self._aims: list[Literal["minimize", "maximize"]] = ["maximize"]
        if isinstance(spec, Nsga2PlannerSpec):
            self._aims.append("minimize")
        with quiet():
            self._study = optuna.create_study(directions=self._aims, sampler=self._make_sampler(spec.seed))

    def propose(self, *number: int) -> Proposal:
        """The sampler's next point; the number decides what is random in it."""
        with quiet():
            self._study.sampler = self._make_sampler(derive_seed(self._spec.seed, "proposal", *number))
            trial = self._study.ask()
            return Proposal(point=self._draw(trial), trial=trial)

    def repeat(self, point: Point) -> Proposal | None:
        """A given point as a proposal; None for one that the axes do not have, or that is left out."""
        parameters = self._parameters(point)
        if parameters is None or self._sweep.excludes(point.labels):
            return None
        with quiet():
            self._study.enqueue_trial(dict(parameters))
            trial = self._study.ask()
            _ = trial.relative_params  # some samplers keep their books here, for points of others too
            return Proposal(point=self._draw(trial), trial=trial)

    def tell(self, proposal: Proposal, answer: CellAnswer) -> None:
        """Answer a proposal."""
        import optuna

        states = optuna.trial.TrialState
        with quiet():
            if answer.state is TrialState.COMPLETE:
                self._study.tell(proposal.trial, self._values(answer))
            elif answer.state is TrialState.PRUNED and len(self._aims) == 1:
                proposal.trial.report(answer.accuracy, answer.epochs)
                self._study.tell(proposal.trial, state=states.PRUNED)
            else:
                self._study.tell(proposal.trial, state=states.FAIL)

    def _values(self, answer: CellAnswer) -> list[float]:
        if len(self._aims) == 1:
            return [answer.accuracy]
        if answer.flops is None:
            raise TransitionError("a complete trial was told without its FLOPs", remedy="this is a bug of the runner")
        return [answer.accuracy, float(answer.flops)]

    def _draw(self, trial: "optuna.Trial") -> Point:
        grids = self._sweep.grids
        index = trial.suggest_categorical(_GRID, range(len(grids))) if len(grids) > 1 else 0
        labels: Labels = ()
        for axis in grids[index]:
            if axis.applies(labels):
                labels = (*labels, (axis.name, _draw_label(trial, _name(index, axis), axis)))
        return Point(labels=labels)

    def _parameters(self, point: Point) -> dict[str, str | int] | None:
        """What Optuna calls the values of a point, in the first grid that has it."""
        for index, grid in enumerate(self._sweep.grids):
            there = [axis for axis in grid if axis.applies(point.labels)]
            if [axis.name for axis in there] != [name for name, _ in point.labels]:
                continue
            places = [_place(axis, label) for axis, (_, label) in zip(there, point.labels, strict=True)]
            named = {_name(index, axis): place for axis, place in zip(there, places, strict=True) if place is not None}
            if len(named) == len(there):
                return {_GRID: index, **named}
        return None


def _name(index: int, axis: Axis) -> str:
    """Grids have axes of the same name with other values, which Optuna keeps apart."""
    return f"{index}/{axis.name}"


def _draw_label(trial: "optuna.Trial", name: str, axis: Axis) -> str:
    values = axis.values
    match axis.span:
        case None:
            return trial.suggest_categorical(name, [choice.label for choice in values])
        case IntSpan(low=low, high=high, log=log, is_stepped=False):
            return values[trial.suggest_int(name, low, high, log=log) - low].label
        case IntSpan() | FloatSpan():
            return values[trial.suggest_int(name, 0, len(values) - 1)].label
        case _:
            assert_never(axis.span)


def _place(axis: Axis, label: str) -> str | int | None:
    """The value of Optuna that ``_draw_label`` turns into this label; None where it is not on the axis."""
    index = next((index for index, choice in enumerate(axis.values) if choice.label == label), None)
    if index is None or axis.span is None:
        return None if index is None else label
    return index + axis.span.low if isinstance(axis.span, IntSpan) and not axis.span.is_stepped else index
