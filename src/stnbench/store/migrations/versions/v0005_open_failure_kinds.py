"""Kinds of failure without a check by the database, so that new kinds need no migration."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CHECK = "ck_attempts_failure_kind"
OLD = "failure_kind IN ('out_of_memory', 'diverged', 'timeout', 'killed', 'infrastructure', 'invalid', 'bug')"
NEW = "failure_kind <> ''"


def upgrade() -> None:
    """Allow any kind of failure that is not empty."""
    if op.get_context().dialect.name != "sqlite":
        op.drop_constraint(op.f(CHECK), "attempts", type_="check")
        op.create_check_constraint(op.f(CHECK), "attempts", NEW)
        return
    # As in revision 0002: a check is widened, no row is changed, and the table is not copied.
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    change = "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = 'attempts'"
    connection.exec_driver_sql(change, (OLD, NEW))
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")
