"""The spool, a folder on a shared disk through which an orchestrator and jobs on other machines communicate.

There are no ports and no pickles: launches, orders and events are JSON files.

::

    orchestrator.json    which orchestrator leads, the digest of its code, whether it is closed
    orchestrator.beat    touched by it every few seconds
    queue/N.G.TOKEN      a launch that no host has taken; a host claims it by renaming it to claims/TOKEN@HOST
    claims/TOKEN@HOST    a launch that a host has taken
    attempts/TOKEN/      made by the orchestrator; if it is removed, the host that runs the attempt must end it
        events           appended by the host alone, one message per line
        orders           empty, ``stop`` or ``kill``
    hosts/HOST/          made by the host: a job on a node
        hello.json       its location
        beat             touched every few seconds
    logs/                output of the jobs, and Slurm's messages about them

Clients of a network file system see changes late, but data that was written before a file was closed is seen by every
process that opens it afterwards. So data that must be seen soon is read by opening a file of a known name; listings may
lag. Times are only those of files on this disk, written by its server: clocks of machines are never compared.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import stnbench
from stnbench.core.errors import EngineError, ProtocolError, SpecError
from stnbench.core.files import write_atomic
from stnbench.engines import Launch, decode, encode
from stnbench.spec.codec import Strict, from_json, to_json

Order = Literal["", "stop", "kill", "revoked"]
"""Order to a host about an attempt: continue, stop it at its next step, kill it, or end it without a report."""

_NAME: Final = re.compile(r"[\w.:-]+")


class Queued(NamedTuple):
    """An attempt that no host has taken; attempts are ordered by their ``number``.

    Attempts of one ``group`` may share a device; an attempt that is ``alone`` gets the memory of idle workers as well.
    """

    number: int
    group: int
    token: str
    alone: bool = False

    @property
    def file_name(self) -> str:
        """Return the name of its file in the queue."""
        return f"{self.number:09d}.{self.group}{'a' if self.alone else ''}.{self.token}"

    @classmethod
    def parse(cls, name: str) -> "Queued | None":
        """Parse a file name of the queue; return None for any other file."""
        found = re.fullmatch(r"(\d{9,})\.(\d+)(a?)\.([\w.:-]+)", name)
        return None if found is None else cls(int(found[1]), int(found[2]), found[4], alone=bool(found[3]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Lead(Strict):
    """Description of the leading orchestrator: a host with other code, or of a closed spool, ends."""

    session: str
    code: str
    is_closed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello(Strict):
    """Description of a host; ``refusal`` is the reason if it cannot work, and ``has_left`` is set when it ends."""

    job: str
    node: str
    pid: int
    slots: tuple[str, ...] = ()
    refusal: str = ""
    has_left: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class HostSeen:
    """A host as its files describe it; ``beat_s`` is the time of its last heartbeat, by the clock of the disk."""

    hello: Hello
    beat_s: float


@dataclass(frozen=True, slots=True)
class Spool:
    """Paths of a spool, and the file operations of both sides.

    Methods that read or write the disk raise OSError where it fails, unless they say otherwise.
    """

    root: Path

    @property
    def logs(self) -> Path:
        """Return the folder for the output of jobs."""
        return self.root / "logs"

    @property
    def orchestrator_beat(self) -> Path:
        """Return the file that the orchestrator touches; its time is now, by the clock of the disk."""
        return self.root / "orchestrator.beat"

    def attempt(self, token: str) -> Path:
        """Return the folder of an attempt."""
        return self.root / "attempts" / _checked(token)

    def host(self, name: str) -> Path:
        """Return the folder of a host."""
        return self.root / "hosts" / _checked(name)

    def make(self) -> None:
        """Create the folders."""
        for name in ("queue", "claims", "attempts", "hosts", "logs"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def identity(self) -> str:
        """Return the unique identity of this spool, drawn at the first call.

        A copy of the folder draws another identity: jobs are found, and ended, by it.
        """
        path, place = self.root / "identity", str(self.root.resolve())
        with contextlib.suppress(FileNotFoundError):
            drawn, _, of = path.read_text(errors="replace").rstrip("\n").partition(" ")
            if re.fullmatch(r"[0-9a-f]{12}", drawn) and of == place:
                return drawn
        drawn = secrets.token_hex(6)
        write_atomic(path, f"{drawn} {place}\n".encode())
        return drawn

    # The orchestrator's side.

    def lead(self, lead: Lead) -> None:
        """Write the description of the leading orchestrator."""
        write_atomic(self.root / "orchestrator.json", to_json(lead).encode())

    def submit(self, queued: Queued, launch: Launch) -> None:
        """Offer an attempt to any host with room."""
        folder = self.attempt(queued.token)
        folder.mkdir()
        for name in ("events", "orders"):
            (folder / name).touch()
        write_atomic(self.root / "queue" / queued.file_name, encode(launch))

    def withdraw(self, queued: Queued) -> bool:
        """Withdraw an attempt, also if it is gone; return whether no host had claimed it."""
        try:
            (self.root / "queue" / queued.file_name).unlink()
        except FileNotFoundError:
            return False
        self.revoke(queued.token)
        return True

    def order(self, token: str, order: Order) -> None:
        """Order the host of an attempt to end it; do nothing if the attempt has ended."""
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(self.attempt(token) / "orders", os.O_WRONLY)
            try:
                os.pwrite(handle, f"{order}\n".encode(), 0)
            finally:
                os.close(handle)

    def revoke(self, token: str) -> None:
        """Remove the files of an attempt: a host that still runs it ends it, and cannot report anything more."""
        folder = self.attempt(token)
        with contextlib.suppress(OSError):
            folder.rename(folder.with_name(f".{folder.name}.{secrets.token_hex(4)}"))
        for claim in self._claims_of(token):
            with contextlib.suppress(OSError):
                claim.unlink()
        for path in (self.root / "attempts").glob(f".{folder.name}.*"):
            shutil.rmtree(path, ignore_errors=True)

    def queued(self) -> dict[str, Queued]:
        """Return the attempts that no host has taken, by token."""
        found = (Queued.parse(name) for name in _names(self.root / "queue"))
        return {queued.token: queued for queued in sorted(filter(None, found))}

    def claims(self) -> dict[str, str]:
        """Return the host that has claimed each attempt."""
        pairs = (name.partition("@") for name in _names(self.root / "claims") if not name.startswith("."))
        return {token: host for token, _, host in pairs if host}

    def tokens(self) -> list[str]:
        """Return the token of every attempt that has a folder."""
        return sorted(name for name in _names(self.root / "attempts") if not name.startswith("."))

    def events(self, token: str, offset: int) -> tuple[list[bytes], int]:
        """Return the complete lines from a byte offset on, and the offset after them.

        Raises:
            FileNotFoundError: if the attempt was revoked.
        """
        with (self.attempt(token) / "events").open("rb") as file:
            file.seek(offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        return whole.splitlines(), offset + len(whole)

    def hosts(self) -> dict[str, HostSeen]:
        """Return every registered host by name; leave out those that cannot be read yet."""
        return dict(self._hosts())

    def forget_host(self, name: str) -> None:
        """Remove the folder of a host that is gone."""
        shutil.rmtree(self.host(name), ignore_errors=True)

    # A host's side.

    def leader(self) -> Lead | None:
        """Return the leading orchestrator, or None if its description cannot be read now."""
        try:
            return from_json(Lead, (self.root / "orchestrator.json").read_bytes(), where="the spool")
        except (OSError, SpecError):
            return None

    def introduce(self, name: str, hello: Hello) -> None:
        """Write the description of a host, or that it has left."""
        self.host(name).mkdir(parents=True, exist_ok=True)
        (self.host(name) / "beat").touch()
        write_atomic(self.host(name) / "hello.json", to_json(hello).encode())

    def claim(self, queued: Queued, host: str) -> bool:
        """Take an attempt from the queue; return False if another host was faster."""
        claim = self._claim(queued.token, host)
        try:
            (self.root / "queue" / queued.file_name).rename(claim)
        except FileNotFoundError:
            return claim.exists()  # a network file system that repeats a successful request may report this error
        return True

    def launch_of(self, token: str, host: str) -> Launch | None:
        """Return the launch that a host has claimed, or None if it was revoked.

        Raises:
            OSError: if the claim cannot be read.
            ProtocolError: if the claim is not a launch of this attempt.
        """
        try:
            message = decode(self._claim(token, host).read_bytes())
        except FileNotFoundError:
            return None
        if not isinstance(message, Launch) or message.token != token:
            problem = f"the launch {token} is of another attempt"
            raise ProtocolError(problem, remedy="this is a bug of the engine")
        return message

    def give_up(self, token: str, host: str) -> None:
        """Remove the claim of an attempt that has ended."""
        with contextlib.suppress(OSError):
            self._claim(token, host).unlink()

    def append(self, token: str, data: bytes, offset: int) -> None:
        """Write events at a byte offset; a reader sees them whole or not at all, because it counts complete lines.

        Raises:
            FileNotFoundError: if the attempt was revoked.
        """
        handle = os.open(self.attempt(token) / "events", os.O_WRONLY)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(handle, data[written:], offset + written)
            os.fsync(handle)
        finally:
            os.close(handle)

    def ordered(self, token: str) -> Order:
        """Return the order for an attempt; an attempt that was revoked is no error."""
        try:
            text = (self.attempt(token) / "orders").read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            return "revoked"
        return "kill" if text == "kill" else "stop" if text == "stop" else ""

    def _claim(self, token: str, host: str) -> Path:
        return self.root / "claims" / f"{_checked(token)}@{_checked(host)}"

    def _claims_of(self, token: str) -> list[Path]:
        try:
            names = _names(self.root / "claims")
        except OSError:
            return []
        return [self.root / "claims" / name for name in names if name.startswith(f"{token}@")]

    def _hosts(self) -> Iterator[tuple[str, HostSeen]]:
        for name in _names(self.root / "hosts"):
            with contextlib.suppress(OSError, SpecError, EngineError):
                hello = from_json(Hello, (self.host(name) / "hello.json").read_bytes(), where=name)
                yield name, HostSeen(hello=hello, beat_s=time_of(self.host(name) / "beat"))


def touch(path: Path) -> float:
    """Set a file's time to now, by the clock of its disk, and return it.

    Raises:
        OSError: if the disk fails.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.utime(handle)
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)


def time_of(path: Path) -> float:
    """Return a file's time on the server: opening the file refreshes it.

    Raises:
        OSError: if the disk fails.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)


class Silence:
    """Timer of the silence of something that should be touched regularly, by the clock of its disk.

    From one look to the next at most ``glance_s`` seconds are counted, and none if that clock was set back: neither a
    clock that jumps nor a reader that was halted counts as silence.
    """

    def __init__(self, glance_s: float) -> None:
        self._glance_s = glance_s
        self._beat_s: float | None = None
        self._looked_s = 0.0
        self.lasts_s = 0.0

    def look(self, beat_s: float, now_s: float) -> float:
        """Return the seconds of silence at ``now_s``, when the last touch was at ``beat_s``."""
        if beat_s != self._beat_s:
            self._beat_s, self.lasts_s = beat_s, 0.0
        else:
            self.lasts_s += min(max(0.0, now_s - self._looked_s), self._glance_s)
        self._looked_s = now_s
        return self.lasts_s


def code_digest() -> str:
    """Return the SHA-256 digest of the installed code: hosts work only for an orchestrator with the same code."""
    folder = Path(stnbench.__file__).parent
    summed = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        summed.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return summed.hexdigest()


def choose_claims(
    queued: Mapping[str, Queued], free: Mapping[str, str], groups: Mapping[str, int]
) -> list[tuple[Queued, str]]:
    """Return the attempts to claim and their slots: for each slot the first of the queue that may share its device.

    A device takes attempts of one group at a time, so that the planner decides which attempts share it.

    Args:
        queued: the attempts that no host has taken.
        free: the device of each free slot.
        groups: the group of the attempts that run on each busy device.
    """
    chosen, taken, at_work = [], set[str](), dict(groups)
    in_order = sorted(queued.values())
    for slot, device in free.items():
        group = at_work.get(device)
        first = next(
            (
                item
                for item in in_order
                if item.token not in taken and (group is None or (group == item.group and not item.alone))
            ),
            None,
        )
        if first is not None:
            taken.add(first.token)
            at_work[device] = first.group
            chosen.append((first, slot))
    return chosen


def begun_line(host: str) -> bytes:
    """Return the first line of an attempt's events, which names the host that has begun it."""
    return json.dumps(["Begun", {"host": host}], separators=(",", ":")).encode() + b"\n"


def begun_by(line: bytes) -> str | None:
    """Return the host that a line names, as ``begun_line`` wrote it, or None for any other line."""
    if not line.startswith(b'["Begun",'):
        return None
    try:
        _, said = json.loads(line)
        return str(said["host"])
    except (ValueError, KeyError, TypeError):
        return None


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _checked(name: str) -> str:
    """Return a name that may be part of a path of the spool.

    Raises:
        EngineError: if the name may not.
    """
    if _NAME.fullmatch(name) is None or set(name) <= {"."}:
        raise EngineError(f"'{name}' cannot name a file of the spool", remedy="letters, digits, '_', '-' and '.'")
    return name
