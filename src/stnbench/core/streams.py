"""Standard output and standard error, whatever the locale: a character that it lacks ends no command."""

import codecs
import sys
from typing import Final

HANDLER: Final = "stnbench.plain"
"""The name of our handler of encoding errors."""

_PLAIN: Final = {
    "\u2010": "-",
    "\u2011": "-",
    "\u2012": "-",
    "\u2013": "-",
    "\u2014": "-",
    "\u2212": "-",
    "\u00b7": "*",
    "\u2022": "*",
    "\u00d7": "x",
    "\u00b1": "+-",
    "\u2026": "...",
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2264": "<=",
    "\u2265": ">=",
    "\u2248": "~",
    "\u2192": "->",
    "\u2190": "<-",
    "\u0394": "d",
    "\u00b5": "u",
    "\u2500": "-",
    "\u2501": "-",
    "\u2502": "|",
    "\u2503": "|",
}
"""What people write for a character where they do not have it."""


def forgive_encoding() -> None:
    """Let standard output and standard error replace what their encoding lacks: a dash by a hyphen, others by ``?``.

    Lone surrogates, which no encoding has, are written as escapes.
    """
    codecs.register_error(HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=HANDLER)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_plain(letter, error.encoding) for letter in letters), error.end


def _plain(letter: str, encoding: str) -> str:
    if "\ud800" <= letter <= "\udfff":
        return f"\\u{ord(letter):04x}"
    plain = _PLAIN.get(letter, "?")
    try:
        plain.encode(encoding)
    except UnicodeError:
        return "?"
    return plain
