"""Construction of planners from the specification of a sweep."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from stnbench.core.errors import SpecError
from stnbench.planning import ComposePoint, Known, Observation, Planner, Progress, grid_configurations, with_seeds
from stnbench.planning.samplers import quiet
from stnbench.planning.sampling import SamplingPlanner
from stnbench.planning.seeds import RacingPlanner, UntilDecidedPlanner
from stnbench.spec.planner import (
    PLANNERS,
    PRUNERS,
    AshaPrunerSpec,
    FreezeThawPrunerSpec,
    GridPlannerSpec,
    HealthPrunerSpec,
    HyperbandPrunerSpec,
    MedianPrunerSpec,
    PrunerSpec,
    RacingPlannerSpec,
    SamplerSpec,
    ThresholdPrunerSpec,
    UntilDecidedPlannerSpec,
)
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.tables import PlannedTrial

# Pruning: any planner together with a judge of running trials.


if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner

MakePruner = Callable[[int], "BasePruner"]
"""A function that returns a pruner for trials of a number of epochs."""


class Judge(ABC):
    """A rule that decides which running trials go on. Trials of one group are compared with one another."""

    def expect(self, trial_id: str, group: str, epochs: int) -> None:
        """Register a trial that will run for at most ``epochs`` epochs; a rule without memory needs nothing of it."""
        del trial_id, group, epochs

    @abstractmethod
    def is_hopeless(self, progress: Progress) -> bool:
        """Check whether an expected trial should end after this epoch."""

    def end(self, observation: Observation) -> None:
        """Record that an expected trial has ended."""
        del observation

    def thawed(self, *, is_idle: bool) -> Sequence[str]:
        """Return the trials that it ended and that go on now, the first one first; see ``Planner.thawed``."""
        del is_idle
        return ()


class ThresholdJudge(Judge):
    """A judge that compares each trial with fixed limits."""

    def __init__(self, spec: ThresholdPrunerSpec) -> None:
        self._spec = spec

    @override
    def is_hopeless(self, progress: Progress) -> bool:
        spec = self._spec
        if progress.epoch < max(1, spec.warmup_epochs):
            return False
        is_low = spec.accuracy is not None and progress.validation_accuracy < spec.accuracy
        limit = spec.outside_share
        return is_low or (limit is not None and any(one.outside_share > limit for one in progress.health))


class OptunaJudge(Judge):
    """One of Optuna's pruners, with an in-memory study for each group and one trial of Optuna for each trial.

    Args:
        pruner: returns the pruner for trials of a number of epochs.
        sweep: name of the sweep.
    """

    def __init__(self, pruner: MakePruner, sweep: str) -> None:
        self._pruner = pruner
        self._sweep = sweep
        self._studies: dict[str, optuna.Study] = {}
        self._trials: dict[str, tuple[optuna.Study, optuna.Trial]] = {}
        self._epochs: dict[str, int] = {}

    @override
    def expect(self, trial_id: str, group: str, epochs: int) -> None:
        with quiet():
            if group not in self._studies:
                self._studies[group] = self._open_study(group, epochs)
            self._trials[trial_id] = (self._studies[group], self._studies[group].ask())

    @override
    def is_hopeless(self, progress: Progress) -> bool:
        trial_id = progress.trial_id
        if trial_id not in self._trials or progress.epoch <= self._epochs.get(trial_id, 0):
            return False  # an attempt that begins again repeats epochs
        self._epochs[trial_id] = progress.epoch
        _, trial = self._trials[trial_id]
        with quiet():
            trial.report(progress.validation_accuracy, progress.epoch)
            return trial.should_prune()

    @override
    def end(self, observation: Observation) -> None:
        import optuna

        study, trial = self._trials.pop(observation.trial_id, (None, None))
        if study is None or trial is None:
            return
        accuracy = observation.validation_accuracy
        states = optuna.trial.TrialState
        with quiet():
            if observation.state is TrialState.COMPLETE and accuracy is not None:
                study.tell(trial, accuracy)
            else:
                is_pruned = observation.state is TrialState.PRUNED
                study.tell(trial, state=states.PRUNED if is_pruned else states.FAIL)

    def _open_study(self, group: str, epochs: int) -> "optuna.Study":
        import optuna

        sampler = optuna.samplers.RandomSampler(seed=0)  # never asked
        name = f"{self._sweep}/{group}"  # Hyperband's brackets depend on the name and the number of a trial
        return optuna.create_study(direction="maximize", sampler=sampler, pruner=self._pruner(epochs), study_name=name)


@dataclass(slots=True)
class _Paused:
    """A trial that pauses at a rung, from the decision until it goes on; ``has_ended`` once its attempt has ended."""

    rung: int
    has_ended: bool = False


class FreezeThawJudge(Judge):
    """A judge that lets trials pause at rungs, and go on when they are among the best there."""

    def __init__(self, spec: FreezeThawPrunerSpec) -> None:
        self._spec = spec
        self._groups: dict[str, str] = {}
        self._scores: dict[tuple[str, int], dict[str, float]] = {}
        self._paused: dict[str, _Paused] = {}
        self._complete: set[str] = set()

    @override
    def expect(self, trial_id: str, group: str, epochs: int) -> None:
        self._groups[trial_id] = group

    @override
    def is_hopeless(self, progress: Progress) -> bool:
        trial_id, epoch = progress.trial_id, progress.epoch
        if trial_id not in self._groups:
            return False
        scores = self._scores.setdefault((self._groups[trial_id], epoch), {}) if self._is_rung(epoch) else None
        if scores is None or trial_id in scores:  # its attempt goes on or begins again: the decision stands
            return trial_id in self._paused
        scores[trial_id] = progress.validation_accuracy
        if trial_id in self._best(scores):
            self._paused.pop(trial_id, None)
            return False
        self._paused[trial_id] = _Paused(rung=epoch)
        return True

    @override
    def end(self, observation: Observation) -> None:
        trial_id = observation.trial_id
        if observation.state is TrialState.PRUNED and trial_id in self._paused:
            self._paused[trial_id].has_ended = True
            return
        self._paused.pop(trial_id, None)
        if observation.state is TrialState.COMPLETE and trial_id in self._groups:
            self._complete.add(self._groups[trial_id])

    @override
    def thawed(self, *, is_idle: bool) -> Sequence[str]:
        going = list[str]()
        for group, rung in sorted(self._scores, key=lambda place: (-place[1], place[0])):
            scores = self._scores[group, rung]
            waiting = {one for one, pause in self._paused.items() if pause.has_ended and pause.rung == rung}
            going += [one for one in self._best(scores) if one in waiting]
        if is_idle and not going:
            going = self._furthest()
        for trial_id in going:
            del self._paused[trial_id]
        return going

    def _is_rung(self, epoch: int) -> bool:
        rung = self._spec.min_epochs
        while rung < epoch:
            rung *= self._spec.reduction_factor
        return rung == epoch

    def _best(self, scores: Mapping[str, float]) -> list[str]:
        """Return the trials of a rung that go on, the best first; of equal ones, the first that came."""
        ranked = sorted(scores, key=lambda one: -scores[one])
        return ranked[: len(scores) // self._spec.reduction_factor]

    def _furthest(self) -> list[str]:
        """Return the best of the furthest paused trials, for each group in which no trial is complete."""
        found: dict[str, str] = {}
        rank = {
            one: (-pause.rung, -self._scores[self._groups[one], pause.rung][one], one)
            for one, pause in self._paused.items()
            if pause.has_ended and self._groups[one] not in self._complete
        }
        for trial_id in sorted(rank, key=rank.__getitem__):
            found.setdefault(self._groups[trial_id], trial_id)
        return list(found.values())


def freeze_thaw(spec: FreezeThawPrunerSpec, sweep: str) -> Judge:
    """Return the judge whose trials pause at rungs and go on."""
    del sweep
    return FreezeThawJudge(spec)


def asha(spec: AshaPrunerSpec, sweep: str) -> Judge:
    """Return the judge of asynchronous successive halving."""
    from optuna import pruners

    least, factor = spec.min_epochs, spec.reduction_factor
    return OptunaJudge(lambda _: pruners.SuccessiveHalvingPruner(min_resource=least, reduction_factor=factor), sweep)


def hyperband(spec: HyperbandPrunerSpec, sweep: str) -> Judge:
    """Return the judge of successive halving with several first rungs."""
    from optuna import pruners

    least, factor = spec.min_epochs, spec.reduction_factor

    def pruner(epochs: int) -> "BasePruner":
        most = max(epochs, least)
        return pruners.HyperbandPruner(min_resource=least, max_resource=most, reduction_factor=factor)

    return OptunaJudge(pruner, sweep)


def median(spec: MedianPrunerSpec, sweep: str) -> Judge:
    """Return the judge that compares with the median of other trials."""
    from optuna import pruners

    trials, warmup = spec.startup_trials, spec.warmup_epochs
    return OptunaJudge(lambda _: pruners.MedianPruner(n_startup_trials=trials, n_warmup_steps=warmup), sweep)


class PruningPlanner(Planner):
    """A planner whose trials may end early.

    Baselines always finish, since gains are measured against them, and nothing ends after its last epoch. With
    ``within``, trials are compared only with those of the same task.
    """

    def __init__(self, planner: Planner, judge: Judge, sweep: SweepSpec) -> None:
        self._planner = planner
        self._judge = judge
        self._within = sweep.within
        self._expected: set[str] = set()
        self._hopeless: set[str] = set()

    @override
    def learn(self, known: Sequence[Known]) -> None:
        self._planner.learn(known)

    @override
    def resume(self, known: Sequence[Known]) -> None:
        for item in known:
            spec = item.planned.spec
            self._expect(item.planned)
            for epoch, accuracy in enumerate(item.epochs, 1):
                self._ask_judge(
                    Progress(
                        trial_id=spec.trial_id,
                        epoch=epoch,
                        epochs=spec.training.epochs,
                        validation_accuracy=accuracy,
                    )
                )
            if item.state.is_final:
                accuracy_at_end = item.validation_accuracy
                self._judge.end(
                    Observation(trial_id=spec.trial_id, state=item.state, validation_accuracy=accuracy_at_end)
                )
        self._planner.resume(known)

    @override
    def ask(self) -> Sequence[PlannedTrial]:
        asked = self._planner.ask()
        for trial in asked:
            self._expect(trial)
        return asked

    @override
    def tell(self, observation: Observation) -> None:
        if observation.state.is_final:
            self._judge.end(observation)
        self._planner.tell(observation)

    @override
    def should_prune(self, progress: Progress) -> bool:
        if self._planner.should_prune(progress) or progress.trial_id in self._hopeless:
            return True
        if self._ask_judge(progress):
            self._hopeless.add(progress.trial_id)
            return True
        return False

    @override
    def thawed(self, *, is_idle: bool) -> Sequence[str]:
        going = [*self._planner.thawed(is_idle=is_idle), *self._judge.thawed(is_idle=is_idle)]
        self._hopeless.difference_update(going)
        return going

    @property
    @override
    def is_exhausted(self) -> bool:
        return self._planner.is_exhausted

    def _expect(self, trial: PlannedTrial) -> None:
        trial_id = trial.spec.trial_id
        if trial.is_baseline or trial_id in self._expected:
            return
        self._expected.add(trial_id)
        group = dict(trial.point.labels).get(self._within, "")
        self._judge.expect(trial_id, group, trial.spec.training.epochs)

    def _ask_judge(self, progress: Progress) -> bool:
        if progress.trial_id not in self._expected or progress.epoch >= progress.epochs:
            return False
        return self._judge.is_hopeless(progress)


# Pruning of trials whose spatial transformer has collapsed.


class HealthJudge(Judge):
    """A judge of the verdicts on each trial's transformers."""

    def __init__(self, spec: HealthPrunerSpec) -> None:
        self._spec = spec

    @override
    def is_hopeless(self, progress: Progress) -> bool:
        if progress.epoch <= self._spec.warmup_epochs:
            return False
        return any(health.verdict in self._spec.verdicts for health in progress.health)


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
        raise SpecError(problem, remedy="register a class that extends stnbench.planning.Planner")
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
        raise SpecError(problem, remedy="register a class that extends stnbench.planning.build.Judge")
    return judge


def threshold(spec: ThresholdPrunerSpec, sweep: str) -> Judge:
    """Return the judge that compares each trial with fixed limits."""
    del sweep
    return ThresholdJudge(spec)


def health(spec: HealthPrunerSpec, sweep: str) -> Judge:
    """Return the judge of transformers that have collapsed."""
    del sweep
    return HealthJudge(spec)
