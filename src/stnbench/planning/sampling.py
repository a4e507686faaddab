"""Planners that propose points one by one, depending on the answers: random, TPE, NSGA-II, any sampler of Optuna."""

import itertools
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, assert_never

from typing_extensions import override

from stnbench.core.errors import SpecError, TransitionError
from stnbench.core.identity import derive_seed
from stnbench.planning import (
    ComposePoint,
    Known,
    Observation,
    Planner,
    Progress,
    axes_of_transformers,
    baseline_of,
    with_seeds,
)
from stnbench.planning.samplers import quiet, sampler_maker
from stnbench.spec.planner import FloatSpan, IntSpan, SamplerSpec
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import Axis, Labels, Point, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.tables import PlannedTrial

# An in-memory Optuna study of configurations, which proposes points and is told answers.
#
# Of the planners, only this module, ``samplers`` and ``pruning`` use Optuna. The record is the store, from which the
# study is rebuilt: each known point is asked as if it had been proposed now.


if TYPE_CHECKING:
    import optuna

_GRID = "grid"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A point, and the trial of Optuna that proposes it: one proposal is one configuration."""

    point: Point
    trial: "optuna.Trial"


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigurationAnswer:
    """The outcome of a configuration: means over its seeds. ``epochs`` is the minimum over its trials."""

    state: TrialState
    accuracy: float = 0.0
    flops: int | None = None
    epochs: int = 0


class ConfigurationStudy:
    """A study that proposes points of a sweep's axes. Each proposal is drawn by a new sampler with a separate seed.

    Hence a proposal depends on the seed, the number of the proposal and the answers before it, and not on whether the
    study was rebuilt; only CMA-ES with a margin also depends on its earlier draws without an answer.

    Raises:
        SpecError: for a sampler that cannot be used.
    """

    def __init__(self, sweep: SweepSpec, spec: SamplerSpec) -> None:
        import optuna

        self._sweep = sweep
        self._spec = spec
        self._make_sampler = sampler_maker(spec)
        self._aims: list[Literal["minimize", "maximize"]] = ["maximize"]
        if spec.objectives > 1:
            self._aims.append("minimize")
        with quiet():
            self._study = optuna.create_study(directions=self._aims, sampler=self._make_sampler(spec.seed))

    def propose(self, *number: int) -> Proposal:
        """Return the sampler's next point; the number determines its random draws."""
        with quiet():
            self._study.sampler = self._make_sampler(derive_seed(self._spec.seed, "proposal", *number))
            trial = self._study.ask()
            return Proposal(point=self._draw(trial), trial=trial)

    def repeat(self, point: Point) -> Proposal | None:
        """Return a given point as a proposal, or None if the axes do not have it, or it is excluded."""
        parameters = self._parameters(point)
        if parameters is None or self._sweep.excludes(point.labels):
            return None
        with quiet():
            self._study.enqueue_trial(dict(parameters))
            trial = self._study.ask()
            _ = trial.relative_params  # some samplers update their state here, also for given points
            return Proposal(point=self._draw(trial), trial=trial)

    def tell(self, proposal: Proposal, answer: ConfigurationAnswer) -> None:
        """Tell Optuna the answer to a proposal."""
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

    def _values(self, answer: ConfigurationAnswer) -> list[float]:
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
        """Return Optuna's parameters of a point, in the first grid that has it, or None if no grid does."""
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
    """Return Optuna's name of an axis, which differs between grids because their axes may have other values."""
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
    """Return the value of Optuna that ``_draw_label`` maps to this label, or None if the axis does not have it."""
    index = next((index for index, choice in enumerate(axis.values) if choice.label == label), None)
    if index is None or axis.span is None:
        return None if index is None else label
    return index + axis.span.low if isinstance(axis.span, IntSpan) and not axis.span.is_stepped else index


REJECTED_MAX = 20
"""The number of successive proposals of known configurations before one is drawn from the remaining points."""

LISTED_MAX = 4096
"""The largest number of points that are enumerated; of larger spaces this many are drawn to find a new one."""


@dataclass(slots=True)
class _Configuration:
    """A proposed configuration: its trials, those answered, and the proposals that wait for its answer."""

    trial_ids: tuple[str, ...]
    answers: dict[str, Observation] = field(default_factory=dict)
    proposals: list[Proposal] = field(default_factory=list)

    @property
    def is_answered(self) -> bool:
        return len(self.answers) == len(self.trial_ids)


class SamplingPlanner(Planner):
    """A planner that keeps a few configurations running, each with every seed of the sweep.

    The next configuration is proposed when one of them is answered. The value of a configuration is the mean over its
    seeds. A proposal of a known configuration is given its value and does not run again; one that is excluded or cannot
    be built counts as failed. The planner is exhausted if nothing is left to propose, or after the wanted number of
    trials.
    """

    def __init__(self, sweep: SweepSpec, spec: SamplerSpec, compose: ComposePoint, *, slots: int = 1) -> None:
        self._sweep = sweep
        self._spec = spec
        self._compose = compose
        self._study = ConfigurationStudy(sweep, spec)
        seeds = len(sweep.seeds)
        self._limit = max(1, spec.trials // seeds)
        self._at_once = spec.at_once or math.ceil((slots + seeds - 1) / seeds)
        self._axes_of_transformers = axes_of_transformers(sweep)
        self._specs: dict[Point, TrialSpec | None] = {}
        self._configs: dict[str, _Configuration] = {}
        self._config_of: dict[str, _Configuration] = {}
        self._epochs: dict[str, int] = {}
        self._proposed: list[_Configuration] = []
        self._resumed: list[PlannedTrial] = []
        self._is_spent = False
        self._last_error: SpecError | None = None

    @override
    def learn(self, known: Sequence[Known]) -> None:
        configs: dict[str, list[Known]] = {}
        for item in known:
            if not item.planned.is_baseline and item.state is TrialState.COMPLETE:
                configs.setdefault(item.planned.spec.config_id, []).append(item)
        for trials in configs.values():
            accuracies = [item.validation_accuracy for item in trials if item.validation_accuracy is not None]
            proposal = self._study.repeat(trials[0].planned.point) if accuracies else None
            if proposal is not None:  # None if these axes do not have the point
                answer = ConfigurationAnswer(
                    state=TrialState.COMPLETE, accuracy=statistics.fmean(accuracies), flops=trials[0].flops
                )
                self._study.tell(proposal, answer)

    @override
    def resume(self, known: Sequence[Known]) -> None:
        configs: dict[str, list[Known]] = {}
        for item in known:
            if not item.planned.is_baseline:
                configs.setdefault(item.planned.spec.config_id, []).append(item)
        for config_id, trials in configs.items():
            point = trials[0].planned.point
            proposal = self._study.repeat(point)
            spec = self._spec_of(point) if proposal is not None else None
            if proposal is None or spec is None or spec.config_id != config_id:
                continue  # no longer a point of the edited sweep
            self._resumed.extend(self._admit(proposal) or ())
            for trial in trials:
                self._remember(trial)

    def _remember(self, known: Known) -> None:
        trial_id = known.planned.spec.trial_id
        self._epochs[trial_id] = len(known.epochs)
        self.tell(
            Observation(
                trial_id=trial_id,
                state=known.state,
                validation_accuracy=known.validation_accuracy,
                flops=known.flops,
            )
        )

    @override
    def ask(self) -> Sequence[PlannedTrial]:
        asked, self._resumed = self._resumed, []
        while not self.is_exhausted and sum(not config.is_answered for config in self._proposed) < self._at_once:
            asked.extend(self._next())
        return asked

    @override
    def tell(self, observation: Observation) -> None:
        config = self._config_of.get(observation.trial_id)
        if config is None or not observation.state.is_final:
            return
        config.answers.setdefault(observation.trial_id, observation)
        self._settle(config)

    @override
    def should_prune(self, progress: Progress) -> bool:
        self._epochs[progress.trial_id] = progress.epoch
        return False

    @property
    @override
    def is_exhausted(self) -> bool:
        return not self._resumed and (self._is_spent or len(self._proposed) >= self._limit)

    def _next(self) -> list[PlannedTrial]:
        """Return the trials of the next new configuration; an empty list, if there is none, ends the search."""
        for rejected in range(REJECTED_MAX):
            asked = self._admit(self._study.propose(len(self._proposed), rejected))
            if asked is not None:
                return asked
        point = self._unseen()
        proposal = self._study.repeat(point) if point is not None else None
        asked = self._admit(proposal) if proposal is not None else None
        if asked is None:
            self._is_spent = True
            if self._last_error is not None and not self._proposed:
                raise self._last_error
        return asked or []

    def _admit(self, proposal: Proposal) -> list[PlannedTrial] | None:
        """Return the trials of a proposal and its baseline.

        None if it is not a new valid configuration; it is then answered at once, or with the known configuration.
        """
        spec = None if self._sweep.excludes(proposal.point.labels) else self._spec_of(proposal.point)
        if spec is None:
            self._study.tell(proposal, ConfigurationAnswer(state=TrialState.FAILED))
            return None
        if spec.config_id in self._configs:
            self._configs[spec.config_id].proposals.append(proposal)
            self._settle(self._configs[spec.config_id])
            return None
        point = proposal.point
        asked = self._add(PlannedTrial(spec=spec, point=point, label=point.label))
        config = self._configs[spec.config_id]
        config.proposals.append(proposal)
        self._proposed.append(config)
        if self._sweep.baselines and spec.baseline().config_id not in self._configs:
            asked += self._add(baseline_of(point, spec, self._axes_of_transformers))
        return asked

    def _add(self, planned: PlannedTrial) -> list[PlannedTrial]:
        trials = with_seeds([planned], self._sweep.seeds)
        config = _Configuration(trial_ids=tuple(trial.spec.trial_id for trial in trials))
        self._configs[planned.spec.config_id] = config
        self._config_of |= dict.fromkeys(config.trial_ids, config)
        return trials

    def _spec_of(self, point: Point) -> TrialSpec | None:
        """Return the trial of a point, or None if the point is not valid."""
        if point not in self._specs:
            try:
                self._specs[point] = self._compose(point)
            except SpecError as error:
                self._specs[point] = None
                self._last_error = error
        return self._specs[point]

    def _settle(self, config: _Configuration) -> None:
        """Tell the waiting proposals of a configuration if it is answered."""
        if config.is_answered:
            waiting, config.proposals = config.proposals, []
            for proposal in waiting:
                self._study.tell(proposal, self._answer(config))

    def _answer(self, config: _Configuration) -> ConfigurationAnswer:
        answers = list(config.answers.values())
        accuracies = [answer.validation_accuracy for answer in answers if answer.validation_accuracy is not None]
        states = {answer.state for answer in answers}
        if TrialState.FAILED in states or len(accuracies) < len(answers):
            return ConfigurationAnswer(state=TrialState.FAILED)
        return ConfigurationAnswer(
            state=TrialState.PRUNED if TrialState.PRUNED in states else TrialState.COMPLETE,
            accuracy=statistics.fmean(accuracies),
            flops=answers[0].flops,
            epochs=min(self._epochs.get(trial_id, 0) for trial_id in config.trial_ids),
        )

    def _unseen(self) -> Point | None:
        """Draw a point uniformly from the configurations not proposed yet, or None if none is found."""
        rng = random.Random(derive_seed(self._spec.seed, "unseen", len(self._proposed)))
        listed = list(itertools.islice(self._sweep.points(), LISTED_MAX + 1))
        if len(listed) <= LISTED_MAX:
            rng.shuffle(listed)
        else:
            listed = [Point(labels=_draw(self._sweep, rng)) for _ in range(LISTED_MAX)]
        for point in listed:
            spec = None if self._sweep.excludes(point.labels) else self._spec_of(point)
            if spec is not None and spec.config_id not in self._configs:
                return point
        return None


def _draw(sweep: SweepSpec, rng: random.Random) -> Labels:
    labels: Labels = ()
    for axis in rng.choice(sweep.grids):
        if axis.applies(labels):
            labels = (*labels, (axis.name, rng.choice(axis.values).label))
    return labels
