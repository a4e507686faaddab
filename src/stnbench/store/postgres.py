"""PostgreSQL backend: connections that read, and one that writes and holds the right to write.

That right is an advisory lock of the server for the schema of the store: exclusive for a process that alone writes it,
such as one that merges stores, and shared among processes that run sweeps, each of which also holds an exclusive lock
for its sweep and one for its session. They are held by the connection that writes: a writer that loses its connection
loses its rights with it, and commits nothing until it has all of them again. Therefore two orchestrators never run the
same sweep, whichever hosts they are on, and others see by the lock of its session whether one is still there. Each
transaction that writes holds another lock, so that there is one at a time.

A connection that was lost between two transactions is reopened, for up to ``RECONNECT_S``, so a restart of the server
only causes a pause. A loss within a transaction is an error, since it is unknown whether the transaction was committed;
the next run finds out.
"""

import contextlib
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
    StatementError,
)

from stnbench.core.errors import StoreBusyError, StoreError
from stnbench.core.text import hide_passwords
from stnbench.store.file import Backend, Holder

if TYPE_CHECKING:
    import psycopg

DRIVER = "postgresql+psycopg"
PROGRAM = "stnbench"
"""Name of our connections on the server, followed by the holder if there is one."""

RECONNECT_S = 60.0
RETRY_S = 0.5
LEAVING_TRIES = 10
"""Number of tries for a lock without a visible holder: an ending process disappears before its lock is released."""

PARAMETERS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Default parameters of libpq, in s, the last in ms: a server that is gone is noticed within a minute."""

SETTINGS = {
    "timezone": "UTC",
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
"""Settings of the session: a host that was switched off loses its lock within a minute, not after TCP's two hours."""

LOCK = f"{int.from_bytes(b'stnb')}, hashtext(current_schema())"
"""Key of the advisory lock of a store; stores in different schemas of one database do not exclude each other."""

WRITING = f"{int.from_bytes(b'stnw')}, hashtext(current_schema())"
"""Key of the advisory lock of a transaction that writes."""

NAMED = "hashtextextended(current_schema()::text || %s::text, 0)"
"""Key of the advisory lock of a sweep or session, whose name is the parameter."""

HELD = """
FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
HOLDER = "SELECT l.pid, (SELECT application_name FROM pg_stat_activity a WHERE a.pid = l.pid) AS holder " + HELD  # noqa: S608 - of constants
"""Query for the server's process that holds a lock, and the name of its client; the lock's key is to be appended."""

BY_PAIR = f"AND (l.classid, l.objid, l.objsubid) = ({LOCK}, 2) ORDER BY l.mode"  # exclusive before shared
BY_NAME = f"AND l.objsubid = 1 AND (l.classid::bigint << 32 | l.objid::bigint) = {NAMED}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Right:
    """An advisory lock that a holder keeps: how to take it, who else may have it, and the message of a refusal."""

    take: str
    holder: str
    held: str
    remedy: str
    name: tuple[str, ...] = ()
    is_transient: bool = False


def _rights(holder: Holder) -> list[_Right]:
    """Return the locks of a holder, in the order in which they are taken."""
    other = "wait for it, stop it, or set STNBENCH_STORE to another database"
    if not holder.sweep:
        take = f"SELECT pg_try_advisory_lock({LOCK})"
        return [_Right(take=take, holder=HOLDER + BY_PAIR, held="another sweep runs on", remedy=other)]
    # Whoever alone writes the store merges, upgrades or shows it, which takes minutes at most.
    take, held = f"SELECT pg_try_advisory_lock_shared({LOCK})", "another process alone writes"
    rights = [_Right(take=take, holder=HOLDER + BY_PAIR, held=held, remedy=other, is_transient=True)]
    of_sweep = f"the sweep {holder.sweep} runs already on"
    of_session = f"the session {holder.session} is open already on"
    for kind, name, held in (("sweep", holder.sweep, of_sweep), ("session", holder.session, of_session)):
        key = (f"/{kind}/{name}",)
        take = f"SELECT pg_try_advisory_lock({NAMED})"
        rights.append(_Right(take=take, holder=HOLDER + BY_NAME, held=held, remedy="wait for it or stop it", name=key))
    return rights


def open_postgres(url: URL, *, writable: bool, busy_timeout_s: float, holder: Holder | None) -> Backend:
    """Return the backend of a server's database without connecting.

    Args:
        url: URL of the database.
        writable: whether the database is opened for writing.
        busy_timeout_s: seconds to wait for locks.
        holder: process that holds the right to write until the database is closed; None for no such process.

    Raises:
        StoreError: if the URL is invalid or of another kind of server, or the driver is not installed.
    """
    name = hide_passwords(url.render_as_string(hide_password=True))
    if url.drivername in {"postgres", "postgresql"}:
        url = url.set(drivername=DRIVER)
    if url.drivername != DRIVER:
        remedy = "the file of the one begins with sqlite:///, the URL of the other with postgresql://"
        raise StoreError(f"the store {name} is neither SQLite nor PostgreSQL", remedy=remedy)
    if "@" in (url.host or ""):
        raise StoreError(f"the store {name} has an '@' in its password", remedy="write it as %40 there")
    _require_known(url, name)
    settings = SETTINGS | {"lock_timeout": f"{max(1, round(1000 * busy_timeout_s))}ms"}
    reading = _Connector(name=name, settings=settings | {"default_transaction_read_only": "on"})
    reader = _engine(url, reading, isolation_level="REPEATABLE READ")
    if not writable:
        return Backend(name=name, reader=reader, writer=reader, explain=explain, live_sessions=live_sessions)
    writing = _Connector(name=name, settings=settings, holder=holder)
    # A transaction that writes is the only one, and must see everything committed before.
    writer = _engine(url, writing, isolation_level="READ COMMITTED", pool_size=1, max_overflow=0)
    event.listen(writer, "begin", _begin_alone if holder is None else _begin)
    return Backend(
        name=name,
        reader=reader,
        writer=writer,
        explain=explain,
        is_shared=holder is not None and bool(holder.sweep),
        require_alone=writing.require_alone,
        live_sessions=live_sessions,
    )


def live_sessions(connection: Connection, sessions: Collection[str]) -> set[str]:
    """Return those of the given sessions whose lock is held."""
    query = f"SELECT count(*) {HELD} {BY_NAME}"
    names = {session: (f"/session/{session}",) for session in sessions}
    return {session for session, name in names.items() if connection.exec_driver_sql(query, name).scalar()}


def _require_known(url: URL, name: str) -> None:
    """Raise StoreError for a parameter of a URL that libpq does not know; unchecked if the driver is missing."""
    with contextlib.suppress(ImportError):
        import psycopg.conninfo

        try:
            psycopg.conninfo.make_conninfo(**{key: str(value) for key, value in url.query.items()})
        except psycopg.ProgrammingError as error:
            said = hide_passwords(next(iter(str(error).splitlines()), ""))
            problem = f"the URL of the store {name} cannot be used ({said})"
            raise StoreError(problem, remedy="correct the parameters behind its ?") from error


def explain(name: str, error: StatementError) -> StoreError | None:  # noqa: PLR0911 - one return a meaning
    """Return the error as a one-line StoreError, or None for a violated constraint or an invalid statement."""
    said = hide_passwords(next(iter(str(error.orig or error).splitlines()), ""))
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        remedy = "the same command goes on where it was"
        return StoreError(f"the connection to the store {name} was lost ({said})", remedy=remedy, is_transient=True)
    match getattr(error.orig, "sqlstate", None) or "none":
        case "55P03" | "40001" | "40P01":
            problem = f"the store {name} is being written by another process"
            return StoreBusyError(problem, remedy="wait until it ends", is_transient=True)
        case "42501":
            remedy = "let the user of its URL create and write tables there, best in a database of its own"
            return StoreError(f"the store {name} may not be used ({said})", remedy=remedy)
        case "3F000":
            return StoreError(f"the store {name} names a schema that does not exist ({said})", remedy="create it")
        case "53100":
            problem = f"no space is left on the disk of the store {name}"
            return StoreError(problem, remedy="free some and run again", is_transient=True)
        case "none" if isinstance(error, OperationalError):
            remedy = "see that the server runs, and that the URL says where and as whom; then run again"
            return StoreError(f"the store {name} cannot be reached ({said})", remedy=remedy, is_transient=True)
        case _ if isinstance(error, IntegrityError | ProgrammingError):
            return None
        case _:
            return StoreError(f"the store {name} cannot be used", remedy=said)


@dataclass(kw_only=True, eq=False)  # listeners are compared by identity
class _Connector:
    """Factory of an engine's connections; with a ``holder``, they hold the right to write.

    The first connection must succeed at once, since the URL may be wrong; later ones are tried for up to
    ``RECONNECT_S``.
    """

    name: str
    settings: dict[str, str]
    holder: Holder | None = None
    pids: set[int] = field(default_factory=set)
    """Server processes of our connections; one that the server has not ended yet may still hold our lock."""

    def __call__(self, dialect: Dialect, _record: object, words: list[Any], named: dict[str, Any]) -> Any:  # noqa: ANN401
        """Return a connection of the driver, for SQLAlchemy's event ``do_connect``; passes on the driver's errors.

        Raises:
            StoreBusyError: if another process has the right to write.
        """
        deadline_s = time.monotonic() + (RECONNECT_S if self.pids else 0.0)
        title = PROGRAM if self.holder is None else f"{PROGRAM} {self.holder.title}"
        while True:
            may_wait = time.monotonic() < deadline_s
            try:
                connection: Any = dialect.connect(*words, **(PARAMETERS | named | {"application_name": title}))
                if self._prepare(connection, may_wait=may_wait):
                    return connection
            except dialect.loaded_dbapi.OperationalError:
                if not may_wait:
                    raise
            time.sleep(RETRY_S)

    def _prepare(self, connection: "psycopg.Connection[Any]", *, may_wait: bool) -> bool:
        """Set up the session and return True; close it and return False if the right to write may become free."""
        is_ready = False
        try:
            connection.autocommit = True
            calls = ", ".join("set_config(%s, %s, false)" for _ in self.settings)
            connection.execute(f"SELECT {calls}", [word for pair in self.settings.items() for word in pair])
            rights = [] if self.holder is None else _rights(self.holder)
            is_ready = all(self._hold(connection, right, may_wait=may_wait) for right in rights)
            connection.autocommit = False
            self.pids.add(connection.info.backend_pid)
        finally:
            if not is_ready:
                connection.close()
        return is_ready

    def _hold(self, connection: "psycopg.Connection[Any]", right: _Right, *, may_wait: bool) -> bool:
        """Take a lock for the life of the connection; return False if an earlier connection of ours still has it.

        Raises:
            StoreBusyError: if another process has it; the message names the process.
        """
        found = None
        for _ in range(LEAVING_TRIES):
            taken = connection.execute(right.take, right.name).fetchone()
            if taken is not None and taken[0] is not False:  # NULL without a schema: the next statement fails
                return True
            found = connection.execute(right.holder, right.name).fetchone()
            if found is not None:
                break
            time.sleep(RETRY_S)
        if found is not None and found[0] in self.pids and may_wait:
            return False
        problem = f"{right.held} {self.name} ({_title(found)})"
        raise StoreBusyError(problem, remedy=right.remedy, is_transient=right.is_transient)

    def require_alone(self, connection: Connection) -> None:
        """Take the store for the rest of the transaction; do nothing for a holder that alone writes it.

        Raises:
            StoreBusyError: if other sweeps run on it.
        """
        if self.holder is None or not self.holder.sweep:
            return
        for _ in range(LEAVING_TRIES):
            if connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({LOCK})").scalar() is not False:
                return
            time.sleep(RETRY_S)
        own = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        others = [row for row in connection.exec_driver_sql(HOLDER + BY_PAIR) if row[0] != own]
        remedy = "it must be upgraded first: wait for them, stop them, or set STNBENCH_STORE to another database"
        titles = ", ".join(_title(row) for row in others)
        raise StoreBusyError(f"sweeps of an older stnbench run on {self.name} ({titles})", remedy=remedy)


def _title(found: Any) -> str:  # noqa: ANN401 - a row of the driver
    """Return the description of the process in a row of ``HOLDER``."""
    if found is None:
        return "another process"
    return (found[1] or "").removeprefix(PROGRAM).strip() or "another program"


def _engine(url: URL, connect: _Connector, **options: Any) -> Engine:  # noqa: ANN401 - as SQLAlchemy takes them
    """Return an engine that tests its connections before use, so that lost ones are reopened."""
    try:
        engine = create_engine(url, pool_pre_ping=True, use_native_hstore=False, **options)
    except (NoSuchModuleError, ImportError) as error:
        problem = f"the driver of the store {connect.name} is not installed ({error})"
        raise StoreError(problem, remedy="python -m pip install 'stnbench[postgres]'") from error
    event.listen(engine, "do_connect", connect)
    return engine


def _begin(connection: Connection) -> None:
    """Wait for other transactions that write."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITING})")


def _begin_alone(connection: Connection) -> None:
    """Wait for other transactions that write, and for processes that hold the store or run a sweep on it."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
    _begin(connection)
