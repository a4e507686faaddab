"""Databases of their own for tests on PostgreSQL, on the server that STNBENCH_TEST_POSTGRES names."""

import contextlib
import os
import secrets
from collections.abc import Iterator

import pytest
from sqlalchemy import URL, Connection, create_engine, make_url, text

VARIABLE = "STNBENCH_TEST_POSTGRES"
needs_postgres = pytest.mark.skipif(
    not os.environ.get(VARIABLE), reason=f"{VARIABLE} names no server on which databases may be made"
)


def server() -> URL:
    """The server, as a user who may make databases on it."""
    return make_url(os.environ[VARIABLE]).set(drivername="postgresql+psycopg")


@contextlib.contextmanager
def connected(url: URL | str) -> Iterator[Connection]:
    """A plain connection, each of whose statements is committed at once."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextlib.contextmanager
def database(template: str = "") -> Iterator[str]:
    """The URL of a database that lives as long as the block: an empty one, or a copy of the one at ``template``."""
    name = f"stnbench_test_{secrets.token_hex(8)}"
    copied = f" TEMPLATE {make_url(template).database}" if template else ""
    with connected(server()) as connection:
        connection.execute(text(f"CREATE DATABASE {name}{copied}"))
        try:
            yield server().set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def end_connections(url: str) -> int:
    """Break every other connection to a database, as a server that restarts does; how many there were."""
    others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with connected(url) as connection:
        pids = connection.execute(text(others)).scalars().all()
        for pid in pids:
            connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    return len(pids)
