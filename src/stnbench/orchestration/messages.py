"""Messages of the machine: the events that it receives and the commands that it returns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stnbench.engines import Slot
from stnbench.engines.calibrate import CONTEXT_MIB
from stnbench.spec.result import AttemptState, Failure, FailureKind, TrialState

# Events


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialsPlanned:
    """Event: trials are to run, in order of preference."""

    trial_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PeakMemoryLearnt:
    """Event: the peak memory of trials in MiB, by trial, as measured on finished trials of the same configurations.

    ``is_estimate`` is set if it is computed from their networks instead.
    """

    peak_mib: dict[str, float]
    is_estimate: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochEnded:
    """Event: an attempt has ended an epoch, counted from 1 over the whole training.

    If its trial had not reached this epoch before, its next failure counts as the first of its kind.
    """

    token: str
    epoch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkDone:
    """Event: an attempt has done ``parts`` steps or batches since its last sign of life."""

    token: str
    parts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneAsked:
    """Event: the planner prunes an attempt; it is stopped, and its trial becomes pruned."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptFinished:
    """Event: an attempt is complete and its result is valid."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptFailed:
    """Event: an attempt failed; a process that died without a report is a failure of the kind ``killed``."""

    token: str
    failure: Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptStopped:
    """Event: an attempt stopped because it was asked to."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TimePassed:
    """Event: the current time, in seconds from any fixed origin, of a monotonic clock.

    ``waiting`` are tokens of attempts that have not begun yet, ``suspended`` of those whose process is halted.
    """

    now_s: float
    waiting: frozenset[str] = frozenset()
    suspended: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class StopAsked:
    """Event: a user or the budget ends the sweep; running attempts are stopped, and none is launched."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PauseChanged:
    """Event: a user pauses or resumes launching; running attempts continue."""

    is_paused: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUpAsked:
    """Event: a user gives trials up, as the store already records; running ones are stopped, unknown ones ignored."""

    trial_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryAsked:
    """Event: a user requests failed or given-up trials again, as the store already records."""

    trial_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ThawAsked:
    """Event: pruned trials go on from their checkpoints before all that waits, as the store already records."""

    trial_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotsChanged:
    """Event: the slots from now on; an attempt in a removed slot runs to its end."""

    slots: tuple[Slot, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchRefused:
    """Event: an attempt could not begin, since another orchestrator has claimed or ended its trial."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptTaken:
    """Event: another orchestrator believed this one gone and has ended an attempt of it; if it runs, it is killed."""

    token: str
    trial_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ElsewhereChanged:
    """Event: a trial that another orchestrator had claimed is now in this state, which is not running."""

    trial_id: str
    state: TrialState


Event = (
    TrialsPlanned
    | PeakMemoryLearnt
    | EpochEnded
    | WorkDone
    | PruneAsked
    | AttemptFinished
    | AttemptFailed
    | AttemptStopped
    | TimePassed
    | StopAsked
    | PauseChanged
    | GiveUpAsked
    | RetryAsked
    | ThawAsked
    | SlotsChanged
    | LaunchRefused
    | AttemptTaken
    | ElsewhereChanged
)

# Commands


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchTrial:
    """Command to begin an attempt in a slot, with each batch computed in ``micro_batches`` parts.

    With ``alone``, idle workers of the same device are ended first, because this attempt needs their memory.
    """

    trial_id: str
    token: str
    slot: Slot
    micro_batches: int = 1
    alone: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordComplete:
    """Command to write the attempt's result to the store."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordEnd:
    """Command to write the end of an attempt and the new state of its trial to the store."""

    token: str
    attempt_state: AttemptState
    trial_state: TrialState
    failure: Failure | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StopAttempt:
    """Command to ask an attempt to stop at its next step."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KillAttempt:
    """Command to kill an attempt's process: its time is up, it hangs, or it does not stop."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DropTrial:
    """Command to report to the planner that a waiting trial will not run."""

    trial_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgetAttempt:
    """Command to forget an attempt whose trial another orchestrator has taken over, and which has now ended."""

    token: str


Command = DropTrial | ForgetAttempt | LaunchTrial | RecordComplete | RecordEnd | StopAttempt | KillAttempt


# Policies for failures, silence and memory: decisions without I/O, and one table of retries by kind of failure.


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Number of retries of a failed trial, and the waits between them.

    Failures of a kind are counted since the trial's last progress by an epoch. Before the n-th retry
    ``first_wait_s * 2 ** (n - 1)`` seconds pass. With ``spares_memory`` the first retry has its device to itself, and
    each further one also computes each batch in twice as many parts.
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
    # Caused by the machine, not the trial; but a trial that kills its worker each time must end too. Eight, because a
    # worker takes seconds to start, and the cause may recur in the meantime, as injected faults do.
    FailureKind.KILLED: RetryPolicy(retries=8),
    # A GPU that fell off the bus, or a context that a kernel corrupted: the worker is ended, and a fresh one tried. If
    # one trial after another fails like this, the machine is the cause, as below.
    FailureKind.DEVICE: RetryPolicy(retries=8),
    # Torch sees no GPU, or one that it cannot use. After this many retries in a slot without progress the slot is not
    # used any more, and if no slot is left the sweep ends; no trial fails because of it.
    FailureKind.NO_DEVICE: RetryPolicy(retries=1),
    # A data set is missing, damaged, or was changed during the sweep: a person must act, and no trial is at fault. As
    # for a GPU that is not seen, since on a cluster the data of one node may be the cause.
    FailureKind.DATA: RetryPolicy(retries=1),
    # A driver or a mount that does not answer, or a deadlock; the attempt resumes from its last checkpoint.
    FailureKind.HUNG: RetryPolicy(retries=3),
    # A full disk or an unavailable file server: a person or another program must fix it. A minute in all. If other
    # trials fail as well nothing is launched meanwhile; if none has made progress by then, the sweep ends and no trial
    # fails.
    FailureKind.INFRASTRUCTURE: RetryPolicy(retries=6, first_wait_s=1.0),
    FailureKind.INVALID: RetryPolicy(retries=0),
    FailureKind.BUG: RetryPolicy(retries=0),
}

TROUBLES_MAX = RETRIES[FailureKind.INFRASTRUCTURE].retries
"""Number of consecutive pauses, without progress of any trial between them, after which the sweep ends."""

MACHINES_DOING = frozenset({FailureKind.INFRASTRUCTURE, FailureKind.DEVICE, FailureKind.HUNG})
"""Kinds of failure that, in several trials in a row without progress, are attributed to the machine."""

BLINDING = frozenset({FailureKind.NO_DEVICE, FailureKind.DATA})
"""Kinds of failure after which a slot is not used any more, if a retry without progress in between fails as well."""

BREAKER_THRESHOLD = 3
"""Number of trials failing with the same bug, without a complete one in between, that stops the sweep."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Settings of a retry: the wait, whether the trial is alone on its device, and the number of parts per batch."""

    wait_s: float
    alone: bool
    micro_batches: int


def next_try(kind: FailureKind, failures: int) -> Retry | None:
    """Return the retry after ``failures`` failures of one kind, including the present one, or None if there is none."""
    policy = RETRIES[kind]
    if failures > policy.retries:
        return None
    return Retry(
        wait_s=policy.first_wait_s * 2 ** (failures - 1),
        alone=policy.spares_memory,
        micro_batches=2 ** (failures - 1) if policy.spares_memory else 1,
    )


def infrastructure_wait_s(troubles: int) -> float:
    """Return the pause in seconds after ``troubles`` consecutive infrastructure failures, including the present one."""
    return RETRIES[FailureKind.INFRASTRUCTURE].first_wait_s * 2.0 ** (troubles - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """Limits on the time of an attempt without a sign of life, and of a stopped one without an end.

    An attempt regularly reports the steps or batches done. Until ``settled_parts`` are done, it imports, opens data and
    compiles: ``first_s`` is allowed. After that the limit is ``factor`` times the longest pause of the attempt, and at
    least ``least_s``; a halted process is allowed ``least_s``. None for ``first_s`` means no limit.

    Only time in which the orchestrator is active is counted: from one look to the next at most ``glance_s``. So neither
    a suspended machine nor an orchestrator that was stopped, or waited for its store, makes an attempt late.

    Attempts that are stopped have ``stop_s`` to end before they are killed: their work since the last checkpoint
    is lost in any case.
    """

    first_s: float | None = 600.0
    least_s: float = 60.0
    factor: float = 20.0
    settled_parts: int = 20
    glance_s: float = 5.0
    stop_s: float = 10.0

    @classmethod
    def fixed(cls, limit_s: float | None) -> "Patience":
        """Return a policy with the same limit at all times, or None for no limit."""
        return cls(first_s=limit_s, least_s=limit_s or 0.0, factor=0.0)

    def silence_s(self, *, parts: int, longest_pause_s: float, is_suspended: bool) -> float:
        """Return the seconds for which an attempt that has done ``parts`` parts of its work may be silent."""
        if self.first_s is None:
            return float("inf")
        if is_suspended:
            return self.least_s
        usual_s = max(self.least_s, self.factor * longest_pause_s)
        return usual_s if parts >= self.settled_parts else max(self.first_s, usual_s)


def signature(failure: Failure) -> str:
    """Return a signature that failures of the same bug share: the last place in the code, and the type of error.

    The message is left out, because it may name the trial's own values.
    """
    places = [line.strip() for line in failure.traceback.splitlines() if line.strip().startswith("File ")]
    error = failure.message.partition(":")[0]
    return f"{places[-1] if places else ''}|{error}"


# The check whether a trial's memory fits beside the running trials of a device. Without I/O.


HEADROOM = 0.95
"""Fraction of a device's memory that trials may fill: the peaks of earlier runs are no guarantee."""


@dataclass(slots=True)
class Admission:
    """Admission control by memory, from the memory of each device and the peaks of each configuration's trials.

    A trial without a known peak counts with its expected peak, or else with its slot's even share of the device. A
    trial that is alone on its device is always admitted: whether it fits shows when it runs.
    """

    slots: Sequence[Slot]
    _peak_mib: dict[str, float] = field(default_factory=dict)
    _expected_mib: dict[str, float] = field(default_factory=dict)

    def learn(self, peak_mib: Mapping[str, float]) -> None:
        """Record measured peaks in MiB, by trial; the highest counts."""
        for trial_id, peak in peak_mib.items():
            self._peak_mib[trial_id] = max(peak, self._peak_mib.get(trial_id, 0.0))

    def expect(self, peak_mib: Mapping[str, float]) -> None:
        """Record estimated peaks in MiB, by trial; measured peaks take precedence."""
        self._expected_mib |= peak_mib

    def admits(self, trial_id: str, slot: Slot, neighbours: Iterable[str]) -> bool:
        """Check whether the trial fits into a free slot beside those that run on the same device."""
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
