"""Messages of the machine: the events that it receives and the commands that it returns."""

from dataclasses import dataclass

from stnbench.engines.base import Slot
from stnbench.spec.result import Failure
from stnbench.spec.states import AttemptState, TrialState

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
