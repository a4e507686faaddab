"""The files of an attempt: ``spec.json`` and ``result.json``. No torch: the orchestrator reads them as well."""

from pathlib import Path
from typing import TypeVar

from stnbench.core.errors import FolderError
from stnbench.core.files import write_atomic
from stnbench.core.paths import AttemptLayout
from stnbench.spec.codec import from_stored, to_json
from stnbench.spec.result import TrialResult
from stnbench.spec.trial import TrialSpec

T = TypeVar("T")


def write_spec(folder: Path, spec: TrialSpec) -> None:
    """Write the specification of an attempt. Raises: OSError."""
    write_atomic(AttemptLayout(folder).spec, to_json(spec).encode())


def load_spec(folder: Path) -> TrialSpec:
    """The specification of an attempt. Raises: as ``load_result``."""
    return _load(TrialSpec, AttemptLayout(folder).spec)


def write_result(folder: Path, result: TrialResult) -> None:
    """Write the result of an attempt, whole or not at all.

    Raises: OSError, for example when the disk is full; SpecError for a number that is not finite.
    """
    write_atomic(AttemptLayout(folder).result, to_json(result).encode())


def load_result(path: Path) -> TrialResult:
    """The result in a ``result.json``.

    Raises: FolderError where the file cannot be read; SpecError, naming the file and the key, where it is cut short or
    is no result of this version of stnbench.
    """
    return _load(TrialResult, path)


def _load(kind: type[T], path: Path) -> T:
    try:
        text = path.read_bytes()
    except OSError as error:
        problem = f"the file {path} cannot be read ({error.strerror or error})"
        raise FolderError(problem, remedy="name the folder of an attempt that has it") from error
    return from_stored(kind, text, where=str(path))
