"""The contract of a planner."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stnbench.spec.result import TransformerHealth
from stnbench.spec.states import TrialState
from stnbench.spec.sweep import Point
from stnbench.spec.trial import TrialSpec
from stnbench.store.records import PlannedTrial


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What a planner may know of a trial that ended, never a test score.

    ``validation_accuracy`` is in [0, 1]; that of a pruned trial is of its last epoch. ``flops`` are those of one
    image's forward pass, known of complete trials.
    """

    trial_id: str
    state: TrialState
    validation_accuracy: float | None
    flops: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A running trial after the ``epoch``-th of its ``epochs`` epochs: validation only."""

    trial_id: str
    epoch: int
    epochs: int
    validation_accuracy: float
    health: tuple[TransformerHealth, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What the store has of one trial of the sweep, from earlier runs: as ``Observation``.

    ``epochs`` are the validation accuracies of its last attempt, the first epoch first.
    """

    planned: PlannedTrial
    state: TrialState
    validation_accuracy: float | None
    epochs: tuple[float, ...] = ()
    flops: int | None = None


ComposePoint = Callable[[Point], TrialSpec]
"""The trial of a point, with some seed; raises SpecError for a point that cannot be meant."""


class Planner(ABC):
    """Proposes trials until it has no more to ask.

    Not thread safe. Everything random comes from a seed given at construction, so the same answers give the same
    questions.
    """

    def resume(self, known: Sequence[Known]) -> None:
        """Go on from what earlier runs of the sweep left, in the order in which it was planned; before the first ask.

        What the sweep still wants of it is asked again, final trials too, so that the runner keeps them in the sweep
        and tells their results: it never runs a trial that is final. Does nothing where all is asked in any case.
        """
        del known

    def learn(self, known: Sequence[Known]) -> None:
        """Learn from complete trials of another sweep; before ``resume`` and the first ask.

        Only a planner whose answers decide what it asks has a use for them.
        """
        del known

    @abstractmethod
    def ask(self) -> Sequence[PlannedTrial]:
        """Trials to run now, in the order wanted; empty where the planner waits for answers, or is exhausted.

        Raises:
            SpecError: for a sweep that cannot be meant.
        """

    @abstractmethod
    def tell(self, observation: Observation) -> None:
        """Learn how a proposed trial ended; telling it twice is the same as once."""

    def should_prune(self, progress: Progress) -> bool:
        """Whether a running trial should end now, because others show that it will not be among the best."""
        del progress
        return False

    @property
    @abstractmethod
    def is_exhausted(self) -> bool:
        """Whether ``ask`` will never again return anything."""
