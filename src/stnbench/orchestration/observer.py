"""What the runner tells the world, after the store knows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from stnbench.engines.base import Slot
from stnbench.spec.result import EpochRecord, Failure, TrialResult
from stnbench.spec.states import AttemptState, TrialState
from stnbench.store.records import AttemptRecord, PlannedTrial


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningAttempt:
    """An attempt as it runs."""

    trial: PlannedTrial
    record: AttemptRecord
    slot: Slot
    epochs: tuple[EpochRecord, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedAttempt:
    """An attempt that has ended; ``result`` is there for a complete one, ``failure`` for a failed one."""

    attempt: RunningAttempt
    state: AttemptState
    trial_state: TrialState
    finished_at: datetime
    result: TrialResult | None = None
    failure: Failure | None = None


class Observer:
    """Told of everything by the runner's thread; does nothing by itself.

    An observer must be quick and must not raise.
    """

    def planned(self, trials: Sequence[PlannedTrial], states: Sequence[TrialState]) -> None:
        """The sweep's trials in order, and where each stands before anything runs."""

    def launched(self, attempt: RunningAttempt) -> None:
        """An attempt has begun."""

    def epoch_ended(self, attempt: RunningAttempt) -> None:
        """The last of the attempt's epochs is new."""

    def noted(self, attempt: RunningAttempt, message: str) -> None:
        """An attempt has something to say to a person, and goes on."""

    def ended(self, end: EndedAttempt) -> None:
        """An attempt has ended, however."""

    def stopping(self, reason: str) -> None:
        """The sweep ends early; running attempts are being stopped."""

    def ticked(self) -> None:
        """Some time has passed."""
