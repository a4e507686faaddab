"""A store on a server: who may write it, what a lost connection costs, and what its errors say."""

import dataclasses
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from postgres import connected, end_connections, needs_postgres
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError

from stnbench.core.errors import StoreBusyError, StoreError
from stnbench.store import postgres
from stnbench.store.engine import Database
from stnbench.store.file import Holder
from stnbench.store.store import Store

FIRST, SECOND = Holder(title="process 1 on box"), Holder(title="process 2 on other")
INSERT = text("INSERT INTO mirrored VALUES ('t', 's', 'd')")


@pytest.fixture
def held(url: str) -> Iterator[Store]:
    """A store that the first process holds."""
    with Store.open(url, writable=True, holder=FIRST) as store:
        yield store


def in_schema(url: str, schema: str) -> str:
    """The URL of a store in a schema of its own, made where it is missing."""
    with connected(url) as connection:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
    return make_url(url).update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(hide_password=False)


@needs_postgres
def test_a_held_store_is_refused_to_others(held: Store, url: str) -> None:
    """While one process holds it, nobody else gets it, and the message names who; readers are not disturbed."""
    password = str(make_url(url).password)
    with pytest.raises(
        StoreBusyError, match=r"another sweep runs on .* \(process 1 on box\): .*STNBENCH_STORE"
    ) as caught:
        Store.open(url, writable=True, holder=SECOND)
    assert password not in str(caught.value)
    with Store.open(url, writable=False) as reader:
        held.set_mirrored("t", {"s": "d"})
        assert reader.mirrored("t") == {"s": "d"}
    held.close()
    with Store.open(url, writable=True, holder=SECOND) as second:
        second.set_mirrored("t", {"s": "e"})


@needs_postgres
def test_a_held_store_is_not_even_upgraded_by_others(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer stnbench that is refused has changed no table under the one at work."""
    held = Store.open(url, writable=True, holder=Holder(title=""))
    monkeypatch.setattr("stnbench.store.engine.prepare", lambda _database: pytest.fail("looked at the tables"))
    with pytest.raises(StoreBusyError, match="another program"):
        Store.open(url, writable=True, holder=SECOND)
    held.close()


@needs_postgres
def test_schemas_are_held_apart(url: str) -> None:
    """Two stores in one database are two stores, whatever number their names have; each refusal names its holder."""
    with connected(url) as connection:
        candidates = [f"store_{index}" for index in range(40)]
        keys = {name: connection.execute(text(f"SELECT hashtext('{name}')")).scalar_one() for name in candidates}
    names = [min(keys, key=lambda name: keys[name]), max(keys, key=lambda name: keys[name])]
    assert keys[names[0]] < 0 < keys[names[1]]
    stores = [Store.open(in_schema(url, name), writable=True, holder=Holder(title=name)) for name in names]
    for name, store in zip(names, stores, strict=True):
        with pytest.raises(StoreBusyError, match=rf"\({name}\)"):
            Store.open(in_schema(url, name), writable=True, holder=SECOND)
        store.set_mirrored("t", {"s": name})
    assert [store.mirrored("t") for store in stores] == [{"s": name} for name in names]
    for store in stores:
        store.close()


@needs_postgres
def test_a_writer_waits_for_another_and_then_says_so(url: str) -> None:
    """While another process is writing, ours gives up in time with a clear error, and can go on later."""
    with Store.open(url, writable=True) as first, Store.open(url, writable=True, busy_timeout_s=0.05) as second:
        with first._database.transaction(), pytest.raises(StoreBusyError, match="is being written by another process"):
            second.set_mirrored("t", {"s": "d"})
        second.set_mirrored("t", {"s": "d"})
        assert first.mirrored("t") == {"s": "d"}


@needs_postgres
def test_a_reader_sees_whole_transactions_and_one_view(held: Store, url: str) -> None:
    """A reader neither waits for a writer nor sees half of what it writes; what it asks together fits together."""
    reader = Database.open(url, writable=False)
    count = text("SELECT count(*) FROM mirrored")
    with held._database.transaction() as connection:
        connection.execute(INSERT)
        with reader.reading() as looking:
            assert looking.execute(count).scalar_one() == 0
    with reader.reading() as looking:
        assert looking.execute(count).scalar_one() == 1
        held.set_mirrored("t", {"another": "d"})
        assert looking.execute(count).scalar_one() == 1
    reader.close()


@needs_postgres
def test_what_goes_wrong_in_a_transaction_leaves_nothing_of_it(held: Store) -> None:
    """The block's own error and what the tables forbid go on as they are, and nothing that was written stays."""

    def write(then: Any) -> None:
        with held._database.transaction() as connection:
            connection.execute(INSERT)
            then(connection)

    def fail(_connection: object) -> None:
        raise KeyError("ours")

    for error, then in ((KeyError, fail), (IntegrityError, lambda connection: connection.execute(INSERT))):
        with pytest.raises(error):
            write(then)
    assert held.mirrored("t") == {}


@needs_postgres
def test_a_connection_lost_between_writes_is_made_again(held: Store, url: str) -> None:
    """Reading and writing go on as if nothing had been, and the right to write is kept."""
    held.set_mirrored("t", {"s": "before"})
    assert held.mirrored("t") == {"s": "before"}
    assert end_connections(url) == 2
    held.set_mirrored("t", {"s": "after"})
    assert held.mirrored("t") == {"s": "after"}
    with pytest.raises(StoreBusyError, match=FIRST.title):
        Store.open(url, writable=True, holder=SECOND)


@needs_postgres
def test_a_connection_lost_in_the_middle_of_a_write_is_told(held: Store, url: str) -> None:
    """Nothing of the transaction stays, the message says what to do, and the store can be used again."""

    def write() -> None:
        with held._database.transaction() as connection:
            connection.execute(INSERT)
            end_connections(url)
            connection.execute(INSERT)

    lost = r"the connection to the store .* was lost \(.*\): the same command goes on where it was"
    with pytest.raises(StoreError, match=lost) as caught:
        write()
    assert "\n" not in str(caught.value)
    assert str(make_url(url).password) not in str(caught.value)
    assert held.mirrored("t") == {}
    held.set_mirrored("t", {"s": "d"})


@needs_postgres
def test_who_was_replaced_while_cut_off_writes_no_more(held: Store, url: str) -> None:
    """A writer that lost its connection, and with it its right to another, is refused at its next write."""
    held.set_mirrored("t", {"s": "first"})
    end_connections(url)
    with Store.open(url, writable=True, holder=SECOND) as second:
        second.set_mirrored("t", {"s": "second"})
        with pytest.raises(StoreBusyError, match=rf"another sweep runs on .* \({SECOND.title}\)"):
            held.set_mirrored("t", {"s": "first again"})
        assert second.mirrored("t") == {"s": "second"}


@needs_postgres
def test_an_own_connection_that_the_server_still_believes_in_is_waited_for(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a network fault the server may keep our old lock for a while: it is ours, and no reason to give up."""
    monkeypatch.setattr(postgres, "RETRY_S", 0.02)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    words, named = engine.dialect.create_connect_args(engine.url)
    connector = postgres._Connector(name="the store", settings=postgres.SETTINGS, holder=FIRST)
    old = connector(engine.dialect, None, list(words), dict(named))
    closing = threading.Timer(0.3, old.close)
    closing.start()
    began = time.monotonic()
    new = connector(engine.dialect, None, list(words), dict(named))
    assert time.monotonic() - began > 0.2
    closing.join()
    new.close()
    engine.dispose()


@dataclasses.dataclass
class Answers:
    """A connection to a server that answers so, and in this order."""

    rows: list[tuple[object, ...] | None]

    def execute(self, _statement: str, _parameters: object = None) -> "Answers":
        """Any statement: its row is the next one."""
        return self

    def fetchone(self) -> tuple[object, ...] | None:
        """The row of the statement, or none."""
        return self.rows.pop(0)


def test_a_lock_that_nobody_is_seen_to_hold_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server forgets a process that ends before it frees its lock: between the two, nobody is in our way."""
    monkeypatch.setattr(postgres, "RETRY_S", 0.0)
    connector = postgres._Connector(name="the store", settings={}, holder=FIRST)
    (right,) = postgres._rights(FIRST)
    leaving: list[tuple[object, ...] | None] = [(False,), None]
    assert connector._hold(cast(Any, Answers([*leaving, *leaving, (True,)])), right, may_wait=False)
    with pytest.raises(StoreBusyError, match=rf"\({SECOND.title}\)"):
        connector._hold(cast(Any, Answers([*leaving, (False,), (1, f"stnbench {SECOND.title}")])), right, may_wait=True)
    with pytest.raises(StoreBusyError, match="another process"):
        connector._hold(cast(Any, Answers(leaving * postgres.LEAVING_TRIES)), right, may_wait=True)


@needs_postgres
def test_times_are_utc_whatever_the_server_thinks(url: str) -> None:
    """The session's zone is ours, also where the server's is one that Python does not know."""
    with connected(url) as connection:
        connection.execute(text(f"ALTER DATABASE {make_url(url).database} SET timezone = 'posixrules'"))
    with Store.open(url, writable=True) as store, store._database.reading() as connection:
        assert connection.execute(text("SHOW timezone")).scalar_one() == "UTC"


@needs_postgres
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"port": 1}, "cannot be reached .*refused"),
        ({"database": "nowhere"}, "cannot be reached .*nowhere"),
        ({"password": "secret"}, "cannot be reached .*password authentication failed"),
        ({"query": {"options": "-csearch_path=nowhere"}}, "a schema that does not exist"),
    ],
)
@pytest.mark.parametrize("holder", [None, FIRST])
def test_a_server_that_cannot_be_used_is_told_in_a_line(
    url: str, change: dict[str, Any], says: str, holder: Holder | None
) -> None:
    """What the server said is in the message, the password is not, and nothing is waited for."""
    wrong = make_url(url).set(**change)
    with pytest.raises(StoreError, match=says) as caught:
        Store.open(wrong.render_as_string(hide_password=False), writable=True, holder=holder)
    assert "\n" not in str(caught.value)
    assert str(wrong.password) not in str(caught.value)


class SaidError(Exception):
    """What a driver raises."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("the server said so\nand more")
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("kind", "state", "says"),
    [
        (OperationalError, "55P03", "is being written by another process"),
        (OperationalError, "40001", "is being written by another process"),
        (ProgrammingError, "42501", r"may not be used \(the server said so\)"),
        (OperationalError, "53100", "no space is left"),
        (OperationalError, None, r"cannot be reached \(the server said so\)"),
        (OperationalError, "XX001", "cannot be used: the server said so"),
    ],
)
def test_an_error_says_what_can_be_done(kind: type[DBAPIError], state: str | None, says: str) -> None:
    """Each kind of fault has a line of its own."""
    explained = postgres.explain("db", kind("SELECT 1", {}, SaidError(state)))
    assert explained is not None
    with pytest.raises(StoreError, match=says):
        raise explained


@pytest.mark.parametrize(("kind", "state"), [(IntegrityError, "23505"), (ProgrammingError, "42P01")])
def test_a_bug_is_not_explained_away(kind: type[DBAPIError], state: str) -> None:
    """What must not be written, and a statement that cannot be, keep their tracebacks."""
    assert postgres.explain("db", kind("SELECT 1", {}, SaidError(state))) is None


class FakeDriver:
    """A driver whose server answers or not, as it is told."""

    OperationalError = SaidError

    def __init__(self, answers: list[bool]) -> None:
        self.loaded_dbapi = self
        self.answers = answers
        self.info = self
        self.backend_pid = 1

    def connect(self, **_parameters: object) -> "FakeDriver":
        """A connection, or an error."""
        if not self.answers.pop(0):
            raise SaidError(None)
        return self

    def execute(self, *_: object) -> None:
        """Nothing."""


def test_a_server_that_restarts_costs_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first connection fails at once, since its URL may be wrong; later ones are tried again for a while."""
    monkeypatch.setattr(postgres, "RETRY_S", 0.0)
    driver: Any = FakeDriver([False, True, False, False, True])
    connector = postgres._Connector(name="the store", settings={"timezone": "UTC"})
    with pytest.raises(SaidError):
        connector(driver, None, [], {})
    connector(driver, None, [], {})
    connector(driver, None, [], {})
    assert driver.answers == []
    monkeypatch.setattr(postgres, "RECONNECT_S", 0.0)
    driver.answers = [False, True]
    with pytest.raises(SaidError):
        connector(driver, None, [], {})


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is an extra: the message says how to install it."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        StoreError, match=r"driver of the store postgresql://me:\*\*\*@host/db .*'stnbench\[postgres\]'"
    ):
        Store.open("postgresql://me:secret@host/db", writable=False)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_usual_spelling_is_understood(scheme: str) -> None:
    """However it is written, the same driver is used; nothing is connected before it is needed."""
    database = Database.open(f"{scheme}://me@host/db", writable=True)
    assert database.backend.writer.url.drivername == "postgresql+psycopg"
    assert database.name == f"{scheme}://me@host/db"


@pytest.mark.parametrize("scheme", ["postgresql+psycopg2", "mysql"])
def test_another_kind_of_server_is_refused(scheme: str) -> None:
    """Only what is tested is used."""
    with pytest.raises(StoreError, match="neither SQLite nor PostgreSQL"):
        Database.open(f"{scheme}://me@host/db", writable=True)
