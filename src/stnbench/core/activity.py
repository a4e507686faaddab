"""Signs of life of long work: loops say how far they have come, and whoever is responsible for them listens.

A loop calls :func:`advance` after each part of its work, which costs next to nothing where nobody listens. A worker
tells its engine, so that a process that hangs can be told from one that works; the preparation of data sets tells a
person.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Advance:
    """Part ``done`` of ``total`` of some work is done; ``total`` is 0 where it is not known."""

    work: str
    done: int
    total: int


Listener = Callable[[Advance], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def advance(work: str, done: int, total: int = 0) -> None:
    """Say that some work has come further."""
    listener = _listener.get()
    if listener is not None:
        listener(Advance(work=work, done=done, total=total))


def advancing(parts: Iterable[T], work: str, total: int = 0) -> Iterator[T]:
    """The parts one after the other; each that is asked for says that the one before is done."""
    for index, part in enumerate(parts):
        advance(work, index, total)
        yield part


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear of the work that is done in the block, in its thread."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
