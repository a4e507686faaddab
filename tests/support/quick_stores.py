"""Stores of one process share what takes longest to make, compiled statements and the tables of a new file.

Nor do they wait for the disk: a test survives no power cut.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, inspect

from stnbench.store import engine as stores

run_migrations = stores.upgrade
configure_writer = stores._configure_writer


@contextmanager
def quick_stores() -> Iterator[None]:
    """Let SQLite stores share compiled statements, and let new ones copy the tables that the migrations made first."""
    shared = create_engine("sqlite://")
    shared.connect().close()  # by which its dialect is initialised
    tables: list[str] = []

    def create(*words: Any, **named: Any) -> Engine:
        engine = create_engine(*words, **named)
        if engine.dialect.name == "sqlite":
            engine._compiled_cache = shared._compiled_cache
            engine.dialect = shared.dialect  # by which the cache knows statements
        return engine

    def upgrade(connection: Connection, *, to: str = "head") -> None:
        is_new = connection.dialect.name == "sqlite" and to == "head" and not inspect(connection).get_table_names()
        if not is_new:
            run_migrations(connection, to=to)
            return
        if not tables:
            run_migrations(connection, to=to)
            tables.extend(_statements(connection))
            return
        for statement in tables:
            connection.exec_driver_sql(statement)

    def configure(connection: sqlite3.Connection, record: object) -> None:
        configure_writer(connection, record)
        connection.execute("PRAGMA synchronous = OFF").close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "create_engine", create)
        patch.setattr(stores, "_configure_writer", configure)
        patch.setattr(stores, "upgrade", upgrade)
        yield


@pytest.fixture
def real_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the migrations for every store of this test."""
    monkeypatch.setattr(stores, "upgrade", run_migrations)


@pytest.fixture
def durable_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stores of this test be as safe as those of users."""
    monkeypatch.setattr(stores, "_configure_writer", configure_writer)


def _statements(connection: Connection) -> list[str]:
    """Return what makes a database again that holds tables, indices and one revision."""
    rows = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
    made = [str(sql) for (sql,) in rows]
    (revision,) = connection.exec_driver_sql(f"SELECT version_num FROM {stores.ALEMBIC_TABLE}").one()  # noqa: S608 - ours
    return [*made, f"INSERT INTO {stores.ALEMBIC_TABLE} VALUES ('{revision}')"]  # noqa: S608 - ours
