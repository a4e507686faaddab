"""Classification of exceptions as failures, without I/O and without torch, so that an orchestrator can use it too."""

import errno
import traceback
from collections.abc import Iterator

from stnbench.core.errors import DataError, DeviceError, DivergedError, NoDeviceError, SpecError
from stnbench.spec.result import Failure, FailureKind

TRACEBACK_LIMIT = 8_000
"""Characters kept of a traceback, half from the beginning (the calls) and half from the end (the error)."""

MESSAGE_LIMIT = 500

OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "alloc_failed",
)
"""Messages of torch, cuDNN and cuBLAS in a RuntimeError when memory is short."""

_NO_HANDLE = "_status_not_initialized"
"""Message of cuBLAS, cuDNN and cuSOLVER when the memory of the GPU does not suffice for their handle."""

DEVICE_TEXTS = (
    # A kernel failed; the context of the process is lost with it.
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "misaligned address",
    "invalid program counter",
    "operation not supported on global/shared address space",
    "hardware stack error",
    "unspecified launch failure",
    "the launch timed out and was terminated",
    "_status_execution_failed",
    "_status_internal_error",
    "_status_mapping_error",
    # The GPU or the connection to it failed.
    "uncorrectable ecc error",
    "uncorrectable nvlink error",
    "gpu is lost",
    "has fallen off the bus",
    "gpu requires reset",
    "devices are busy or unavailable",
    "device(s) is/are busy or unavailable",
    "invalid device ordinal",
    "cuda unknown error",
    "cuda error: unknown error",
    "cuda error: initialization error",
    "system not yet initialized",
    "driver shutting down",
    "mps client failed to connect",
    "mps server",
    "mps client",
    "resources required to support device connections have been exhausted",
)
"""Messages of CUDA, cuDNN and cuBLAS in a RuntimeError of torch when a GPU or the context on it is lost.

They are texts of cudaGetErrorString; "device-side assert triggered" and wrong arguments are not included, since they
are bugs.
"""

NO_DEVICE_TEXTS = (
    "no cuda-capable device is detected",
    "no cuda gpus are available",
    "not compiled with cuda enabled",
    "system has unsupported display driver",
    "no kernel image is available",
    "found no nvidia driver",
    "nvidia driver on your system is too old",
    "driver version is insufficient",
)
"""Messages of torch and CUDA when a process cannot use any GPU, because of the driver, the build or the set-up."""

INFRASTRUCTURE_ERRORS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOLCK,
        errno.ESTALE,
        errno.EMFILE,
        errno.ENFILE,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.EPIPE,
        errno.EFBIG,
    }
)
"""Error numbers of infrastructure failures: a full, broken or read-only disk, a quota, a missing permission or lock,
too many open files, a broken connection, an unavailable file server."""


def classify(error: BaseException) -> Failure:
    """Return the failure for the exception that ended an attempt; its causes are searched, the nearest first."""
    # Data that cannot be read because a disk or a file server fails may be there again in a minute.
    rest = FailureKind.DATA if any(isinstance(link, DataError) for link in _chain(error)) else FailureKind.BUG
    kind = next((kind for link in _chain(error) if (kind := _kind(link))), rest)
    text = "".join(traceback.format_exception(error))
    message = f"{type(error).__name__}: {error}" if kind is FailureKind.BUG else str(error) or type(error).__name__
    return Failure(kind=kind, message=shorten(message, MESSAGE_LIMIT), traceback=shorten(text, TRACEBACK_LIMIT))


def shorten(text: str, limit: int) -> str:
    """Return the text, with its middle left out if it is longer than ``limit`` characters."""
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
    if _is_no_device(error):
        return FailureKind.NO_DEVICE
    if _is_device(error):
        return FailureKind.DEVICE
    return FailureKind.INFRASTRUCTURE if _is_infrastructure(error) else None


def _is_infrastructure(error: BaseException) -> bool:
    """Check whether the disk, the file server or the network caused an error, not the trial."""
    return isinstance(error, OSError) and error.errno in INFRASTRUCTURE_ERRORS


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):  # torch's, without importing torch
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in (*OUT_OF_MEMORY_TEXTS, _NO_HANDLE))


def _is_no_device(error: BaseException) -> bool:
    """Check whether no GPU can be used in this process; a fresh one will most likely see none either."""
    if isinstance(error, NoDeviceError):
        return True
    text = str(error).lower()  # torch built without CUDA says so in an AssertionError
    return isinstance(error, RuntimeError | AssertionError) and any(sign in text for sign in NO_DEVICE_TEXTS)


def _is_device(error: BaseException) -> bool:
    """Check whether the GPU, its driver or the context failed: the same trial may succeed in a fresh process."""
    if isinstance(error, DeviceError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in DEVICE_TEXTS)
