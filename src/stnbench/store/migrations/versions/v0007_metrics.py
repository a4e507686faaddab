"""Metrics of a score beside accuracy and loss."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make room for values by name, as JSON; scores so far have none."""
    op.add_column("scores", sa.Column("metrics", sa.Text(), nullable=False, server_default="{}"))
