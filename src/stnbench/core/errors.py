"""Errors that stnbench raises deliberately, as one class hierarchy.

::

    StnbenchError
    ├── SpecError (ValueError)         a configuration says something that cannot be meant
    │   ├── UnknownNameError           a key, choice, sweep or trial that does not exist
    │   └── InfeasibleError            each value is fine, but no network can be built from them together
    │       └── BeyondLimitsError      one can be built, and is larger than the sweep's limits
    ├── ShapeError (ValueError)        a tensor has the wrong shape
    ├── DataError                      a data set cannot be used
    │   ├── DataMissingError           it, or the requested part, is not there
    │   │   └── CacheMissingError      its cache would have to be made first
    │   └── DataCorruptError           it is there, and wrong
    ├── FolderError                    a folder cannot be read or written
    ├── StoreError                     the database cannot be used
    │   ├── StoreVersionError          it was written by another version of stnbench
    │   └── StoreBusyError             another orchestrator is at work on it
    ├── TrainingError                  a training run cannot go on
    │   ├── DivergedError              the loss is no longer a number
    │   └── CheckpointError            a checkpoint cannot be read, or belongs to another trial
    ├── ExportError                    a network cannot be exported, or the export disagrees with it
    ├── EngineError                    attempts cannot be executed
    │   ├── DeviceError                a GPU is not there, or no longer answers
    │   │   └── NoDeviceError          torch sees none at all in this process
    │   └── ProtocolError              parts of an engine misunderstood each other (an InternalError as well)
    └── InternalError                  an invariant of stnbench is broken: a bug of ours
        └── TransitionError            the orchestrator received an impossible event

A command prints any of them as one line and exits with code 2, except InternalError: it and every exception outside
the hierarchy is a bug of stnbench, keeps its traceback and ends the command with exit code 3.
"""

import difflib
from collections.abc import Iterable
from typing import Final

_SHOWN_MAX: Final = 200
"""Largest number of characters of an unknown name in a message."""


class FormerNameWarning(FutureWarning):
    """A key was written by a former name, which the next release refuses."""


class StnbenchError(Exception):
    """Base class of all errors of stnbench.

    Attributes:
        problem: the problem, with the name of the thing and the value found.
        remedy: the next step for the reader; empty if there is none.
    """

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}" if self.remedy else self.problem


class SpecError(StnbenchError, ValueError):
    """An invalid configuration."""


class UnknownNameError(SpecError):
    """A name that does not exist; the message suggests the most similar existing names.

    Attributes:
        name: the unknown name.
        known: the names that exist, sorted.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "") -> None:
        self.name = name
        self.known = tuple(sorted(known))
        folded = {other.casefold(): other for other in self.known}
        near = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5) if len(name) <= _SHOWN_MAX else []
        nearest = [folded[other] for other in near]
        offered = nearest or self.known[:12]
        more = "" if nearest or len(self.known) <= 12 else f", and {len(self.known) - 12} more"
        label = "did you mean" if nearest else "there are"
        remedy = f"{label} {', '.join(offered)}{more}" if offered else "there are none"
        shown = name if len(name) <= _SHOWN_MAX else f"{name[:_SHOWN_MAX]}..."
        super().__init__(f"unknown {kind} '{shown}'{f' in {where}' if where else ''}", remedy=remedy)


class InfeasibleError(SpecError):
    """A combination of valid values from which no network can be built."""


class BeyondLimitsError(InfeasibleError):
    """A configuration whose network can be built but exceeds the limits of its sweep."""


class ShapeError(StnbenchError, ValueError):
    """A tensor of the wrong shape.

    Attributes:
        actual: the shape found.
        expected: the expected shape as text, for example ``(batch, 2, 3)``.
    """

    def __init__(self, thing: str, actual: Iterable[int], expected: str) -> None:
        self.actual = tuple(actual)
        self.expected = expected
        super().__init__(f"{thing} has shape {self.actual}", remedy=f"expected {expected}")


class DataError(StnbenchError):
    """A data set that cannot be used."""


class DataMissingError(DataError):
    """A data set, or the requested part of it, that does not exist."""


class CacheMissingError(DataMissingError):
    """Cache of a data set that would have to be made first.

    Attributes:
        superseded: digests of the images in caches that were made with the same settings from other files.
    """

    def __init__(self, problem: str, *, remedy: str = "", superseded: Iterable[str] = ()) -> None:
        super().__init__(problem, remedy=remedy)
        self.superseded = frozenset(superseded)


class DataCorruptError(DataError):
    """A data set that exists and is invalid."""


class FolderError(StnbenchError):
    """A folder that cannot be read or written."""


class StoreError(StnbenchError):
    """A database that cannot be used.

    Attributes:
        is_transient: whether waiting may help, as for a busy writer, a restarting server or a full disk.
    """

    def __init__(self, problem: str, *, remedy: str = "", is_transient: bool = False) -> None:
        super().__init__(problem, remedy=remedy)
        self.is_transient = is_transient


class StoreVersionError(StoreError):
    """A database that another version of stnbench has written."""


class StoreBusyError(StoreError):
    """A database that another orchestrator is using."""


class InternalError(StnbenchError):
    """A broken invariant of stnbench, which no input and no machine should be able to cause."""


class TransitionError(InternalError):
    """An impossible transition reported to the orchestrator; the message contains the trial's history."""


class TrainingError(StnbenchError):
    """A training run that cannot continue."""


class DivergedError(TrainingError):
    """A training run whose loss or weights are no longer finite."""


class CheckpointError(TrainingError):
    """A checkpoint that cannot be read or belongs to another trial."""


class ExportError(StnbenchError):
    """A network that cannot be exported, or whose export disagrees with it."""


class EngineError(StnbenchError):
    """An engine that cannot execute attempts."""


class DeviceError(EngineError):
    """A GPU that does not exist or no longer responds."""


class NoDeviceError(DeviceError):
    """A process in which torch finds no GPU at all, so that waiting does not help."""


class ProtocolError(InternalError, EngineError):
    """A message between parts of an engine that violates their protocol."""


# Checks of values, with messages that name the key, the value and the remedy.


INTEGER_MAX: Final = 2**63 - 1
"""Largest whole number that databases can store; the smallest accepted one is its negative."""

_LIMITS: Final = ("at least", "at most", "above", "below", "from ", "between", "an odd")


def require(condition: bool, key: str, value: object, remedy: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise SpecError naming the key and its value unless the condition holds.

    Args:
        condition: the condition.
        key: name of the value.
        value: the value found.
        remedy: the correction; or the limits alone ("at least 1"), which become a sentence.

    Raises:
        SpecError: if the condition does not hold.
    """
    if not condition:
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN_MAX else f"{shown[:_SHOWN_MAX]}..."
        raise SpecError(f"{key} is {shown}", remedy=f"it must be {remedy}" if remedy.startswith(_LIMITS) else remedy)


SIZE_MAX = 1_000_000
"""Largest number of channels or units of a layer: torch's counts of elements and bytes overflow beyond."""


def require_sizes(key: str, sizes: tuple[int, ...]) -> None:
    """Raise SpecError unless every size is at least 1, and small enough for its weights to be counted."""
    remedy = f"every size is a whole number from 1 to {SIZE_MAX:,}"
    require(all(1 <= size <= SIZE_MAX for size in sizes), key, list(sizes), remedy)
