"""Spaces of trials that nobody trains, for tests of planners: accuracies come from a formula."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from stnbench.core.errors import SpecError
from stnbench.core.identity import derive_seed
from stnbench.planning.base import Known, Observation, Planner, Progress
from stnbench.spec.network import LecunSpec
from stnbench.spec.optimizer import SgdSpec
from stnbench.spec.planner import FloatSpan, IntSpan
from stnbench.spec.result import TransformerHealth, TrialState
from stnbench.spec.sweep import Axis, Choice, Override, Point, SweepSpec, Value, label_of
from stnbench.spec.transformer import PlacedTransformerSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec
from stnbench.store.records import PlannedTrial

RATE = "optimizer.learning_rate"
MOMENTUM = "optimizer.momentum"
DECAY = "optimizer.weight_decay"
FACTOR = "optimizer.locnet_learning_rate_factor"
WIDTH = "network.width"
EPOCHS = 4

Score = Callable[[TrialSpec], float]
"""The validation accuracy of a trial after its last epoch."""


def choices(name: str, *values: Value) -> Axis:
    """An axis of values of one key."""
    return Axis(
        name=name,
        choices=tuple(
            Choice(label=label_of(name, value), overrides=(Override(key=name, value=value),)) for value in values
        ),
    )


def floats(name: str, low: float, high: float, *, log: bool = False) -> Axis:
    """An axis of a range."""
    return Axis(name=name, span=FloatSpan(low=low, high=high, log=log))


def integers(name: str, low: int, high: int, *, log: bool = False) -> Axis:
    """An axis of a range of whole numbers."""
    return Axis(name=name, span=IntSpan(low=low, high=high, log=log))


def conditional(axis: Axis, name: str, *labels: str) -> Axis:
    """The axis, there only where another one has one of these labels."""
    return dataclasses.replace(axis, when=((name, labels),))


@dataclass(slots=True)
class MadeUpCompose:
    """Composes points of a made-up sweep; the points it was asked for are remembered."""

    sweep: SweepSpec
    epochs: int = EPOCHS
    has_transformer: bool = False
    asked: list[Point] = field(default_factory=list)
    meaning: dict[tuple[str, str], Choice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Look every label up once."""
        axes = [axis for grid in self.sweep.grids for axis in grid]
        self.meaning = {(axis.name, choice.label): choice for axis in axes for choice in axis.values}

    def __call__(self, point: Point) -> TrialSpec:
        """The trial of a point."""
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
    """Best at a learning rate of 0.03, a momentum of 0.6 and a decay of 0.001; the seed moves it by 0.002 at most."""
    optimizer = spec.optimizer
    assert isinstance(optimizer, SgdSpec)
    rate = math.log10(optimizer.learning_rate / 0.03)
    decay = math.log10(max(optimizer.weight_decay, 1e-6) / 1e-3)
    noise = derive_seed(spec.seed, spec.cell_id) % 1000 / 1000 - 0.5
    accuracy = 0.95 - 0.08 * rate**2 - 0.2 * (optimizer.momentum - 0.6) ** 2 - 0.01 * decay**2 + 0.002 * noise
    return min(1.0, max(0.0, accuracy))


def flops_of(spec: TrialSpec) -> int:
    """What a trial is said to cost: more for a wide network."""
    return spec.network.sizes[0] * 1_000_000


@dataclass(slots=True)
class Run:
    """What the trials of a planner came to, as a runner and a store would have it."""

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
        """What a store has of it, in the order in which it was planned."""
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
        """Ask, run and tell until nothing is left, or so many trials have been launched; ``slots`` end in step.

        Trials that are final are told at once and not launched, as the runner does.
        """
        waiting: list[PlannedTrial] = []
        while True:
            for trial in planner.ask():
                self.asked.append(trial.spec.trial_id)
                self.planned[trial.spec.trial_id] = trial
                if trial.spec.trial_id in self.states:
                    self._tell(planner, trial)
                else:
                    waiting.append(trial)
            if not waiting and planner.is_exhausted:
                return self
            if stop_after is not None and len(self.launched) >= stop_after:
                return self
            batch, waiting = waiting[:slots], waiting[slots:]
            for trial in batch:
                self._train(planner, trial)
            for trial in batch:
                self._tell(planner, trial)

    def _train(self, planner: Planner, trial: PlannedTrial) -> None:
        spec, trial_id = trial.spec, trial.spec.trial_id
        assert trial_id not in self.launched, "a trial ran twice"
        self.launched.append(trial_id)
        if self.failing(spec):
            self.states[trial_id] = TrialState.FAILED
            return
        self.states[trial_id] = TrialState.COMPLETE
        for epoch in range(1, spec.training.epochs + 1):
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

    def cells(self) -> list[str]:
        """The cells that are no baselines, in the order in which they were asked."""
        return list(dict.fromkeys(trial.spec.cell_id for trial in self.planned.values() if not trial.is_baseline))

    def best(self) -> float:
        """The highest accuracy of a complete trial."""
        return max(self.accuracies[key] for key, state in self.states.items() if state is TrialState.COMPLETE)


def noise(spec: TrialSpec, *purpose: str | int) -> float:
    """A standard normal number, decided by the cell, the seed and the purpose."""
    return Random(derive_seed(spec.seed, spec.cell_id, *purpose)).gauss(0.0, 1.0)


def health(outside_share: float) -> TransformerHealth:
    """A transformer that samples so much outside the image."""
    return TransformerHealth(
        place=1,
        theta_mean=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        theta_std=(0.0,) * 6,
        outside_share=outside_share,
        identity_distance=0.1,
        determinant_mean=1.0,
    )


def labels_of(trials: Sequence[PlannedTrial]) -> list[str]:
    """The labels of trials, each cell once, in order."""
    return list(dict.fromkeys(trial.label for trial in trials))
