"""Every error that stnbench raises on purpose, as one tree.

::

    StnbenchError
    ├── SpecError (ValueError)         a configuration says something that cannot be meant
    │   ├── UnknownNameError           a key, choice, sweep or trial that does not exist
    │   └── InfeasibleError            each value is fine, but no network can be built from them together
    │       └── BeyondLimitsError      one can be built, and is larger than the sweep's limits
    ├── ShapeError (ValueError)        a tensor has the wrong shape
    ├── DataError                      a data set cannot be used
    │   ├── DataMissingError           it, or the part asked for, is not there
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
        └── TransitionError            the orchestrator was told something impossible

A command turns any of them into one line and exit code 2, but for InternalError: that and every exception that is not
of the tree is a bug of stnbench, keeps its traceback and ends the command with exit code 3.
"""

import difflib
from collections.abc import Iterable
from typing import Final

_SHOWN_MAX: Final = 200
"""Characters of an unknown name in a message, at most."""


class StnbenchError(Exception):
    """Base of the tree: names the problem (the thing and its value) and the remedy.

    Attributes:
        problem: what is wrong, naming the thing and the value found.
        remedy: what the reader can do about it; empty where there is nothing to do.
    """

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}" if self.remedy else self.problem


class SpecError(StnbenchError, ValueError):
    """A configuration says something that cannot be meant."""


class UnknownNameError(SpecError):
    """A name that does not exist; the message offers the nearest ones that do.

    Attributes:
        name: the unknown name.
        known: the names that exist, sorted.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "") -> None:
        self.name = name
        self.known = tuple(sorted(known))
        nearest = difflib.get_close_matches(name, self.known, n=3, cutoff=0.5) if len(name) <= _SHOWN_MAX else []
        offered = nearest or self.known[:12]
        more = "" if nearest or len(self.known) <= 12 else f", and {len(self.known) - 12} more"
        label = "did you mean" if nearest else "there are"
        remedy = f"{label} {', '.join(offered)}{more}" if offered else "there are none"
        shown = name if len(name) <= _SHOWN_MAX else f"{name[:_SHOWN_MAX]}..."
        super().__init__(f"unknown {kind} '{shown}'{f' in {where}' if where else ''}", remedy=remedy)


class InfeasibleError(SpecError):
    """Each value is fine, but no network can be built from them together."""


class BeyondLimitsError(InfeasibleError):
    """A network can be built, and is larger than the limits of its sweep."""


class ShapeError(StnbenchError, ValueError):
    """A tensor has the wrong shape.

    Attributes:
        actual: the shape found.
        expected: the shape wanted, as text, for example ``(batch, 2, 3)``.
    """

    def __init__(self, thing: str, actual: Iterable[int], expected: str) -> None:
        self.actual = tuple(actual)
        self.expected = expected
        super().__init__(f"{thing} has shape {self.actual}", remedy=f"expected {expected}")


class DataError(StnbenchError):
    """A data set cannot be used."""


class DataMissingError(DataError):
    """A data set, or the part of it asked for, is not there."""


class DataCorruptError(DataError):
    """A data set is there, and wrong."""


class FolderError(StnbenchError):
    """A folder cannot be read or written."""


class StoreError(StnbenchError):
    """The database cannot be used.

    Attributes:
        is_transient: whether waiting may help: a writer that is busy, a server that restarts, a full disk.
    """

    def __init__(self, problem: str, *, remedy: str = "", is_transient: bool = False) -> None:
        super().__init__(problem, remedy=remedy)
        self.is_transient = is_transient


class StoreVersionError(StoreError):
    """The database was written by another version of stnbench."""


class StoreBusyError(StoreError):
    """Another orchestrator is at work on the database."""


class InternalError(StnbenchError):
    """An invariant of stnbench is broken: no input and no machine should be able to do that."""


class TransitionError(InternalError):
    """The orchestrator was told something impossible; the message carries the trial's history."""


class TrainingError(StnbenchError):
    """A training run cannot go on."""


class DivergedError(TrainingError):
    """The loss, or a weight, is no longer a finite number."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be read, or belongs to another trial."""


class ExportError(StnbenchError):
    """A network cannot be exported, or what was exported disagrees with it."""


class EngineError(StnbenchError):
    """Attempts cannot be executed."""


class DeviceError(EngineError):
    """A GPU is not there, or no longer answers."""


class NoDeviceError(DeviceError):
    """Torch sees no GPU at all in this process, so that waiting does not help."""


class ProtocolError(InternalError, EngineError):
    """Parts of an engine misunderstood each other."""
