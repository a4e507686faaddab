"""The contracts of planners and pruners, over made-up trials whose accuracies come from a formula."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from stnbench.core.errors import SpecError
from stnbench.core.identity import derive_seed
from stnbench.planning import Known, Observation, Planner, Progress
from stnbench.planning.build import Judge, build_planner
from stnbench.spec.network import LecunSpec
from stnbench.spec.optimizer import SgdSpec
from stnbench.spec.planner import PRUNERS, AnyPlanner, AnyPruner, PlannerSpec, PrunerSpec
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import Axis, Choice, Override, Point, SweepSpec, Value, label_of
from stnbench.spec.transformer import PlacedTransformerSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec
from stnbench.store.tables import PlannedTrial
from stnbench.testing.recipe import stored_as
from stnbench.testing.transformers import require

# Made-up trials that nobody trains.


RATE = "optimizer.learning_rate"
MOMENTUM = "optimizer.momentum"
WIDTH = "network.width"
EPOCHS = 4

_ASKED_MOST: Final = 10_000

Score = Callable[[TrialSpec], float]
"""Function from a trial to its validation accuracy after its last epoch."""


def choices(name: str, *values: Value) -> Axis:
    """Return an axis of values of one key."""
    return Axis(
        name=name,
        choices=tuple(
            Choice(label=label_of(name, value), overrides=(Override(key=name, value=value),)) for value in values
        ),
    )


@dataclass(slots=True)
class MadeUpCompose:
    """Composer of the points of a made-up sweep; it keeps the points it has composed."""

    sweep: SweepSpec
    epochs: int = EPOCHS
    has_transformer: bool = False
    asked: list[Point] = field(default_factory=list)
    meaning: dict[tuple[str, str], Choice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Index the choices by label."""
        axes = [axis for grid in self.sweep.grids for axis in grid]
        self.meaning = {(axis.name, choice.label): choice for axis in axes for choice in axis.values}

    def __call__(self, point: Point) -> TrialSpec:
        """Return the trial of a point."""
        self.asked.append(point)
        said = {item.key: item.value for pair in point.labels for item in self.meaning[pair].overrides}
        if said.get(MOMENTUM) == -1:
            raise SpecError("momentum is -1", remedy="at least 0")
        optimizer = {key.rpartition(".")[2]: value for key, value in said.items() if key.startswith("optimizer.")}
        width = said.get(WIDTH, 10)
        return TrialSpec(
            network=LecunSpec(sizes=(width, width, width)),  # type: ignore[arg-type]
            optimizer=SgdSpec(**optimizer),  # type: ignore[arg-type]
            training=TrainingSpec(epochs=self.epochs),
            transformers=(PlacedTransformerSpec(place=1),) if self.has_transformer else (),
        )


def bowl(spec: TrialSpec) -> float:
    """Return an accuracy, best at a rate of 0.03, a momentum of 0.6 and a decay of 0.001; seeds move it a little."""
    optimizer = spec.optimizer
    if not isinstance(optimizer, SgdSpec):
        raise SpecError(f"the optimizer is {optimizer.kind}", remedy="made-up trials have sgd")
    rate = math.log10(optimizer.learning_rate / 0.03)
    decay = math.log10(max(optimizer.weight_decay, 1e-6) / 1e-3)
    noise = derive_seed(spec.seed, spec.config_id) % 1000 / 1000 - 0.5
    accuracy = 0.95 - 0.08 * rate**2 - 0.2 * (optimizer.momentum - 0.6) ** 2 - 0.01 * decay**2 + 0.002 * noise
    return min(1.0, max(0.0, accuracy))


def flops_of(spec: TrialSpec) -> int:
    """Return the FLOPs that a trial is said to have: more for a wide network."""
    return spec.network.sizes[0] * 1_000_000


@dataclass(slots=True)
class Run:
    """Trials of a planner and their states, as a runner and a store would have them."""

    score: Score
    planned: dict[str, PlannedTrial] = field(default_factory=dict)
    states: dict[str, TrialState] = field(default_factory=dict)
    accuracies: dict[str, float] = field(default_factory=dict)
    epochs: dict[str, list[float]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    launched: list[str] = field(default_factory=list)
    failing: Callable[[TrialSpec], bool] = lambda _: False
    curve: Callable[[TrialSpec, int], float] | None = None

    def known(self) -> list[Known]:
        """Return the trials as a store would have them, in the order of the plan."""
        return [
            Known(
                planned=trial,
                state=self.states.get(trial_id, TrialState.PLANNED),
                validation_accuracy=self.accuracies.get(trial_id),
                epochs=tuple(self.epochs.get(trial_id, ())),
                flops=flops_of(trial.spec),
            )
            for trial_id, trial in self.planned.items()
        ]

    def go_on(self, planner: Planner, *, slots: int = 1, stop_after: int | None = None) -> "Run":
        """Ask, run and tell until nothing is left, or ``stop_after`` trials have been launched; ``slots`` end in step.

        Trials that are final are reported at once and not launched, as the runner does.
        """
        waiting: list[PlannedTrial] = []
        while True:
            asked = planner.ask()
            for trial in asked:
                self.asked.append(trial.spec.trial_id)
                self.planned[trial.spec.trial_id] = trial
                if trial.spec.trial_id in self.states:
                    self._tell(planner, trial)
                else:
                    waiting.append(trial)
            waiting = [*self._thaw(planner, is_idle=not waiting), *waiting]
            if not waiting and planner.is_exhausted:
                return self
            require(bool(waiting or asked), "it asks for nothing and has all answers, and is not exhausted")
            require(len(self.asked) < _ASKED_MOST, f"it asks {_ASKED_MOST} times")
            if stop_after is not None and len(self.launched) >= stop_after:
                return self
            batch, waiting = waiting[:slots], waiting[slots:]
            for trial in batch:
                self._train(planner, trial)
            for trial in batch:
                self._tell(planner, trial)

    def _thaw(self, planner: Planner, *, is_idle: bool) -> list[PlannedTrial]:
        """Return the pruned trials that go on, as if they had not ended."""
        going = list(planner.thawed(is_idle=is_idle))
        for trial_id in going:
            require(self.states.get(trial_id) is TrialState.PRUNED, "it lets a trial go on that it did not end")
            del self.states[trial_id]
            self.launched.remove(trial_id)
        return [self.planned[trial_id] for trial_id in going]

    def _train(self, planner: Planner, trial: PlannedTrial) -> None:
        spec, trial_id = trial.spec, trial.spec.trial_id
        require(trial_id not in self.launched, "a complete trial is asked for again under another identity")
        self.launched.append(trial_id)
        if self.failing(spec):
            self.states[trial_id] = TrialState.FAILED
            return
        self.states[trial_id] = TrialState.COMPLETE
        for epoch in range(len(self.epochs.get(trial_id, ())) + 1, spec.training.epochs + 1):
            accuracy = self._accuracy(spec, epoch)
            self.epochs.setdefault(trial_id, []).append(accuracy)
            self.accuracies[trial_id] = accuracy
            progress = Progress(
                trial_id=trial_id, epoch=epoch, epochs=spec.training.epochs, validation_accuracy=accuracy
            )
            if planner.should_prune(progress):
                self.states[trial_id] = TrialState.PRUNED
                return

    def _accuracy(self, spec: TrialSpec, epoch: int) -> float:
        if self.curve is not None:
            return self.curve(spec, epoch)
        return self.score(spec) * (1 - 0.5**epoch) / (1 - 0.5**spec.training.epochs)

    def _tell(self, planner: Planner, trial: PlannedTrial) -> None:
        trial_id = trial.spec.trial_id
        planner.tell(
            Observation(
                trial_id=trial_id,
                state=self.states[trial_id],
                validation_accuracy=self.accuracies.get(trial_id),
                flops=flops_of(trial.spec) if self.states[trial_id] is TrialState.COMPLETE else None,
            )
        )

    def configs(self) -> list[str]:
        """Return the configurations that are no baselines, in the order in which they were proposed."""
        return list(dict.fromkeys(trial.spec.config_id for trial in self.planned.values() if not trial.is_baseline))

    def best(self) -> float:
        """Return the highest accuracy of a complete trial."""
        return max(self.accuracies[key] for key, state in self.states.items() if state is TrialState.COMPLETE)


# Planners, on a grid of six configurations of which one is excluded, with two seeds.


def _sweep(planner: PlannerSpec) -> SweepSpec:
    rates, momenta = choices(RATE, 0.003, 0.03, 0.3), choices(MOMENTUM, 0.0, 0.9)
    left_out = (((RATE, rates.choices[0].label), (MOMENTUM, momenta.choices[1].label)),)
    return SweepSpec(
        name="checked", question="?", axes=(rates, momenta), exclude=left_out, seeds=(1, 2), baselines=False,
        planner=planner,
    )  # fmt: skip


def _planner(spec: PlannerSpec) -> Planner:
    sweep = _sweep(spec)
    return build_planner(sweep, MadeUpCompose(sweep))


def _whole(spec: PlannerSpec, run: "Run | None" = None) -> "Run":
    """Return a run of all trials that a planner proposes."""
    run, planner = run or Run(bowl), _planner(spec)
    run.go_on(planner)
    require(not planner.ask(), "exhausted, it asks for trials")
    return run


def comes_to_an_end(spec: PlannerSpec) -> None:
    """Check that it asks for some trials of the sweep's points, none of them twice or excluded, and ends."""
    sweep, run = _sweep(spec), _whole(spec)
    require(bool(run.planned), "it asks for nothing")
    require(len(run.asked) == len(set(run.asked)), "it asks for a trial twice")
    points = {point.labels for point in sweep.points()}
    strange = [trial.label for trial in run.planned.values() if trial.point.labels not in points]
    require(not strange, f"it asks for points that the sweep has not: {', '.join(sorted(set(strange)))}")


def same_answers(spec: PlannerSpec) -> None:
    """Check that the same answers give the same trials, in the same order; so does an answer that comes twice."""
    asked = _whole(spec).asked
    require(_whole(spec).asked == asked, "two planners of one sweep ask for other trials")
    require(_whole(spec, _Twice(bowl)).asked == asked, "it asks for other trials where answers come twice")


def unknown_answers(spec: PlannerSpec) -> None:
    """Check that the end of a trial that it did not ask for changes nothing."""
    planner = _planner(spec)
    planner.tell(Observation(trial_id="0" * 16, state=TrialState.COMPLETE, validation_accuracy=1.0))
    found = planner.should_prune(Progress(trial_id="0" * 16, epoch=1, epochs=4, validation_accuracy=0.0))
    require(not found, "it ends a trial that it did not ask for")
    require(Run(bowl).go_on(planner).asked == _whole(spec).asked, "it asks for other trials")


def resumes(spec: PlannerSpec) -> None:
    """Check that after a break it runs nothing twice, proposes the open trials again, and comes to an end."""
    for stop_after in (1, 4):
        run = Run(bowl).go_on(_planner(spec), stop_after=stop_after)
        planner = _planner(spec)
        planner.resume(run.known())
        run.go_on(planner)
        require(len(run.launched) == len(set(run.launched)), "after a break it runs trials twice")
        left = set(run.planned) - set(run.states)
        require(not left, f"after a break {len(left)} trials that it had asked for stay open")


def goes_past_failures(spec: PlannerSpec) -> None:
    """Check that trials that fail do not keep it from its end."""
    _whole(spec, Run(bowl, failing=lambda trial: bowl(trial) < 0.85))


PLANNER_CHECKS: Final[Mapping[str, Callable[[PlannerSpec], None]]] = {
    "comes to an end": comes_to_an_end,
    "same answers, same trials": same_answers,
    "answers to no question": unknown_answers,
    "goes on after a break": resumes,
    "trials that fail": goes_past_failures,
    "specification in JSON": stored_as(AnyPlanner),
}
"""Every check of a planner, by the property that it checks."""


class _Twice(Run):
    """A run that reports every end twice."""

    def _tell(self, planner: Planner, trial: PlannedTrial) -> None:
        super()._tell(planner, trial)
        super()._tell(planner, trial)


# Pruners, on six trials of four epochs that are told apart from the first epoch on.


def _judge(spec: PrunerSpec) -> Judge:
    judge = PRUNERS.implementation(spec.kind)(spec, "checked")
    require(isinstance(judge, Judge), f"it is {type(judge).__name__}, and no Judge of stnbench.planning.build")
    found: Judge = judge
    return found


def _ended(spec: PrunerSpec) -> dict[str, int]:
    """Return the trials that a pruner ends, with the epoch; the last one is best at every epoch."""
    judge, ended, reached = _judge(spec), dict[str, int](), dict[str, int]()
    queue = [f"{number:016d}" for number in range(6)]
    for name in queue:
        judge.expect(name, "group", EPOCHS)
    while queue:
        name = queue.pop(0)
        number, state = int(name), TrialState.COMPLETE
        for epoch in range(reached.get(name, 0) + 1, EPOCHS + 1):
            reached[name] = epoch
            accuracy = 0.5 + 0.08 * number + 0.01 * epoch
            progress = Progress(trial_id=name, epoch=epoch, epochs=EPOCHS, validation_accuracy=accuracy)
            said = judge.is_hopeless(progress)
            require(said in (True, False), f"is_hopeless returns {said!r}")
            if said:
                ended[name], state = epoch, TrialState.PRUNED
                break
        judge.end(Observation(trial_id=name, state=state, validation_accuracy=0.5 + 0.08 * number))
        going = list(judge.thawed(is_idle=not queue))
        require(ended.keys() >= set(going), "it lets trials go on that it did not end")
        queue = [*going, *queue]
        for one in going:
            del ended[one]
    return ended


def same_judgement(spec: PrunerSpec) -> None:
    """Check that the same epochs give the same judgement."""
    require(_ended(spec) == _ended(spec), "two pruners that are told the same end other trials")


def keeps_the_best(spec: PrunerSpec) -> None:
    """Check that a trial that is ahead of all others at every epoch is not ended."""
    require(f"{5:016d}" not in _ended(spec), "it ends the trial that is best at every epoch")


def begins_again(spec: PrunerSpec) -> None:
    """Check that an attempt that repeats epochs, a trial that fails and one that nobody expects do no harm."""
    judge = _judge(spec)
    judge.expect("a" * 16, "group", EPOCHS)
    for epoch in (1, 2, 1, 2, 3):
        judge.is_hopeless(Progress(trial_id="a" * 16, epoch=epoch, epochs=EPOCHS, validation_accuracy=0.9))
    judge.end(Observation(trial_id="a" * 16, state=TrialState.FAILED, validation_accuracy=None))
    judge.end(Observation(trial_id="b" * 16, state=TrialState.COMPLETE, validation_accuracy=0.5))


PRUNER_CHECKS: Final[Mapping[str, Callable[[PrunerSpec], None]]] = {
    "determinism": same_judgement,
    "keeps the best": keeps_the_best,
    "epochs that come again, failures": begins_again,
    "specification in JSON": stored_as(AnyPruner),
}
"""Every check of a pruner, by the property that it checks."""
