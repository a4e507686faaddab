"""Standard streams that outlast their reader: a command whose terminal or pipe is gone goes on with its work."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, Final, TextIO, cast

from typing_extensions import override

_READER_IS_GONE: Final = frozenset({errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF, errno.ECONNRESET, errno.ESTALE})
"""``| head`` has seen enough, the terminal was closed, or the file behind a redirection is away for good."""


class LastingStream(io.TextIOBase):
    """A text stream that drops what cannot be written.

    Once its reader is gone it writes to nowhere, and so does whatever else writes to its descriptor. On a full disk the
    text is lost and the next one is tried.

    Args:
        stream: what is written to.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    @override
    def write(self, text: str, /) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    @override
    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    @property
    @override
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    @override
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    @override
    def isatty(self) -> bool:
        return self._stream.isatty()

    @override
    def fileno(self) -> int:
        return self._stream.fileno()

    @override
    def writable(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has: encoding, buffer, ...
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        if error.errno not in _READER_IS_GONE:
            return
        with contextlib.suppress(OSError, ValueError):
            handle = os.open(os.devnull, os.O_WRONLY)
            os.dup2(handle, self._stream.fileno())
            os.close(handle)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Standard output and error outlast their readers for the block; those that were closed before lead to nowhere."""
    _open_closed()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", LastingStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _open_closed() -> None:
    """Open the standard descriptors that the caller has closed (``>&-``): the next file would take their place."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            if getattr(sys, name) is not None:
                continue
        handle = os.open(os.devnull, os.O_RDWR)
        if handle != descriptor:
            os.dup2(handle, descriptor)
            os.close(handle)
        setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
