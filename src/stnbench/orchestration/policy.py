"""What to do about each kind of failure: pure decisions, one table."""

from dataclasses import dataclass

from stnbench.spec.result import Failure, FailureKind


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How often a failed trial is tried again, and whether the next attempt has its device to itself."""

    retries: int
    alone: bool = False


RETRIES: dict[FailureKind, RetryPolicy] = {
    # Another trial on the device may have taken the memory; alone, the trial fits or it does not. Batches never shrink.
    FailureKind.OUT_OF_MEMORY: RetryPolicy(retries=1, alone=True),
    # The same seed diverges again.
    FailureKind.DIVERGED: RetryPolicy(retries=0),
    FailureKind.TIMEOUT: RetryPolicy(retries=0),
    # The machine's doing, not the trial's; a trial that kills its worker each time must end all the same.
    FailureKind.KILLED: RetryPolicy(retries=2),
    FailureKind.INVALID: RetryPolicy(retries=0),
    FailureKind.BUG: RetryPolicy(retries=0),
}

BREAKER_THRESHOLD = 3
"""This many trials that die of the same bug, with none complete in between, stop the sweep."""


def signature(failure: Failure) -> str:
    """What two failures share when they are the same bug: the last place in the code, and the kind of error.

    The message is left out, because it may name the trial's own values.
    """
    places = [line.strip() for line in failure.traceback.splitlines() if line.strip().startswith("File ")]
    error = failure.message.partition(":")[0]
    return f"{places[-1] if places else ''}|{error}"
