"""Metrics of a score in addition to accuracy and loss."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column of values by name as JSON; existing scores have none."""
    op.add_column("scores", sa.Column("metrics", sa.Text(), nullable=False, server_default="{}"))
