"""What the machine is told, and what it answers: events and commands."""

from dataclasses import dataclass

from stnbench.engines.base import Slot
from stnbench.spec.result import Failure
from stnbench.spec.states import AttemptState, TrialState

# Events


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialsPlanned:
    """Trials that are to run, in order of preference."""

    trial_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PeakMemoryLearnt:
    """How much memory trials need at most, in MiB, by trial: what finished trials of the same configurations took.

    ``is_estimate`` where it is worked out from their networks instead.
    """

    peak_mib: dict[str, float]
    is_estimate: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochEnded:
    """An attempt ended an epoch, counted from 1 over the whole training.

    Where its trial never got so far before, its next failure is the first of its kind.
    """

    token: str
    epoch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkDone:
    """An attempt gave a sign of life: so many steps or batches are done since its last one."""

    token: str
    parts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneAsked:
    """The planner has seen enough of an attempt: it is stopped, and its trial is pruned."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptFinished:
    """An attempt is complete and its result is valid."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptFailed:
    """An attempt ended with a failure; a process that died without a word is a failure of the kind ``killed``."""

    token: str
    failure: Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptStopped:
    """An attempt stopped because it was asked to."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TimePassed:
    """The clock now, in seconds from any fixed origin, on a clock that nobody sets.

    ``waiting`` are attempts that have not begun yet, ``suspended`` those whose process the system has halted.
    """

    now_s: float
    waiting: frozenset[str] = frozenset()
    suspended: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class StopAsked:
    """A person or a budget wants the sweep to end: running attempts are stopped, and nothing new begins."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PauseChanged:
    """A person wants nothing more to begin, or that it goes on; attempts that run are left alone."""

    is_paused: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUpAsked:
    """A person gives trials up, and the store says so already: those that run are stopped; unknown ones are nothing."""

    trial_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryAsked:
    """A person wants trials again that failed or were given up, and the store says so already."""

    trial_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotsChanged:
    """These are the slots from now on; an attempt in one that is gone goes on to its end."""

    slots: tuple[Slot, ...]


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
    | SlotsChanged
)

# Commands


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchTrial:
    """Begin an attempt in a slot, each batch computed in so many parts.

    With ``alone``, idle workers of the same device are ended first: what they keep is memory that this attempt needs.
    """

    trial_id: str
    token: str
    slot: Slot
    micro_batches: int = 1
    alone: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordComplete:
    """Write the attempt's result to the store."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordEnd:
    """Write to the store how an attempt ended, and what becomes of its trial."""

    token: str
    attempt_state: AttemptState
    trial_state: TrialState
    failure: Failure | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StopAttempt:
    """Ask an attempt to stop at its next step."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KillAttempt:
    """End an attempt's process: its time is up, it hangs, or it does not stop."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DropTrial:
    """A trial that waited does not run: the planner is told."""

    trial_id: str


Command = DropTrial | LaunchTrial | RecordComplete | RecordEnd | StopAttempt | KillAttempt
