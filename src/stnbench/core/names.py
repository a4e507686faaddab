"""Names that a file system takes."""

import hashlib
from typing import Final

NAME_MAX: Final = 120
"""Bytes of a name: file systems take 255, encrypted ones 143, and endings are still to come."""

_DIGITS: Final = 8


def short_name(name: str, limit: int = NAME_MAX) -> str:
    """Return the name, or its beginning with a digest of the whole where it is longer than so many bytes in UTF-8."""
    data = name.encode(errors="surrogatepass")
    if len(data) <= limit:
        return name
    digest = hashlib.sha256(data).hexdigest()[:_DIGITS]
    return f"{data[: limit - _DIGITS - 1].decode(errors='ignore').rstrip('-._ ')}-{digest}"
