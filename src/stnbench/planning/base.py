"""The contract of a planner."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stnbench.spec.states import TrialState
from stnbench.spec.sweep import Point
from stnbench.spec.trial import TrialSpec
from stnbench.store.records import PlannedTrial


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What a planner may know of a trial that ended: its state and its validation accuracy, never a test score."""

    trial_id: str
    state: TrialState
    validation_accuracy: float | None


ComposePoint = Callable[[Point], TrialSpec]
"""The trial of a point, with some seed; raises SpecError for a point that cannot be meant."""


class Planner(ABC):
    """Proposes trials until it has no more to ask.

    Not thread safe. Everything random comes from a seed given at construction, so the same answers give the same
    questions.
    """

    @abstractmethod
    def ask(self) -> Sequence[PlannedTrial]:
        """Trials to run now, in the order wanted; empty where the planner waits for answers, or is exhausted.

        Raises: SpecError for a sweep that cannot be meant.
        """

    @abstractmethod
    def tell(self, observation: Observation) -> None:
        """Learn how a proposed trial ended; telling it twice is the same as once."""

    @property
    @abstractmethod
    def is_exhausted(self) -> bool:
        """Whether ``ask`` will never again return anything."""
