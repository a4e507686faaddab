"""What goes into the store and what comes out of it: plain records, never rows of a session."""

from dataclasses import dataclass
from datetime import datetime

from stnbench.spec.result import Cost, Environment, EpochRecord, Failure, ScoredImages, SplitScore
from stnbench.spec.states import AttemptState, TrialState
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.spec.trial import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTrial:
    """A trial as a sweep wants it: where it stands among the sweep's axes, and whether it is there as a twin only."""

    spec: TrialSpec
    point: Point
    label: str
    is_twin: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptStart:
    """An attempt that is about to run: who runs it and where, so that a later process can tell whether it still does.

    ``token`` is unique among all attempts. ``pid`` and ``boot_id`` are of the orchestrator's process.
    """

    trial_id: str
    token: str
    slot: str
    host: str
    pid: int
    boot_id: str
    started_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptRecord:
    """One execution of a trial. Times are aware UTC; ``number`` counts from 1 within the trial."""

    trial_id: str
    number: int
    token: str
    state: AttemptState
    slot: str
    host: str
    pid: int
    boot_id: str
    started_at: datetime
    finished_at: datetime | None
    failure: Failure | None

    @property
    def duration_s(self) -> float | None:
        """Seconds from start to end; None while it runs."""
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a complete trial scored, by the attempt that completed it. ``validation`` carries the predictions."""

    attempt: int
    validation: SplitScore
    test: SplitScore | None
    cost: Cost
    environment: Environment
    train_duration_s: float
    peak_memory_mib: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """How long the training of a complete trial took."""

    spec: TrialSpec
    cost: Cost
    train_duration_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSets:
    """On which images trials were scored: the sets by digest, and the digest of each trial's, by trial id."""

    sets: dict[str, ScoredImages]
    of_trial: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """A trial as one sweep sees it, with its last attempt. ``position`` is the order in which the sweep planned it."""

    sweep: str
    position: int
    trial_id: str
    cell_id: str
    point: Point
    label: str
    is_twin: bool
    seed: int
    state: TrialState
    attempts: int
    last_attempt: AttemptRecord | None
    spec: TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRecord:
    """A sweep as it was last run, and how many of its trials are in which state."""

    spec: SweepSpec
    created_at: datetime
    updated_at: datetime
    counts: dict[TrialState, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptEpoch:
    """One epoch of one attempt."""

    attempt: int
    record: EpochRecord
