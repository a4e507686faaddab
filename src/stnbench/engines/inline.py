"""The inline engine: attempts run in this process, one after the other, where a debugger can follow them."""

from collections import deque
from collections.abc import Sequence

from typing_extensions import override

from stnbench.core.errors import ProtocolError
from stnbench.engines.base import Engine, EngineEvent, Launch, Slot
from stnbench.engines.execute import execute


class InlineEngine(Engine):
    """One slot in this process.

    An attempt runs inside ``poll``, so ``stop`` can only prevent one that has not begun.
    """

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._waiting: Launch | None = None
        self._stopped: set[str] = set()
        self._events: deque[EngineEvent] = deque()

    @property
    @override
    def slots(self) -> Sequence[Slot]:
        return (self._slot,)

    @override
    def submit(self, slot: Slot, launch: Launch) -> None:
        if self._waiting is not None:
            raise ProtocolError(
                f"slot {slot.name} already runs attempt {self._waiting.token}", remedy="wait for its end"
            )
        self._waiting = launch

    @override
    def poll(self, timeout_s: float) -> Sequence[EngineEvent]:
        del timeout_s
        launch, self._waiting = self._waiting, None
        if launch is not None:
            device = "cuda:0" if self._slot.is_cuda else "cpu"
            execute(
                launch,
                device=device,
                threads=self._slot.threads,
                send=self._events.append,
                should_stop=lambda: launch.token in self._stopped,
            )
        events = tuple(self._events)
        self._events.clear()
        return events

    @override
    def stop(self, token: str) -> None:
        self._stopped.add(token)

    @override
    def kill(self, token: str) -> None:
        self._stopped.add(token)

    @override
    def close(self) -> None:
        self._waiting = None
