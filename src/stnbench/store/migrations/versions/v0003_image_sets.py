"""Images of scores, with their true labels."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of image sets and of the set of each score."""
    labels = "length(labels) = images * CASE dtype WHEN 'uint8' THEN 1 ELSE 2 END"
    places = "length(tracks) IN (0, 4 * images) AND length(rows) IN (0, 4 * images)"
    op.create_table(
        "image_sets",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("dtype", sa.String(), nullable=False),
        sa.Column("labels", sa.LargeBinary(), nullable=False),
        sa.Column("tracks", sa.LargeBinary(), nullable=False),
        sa.Column("rows", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("dtype IN ('uint8', 'uint16')", name=op.f("ck_image_sets_dtype")),
        sa.CheckConstraint(labels, name=op.f("ck_image_sets_labels")),
        sa.CheckConstraint(places, name=op.f("ck_image_sets_places")),
        sa.PrimaryKeyConstraint("digest", name="pk_image_sets"),
    )
    op.create_table(
        "scored_images",
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["image_sets.digest"], name="fk_scored_images_digest"),
        sa.ForeignKeyConstraint(
            ["trial_id", "split"], ["scores.trial_id", "scores.split"], name="fk_scored_images_trial_id_split"
        ),
        sa.PrimaryKeyConstraint("trial_id", "split", name="pk_scored_images"),
    )
