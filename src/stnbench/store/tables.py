"""Tables of the store; the database enforces every invariant that it can.

A trial is completed only once (``outcomes`` has one row per trial, and at most one attempt of a trial is complete),
runs at most once at a time (at most one attempt is running), and failed attempts have a reason.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.types import TypeDecorator

from stnbench.core.errors import StoreError
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

# Times in the database.


class UtcDateTime(TypeDecorator[datetime]):
    """Column type of aware UTC times; SQLite has no zones and holds the UTC time without one.

    Raises:
        StoreError: if a time without a zone is written.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return a time as the database takes it."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise StoreError(f"the time {value.isoformat()} has no zone", remedy="give an aware time")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ANN401 - the driver's
        """Return a time of the database as an aware UTC time."""
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if dialect.name == "sqlite" else moment.astimezone(UTC)


REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
"""Revisions of these tables, oldest first; ``migrations/versions`` holds one file for each."""

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

TRIAL_STATES = "'planned', 'running', 'complete', 'failed', 'pruned'"
ATTEMPT_STATES = "'running', 'complete', 'failed', 'pruned', 'lost', 'stopped'"

sweeps = Table(
    "sweeps",
    METADATA,
    Column("name", String, primary_key=True),
    Column("spec", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

trials = Table(
    "trials",
    METADATA,
    Column("id", String, primary_key=True),
    Column("cell_id", String, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("spec", Text, nullable=False),
    Column("state", String, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint(f"state IN ({TRIAL_STATES})", name="state"),
    CheckConstraint("seed >= 0", name="seed"),
)

sweep_trials = Table(
    "sweep_trials",
    METADATA,
    Column("sweep", ForeignKey("sweeps.name"), primary_key=True),
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("label", String, nullable=False),
    Column("point", Text, nullable=False),
    Column("is_twin", Boolean, nullable=False),
    Column("wanted", Boolean, nullable=False),
    Column("pruned", Boolean, nullable=False, server_default=false()),
    CheckConstraint("position >= 0", name="position"),
)
"""Trials of sweeps. A trial that an edited sweep no longer contains is kept, and is not ``wanted``.

``pruned`` means that this sweep's pruner gave up the trial; another sweep may continue to train it."""

# Naming the condition for PostgreSQL as well would import its dialect at every start, 0.1 s; the migration names it.
WANTED = text("wanted")
Index(
    "ix_sweep_trials_position",
    sweep_trials.c.sweep,
    sweep_trials.c.position,
    unique=True,
    sqlite_where=WANTED,
)
Index("ix_sweep_trials_trial_id", sweep_trials.c.trial_id)

attempts = Table(
    "attempts",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("trial_id", ForeignKey("trials.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("token", String, nullable=False),
    Column("state", String, nullable=False),
    Column("slot", String, nullable=False),
    Column("host", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("boot_id", String, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("failure_kind", String),
    Column("failure_message", Text),
    Column("failure_traceback", Text),
    Column("failure_last_output", Text),
    UniqueConstraint("trial_id", "number"),
    UniqueConstraint("token"),
    CheckConstraint("number >= 1", name="number"),
    CheckConstraint(f"state IN ({ATTEMPT_STATES})", name="state"),
    CheckConstraint("(state = 'running') = (finished_at IS NULL)", name="finished_at"),
    CheckConstraint("failure_kind <> ''", name="failure_kind"),
    CheckConstraint("state <> 'failed' OR failure_kind IS NOT NULL", name="failed_says_why"),
    CheckConstraint("state NOT IN ('running', 'complete') OR failure_kind IS NULL", name="no_failure"),
    CheckConstraint(
        "(failure_kind IS NULL) = (failure_message IS NULL) AND (failure_kind IS NULL) = (failure_traceback IS NULL)"
        " AND (failure_kind IS NULL) = (failure_last_output IS NULL)",
        name="failure_whole",
    ),
)

RUNNING = text("state = 'running'")
Index("ix_attempts_running", attempts.c.trial_id, unique=True, sqlite_where=RUNNING)
COMPLETE = text("state = 'complete'")
Index("ix_attempts_complete", attempts.c.trial_id, unique=True, sqlite_where=COMPLETE)

epochs = Table(
    "epochs",
    METADATA,
    Column("attempt_id", ForeignKey("attempts.id"), primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("step", BigInteger, nullable=False),
    Column("train_loss", Float, nullable=False),
    Column("validation_loss", Float, nullable=False),
    Column("validation_accuracy", Float, nullable=False),
    Column("learning_rate", Float, nullable=False),
    Column("train_duration_s", Float, nullable=False),
    Column("evaluate_duration_s", Float, nullable=False),
    Column("health", Text, nullable=False),
    Column("metrics", Text, nullable=False, server_default="{}"),
    CheckConstraint("epoch >= 0 AND step >= 0", name="counts"),
    CheckConstraint("validation_accuracy >= 0 AND validation_accuracy <= 1", name="validation_accuracy"),
)

environments = Table(
    "environments",
    METADATA,
    Column("digest", String, primary_key=True),
    Column("environment", Text, nullable=False),
)

outcomes = Table(
    "outcomes",
    METADATA,
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("attempt_id", ForeignKey("attempts.id"), nullable=False),
    Column("parameters", BigInteger, nullable=False),
    Column("flops", BigInteger, nullable=False),
    Column("activation_bytes", BigInteger, nullable=False),
    Column("train_duration_s", Float, nullable=False),
    Column("peak_memory_mib", Float, nullable=False),
    Column("environment", ForeignKey("environments.digest"), nullable=False),
    UniqueConstraint("attempt_id"),
    CheckConstraint("parameters >= 0 AND flops >= 0 AND activation_bytes >= 0", name="cost"),
)

scores = Table(
    "scores",
    METADATA,
    Column("trial_id", ForeignKey("outcomes.trial_id"), primary_key=True),
    Column("split", String, primary_key=True),
    Column("images", Integer, nullable=False),
    Column("correct", Integer, nullable=False),
    Column("loss", Float, nullable=False),
    Column("metrics", Text, nullable=False, server_default="{}"),
    CheckConstraint("split IN ('validation', 'test')", name="split"),
    CheckConstraint("images >= 1 AND correct >= 0 AND correct <= images", name="correct"),
)
"""Scores of complete trials by split. Accuracy is ``correct / images``.

``metrics`` (``spec/metrics.py``) is a JSON mapping of values by name."""

predictions = Table(
    "predictions",
    METADATA,
    Column("trial_id", String, primary_key=True),
    Column("split", String, primary_key=True),
    Column("dtype", String, nullable=False),
    Column("images", Integer, nullable=False),
    Column("labels", LargeBinary, nullable=False),
    ForeignKeyConstraint(["trial_id", "split"], ["scores.trial_id", "scores.split"]),
    CheckConstraint("dtype IN ('uint8', 'uint16')", name="dtype"),
    CheckConstraint("length(labels) = images * CASE dtype WHEN 'uint8' THEN 1 ELSE 2 END", name="labels"),
)
"""Predicted label of every image of a split, in file order, as consecutive little-endian unsigned integers."""

image_sets = Table(
    "image_sets",
    METADATA,
    Column("digest", String, primary_key=True),
    Column("images", Integer, nullable=False),
    Column("dtype", String, nullable=False),
    Column("labels", LargeBinary, nullable=False),
    Column("tracks", LargeBinary, nullable=False),
    Column("rows", LargeBinary, nullable=False),
    CheckConstraint("dtype IN ('uint8', 'uint16')", name="dtype"),
    CheckConstraint("length(labels) = images * CASE dtype WHEN 'uint8' THEN 1 ELSE 2 END", name="labels"),
    CheckConstraint("length(tracks) IN (0, 4 * images) AND length(rows) IN (0, 4 * images)", name="places"),
)
"""True labels of the images on which trials were scored, each set once, packed as predictions are.

``tracks`` and ``rows`` are little-endian unsigned integers of four bytes, or empty (``spec.result.ScoredImages``).
"""

scored_images = Table(
    "scored_images",
    METADATA,
    Column("trial_id", String, primary_key=True),
    Column("split", String, primary_key=True),
    Column("digest", ForeignKey("image_sets.digest"), nullable=False),
    ForeignKeyConstraint(["trial_id", "split"], ["scores.trial_id", "scores.split"]),
)
"""Images on which a trial was scored; scores of older versions have none."""

mirrored = Table(
    "mirrored",
    METADATA,
    Column("tracker", String, primary_key=True),
    Column("subject", String, primary_key=True),
    Column("digest", String, nullable=False),
)
"""Digests of the records that a tracker has of each attempt and configuration; a run without news need not start it."""

controls = Table(
    "controls",
    METADATA,
    Column("id", String, primary_key=True),
    Column("sweep", ForeignKey("sweeps.name"), nullable=False),
    Column("request", Text, nullable=False),
    Column("applied_at", UtcDateTime, nullable=False),
    Column("is_refused", Boolean, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("effect", Text, nullable=False),
)
"""Requests to running sweeps (``spec/control.py``), each once, and their outcome."""

Index("ix_controls_sweep", controls.c.sweep)


# Records that are written to and read from the store, independent of database sessions.


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
        """Return the seconds from start to end; None while the attempt runs.

        Both times are by the clock of the session that ran the attempt, unless a later session ended it.
        """
        return max(0.0, (self.finished_at - self.started_at).total_seconds()) if self.finished_at else None


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
    """Training time in seconds of a complete trial, and its energy; None if it was not measured."""

    spec: TrialSpec
    cost: Cost
    train_duration_s: float
    energy_kwh: float | None = None


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
