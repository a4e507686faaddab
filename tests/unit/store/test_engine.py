"""Connections fail in one clear line, and a transaction is whole or absent."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from quick_stores import durable_stores
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from stnbench.core.errors import FolderError, StoreBusyError, StoreError
from stnbench.store.engine import Database
from stnbench.store.store import Store

__all__ = ["durable_stores"]
NOBODY = 65534


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Without the superuser's right to write everywhere."""
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if superuser:
            os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that anybody may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_missing_store_is_not_made_by_a_reader(file: Path) -> None:
    """Reading says what is missing and what makes it, and leaves no empty file behind."""
    with pytest.raises(StoreError, match=r"there is no store at .*stnbench\.db: run a sweep first"):
        Store.open(file, writable=False)
    assert not file.parent.exists()


@pytest.mark.parametrize("writable", [True, False])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, *, writable: bool) -> None:
    """Somebody's notes are not overwritten."""
    file = tmp_path / "notes.txt"
    file.write_text("remember the milk\n" * 100)
    with pytest.raises(StoreError, match=r"notes\.txt is not a SQLite database") as caught:
        Store.open(file, writable=writable)
    assert "\n" not in str(caught.value)
    assert file.read_text().startswith("remember")


@pytest.mark.parametrize("writable", [True, False])
def test_a_damaged_store_is_named(store: Store, file: Path, *, writable: bool) -> None:
    """A page of rubbish inside the file is reported as damage, with what can be done."""
    store.close()
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    content[100:140] = b"\xa5" * 40
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"the store .*stnbench\.db is damaged .*store rebuild"):
        Store.open(file, writable=writable)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Where a file stands in the way of the folder, the message names the folder and the variable that moves it."""
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(FolderError, match=r"runs for the store cannot be written.*STNBENCH_RUNS"):
        Store.open(tmp_path / "runs" / "stnbench.db", writable=True)


def test_a_folder_without_permission_is_named(public_folder: Path) -> None:
    """A folder that may only be read is found out before anything is run."""
    public_folder.chmod(0o555)
    with unprivileged(), pytest.raises(FolderError, match="cannot be written"):
        Store.open(public_folder / "stnbench.db", writable=True)


def test_a_store_in_a_read_only_folder_says_what_to_do(public_folder: Path) -> None:
    """Readers share a file beside the store; where it cannot be made, the message says so."""
    file = public_folder / "stnbench.db"
    Store.open(file, writable=True).close()
    file.chmod(0o444)
    public_folder.chmod(0o555)
    with unprivileged(), pytest.raises(StoreError, match=r"cannot be opened .*writable.*or work on a copy"):
        Store.open(file, writable=False)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense://", "neither SQLite nor PostgreSQL"),
        ("://", "no database URL"),
        ("sqlite://", "names no file"),
        ("postgresql://host:port/db", "no database URL"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused(url: str, says: str) -> None:
    """A database URL that cannot be used is named."""
    with pytest.raises(StoreError, match=says):
        Store.open(url, writable=True)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense://me:secret@host/db",
        "sqlite://me:secret@host",
        "postgresql://me:secret@host:port/db",
        "postgresql://me:so@secret@host/db",
        "postgresql://me:secret@127.0.0.1:1/db",
        "postgresql://me@127.0.0.1:1/db?password=secret&connect_timeout=2",
    ],
)
def test_a_password_stays_out_of_messages(url: str) -> None:
    """A message never shows the password of a database URL, however it is written there."""
    with pytest.raises(StoreError) as caught:
        Store.open(url, writable=True)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def write_and_fail(store: Store, error: Exception) -> None:
    """One transaction that writes a row and then raises."""
    with store._database.transaction() as connection:
        connection.execute(text("INSERT INTO mirrored VALUES ('t', 's', 'd')"))
        raise error


@pytest.mark.parametrize("error", [KeyError("ours"), sqlite3.OperationalError("not of this database")])
def test_an_error_inside_a_transaction_goes_on_as_it_is(store: Store, error: Exception) -> None:
    """The block's own error is not masked, and nothing it wrote stays."""
    with pytest.raises(type(error)) as caught:
        write_and_fail(store, error)
    assert caught.value is error
    assert store.mirrored("t") == {}


def write_twice(store: Store) -> None:
    """One transaction that breaks a promise of the tables."""
    with store._database.transaction() as connection:
        connection.execute(text("INSERT INTO mirrored VALUES ('t', 's', 'd')"))
        connection.execute(text("INSERT INTO mirrored VALUES ('t', 's', 'd')"))


def test_what_the_database_forbids_stays_a_bug(store: Store) -> None:
    """Writing what must not be written keeps its type and traceback, and nothing of it stays."""
    with pytest.raises(IntegrityError):
        write_twice(store)
    assert store.mirrored("t") == {}


def test_a_writer_waits_for_another_and_then_says_so(store: Store, file: Path) -> None:
    """While another process keeps the right to write, ours gives up in time with a clear error, and can go on later."""
    with Store.open(file, writable=True, busy_timeout_s=0.05) as second:
        with (
            store._database.transaction(),
            pytest.raises(StoreBusyError, match="is being written by another process"),
        ):
            second.set_mirrored("t", {"s": "d"})
        second.set_mirrored("t", {"s": "d"})
        assert store.mirrored("t") == {"s": "d"}


def test_a_reader_sees_the_state_before_an_open_transaction(store: Store, file: Path) -> None:
    """A reader neither waits for a writer nor sees half of what it writes."""
    with Store.open(file, writable=False, busy_timeout_s=0.05) as reader:
        with store._database.transaction() as connection:
            connection.execute(text("INSERT INTO mirrored VALUES ('t', 's', 'd')"))
            assert reader.mirrored("t") == {}
        assert reader.mirrored("t") == {"s": "d"}


def test_a_reader_keeps_its_view_for_all_its_statements(store: Store, file: Path) -> None:
    """What is committed between two statements of one question does not mix into its answer."""
    reader = Database.open(file, writable=False)
    count = text("SELECT count(*) FROM mirrored")
    with reader.reading() as connection:
        before = connection.execute(count).scalar_one()
        store.set_mirrored("t", {"s": "d"})
        assert connection.execute(count).scalar_one() == before
    reader.close()


@pytest.mark.usefixtures("durable_stores")
def test_a_commit_is_synced_and_read_beside(store: Store, file: Path) -> None:
    """Write-ahead logging, a sync at every commit, and foreign keys are on in every connection that writes."""
    with store._database.reading() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 20_000}


def test_closing_leaves_one_whole_file(store: Store, file: Path) -> None:
    """After closing, everything is in the one file, so that it can be copied."""
    store.set_mirrored("t", {"s": "d"})
    store.close()
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT digest FROM mirrored").fetchall() == [("d",)]
