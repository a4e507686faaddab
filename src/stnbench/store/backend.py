"""What a kind of database gives: connections, and the meaning of its errors."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import StatementError

from stnbench.core.errors import StoreError
from stnbench.store.file import StoreFile


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """Connections that read, connections that write (the same where that makes no difference), and its errors.

    A transaction of ``writer`` holds the right to write from its first statement on, and each of ``reader`` has one
    consistent view. ``explain`` tells the error of a database as one of ours; None where it is a bug of ours.
    ``file`` is where a database lies that is a file.
    """

    name: str
    reader: Engine
    writer: Engine
    explain: Callable[[str, StatementError], StoreError | None]
    file: StoreFile | None = None
