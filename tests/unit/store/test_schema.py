"""Stores of every revision are read, upgraded or refused; the migrations make what the tables say."""

import contextlib
import io
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from postgres import connected, needs_postgres
from postgres import database as server_database
from quick_stores import real_migrations
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

from stnbench.core.errors import StoreError, StoreVersionError
from stnbench.spec.codec import to_json
from stnbench.spec.planner import MedianPrunerSpec
from stnbench.spec.result import AttemptState, FailureKind, TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.store import engine, tables
from stnbench.store.engine import Database
from stnbench.store.store import Store

__all__ = ["real_migrations"]
pytestmark = pytest.mark.usefixtures("real_migrations")
ASSETS = Path(__file__).parents[2] / "assets"
LATEST = tables.REVISIONS[-1]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    database = Database.open(tmp_path / "empty.db", writable=True)
    yield database
    database.close()


@pytest.fixture
def empty_url() -> Iterator[str]:
    """An empty database on a server."""
    with server_database() as url:
        yield url


def normalised(statement: str) -> str:
    """A CREATE statement with its clauses in one order and one spelling."""
    flat = re.sub(r"\s+", " ", statement.replace('"', ""))
    head, _, body = flat.rstrip().removesuffix(")").partition("(")
    clauses = sorted(clause.strip() for clause in re.split(r", (?=[A-Za-z])", body))
    return f"{head.strip()} {clauses}"


def made_tables(connection: sa.Connection) -> dict[str, str]:
    """What a database holds, by name."""
    found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {row.name: normalised(row.sql) for row in found if row.name != engine.ALEMBIC_TABLE}


def test_the_migrations_make_the_tables(database: Database) -> None:
    """Alembic finds nothing to change between a migrated database and the tables of this program."""
    engine.prepare(database)
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
    engine.prepare(database)
    with database.reading() as connection:
        assert made_tables(connection) == wanted


def test_every_revision_has_its_file() -> None:
    """The program's list of revisions is that of the migration files, in one line."""
    scripts = ScriptDirectory(str(engine.MIGRATIONS))
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == tables.REVISIONS


def test_the_tables_can_be_made_on_postgresql() -> None:
    """Neither the tables nor the migrations say anything that PostgreSQL cannot read."""
    for table in tables.METADATA.sorted_tables:
        assert f"CREATE TABLE {table.name}" in str(CreateTable(table).compile(dialect=PGDialect()))
    script = io.StringIO()
    options = {"as_sql": True, "output_buffer": script}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    with Operations.context(context):
        for revision in reversed(list(ScriptDirectory(str(engine.MIGRATIONS)).walk_revisions())):
            revision.module.upgrade()
    assert "CREATE UNIQUE INDEX ix_attempts_running ON attempts (trial_id) WHERE state = 'running'" in script.getvalue()
    assert "TIMESTAMP WITH TIME ZONE" in script.getvalue()


@needs_postgres
def test_the_migrations_make_the_tables_on_a_server(empty_url: str) -> None:
    """Alembic finds nothing to change there either, and the promises that hold for some rows only are kept."""
    with Store.open(empty_url, writable=True) as store, store._database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.METADATA) == []
        partial = connection.exec_driver_sql("SELECT indexdef FROM pg_indexes WHERE indexdef LIKE '%% WHERE %%'")
        conditions = {one.rpartition(" WHERE ")[2] for one in partial.scalars()}
    assert conditions == {"wanted", "((state)::text = 'running'::text)", "((state)::text = 'complete'::text)"}


@needs_postgres
def test_a_server_without_a_store_is_filled_by_a_writer_only(empty_url: str) -> None:
    """A reader of an empty database is told what fills it; a writer makes the tables; then there is a store."""
    assert not Store.exists(empty_url)
    with pytest.raises(StoreVersionError, match=r"is empty.*python -m stnbench\.sweep"):
        Store.open(empty_url, writable=False)
    assert not Store.exists(empty_url)
    with Store.open(empty_url, writable=True) as store:
        assert store.sweeps() == []
    assert Store.exists(empty_url)


@needs_postgres
@pytest.mark.parametrize("writable", [True, False])
def test_a_newer_store_on_a_server_is_refused(url: str, *, writable: bool) -> None:
    """The message names the database, its revision, ours and the remedy."""
    with Store.open(url, writable=True) as store, store._database.transaction() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(
        StoreVersionError, match=rf"/stnbench_test_\w+ has revision 9999, .* up to {LATEST}: .*update stnbench"
    ):
        Store.open(url, writable=writable)


@needs_postgres
def test_an_upgrade_that_fails_leaves_nothing_on_a_server(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations are one transaction there as well."""
    original = Operations.invoke
    made = []

    def fail_late(self: Operations, operation: Any) -> object:
        made.append(operation)
        if len(made) == 5:
            raise OSError("the line went dead")
        return original(self, operation)

    with monkeypatch.context() as patch:
        patch.setattr(Operations, "invoke", fail_late)
        with pytest.raises(OSError, match="the line went dead"):
            Store.open(empty_url, writable=True)
    assert not Store.exists(empty_url)


@needs_postgres
def test_a_database_of_another_program_on_a_server_is_refused(empty_url: str) -> None:
    """A database with other tables is neither read nor written."""
    with connected(empty_url.replace("postgresql:", "postgresql+psycopg:")) as connection:
        connection.exec_driver_sql("CREATE TABLE experiments (name VARCHAR)")
    for writable in (True, False):
        with pytest.raises(StoreError, match="is a database of another program"):
            Store.open(empty_url, writable=writable)


def test_a_current_store_is_opened_without_alembic(store: Store, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a change of revision needs the migrations."""
    monkeypatch.setattr(engine, "upgrade", lambda _connection: pytest.fail("upgraded a store that is current"))
    with Store.open(file, writable=True), Store.open(file, writable=False) as reader:
        assert reader.sweeps() == []


@pytest.mark.parametrize("writable", [True, False])
def test_a_newer_store_is_refused(store: Store, file: Path, *, writable: bool) -> None:
    """The message names the file, its revision, ours and the remedy; the store is left as it is."""
    with store._database.transaction() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(
        StoreVersionError, match=rf"stnbench\.db has revision 9999, .* up to {LATEST}: .*update stnbench"
    ):
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
    monkeypatch.setattr(engine, "REVISIONS", (*tables.REVISIONS, "9999"))
    with pytest.raises(StoreVersionError, match=rf"older revision {LATEST}.*reads 9999.*python -m stnbench\.sweep"):
        Store.open(file, writable=False)


def test_an_upgrade_that_fails_leaves_the_old_store(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations are one transaction: a fault in the middle of them leaves nothing of them."""
    original = Operations.invoke
    made = []

    def fail_late(self: Operations, operation: Any) -> object:
        made.append(operation)
        if len(made) == 5:
            raise OSError("the disk went away")
        return original(self, operation)

    monkeypatch.setattr(Operations, "invoke", fail_late)
    with pytest.raises(OSError, match="the disk went away"):
        engine.prepare(database)
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


def test_the_upgrade_lets_attempts_fail_in_the_new_way(database: Database) -> None:
    """A store of the first revision refuses the kind; upgraded, also in the same connection, it takes it whole."""
    who = "1, 't', 1, 'a', 'failed', 'cpu0', 'box', 1, 'boot'"
    kind = f"INSERT INTO attempts VALUES ({who}, '2026', '2026', 'infrastructure', '', '', '')"  # noqa: S608 - constants
    with database.transaction() as connection:
        engine.upgrade(connection, to="0001")
        connection.exec_driver_sql("INSERT INTO trials VALUES ('t', 'c', 1, '{}', 'failed', '2026-03-01 12:00:00')")
        with pytest.raises(IntegrityError, match="ck_attempts_failure_kind"):
            connection.exec_driver_sql(kind)
        engine.upgrade(connection)
        connection.exec_driver_sql(kind)
        of_a_later_version = kind.replace("1, 't', 1, 'a'", "2, 't', 2, 'b'").replace("infrastructure", "device")
        connection.exec_driver_sql(of_a_later_version)
    with database.reading() as connection:
        kinds = connection.exec_driver_sql("SELECT failure_kind FROM attempts ORDER BY id").scalars().all()
        assert kinds == ["infrastructure", "device"]
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalars().all() == ["ok"]


def test_the_upgrade_knows_which_sweep_pruned_a_trial(database: Database) -> None:
    """Of an older store it is a sweep that has the trial and a pruner, and no other."""
    at = "2026-03-01 12:00:00"
    specs = {"with": to_json(SweepSpec(name="with", question="?", pruner=MedianPrunerSpec())), "without": "{}"}
    with database.transaction() as connection:
        engine.upgrade(connection, to="0003")
        for trial in (("p", "pruned", at), ("c", "complete", at)):
            connection.exec_driver_sql("INSERT INTO trials VALUES (?, 'c', 1, '{}', ?, ?)", trial)
        for sweep, spec in specs.items():
            connection.exec_driver_sql("INSERT INTO sweeps VALUES (?, ?, ?, ?)", (sweep, spec, at, at))
            for position, name in enumerate("pc"):
                link = (sweep, name, position)
                connection.exec_driver_sql("INSERT INTO sweep_trials VALUES (?, ?, ?, 'l', '{}', false, true)", link)
        engine.upgrade(connection)
    with database.reading() as connection:
        found = connection.exec_driver_sql("SELECT sweep, trial_id FROM sweep_trials WHERE pruned").all()
        assert [tuple(row) for row in found] == [("with", "p")]


@needs_postgres
def test_the_upgrade_changes_a_store_on_a_server(empty_url: str) -> None:
    """There the check is replaced in the same way."""
    database = Database.open(empty_url, writable=True)
    with database.transaction() as connection:
        engine.upgrade(connection, to="0001")
    database.close()
    query = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'ck_attempts_failure_kind'"
    with Store.open(empty_url, writable=True) as store, store._database.reading() as connection:
        assert "infrastructure" not in connection.exec_driver_sql(query).scalar_one()


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
        assert outcome.validation.metrics == ({} if revision < "0007" else {"ece": 0.25})
        epochs = [epoch.record for epoch in store.epochs_of_trial(complete.trial_id)]
        assert [record.train_loss for record in epochs] == [0.5, 0.5]
        assert [record.metrics for record in epochs] == [{} if revision < "0008" else {"ece": 0.5}] * 2
        assert failed.last_attempt is not None
        assert failed.last_attempt.state is AttemptState.FAILED
        assert failed.last_attempt.failure is not None
        assert failed.last_attempt.failure.kind is FailureKind.BUG
        assert store.replan([failed.trial_id]) == 1
