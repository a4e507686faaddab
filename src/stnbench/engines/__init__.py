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
    """Room for one running trial: a share of a GPU, or a number of CPU threads.

    Attributes:
        name: unique name of the slot.
        device: ``cpu`` or a CUDA device as CUDA_VISIBLE_DEVICES names it (``0``, ``GPU-...``), on a cluster preceded by
            the name of its node and a colon. Slots that share a device have the same ``device``.
        threads: number of CPU threads that the trial may use.
        memory_mib: total memory of the device in MiB; None where it is not known.
    """

    name: str
    device: str
    threads: int
    memory_mib: float | None = None

    @property
    def is_cuda(self) -> bool:
        """Return whether the slot is a share of a GPU."""
        return self.device.rpartition(":")[2] != "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch(Strict):
    """Request to execute one attempt.

    Attributes:
        spec: the trial.
        token: identifier of the attempt.
        folder: absolute path of the folder of the attempt.
        data_root: absolute path of the data folder.
        source: absolute path of the folder that ``dataset.root`` names; empty for the data folder.
        resume_from: absolute paths of the folders of earlier attempts, the latest first.
        micro_batches: number of parts in which each batch is computed; their gradients are accumulated. More than 1
            where memory is short.
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
    """Report that an attempt has finished an epoch."""

    token: str
    record: EpochRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulse(Strict):
    """Sign of life: the number of parts of its work (steps, batches) that an attempt has done since the last one."""

    token: str
    parts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Note(Strict):
    """Message of an attempt for the user; the attempt continues."""

    token: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished(Strict):
    """Report that an attempt is complete and that its result is in its folder."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed(Strict):
    """Report that an attempt ended with an error that it could still send."""

    token: str
    failure: Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped(Strict):
    """Report that an attempt stopped because it was asked to."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost(Strict):
    """Report that the process of an attempt died without reporting an error.

    Attributes:
        token: identifier of the attempt.
        reason: how the process ended.
        last_output: the end of the log of the attempt.
    """

    token: str
    reason: str
    last_output: str = ""


Ending = Finished | Failed | Stopped | Lost
"""Events that end an attempt: each attempt has exactly one of them, as its last event."""

EngineEvent = Epoch | Pulse | Note | Ending


class Engine(ABC):
    """Executor of attempts, at most one per slot.

    An engine is used from one thread. Every submitted attempt ends with exactly one of Finished, Failed, Stopped or
    Lost, also when its process is killed. After ``close`` no process of the engine is left.
    """

    @property
    @abstractmethod
    def slots(self) -> Sequence[Slot]:
        """Return every slot, in a fixed order."""

    @property
    def waiting(self) -> Collection[str]:
        """Return the tokens of submitted attempts that have not begun because there is no room for them yet."""
        return ()

    @property
    def suspended(self) -> Collection[str]:
        """Return the tokens of attempts whose process is halted (SIGSTOP), where the engine can detect that."""
        return ()

    @abstractmethod
    def submit(self, slot: Slot, launch: Launch) -> None:
        """Begin an attempt in a free slot; return at once, unless the engine runs attempts in this process.

        Raises:
            EngineError: if the slot is taken.
        """

    @abstractmethod
    def poll(self, timeout_s: float) -> Sequence[EngineEvent]:
        """Return the events since the last call, in order for each attempt; wait up to ``timeout_s`` for the first."""

    @abstractmethod
    def stop(self, token: str) -> None:
        """Ask an attempt to stop at its next step; do nothing if it has ended."""

    @abstractmethod
    def kill(self, token: str) -> None:
        """End the process of an attempt: ask first, kill after a grace period. A Lost event follows.

        Do nothing if the attempt has ended.
        """

    def resize(self, count: int) -> Sequence[Slot]:
        """Offer ``count`` slots from now on, or as many as possible, and return them in a fixed order.

        Slots that stay keep their name, device and threads. An attempt in a slot that is removed runs to its end.
        """
        return self.slots[:count]

    def release(self, slot: Slot) -> None:  # noqa: B027 - an engine that keeps nothing has nothing to give back
        """Release the resources of a slot that runs no attempt: a warm process and its memory on a GPU.

        Do nothing if the slot runs an attempt. The next ``submit`` takes longer.
        """

    @abstractmethod
    def close(self) -> None:
        """End every process: ask first, kill after a grace period."""


# The protocol between a worker process and its engine: one JSON array per line, the kind of a message and its fields.


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop(Strict):
    """Request that the running attempt stop at its next step."""

    token: str


Message = Launch | Stop | EngineEvent

_KINDS: dict[str, type] = {
    kind.__name__: kind for kind in (Launch, Stop, Epoch, Pulse, Note, Finished, Failed, Stopped, Lost)
}


def encode(message: Message) -> bytes:
    """Encode a message as one line of JSON, including the newline."""
    return json.dumps([type(message).__name__, to_plain(message)], separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Decode the message of one line.

    Raises:
        ProtocolError: if the line is not a message.
    """
    try:
        name, plain = json.loads(line)
        message: Message = from_plain(_KINDS[name], plain, where="the pipe of a worker")
    except (ValueError, KeyError, TypeError, SpecError) as error:
        raise ProtocolError(f"a worker sent a line that is no message: {line[:200]!r}", remedy="see its log") from error
    return message
