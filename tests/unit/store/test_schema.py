"""Stores of every revision are read, upgraded or refused; the migrations make what the tables say."""

import contextlib
import io
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from stnbench.core.errors import StoreError, StoreVersionError
from stnbench.spec.result import FailureKind
from stnbench.spec.states import AttemptState, TrialState
from stnbench.store import schema, tables
from stnbench.store.engine import Database
from stnbench.store.store import Store

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    database = Database.open(tmp_path / "empty.db", writable=True)
    yield database
    database.close()


def normalised(statement: str) -> str:
    """A CREATE statement with its clauses in one order and one spelling."""
    flat = re.sub(r"\s+", " ", statement.replace('"', ""))
    head, _, body = flat.rstrip().removesuffix(")").partition("(")
    clauses = sorted(clause.strip() for clause in re.split(r", (?=[A-Za-z])", body))
    return f"{head.strip()} {clauses}"


def made_tables(connection: sa.Connection) -> dict[str, str]:
    """What a database holds, by name."""
    found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {row.name: normalised(row.sql) for row in found if row.name != schema.ALEMBIC_TABLE}


def test_the_migrations_make_the_tables(database: Database) -> None:
    """Alembic finds nothing to change between a migrated database and the tables of this program."""
    schema.prepare(database)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.METADATA) == []


def test_the_migrations_make_every_constraint(database: Database, tmp_path: Path) -> None:
    """Alembic does not compare checks, so every CREATE statement is compared as well."""
    direct = Database.open(tmp_path / "direct.db", writable=True)
    with direct.transaction() as connection:
        tables.METADATA.create_all(connection)
        wanted = made_tables(connection)
    direct.close()
    schema.prepare(database)
    with database.reading() as connection:
        assert made_tables(connection) == wanted


def test_every_revision_has_its_file() -> None:
    """The program's list of revisions is that of the migration files, in one line."""
    scripts = ScriptDirectory(str(schema.MIGRATIONS))
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == tables.REVISIONS


def test_the_tables_can_be_made_on_postgresql() -> None:
    """Neither the tables nor the migrations say anything that PostgreSQL cannot read."""
    for table in tables.METADATA.sorted_tables:
        assert f"CREATE TABLE {table.name}" in str(CreateTable(table).compile(dialect=postgresql.dialect()))
    script = io.StringIO()
    options = {"as_sql": True, "output_buffer": script}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    with Operations.context(context):
        for revision in ScriptDirectory(str(schema.MIGRATIONS)).walk_revisions():
            revision.module.upgrade()
    assert "CREATE UNIQUE INDEX ix_attempts_running ON attempts (trial_id) WHERE state = 'running'" in script.getvalue()
    assert "TIMESTAMP WITH TIME ZONE" in script.getvalue()


def test_a_current_store_is_opened_without_alembic(store: Store, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a change of revision needs the migrations."""
    monkeypatch.setattr(schema, "upgrade", lambda _connection: pytest.fail("upgraded a store that is current"))
    with Store.open(file, writable=True), Store.open(file, writable=False) as reader:
        assert reader.sweeps() == []


@pytest.mark.parametrize("writable", [True, False])
def test_a_newer_store_is_refused(store: Store, file: Path, *, writable: bool) -> None:
    """The message names the file, its revision, ours and the remedy; the store is left as it is."""
    with store._database.transaction() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreVersionError, match=r"stnbench\.db has revision 9999, .* up to 0001: .*update stnbench"):
        Store.open(file, writable=writable)


def test_an_empty_store_is_filled_by_a_writer_only(tmp_path: Path) -> None:
    """A reader of an empty database is told what fills it; a writer makes the tables."""
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(StoreVersionError, match=r"is empty.*python -m stnbench\.sweep"):
        Store.open(empty, writable=False)
    with Store.open(empty, writable=True) as store:
        assert store.sweeps() == []


def test_an_older_store_is_left_alone_by_readers(store: Store, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading never changes a store: the message says what does."""
    monkeypatch.setattr(schema, "REVISIONS", (*tables.REVISIONS, "0002"))
    with pytest.raises(StoreVersionError, match=r"older revision 0001.*reads 0002.*python -m stnbench\.sweep"):
        Store.open(file, writable=False)


def test_an_upgrade_that_fails_leaves_the_old_store(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations are one transaction: a fault in the middle of them leaves nothing of them."""
    original = Operations.invoke
    made = []

    def fail_late(self: Operations, operation: object) -> object:
        made.append(operation)
        if len(made) == 5:
            raise OSError("the disk went away")
        return original(self, operation)

    monkeypatch.setattr(Operations, "invoke", fail_late)
    with pytest.raises(OSError, match="the disk went away"):
        schema.prepare(database)
    with database.reading() as connection:
        assert made_tables(connection) == {}


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    """A database with other tables, even one that Alembic looks after, is neither read nor written."""
    file = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR)")
        connection.execute("CREATE TABLE experiments (name VARCHAR)")
        connection.execute("INSERT INTO alembic_version VALUES ('0001')")
        connection.commit()
    for writable in (True, False):
        with pytest.raises(StoreError, match=r"mlflow\.db is a database of another program"):
            Store.open(file, writable=writable)


@pytest.mark.parametrize("revision", tables.REVISIONS)
def test_a_store_of_every_revision_can_be_used(tmp_path: Path, revision: str) -> None:
    """A store written by an older stnbench still tells what it knows, and goes on from there."""
    file = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript((ASSETS / f"store_{revision}.sql").read_text())
    with Store.open(file, writable=True) as store:
        [complete, failed, planned] = store.sweep_trials("locnet_sizes")
        assert [trial.state for trial in (complete, failed, planned)] == [
            TrialState.COMPLETE,
            TrialState.FAILED,
            TrialState.PLANNED,
        ]
        outcome = store.outcomes("locnet_sizes", predictions=True)[complete.trial_id]
        assert outcome.test is not None
        assert (outcome.validation.accuracy, outcome.test.predictions) == (0.75, (1, 300, 65535))
        assert [epoch.record.train_loss for epoch in store.epochs_of_trial(complete.trial_id)] == [0.5, 0.5]
        assert failed.last_attempt is not None
        assert failed.last_attempt.state is AttemptState.FAILED
        assert failed.last_attempt.failure is not None
        assert failed.last_attempt.failure.kind is FailureKind.BUG
        assert store.replan([failed.trial_id]) == 1
