"""What to do about each kind of failure: pure decisions, one table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stnbench.engines.base import Slot
from stnbench.engines.calibrate import CONTEXT_MIB
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
    # Torch sees no GPU, or one that it cannot use. After this many retries in a slot without progress the slot is not
    # used any more, and where none is left the sweep ends; no trial fails of it.
    FailureKind.NO_DEVICE: RetryPolicy(retries=1),
    # A driver or a mount that does not answer, or a deadlock; the attempt goes on from its last checkpoint.
    FailureKind.HUNG: RetryPolicy(retries=3),
    # A full disk or a file server that is away: it takes a person or another program to mend it. A minute in all. Where
    # others fail as well nothing begins meanwhile, and if none has got on by then, the sweep ends and no trial fails.
    FailureKind.INFRASTRUCTURE: RetryPolicy(retries=6, first_wait_s=1.0),
    FailureKind.INVALID: RetryPolicy(retries=0),
    FailureKind.BUG: RetryPolicy(retries=0),
}

TROUBLES_MAX = RETRIES[FailureKind.INFRASTRUCTURE].retries
"""After so many pauses in a row, with no trial getting on between them, the sweep ends."""

MACHINES_DOING = frozenset({FailureKind.INFRASTRUCTURE, FailureKind.DEVICE, FailureKind.HUNG})
"""Kinds of which several trials in a row, with no progress in between, tell of the machine and not of the trials."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long an attempt may go without a sign of life, and a stopped one without an end.

    An attempt says every now and then that steps or batches are done. Until ``settled_parts`` are, it imports, opens
    data and compiles: ``first_s`` is allowed. Then it is ``factor`` times the longest pause that the attempt has made,
    ``least_s`` at least; so is an attempt's whose process the system has halted. None for ``first_s`` allows anything.

    Only time in which the orchestrator looks is counted: of one look to the next at most ``glance_s``. So neither a
    machine that was suspended nor an orchestrator that was stopped, or waited for its store, makes an attempt late.

    Attempts that are asked to stop have ``stop_s`` for it before they are killed: what they have since their last
    checkpoint is lost in any case.
    """

    first_s: float | None = 600.0
    least_s: float = 60.0
    factor: float = 20.0
    settled_parts: int = 20
    glance_s: float = 5.0
    stop_s: float = 10.0

    @classmethod
    def fixed(cls, limit_s: float | None) -> "Patience":
        """The same limit at all times; None for no limit."""
        return cls(first_s=limit_s, least_s=limit_s or 0.0, factor=0.0)

    def silence_s(self, *, parts: int, longest_pause_s: float, is_suspended: bool) -> float:
        """How long an attempt may be silent that has done so many parts of its work."""
        if self.first_s is None:
            return float("inf")
        if is_suspended:
            return self.least_s
        usual_s = max(self.least_s, self.factor * longest_pause_s)
        return usual_s if parts >= self.settled_parts else max(self.first_s, usual_s)


def signature(failure: Failure) -> str:
    """What two failures share when they are the same bug: the last place in the code, and the kind of error.

    The message is left out, because it may name the trial's own values.
    """
    places = [line.strip() for line in failure.traceback.splitlines() if line.strip().startswith("File ")]
    error = failure.message.partition(":")[0]
    return f"{places[-1] if places else ''}|{error}"


# Whether a trial's memory fits beside those that run on its device: pure.


HEADROOM = 0.95
"""The share of a device's memory that trials may fill: the peaks of earlier runs are no promise."""


@dataclass(slots=True)
class Admission:
    """Knows how much memory each device has, and learns how much each configuration's trials need.

    A trial of which nothing is known counts as what is expected of it, else as its slot's even share of the device.
    One that is alone on its device is always let in: whether it fits shows when it runs.
    """

    slots: Sequence[Slot]
    _peak_mib: dict[str, float] = field(default_factory=dict)
    _expected_mib: dict[str, float] = field(default_factory=dict)

    def learn(self, peak_mib: Mapping[str, float]) -> None:
        """Take note of the peaks of trials, by trial; the highest counts."""
        for trial_id, peak in peak_mib.items():
            self._peak_mib[trial_id] = max(peak, self._peak_mib.get(trial_id, 0.0))

    def expect(self, peak_mib: Mapping[str, float]) -> None:
        """Take note of what trials should need; what trials of their configuration did need counts for more."""
        self._expected_mib |= peak_mib

    def admits(self, trial_id: str, slot: Slot, neighbours: Iterable[str]) -> bool:
        """Whether the trial fits into a free slot beside those that run on the same device."""
        beside = list(neighbours)
        if slot.memory_mib is None or not beside:
            return True
        slots = sum(other.device == slot.device for other in self.slots)
        share = slot.memory_mib / slots
        names = (trial_id, *beside)
        needed = sum(self._peak_mib.get(name, self._expected_mib.get(name, share)) for name in names)
        room = HEADROOM * slot.memory_mib - (slots * CONTEXT_MIB if slot.is_cuda else 0.0)
        is_known = all(name in self._peak_mib or name in self._expected_mib for name in names)
        return needed <= (room if is_known and slot.is_cuda else max(room, share * len(names)))
