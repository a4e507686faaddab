"""Records that are written to and read from the store, independent of database sessions."""

from dataclasses import dataclass
from datetime import datetime

from stnbench.spec.result import (
    AttemptState,
    Cost,
    Environment,
    EpochRecord,
    Failure,
    ScoredImages,
    SplitScore,
    TrialState,
)
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.spec.trial import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTrial:
    """A planned trial of a sweep, with its position on the sweep's axes and whether it is only a baseline."""

    spec: TrialSpec
    point: Point
    label: str
    is_baseline: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptStart:
    """An attempt that is about to run, with the process that runs it, so that others can check whether it is alive.

    ``token`` is unique among all attempts. ``pid`` and ``boot_id`` identify the orchestrator's process.
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
    """One execution of a trial; times are aware UTC, and ``number`` counts from 1 within the trial."""

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
        """Return the seconds from start to end; None while the attempt runs."""
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Scores of a complete trial, from the attempt that completed it.

    Scores contain predictions if they were requested from the store.
    """

    attempt: int
    validation: SplitScore
    test: SplitScore | None
    cost: Cost
    environment: Environment
    train_duration_s: float
    peak_memory_mib: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Training time in seconds of a complete trial."""

    spec: TrialSpec
    cost: Cost
    train_duration_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSets:
    """Sets of scored images by digest, and the digest of each trial's set by trial id."""

    sets: dict[str, ScoredImages]
    of_trial: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """A trial as seen by one sweep, with its last attempt; ``position`` is its index in the order of planning."""

    sweep: str
    position: int
    trial_id: str
    config_id: str
    point: Point
    label: str
    is_baseline: bool
    seed: int
    state: TrialState
    attempts: int
    last_attempt: AttemptRecord | None
    spec: TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRecord:
    """A sweep as it was last run, with the number of its trials by state."""

    spec: SweepSpec
    created_at: datetime
    updated_at: datetime
    counts: dict[TrialState, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptEpoch:
    """One epoch of one attempt."""

    attempt: int
    record: EpochRecord
