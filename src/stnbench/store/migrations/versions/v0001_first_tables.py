"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create all tables, one function each, in the order of their foreign keys."""
    _sweeps()
    _trials()
    _sweep_trials()
    _attempts()
    _epochs()
    _outcomes()
    _scores()
    _mirrored()


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _sweeps() -> None:
    op.create_table(
        "sweeps",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        _moment("created_at"),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("name", name="pk_sweeps"),
    )


def _trials() -> None:
    states = "state IN ('planned', 'running', 'complete', 'failed', 'pruned')"
    op.create_table(
        "trials",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("cell_id", sa.String(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        _moment("created_at"),
        sa.CheckConstraint(states, name=op.f("ck_trials_state")),
        sa.CheckConstraint("seed >= 0", name=op.f("ck_trials_seed")),
        sa.PrimaryKeyConstraint("id", name="pk_trials"),
    )


def _sweep_trials() -> None:
    op.create_table(
        "sweep_trials",
        sa.Column("sweep", sa.String(), nullable=False),
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("point", sa.Text(), nullable=False),
        sa.Column("is_twin", sa.Boolean(), nullable=False),
        sa.Column("wanted", sa.Boolean(), nullable=False),
        sa.CheckConstraint("position >= 0", name=op.f("ck_sweep_trials_position")),
        sa.ForeignKeyConstraint(["sweep"], ["sweeps.name"], name="fk_sweep_trials_sweep"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_sweep_trials_trial_id"),
        sa.PrimaryKeyConstraint("sweep", "trial_id", name="pk_sweep_trials"),
    )
    wanted = sa.text("wanted")
    op.create_index(
        "ix_sweep_trials_position",
        "sweep_trials",
        ["sweep", "position"],
        unique=True,
        sqlite_where=wanted,
        postgresql_where=wanted,
    )
    op.create_index("ix_sweep_trials_trial_id", "sweep_trials", ["trial_id"])


def _attempts() -> None:
    states = "state IN ('running', 'complete', 'failed', 'pruned', 'lost', 'stopped')"
    kinds = "failure_kind IN ('out_of_memory', 'diverged', 'timeout', 'killed', 'invalid', 'bug')"
    whole = (
        "(failure_kind IS NULL) = (failure_message IS NULL) AND (failure_kind IS NULL) = (failure_traceback IS NULL)"
        " AND (failure_kind IS NULL) = (failure_last_output IS NULL)"
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("slot", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=False),
        _moment("started_at"),
        _moment("finished_at", nullable=True),
        sa.Column("failure_kind", sa.String(), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("failure_traceback", sa.Text(), nullable=True),
        sa.Column("failure_last_output", sa.Text(), nullable=True),
        sa.CheckConstraint("number >= 1", name=op.f("ck_attempts_number")),
        sa.CheckConstraint(states, name=op.f("ck_attempts_state")),
        sa.CheckConstraint("(state = 'running') = (finished_at IS NULL)", name=op.f("ck_attempts_finished_at")),
        sa.CheckConstraint(kinds, name=op.f("ck_attempts_failure_kind")),
        sa.CheckConstraint("state <> 'failed' OR failure_kind IS NOT NULL", name=op.f("ck_attempts_failed_says_why")),
        sa.CheckConstraint(
            "state NOT IN ('running', 'complete') OR failure_kind IS NULL", name=op.f("ck_attempts_no_failure")
        ),
        sa.CheckConstraint(whole, name=op.f("ck_attempts_failure_whole")),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_attempts_trial_id"),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.UniqueConstraint("trial_id", "number", name="uq_attempts_trial_id_number"),
        sa.UniqueConstraint("token", name="uq_attempts_token"),
    )
    for state in ("running", "complete"):
        only = sa.text(f"state = '{state}'")
        op.create_index(
            f"ix_attempts_{state}", "attempts", ["trial_id"], unique=True, sqlite_where=only, postgresql_where=only
        )


def _epochs() -> None:
    share = "validation_accuracy >= 0 AND validation_accuracy <= 1"
    op.create_table(
        "epochs",
        sa.Column("attempt_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("train_loss", sa.Float(), nullable=False),
        sa.Column("validation_loss", sa.Float(), nullable=False),
        sa.Column("validation_accuracy", sa.Float(), nullable=False),
        sa.Column("learning_rate", sa.Float(), nullable=False),
        sa.Column("train_duration_s", sa.Float(), nullable=False),
        sa.Column("evaluate_duration_s", sa.Float(), nullable=False),
        sa.Column("health", sa.Text(), nullable=False),
        sa.CheckConstraint("epoch >= 0 AND step >= 0", name=op.f("ck_epochs_counts")),
        sa.CheckConstraint(share, name=op.f("ck_epochs_validation_accuracy")),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_epochs_attempt_id"),
        sa.PrimaryKeyConstraint("attempt_id", "epoch", name="pk_epochs"),
    )


def _outcomes() -> None:
    op.create_table(
        "environments",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_environments"),
    )
    cost = "parameters >= 0 AND flops >= 0 AND activation_bytes >= 0"
    op.create_table(
        "outcomes",
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("attempt_id", sa.Integer(), nullable=False),
        sa.Column("parameters", sa.BigInteger(), nullable=False),
        sa.Column("flops", sa.BigInteger(), nullable=False),
        sa.Column("activation_bytes", sa.BigInteger(), nullable=False),
        sa.Column("train_duration_s", sa.Float(), nullable=False),
        sa.Column("peak_memory_mib", sa.Float(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.CheckConstraint(cost, name=op.f("ck_outcomes_cost")),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_outcomes_trial_id"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_outcomes_attempt_id"),
        sa.ForeignKeyConstraint(["environment"], ["environments.digest"], name="fk_outcomes_environment"),
        sa.PrimaryKeyConstraint("trial_id", name="pk_outcomes"),
        sa.UniqueConstraint("attempt_id", name="uq_outcomes_attempt_id"),
    )


def _scores() -> None:
    op.create_table(
        "scores",
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("correct", sa.Integer(), nullable=False),
        sa.Column("loss", sa.Float(), nullable=False),
        sa.CheckConstraint("split IN ('validation', 'test')", name=op.f("ck_scores_split")),
        sa.CheckConstraint("images >= 1 AND correct >= 0 AND correct <= images", name=op.f("ck_scores_correct")),
        sa.ForeignKeyConstraint(["trial_id"], ["outcomes.trial_id"], name="fk_scores_trial_id"),
        sa.PrimaryKeyConstraint("trial_id", "split", name="pk_scores"),
    )
    length = "length(labels) = images * CASE dtype WHEN 'uint8' THEN 1 ELSE 2 END"
    op.create_table(
        "predictions",
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("dtype", sa.String(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("labels", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("dtype IN ('uint8', 'uint16')", name=op.f("ck_predictions_dtype")),
        sa.CheckConstraint(length, name=op.f("ck_predictions_labels")),
        sa.ForeignKeyConstraint(
            ["trial_id", "split"], ["scores.trial_id", "scores.split"], name="fk_predictions_trial_id_split"
        ),
        sa.PrimaryKeyConstraint("trial_id", "split", name="pk_predictions"),
    )


def _mirrored() -> None:
    op.create_table(
        "mirrored",
        sa.Column("tracker", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tracker", "subject", name="pk_mirrored"),
    )
