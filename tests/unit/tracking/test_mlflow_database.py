"""A damaged database of MLflow is set aside; one that is whole, or only locked, is left."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from stnbench.tracking.mlflow_server import NEEDED_TABLES, local_place, server_environment, set_aside_damaged


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with MLflow's tables, and pages enough to be damaged."""
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as connection:
        for table in sorted(NEEDED_TABLES):
            connection.execute(f'CREATE TABLE "{table}" (key TEXT PRIMARY KEY, value TEXT)')
            rows = [(str(number), "x" * 50) for number in range(200)]
            connection.executemany(f'INSERT INTO "{table}" VALUES (?, ?)', rows)  # noqa: S608 - our own names
        connection.commit()
    return file


def drop_a_table(file: Path) -> None:
    """As a process leaves it that was killed while it made the tables."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TABLE runs")
        connection.commit()


def overwrite(start: int, count: int) -> Callable[[Path], None]:
    """What overwrites some bytes."""

    def damage(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[start : start + count] = os.urandom(count)
        file.write_bytes(data)

    return damage


DAMAGES: list[Callable[[Path], object]] = [
    overwrite(0, 4096),
    overwrite(8192, 20_000),
    lambda file: file.write_bytes(b""),
    lambda file: os.truncate(file, 6000),
    lambda file: file.write_text("no database\n" * 99),
    drop_a_table,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_moved(database: Path, damage: Callable[[Path], object]) -> None:
    """It lies beside its place, as it was, with the files beside it, and its place is free."""
    damage(database)
    database.with_name("mlflow.db-wal").write_bytes(b"")
    content = database.read_bytes()
    aside = set_aside_damaged(f"sqlite:///{database}")
    assert aside is not None
    assert aside.read_bytes() == content
    assert not database.exists()
    assert set_aside_damaged(f"sqlite:///{database}") is None


def test_a_whole_database_is_left(database: Path, tmp_path: Path) -> None:
    """Also while somebody writes it, and where the address is of a server or of nothing."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert set_aside_damaged(f"sqlite:///{database}") is None
    assert set_aside_damaged("http://127.0.0.1:5000") is None
    assert set_aside_damaged(f"sqlite:///{tmp_path / 'none.db'}") is None
    assert database.exists()
    shutil.rmtree(tmp_path)


def test_the_server_gets_its_address_where_others_cannot_read_it() -> None:
    """By its environment; and it starts no job runners."""
    made = server_environment("postgresql://me:secret@host/db", {"HOME": "/root"})
    assert made["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:secret@host/db"
    assert made["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert made["HOME"] == "/root"


def test_artifacts_of_an_address_lie_below_their_folder(tmp_path: Path) -> None:
    """A name with a slash or dots in it leads nowhere else."""
    assert local_place(tmp_path, "mlflow-artifacts:/a%20b/run/artifacts") == tmp_path / "a b" / "run" / "artifacts"
    for evil in (
        "mlflow-artifacts:/../x",
        "mlflow-artifacts:/a/%2e%2e/x",
        "mlflow-artifacts:/a%2Fb",
        "mlflow-artifacts:/%00",
    ):
        with pytest.raises(ValueError, match="no address"):
            local_place(tmp_path, evil)
