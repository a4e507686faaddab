"""What to do about each kind of failure: pure decisions, one table."""

from dataclasses import dataclass

from stnbench.spec.result import Failure, FailureKind


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How often a failed trial is tried again.

    Failures of a kind are counted since the trial last got further, by an epoch. Before the n-th retry
    ``first_wait_s * 2 ** (n - 1)`` seconds pass. With ``spares_memory`` the first retry has its device to itself, and
    every further one also computes each batch in twice as many parts.
    """

    retries: int
    first_wait_s: float = 0.0
    spares_memory: bool = False


RETRIES: dict[FailureKind, RetryPolicy] = {
    # Another trial on the device may have taken the memory; then parts of 1/2, 1/4, 1/8 and 1/16 of a batch, whose
    # gradients are added up. The batch of the optimiser never shrinks.
    FailureKind.OUT_OF_MEMORY: RetryPolicy(retries=5, spares_memory=True),
    # The same seed diverges again.
    FailureKind.DIVERGED: RetryPolicy(retries=0),
    FailureKind.TIMEOUT: RetryPolicy(retries=0),
    # The machine's doing, not the trial's; a trial that kills its worker each time must end all the same. Eight,
    # because a worker takes seconds to start, and what kills it may come again in the meantime, as injected faults do.
    FailureKind.KILLED: RetryPolicy(retries=8),
    # A GPU that fell off the bus, or a context that a kernel spoilt: the worker is ended, and a fresh one tried. Where
    # one trial after another fails so, it is the machine, as below.
    FailureKind.DEVICE: RetryPolicy(retries=8),
    # A full disk or a file server that is away: it takes a person or another program to mend it. A minute in all. Where
    # others fail as well nothing begins meanwhile, and if none has got on by then, the sweep ends and no trial fails.
    FailureKind.INFRASTRUCTURE: RetryPolicy(retries=6, first_wait_s=1.0),
    FailureKind.INVALID: RetryPolicy(retries=0),
    FailureKind.BUG: RetryPolicy(retries=0),
}

TROUBLES_MAX = RETRIES[FailureKind.INFRASTRUCTURE].retries
"""After so many pauses in a row, with no trial getting on between them, the sweep ends."""

BREAKER_THRESHOLD = 3
"""This many trials that die of the same bug, with none complete in between, stop the sweep."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """How a trial is tried again: after a wait, alone on its device or not, its batches computed in so many parts."""

    wait_s: float
    alone: bool
    micro_batches: int


def next_try(kind: FailureKind, failures: int) -> Retry | None:
    """How to try again after so many failures of one kind, the present one counted; None where that is enough."""
    policy = RETRIES[kind]
    if failures > policy.retries:
        return None
    return Retry(
        wait_s=policy.first_wait_s * 2 ** (failures - 1),
        alone=policy.spares_memory,
        micro_batches=2 ** (failures - 1) if policy.spares_memory else 1,
    )


def infrastructure_wait_s(troubles: int) -> float:
    """How long nothing begins after so many failures of the infrastructure in a row, the present one counted."""
    return RETRIES[FailureKind.INFRASTRUCTURE].first_wait_s * 2.0 ** (troubles - 1)


def signature(failure: Failure) -> str:
    """What two failures share when they are the same bug: the last place in the code, and the kind of error.

    The message is left out, because it may name the trial's own values.
    """
    places = [line.strip() for line in failure.traceback.splitlines() if line.strip().startswith("File ")]
    error = failure.message.partition(":")[0]
    return f"{places[-1] if places else ''}|{error}"
