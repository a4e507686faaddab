"""What the runner tells the world, after the store knows it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from stnbench.core.text import printable
from stnbench.engines.base import Slot
from stnbench.spec.result import EpochRecord, Failure, TrialResult
from stnbench.spec.states import AttemptState, TrialState
from stnbench.store.records import AttemptRecord, PlannedTrial

_LOGGER = logging.getLogger(__name__)


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

    def worked(self, attempt: RunningAttempt, parts: int) -> None:
        """An attempt has done so many more steps or batches."""

    def epoch_ended(self, attempt: RunningAttempt) -> None:
        """The last of the attempt's epochs is new."""

    def noted(self, attempt: RunningAttempt, message: str) -> None:
        """An attempt has something to say to a person, and goes on."""

    def ended(self, end: EndedAttempt) -> None:
        """An attempt has ended, however."""

    def changed(self, trial_ids: Sequence[str], state: TrialState) -> None:
        """A person has given up trials that did not run, or wants trials again."""

    def resized(self, slots: int) -> None:
        """There are so many slots from now on."""

    def told(self, message: str) -> None:
        """A person asked something of the sweep, and this has come of it; or something holds the sweep back."""

    def stopping(self, reason: str) -> None:
        """The sweep ends early; running attempts are being stopped."""

    def ticked(self) -> None:
        """Some time has passed."""


class LogObserver(Observer):
    """Writes to the log of commands what was planned, begun and ended, and why."""

    def planned(self, trials: Sequence[PlannedTrial], states: Sequence[TrialState]) -> None:
        """Log how many."""
        complete = sum(state is TrialState.COMPLETE for state in states)
        _LOGGER.info("planned %d trials, %d complete already", len(trials), complete)

    def launched(self, attempt: RunningAttempt) -> None:
        """Log what begins, and where."""
        _LOGGER.info("begin %s in %s", _named(attempt), attempt.slot.name)

    def epoch_ended(self, attempt: RunningAttempt) -> None:
        """Log the last epoch, for ``STNBENCH_LOG=debug``."""
        last = attempt.epochs[-1]
        accuracy = last.validation_accuracy
        _LOGGER.debug("epoch %d of %s: validation %.4f", last.epoch, _named(attempt), accuracy)

    def noted(self, attempt: RunningAttempt, message: str) -> None:
        """Log it as a warning."""
        _LOGGER.warning("%s: %s", _named(attempt), message)

    def ended(self, end: EndedAttempt) -> None:
        """Log the state, and the failure with its message."""
        if end.failure is None:
            _LOGGER.info("end %s: %s", _named(end.attempt), end.state.value)
        else:
            kind, message = end.failure.kind.value, end.failure.message
            _LOGGER.warning("end %s: %s (%s: %s)", _named(end.attempt), end.state.value, kind, message)

    def told(self, message: str) -> None:
        """Log it."""
        _LOGGER.info("%s", message)

    def stopping(self, reason: str) -> None:
        """Log why."""
        _LOGGER.warning("stopping: %s", reason)


def _named(attempt: RunningAttempt) -> str:
    record = attempt.record
    return printable(f"{record.trial_id}/{record.number:03d} ({attempt.trial.label}, seed {attempt.trial.spec.seed})")
