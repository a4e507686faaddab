"""The history of a store: beside the results of trials, what it takes to make the store again.

``trials/history.jsonl`` holds every row but those that come from a ``result.json``, one line a transaction, appended
once the transaction is committed. A line begins with the CRC-32 of the rest: one that was cut short or changed is left
out when the file is read, and the others count. Of rows with one key the columns written last hold.

It is an aid and never in the way: where it cannot be written, the sweep goes on, and the next one writes it anew.
"""

import contextlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from stnbench.core.files import write_all, write_atomic
from stnbench.core.identity import Json
from stnbench.store.portable import KEYS, Row, Rows, encode, key_of

Entry = tuple[str, Mapping[str, Any]]
"""A table, and columns of one of its rows, the key among them."""

TABLES: Final = ("sweeps", "trials", "sweep_trials", "attempts", "epochs", "controls")
"""What a history holds; the other tables come from results."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadHistory:
    """What a history says, and how many of its lines could not be read."""

    rows: Rows
    damaged: int


@dataclass(slots=True)
class History:
    """Appends to a history; made where it is missing."""

    path: Path
    _handle: int | None = None
    _is_torn: bool = False
    has_failed: bool = field(default=False)

    def add(self, entries: Sequence[Entry]) -> None:
        """Append one transaction. A disk that does not take it is no reason to stop."""
        if not entries:
            return
        line = _line([(table, encode(table, fields)) for table, fields in entries])
        try:
            if self._handle is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                self._is_torn = not _ends_whole(self.path)
            write_all(self._handle, b"\n" + line if self._is_torn else line)
            self._is_torn = False
        except OSError:
            self.has_failed = self._is_torn = True

    def rewrite(self, rows: Iterable[tuple[str, Row]]) -> None:
        """Put a history of just these rows in its place, whole or not at all."""
        self.close()
        data = b"".join(_line([row]) for row in rows)
        try:
            if self.path.exists() and self.path.read_bytes() == data:
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, data)
            self.has_failed = False
        except OSError:
            self.has_failed = True

    def close(self) -> None:
        """Close the file."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(OSError):
                os.close(handle)


def read_history(path: Path) -> ReadHistory:
    """What a history says; nothing where there is none.

    Raises: OSError where it is there and cannot be read.
    """
    rows: Rows = {table: {} for table in TABLES}
    damaged = 0
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        lines = []
    for line in filter(None, lines):
        entries = _entries(line)
        if entries is None:
            damaged += 1
            continue
        for table, row in entries:
            rows[table].setdefault(key_of(table, row), {}).update(row)
    return ReadHistory(rows=rows, damaged=damaged)


def _line(entries: Iterable[tuple[str, Row]]) -> bytes:
    text = json.dumps([[table, row] for table, row in entries], ensure_ascii=False, separators=(",", ":"))
    data = text.encode(errors="surrogatepass")
    return b"%08x %s\n" % (zlib.crc32(data), data)


def _entries(line: bytes) -> list[tuple[str, Row]] | None:
    """The rows of a line; None where it is not as it was written."""
    checksum, _, data = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(data):
        return None
    try:
        plain: Json = json.loads(data.decode(errors="surrogatepass"))
        return list(_checked(plain))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _checked(plain: Json) -> Iterator[tuple[str, Row]]:
    if not isinstance(plain, list):
        raise TypeError("no rows")
    for entry in plain:
        table, row = entry if isinstance(entry, list) else (None, None)
        if table not in TABLES or not isinstance(row, dict) or not all(name in row for name in KEYS[str(table)]):
            raise ValueError("no row")
        yield str(table), row


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return True
        file.seek(size - 1)
        return file.read(1) == b"\n"
