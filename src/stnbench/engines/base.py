"""The contract of an engine, and the messages between it and the orchestrator."""

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from stnbench.core.errors import ProtocolError, SpecError
from stnbench.spec.codec import Strict, from_plain, to_plain
from stnbench.spec.result import EpochRecord, Failure
from stnbench.spec.trial import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """Room for one running trial: a share of a GPU, or some CPU threads.

    ``device`` is ``cpu`` or a CUDA device as CUDA_VISIBLE_DEVICES names it (``0``, ``GPU-...``), on a cluster after the
    name of its node and a colon; slots that share a device carry the same name of it. ``memory_mib`` is all the memory
    of the device, None where it is not known.
    """

    name: str
    device: str
    threads: int
    memory_mib: float | None = None

    @property
    def is_cuda(self) -> bool:
        """Whether the slot is a share of a GPU."""
        return self.device.rpartition(":")[2] != "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch(Strict):
    """One attempt to execute.

    Folders are absolute paths; ``source`` is the one that ``dataset.root`` names, empty for the data folder, and
    ``resume_from`` are those of earlier attempts, the latest first. Each batch is computed in ``micro_batches`` parts
    whose gradients are added up, where memory is short.
    """

    spec: TrialSpec
    token: str
    folder: str
    data_root: str
    source: str = ""
    resume_from: tuple[str, ...] = ()
    micro_batches: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch(Strict):
    """An attempt finished an epoch."""

    token: str
    record: EpochRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulse(Strict):
    """An attempt has done so many parts of its work (steps, batches) since its last sign of life."""

    token: str
    parts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Note(Strict):
    """An attempt has something to say to a person, and goes on."""

    token: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished(Strict):
    """An attempt is complete; its result lies in its folder."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed(Strict):
    """An attempt ended with an error it could still report."""

    token: str
    failure: Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped(Strict):
    """An attempt stopped because it was asked to."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost(Strict):
    """The process of an attempt died without a word; ``reason`` says how, ``last_output`` is the end of its log."""

    token: str
    reason: str
    last_output: str = ""


Ending = Finished | Failed | Stopped | Lost
"""The events of which each attempt has exactly one, its last."""

EngineEvent = Epoch | Pulse | Note | Ending


class Engine(ABC):
    """Executes attempts, at most one a slot.

    Used from one thread. Every submitted attempt ends with exactly one of Finished, Failed, Stopped or Lost, also when
    its process is killed. After ``close`` no process of the engine is left.
    """

    @property
    @abstractmethod
    def slots(self) -> Sequence[Slot]:
        """Every slot, in a fixed order."""

    @property
    def waiting(self) -> Collection[str]:
        """Tokens of submitted attempts that have not begun, where there is no room for them yet."""
        return ()

    @property
    def suspended(self) -> Collection[str]:
        """Tokens of attempts whose process the system has halted (SIGSTOP), where the engine can see that."""
        return ()

    @abstractmethod
    def submit(self, slot: Slot, launch: Launch) -> None:
        """Begin an attempt in a free slot; returns at once, unless the engine runs attempts in this process.

        Raises: EngineError where the slot is taken.
        """

    @abstractmethod
    def poll(self, timeout_s: float) -> Sequence[EngineEvent]:
        """What happened since the last call, in order for each attempt; waits up to ``timeout_s`` for a first event."""

    @abstractmethod
    def stop(self, token: str) -> None:
        """Ask an attempt to stop at its next step; nothing for one that has ended."""

    @abstractmethod
    def kill(self, token: str) -> None:
        """End the process of an attempt: asked first, killed after a grace period. Lost follows.

        Nothing for one that has ended.
        """

    def resize(self, count: int) -> Sequence[Slot]:
        """Offer so many slots from now on, or as many as there can be; the slots then, in a fixed order.

        Those that stay keep their name, device and threads. An attempt in a slot that goes runs to its end.
        """
        return self.slots[:count]

    def release(self, slot: Slot) -> None:  # noqa: B027 - an engine that keeps nothing has nothing to give back
        """Give back what the engine keeps for a slot that runs no attempt: a warm process, and its memory on a GPU.

        Nothing where the slot is at work. The next ``submit`` takes longer.
        """

    @abstractmethod
    def close(self) -> None:
        """End every process: asked first, killed after a grace period."""


# The wire between a worker process and its engine: one JSON object a line, each a message of a known kind.


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop(Strict):
    """Ask the attempt that runs to stop at its next step."""

    token: str


Message = Launch | Stop | EngineEvent

_KINDS: dict[str, type] = {
    kind.__name__: kind for kind in (Launch, Stop, Epoch, Pulse, Note, Finished, Failed, Stopped, Lost)
}


def encode(message: Message) -> bytes:
    """A message as one line."""
    return json.dumps([type(message).__name__, to_plain(message)], separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message of one line.

    Raises: EngineError for a line that is no message.
    """
    try:
        name, plain = json.loads(line)
        message: Message = from_plain(_KINDS[name], plain, where="the pipe of a worker")
    except (ValueError, KeyError, TypeError, SpecError) as error:
        raise ProtocolError(f"a worker sent a line that is no message: {line[:200]!r}", remedy="see its log") from error
    return message
