"""The version of a store: checked whenever one is opened, raised when one is opened to write.

To change a table: edit ``tables.py``, add a file to ``migrations/versions`` and its revision to ``REVISIONS``, and
keep a store of the old revision in ``tests/assets``. The tests compare what the migrations make with the tables.
"""

from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table

from stnbench.core.errors import StoreError, StoreVersionError
from stnbench.store.engine import Database
from stnbench.store.tables import REVISIONS

MIGRATIONS = Path(__file__).with_name("migrations")
ALEMBIC_TABLE = "alembic_version"
UPGRADE_REMEDY = "the next sweep upgrades it: python -m stnbench.sweep NAME"


def prepare(database: Database, *, backups: Path | None = None) -> None:
    """Bring the database to the revision of this program, or check that it is there.

    Only a database opened to write is changed; in one transaction, after a file was copied to ``backups``.
    Raises: StoreVersionError when it is newer than this program, or older and open for reading only; StoreError when it
        is no store at all.
    """
    with database.reading() as connection:
        revision = check(database.name, find_revision(database.name, connection), writable=database.writable)
    if revision == REVISIONS[-1]:
        return
    if revision is not None and backups is not None:
        database.back_up(backups, note=f"before-{REVISIONS[-1]}")
    with database.transaction() as connection:
        upgrade(connection)


def is_made(url: str) -> bool:
    """Whether the database at a URL has the tables of a store, of whatever revision.

    Raises: StoreError when it cannot be read, or is another program's.
    """
    database = Database.open(url, writable=False)
    try:
        with database.reading() as connection:
            return find_revision(database.name, connection) is not None
    finally:
        database.close()


def find_revision(name: str, connection: Connection) -> str | None:
    """The revision of a database; None where it is empty.

    Raises: StoreError when its tables are another program's.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    if not {ALEMBIC_TABLE, "sweeps", "sweep_trials"} <= set(tables):
        raise StoreError(f"{name} is a database of another program", remedy="give the store another path or database")
    version = connection.execute(select(column("version_num")).select_from(table(ALEMBIC_TABLE))).scalar()
    return None if version is None else str(version)


def check(name: str, revision: str | None, *, writable: bool) -> str | None:
    """The revision, if this program can work with it.

    Raises: StoreVersionError naming the store, its revision, ours and the remedy.
    """
    ours = REVISIONS[-1]
    if revision is not None and revision not in REVISIONS:
        problem = f"the store {name} has revision {revision}, and this stnbench knows revisions up to {ours}"
        raise StoreVersionError(
            problem,
            remedy="a newer stnbench wrote it: update stnbench, or give another STNBENCH_RUNS or STNBENCH_STORE",
        )
    if revision != ours and not writable:
        found = "is empty" if revision is None else f"has the older revision {revision}"
        raise StoreVersionError(f"the store {name} {found}, and this stnbench reads {ours}", remedy=UPGRADE_REMEDY)
    return revision


def upgrade(connection: Connection, *, to: str = "head") -> None:
    """Run the migrations up to a revision, inside the transaction of the connection."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, to)
