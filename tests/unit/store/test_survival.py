"""A process that is killed while it writes leaves what it committed, and nothing else."""

import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from postgres import needs_postgres

from stnbench.core.errors import StoreBusyError
from stnbench.store.file import Holder
from stnbench.store.store import Store

WRITER = """
import sys
from sqlalchemy import text
from stnbench.store.file import Holder
from stnbench.store.store import Store

store = Store.open(sys.argv[1], writable=True, holder=Holder(title="process 1 on box"))
store.set_mirrored("committed", {str(number): "x" for number in range(1000)})
with store._database.transaction() as connection:
    for number in range(int(sys.argv[2])):
        connection.execute(text(f"INSERT INTO mirrored VALUES ('open', '{number}', 'x')"))
    connection.execute(text("DELETE FROM mirrored WHERE tracker = 'committed'"))
    print("in the middle", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_whole_transactions(file: Path) -> None:
    """After kill -9 in the middle of a transaction, its rows are gone, those committed before are there."""
    command = [sys.executable, "-c", WRITER, str(file), "20000"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        with Store.open(file, writable=False) as reader:
            assert len(reader.mirrored("committed")) == 1000
        process.kill()
        assert process.wait(timeout=10) == -signal.SIGKILL
    with Store.open(file, writable=True) as store:
        assert len(store.mirrored("committed")) == 1000
        assert store.mirrored("open") == {}
        store.set_mirrored("after", {"s": "d"})
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@needs_postgres
@pytest.mark.slow
def test_a_killed_writer_leaves_whole_transactions_on_a_server(url: str) -> None:
    """There as well; and the right to write, refused to others while it lived, is given back with its connection."""
    command = [sys.executable, "-c", WRITER, url, "1000"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        with pytest.raises(StoreBusyError, match=r"another sweep runs on .* \(process 1 on box\)"):
            Store.open(url, writable=True, holder=Holder(title="process 2 on box"))
        with Store.open(url, writable=False) as reader:
            assert len(reader.mirrored("committed")) == 1000
        process.kill()
        assert process.wait(timeout=10) == -signal.SIGKILL
    with opened_soon(url) as store:
        assert len(store.mirrored("committed")) == 1000
        assert store.mirrored("open") == {}
        store.set_mirrored("after", {"s": "d"})


def opened_soon(url: str) -> Store:
    """The store, once the server has seen that whoever held it is gone."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return Store.open(url, writable=True, holder=Holder(title="process 2 on box"))
        except StoreBusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.slow
def test_the_store_starts_without_what_it_does_not_need() -> None:
    """Importing the store loads neither torch, numpy, pandas, Alembic, MLflow, PostgreSQL's nor SQLAlchemy's ORM."""
    program = """
import sys
from stnbench.store.store import Store
heavy = ("torch", "numpy", "pandas", "alembic", "mlflow", "hydra", "psycopg", "sqlalchemy.orm")
heavy += ("sqlalchemy.dialects.postgresql",)
print([name for name in heavy if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
