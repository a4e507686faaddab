"""From an exception to a failure: pure, and free of torch, so that an orchestrator can use it as well."""

import errno
import traceback
from collections.abc import Iterator

from stnbench.core.errors import DivergedError, SpecError
from stnbench.spec.result import Failure, FailureKind

TRACEBACK_LIMIT = 8_000
"""Characters kept of a traceback, the first and the last half: where it was called, and what went wrong."""

MESSAGE_LIMIT = 500

OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "alloc_failed",
)
"""What torch, cuDNN and cuBLAS say in a RuntimeError."""


INFRASTRUCTURE_ERRORS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EROFS,
        errno.ESTALE,
        errno.EMFILE,
        errno.ENFILE,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.EPIPE,
        errno.EFBIG,
    }
)
"""A full, broken or read-only disk or a quota, a file server that is away, too many open files, a broken connection."""


def classify(error: BaseException) -> Failure:
    """Why an attempt failed, from the exception that ended it; causes are looked through, the nearest first."""
    kind = next((kind for link in _chain(error) if (kind := _kind(link))), FailureKind.BUG)
    text = "".join(traceback.format_exception(error))
    message = f"{type(error).__name__}: {error}" if kind is FailureKind.BUG else str(error) or type(error).__name__
    return Failure(kind=kind, message=shorten(message, MESSAGE_LIMIT), traceback=shorten(text, TRACEBACK_LIMIT))


def shorten(text: str, limit: int) -> str:
    """The text, its middle left out where it is longer than the limit."""
    if len(text) <= limit:
        return text
    mark = f"\n... {len(text) - limit} characters left out ...\n"
    half = limit // 2
    return text[:half] + mark + text[-half:]


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _kind(error: BaseException) -> FailureKind | None:
    if isinstance(error, DivergedError):
        return FailureKind.DIVERGED
    if isinstance(error, SpecError):
        return FailureKind.INVALID
    if _is_out_of_memory(error):
        return FailureKind.OUT_OF_MEMORY
    return FailureKind.INFRASTRUCTURE if _is_infrastructure(error) else None


def _is_infrastructure(error: BaseException) -> bool:
    """The disk, the file server or the network: nothing that the trial did."""
    return isinstance(error, OSError) and error.errno in INFRASTRUCTURE_ERRORS


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):  # torch's, without importing torch
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in OUT_OF_MEMORY_TEXTS)
