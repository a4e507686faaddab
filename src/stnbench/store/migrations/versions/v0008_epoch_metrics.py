"""Metrics of an epoch in addition to accuracy and loss."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column of values by name as JSON; existing epochs have none."""
    op.add_column("epochs", sa.Column("metrics", sa.Text(), nullable=False, server_default="{}"))
