"""A further kind of failure: of the infrastructure, not of the trial."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CHECK = "ck_attempts_failure_kind"
OLD = "failure_kind IN ('out_of_memory', 'diverged', 'timeout', 'killed', 'invalid', 'bug')"
NEW = "failure_kind IN ('out_of_memory', 'diverged', 'timeout', 'killed', 'infrastructure', 'invalid', 'bug')"


def upgrade() -> None:
    """Allow the new kind of failure."""
    if op.get_context().dialect.name != "sqlite":
        op.drop_constraint(op.f(CHECK), "attempts", type_="check")
        op.create_check_constraint(op.f(CHECK), "attempts", NEW)
        return
    # SQLite's manual ("ALTER TABLE", last section) recommends this for a check that is only widened: no row is changed.
    # Copying the table would break the references to it, which cannot be switched off within a transaction.
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    change = "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = 'attempts'"
    connection.exec_driver_sql(change, (OLD, NEW))
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")
