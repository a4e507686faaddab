"""Pruning per sweep: a trial is pruned in the sweep whose pruner gave it up, not in every sweep."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PRUNED_SO_FAR = """
UPDATE sweep_trials SET pruned = true
WHERE trial_id IN (SELECT id FROM trials WHERE state = 'pruned')
AND sweep IN (SELECT name FROM sweeps WHERE spec LIKE '%"pruner":{%')
"""
"""Earlier revisions did not record the sweep: it is any that has the trial and a pruner."""


def upgrade() -> None:
    """Add the column to the links of sweeps and trials, and set it for trials that are pruned."""
    op.add_column("sweep_trials", sa.Column("pruned", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute(PRUNED_SO_FAR)
