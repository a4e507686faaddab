"""The wire between a worker process and its engine: one JSON object a line, each a message of a known kind."""

import json
from dataclasses import dataclass

from stnbench.core.errors import ProtocolError, SpecError
from stnbench.engines.base import EngineEvent, Epoch, Failed, Finished, Launch, Lost, Note, Pulse, Stopped
from stnbench.spec.codec import Strict, from_plain, to_plain


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
