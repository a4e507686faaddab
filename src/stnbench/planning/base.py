"""The interface of planners."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stnbench.spec.result import TransformerHealth, TrialState
from stnbench.spec.sweep import Point
from stnbench.spec.trial import TrialSpec
from stnbench.store.records import PlannedTrial


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

    ``epochs`` are the validation accuracies of its last attempt, the first epoch first.
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

    @property
    @abstractmethod
    def is_exhausted(self) -> bool:
        """Return whether ``ask`` will never again return a trial."""
