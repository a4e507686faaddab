"""A spool: a folder on a shared disk over which an orchestrator and jobs on other machines work together.

No ports and no pickles: launches, orders and events are files of JSON.

::

    orchestrator.json    which orchestrator leads, the digest of its code, whether it is closed
    orchestrator.beat    touched by it every few seconds
    queue/N.G.TOKEN      a launch that nobody has taken; a host claims it by renaming it to claims/TOKEN@HOST
    claims/TOKEN@HOST    the same, taken
    attempts/TOKEN/      made by the orchestrator; where it is removed, the host that runs the attempt must end it
        events           appended by the host alone, a message a line
        orders           empty, ``stop`` or ``kill``
    hosts/HOST/          made by the host: a job on a node
        hello.json       where it is
        beat             touched every few seconds
    logs/                what jobs print, and what Slurm says of them

Clients of a network file system see changes late, but what was written before a file was closed is seen by whoever
opens it afterwards. So what must be seen soon is read by opening a file of a known name; listings may lag. Times are
those of files on this disk alone, written by its server: clocks of machines are never compared.
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
from stnbench.engines.base import Launch, decode, encode
from stnbench.spec.codec import Strict, from_json, to_json

Order = Literal["", "stop", "kill", "revoked"]
"""What a host is to do with an attempt: go on, end it soon or now, or end it without a word."""

_NAME: Final = re.compile(r"[\w.:-]+")


class Queued(NamedTuple):
    """An attempt that nobody has taken, in the order of their ``number``.

    Attempts of one ``group`` may share a device; one that is to be ``alone`` gets the memory of idle workers as well.
    """

    number: int
    group: int
    token: str
    alone: bool = False

    @property
    def file_name(self) -> str:
        """Its name in the queue."""
        return f"{self.number:09d}.{self.group}{'a' if self.alone else ''}.{self.token}"

    @classmethod
    def parse(cls, name: str) -> "Queued | None":
        """Return what a file name of the queue says; None for a file that is none of ours."""
        found = re.fullmatch(r"(\d{9,})\.(\d+)(a?)\.([\w.:-]+)", name)
        return None if found is None else cls(int(found[1]), int(found[2]), found[4], alone=bool(found[3]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Lead(Strict):
    """Who leads: a host of other code, or of a closed spool, ends."""

    session: str
    code: str
    is_closed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello(Strict):
    """A host introduces itself; one that cannot work says why in ``refusal``, one that ends that it has left."""

    job: str
    node: str
    pid: int
    slots: tuple[str, ...] = ()
    refusal: str = ""
    has_left: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class HostSeen:
    """A host as its files show it; ``beat_s`` is when it was last touched, by the clock of the disk."""

    hello: Hello
    beat_s: float


@dataclass(frozen=True, slots=True)
class Spool:
    """Every path of a spool, and the file operations of both sides."""

    root: Path

    @property
    def logs(self) -> Path:
        """What jobs print."""
        return self.root / "logs"

    @property
    def orchestrator_beat(self) -> Path:
        """Touched by the orchestrator; its time is now, by the clock of the disk."""
        return self.root / "orchestrator.beat"

    def attempt(self, token: str) -> Path:
        """The folder of an attempt."""
        return self.root / "attempts" / _checked(token)

    def host(self, name: str) -> Path:
        """The folder of a host."""
        return self.root / "hosts" / _checked(name)

    def make(self) -> None:
        """Make the folders. Raises: OSError."""
        for name in ("queue", "claims", "attempts", "hosts", "logs"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def identity(self) -> str:
        """Return what tells this spool from every other, drawn when it is first asked for. Raises: OSError.

        A copy of the folder draws its own: jobs are found, and ended, by it.
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
        """Say who leads. Raises: OSError."""
        write_atomic(self.root / "orchestrator.json", to_json(lead).encode())

    def submit(self, queued: Queued, launch: Launch) -> None:
        """Offer an attempt to whoever has room. Raises: OSError."""
        folder = self.attempt(queued.token)
        folder.mkdir()
        for name in ("events", "orders"):
            (folder / name).touch()
        write_atomic(self.root / "queue" / queued.file_name, encode(launch))

    def withdraw(self, queued: Queued) -> bool:
        """Take an attempt back; whether nobody had claimed it. Raises: OSError but for one that is gone."""
        try:
            (self.root / "queue" / queued.file_name).unlink()
        except FileNotFoundError:
            return False
        self.revoke(queued.token)
        return True

    def order(self, token: str, order: Order) -> None:
        """Tell the host of an attempt to end it; nothing where the attempt has ended. Raises: OSError."""
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(self.attempt(token) / "orders", os.O_WRONLY)
            try:
                os.pwrite(handle, f"{order}\n".encode(), 0)
            finally:
                os.close(handle)

    def revoke(self, token: str) -> None:
        """Remove what belongs to an attempt: a host that still runs it ends it, and cannot report anything more."""
        folder = self.attempt(token)
        with contextlib.suppress(OSError):
            folder.rename(folder.with_name(f".{folder.name}.{secrets.token_hex(4)}"))
        for claim in self._claims_of(token):
            with contextlib.suppress(OSError):
                claim.unlink()
        for path in (self.root / "attempts").glob(f".{folder.name}.*"):
            shutil.rmtree(path, ignore_errors=True)

    def queued(self) -> dict[str, Queued]:
        """Return the attempts that nobody has taken, by token. Raises: OSError."""
        found = (Queued.parse(name) for name in _names(self.root / "queue"))
        return {queued.token: queued for queued in sorted(filter(None, found))}

    def claims(self) -> dict[str, str]:
        """Return the host that has claimed each attempt. Raises: OSError."""
        pairs = (name.partition("@") for name in _names(self.root / "claims") if not name.startswith("."))
        return {token: host for token, _, host in pairs if host}

    def tokens(self) -> list[str]:
        """Return every attempt that has a folder. Raises: OSError."""
        return sorted(name for name in _names(self.root / "attempts") if not name.startswith("."))

    def events(self, token: str, offset: int) -> tuple[list[bytes], int]:
        """Return the whole lines from a byte on, and the byte after them.

        Raises: OSError; FileNotFoundError where the attempt was revoked.
        """
        with (self.attempt(token) / "events").open("rb") as file:
            file.seek(offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        return whole.splitlines(), offset + len(whole)

    def hosts(self) -> dict[str, HostSeen]:
        """Return every host that has introduced itself; what cannot be read yet is left out. Raises: OSError."""
        return dict(self._hosts())

    def forget_host(self, name: str) -> None:
        """Remove the folder of a host that is gone."""
        shutil.rmtree(self.host(name), ignore_errors=True)

    # A host's side.

    def leader(self) -> Lead | None:
        """Return who leads; None where nobody can be read just now."""
        try:
            return from_json(Lead, (self.root / "orchestrator.json").read_bytes(), where="the spool")
        except (OSError, SpecError):
            return None

    def introduce(self, name: str, hello: Hello) -> None:
        """Say who a host is, or that it ends. Raises: OSError."""
        self.host(name).mkdir(parents=True, exist_ok=True)
        (self.host(name) / "beat").touch()
        write_atomic(self.host(name) / "hello.json", to_json(hello).encode())

    def claim(self, queued: Queued, host: str) -> bool:
        """Take an attempt from the queue; whether it was there, for nobody else took it. Raises: OSError."""
        claim = self._claim(queued.token, host)
        try:
            (self.root / "queue" / queued.file_name).rename(claim)
        except FileNotFoundError:
            return claim.exists()  # a repeated request of a network file system may say so of its own success
        return True

    def launch_of(self, token: str, host: str) -> Launch | None:
        """Return what a host has claimed; None where it was revoked.

        Raises: OSError; ProtocolError for what is no launch of it.
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
        """Write events at a byte, whole or not at all as far as a reader is concerned, who counts whole lines.

        Raises: OSError; FileNotFoundError where the attempt was revoked.
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
        """Return what is to be done with an attempt. Raises: OSError but for one that was revoked."""
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
    """Set a file's time to now, by the clock of its disk, and return it. Raises: OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.utime(handle)
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)


def time_of(path: Path) -> float:
    """Return a file's time as the server knows it: opening it asks again. Raises: OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)


class Silence:
    """How long something that should be touched now and again has not been, by the clock of its disk.

    Of one look to the next at most ``glance_s`` is counted, and nothing where that clock was set back: neither a clock
    that jumps nor a reader that was halted makes anybody late.
    """

    def __init__(self, glance_s: float) -> None:
        self._glance_s = glance_s
        self._beat_s: float | None = None
        self._looked_s = 0.0
        self.lasts_s = 0.0

    def look(self, beat_s: float, now_s: float) -> float:
        """Return how long it has been silent, seen touched at ``beat_s`` now, at ``now_s``."""
        if beat_s != self._beat_s:
            self._beat_s, self.lasts_s = beat_s, 0.0
        else:
            self.lasts_s += min(max(0.0, now_s - self._looked_s), self._glance_s)
        self._looked_s = now_s
        return self.lasts_s


def code_digest() -> str:
    """Return a digest of the code of this installation: hosts work only for an orchestrator of the same code."""
    folder = Path(stnbench.__file__).parent
    summed = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        summed.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return summed.hexdigest()


def choose_claims(
    queued: Mapping[str, Queued], free: Mapping[str, str], groups: Mapping[str, int]
) -> list[tuple[Queued, str]]:
    """Return which attempts to claim for which slots: the first of the queue for each, as devices may be shared.

    A device takes attempts of one group at a time, so that whoever plans them decides what they share it with.

    Args:
        queued: the attempts that nobody has taken.
        free: the device of each free slot.
        groups: the group of the attempts that run on a device, for each that is at work.
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
    """Return the first line of an attempt's events: who has begun it."""
    return json.dumps(["Begun", {"host": host}], separators=(",", ":")).encode() + b"\n"


def begun_by(line: bytes) -> str | None:
    """Return the host that a line names, as ``begun_line`` wrote it; None for any other line."""
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

    Raises: EngineError for one that may not.
    """
    if _NAME.fullmatch(name) is None or set(name) <= {"."}:
        raise EngineError(f"'{name}' cannot name a file of the spool", remedy="letters, digits, '_', '-' and '.'")
    return name
