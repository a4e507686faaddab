"""What a value is: the one reading of scalars, for sweep files, ``conf/`` and the command line.

A plain (unquoted) scalar is read as YAML 1.2's core schema and Hydra's grammar of overrides agree to read it: ``null``,
``true`` and ``false`` in any case, whole numbers, decimal numbers with or without an exponent (``1e-3`` is 0.001),
underscores between digits (``20_000``), and everything else is text, ``on``, ``off``, ``yes`` and ``no`` as well.

What readers of YAML do not agree on is refused, and never guessed: leading zeros (``016`` is 14 to YAML 1.1), other
bases (``0x10``), sexagesimal numbers (``1:30`` is 90 to YAML 1.1), and numbers that are not finite.
"""

import math
import re
from typing import Final, cast

from stnbench.core.errors import SpecError
from stnbench.spec.check import INTEGER_MAX
from stnbench.spec.sweep import Scalar, Value

TEXT_MAX: Final = 10_000
"""Characters of a text, at most."""

_WORDS: Final[dict[str, Scalar]] = {"null": None, "true": True, "false": False}

_NOT_TO_HYDRA: Final = frozenset({"on", "off", "yes", "no", "=", "<<"})
"""Text here, and something else to YAML 1.1, which reads ``conf/``."""

_DIGITS: Final = r"[0-9](?:_?[0-9])*"
_WHOLE: Final = r"(?:0|[1-9](?:_?[0-9])*)"
_INTEGER: Final = re.compile(rf"[-+]?{_WHOLE}")
_DECIMAL: Final = re.compile(rf"[-+]?(?:{_WHOLE}?\.{_DIGITS}|{_WHOLE}\.?)(?:[eE][-+]?{_DIGITS})?")
_DISPUTED: Final = (
    (re.compile(r"[-+]?[0-9][0-9_]*"), "write the number without leading zeros and stray underscores"),
    (re.compile(r"[-+]?[0-9_]*\.?[0-9_]+\.?(?:[eE][-+]?[0-9_]+)?"), "write the number without leading zeros"),
    (re.compile(r"[-+]?0[xXoObB][0-9a-fA-F_]+"), "write it as a decimal number"),
    (re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"), "write the number of seconds"),
    (re.compile(r"[-+]?\.?(?:inf|nan)", re.IGNORECASE), "write a finite number"),
)
"""What is a number to some readers and another one, or text, to others; and what to write for the number."""


def plain_value(text: str) -> Scalar:
    """Return what a plain scalar means.

    Raises:
        SpecError: for a number that readers of YAML do not agree on, one that is too large or not finite, and text that
            cannot be stored.
    """
    if text in ("", "~") or text.lower() in _WORDS:
        return _WORDS.get(text.lower())
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _DECIMAL.fullmatch(text):
        return checked_scalar(float(text.replace("_", "")))
    for pattern, remedy in _DISPUTED:
        if pattern.fullmatch(text):
            problem = f"'{cut(text)}' is not the same to all readers"
            raise SpecError(problem, remedy=f"{remedy}, or put it in quotes where it is a name")
    return checked_text(text)


def require_plain_to_hydra(text: str) -> None:
    """Raise SpecError for what is text here and not to Hydra's reader of files, as ``on``, which is true to it."""
    if text.lower() in _NOT_TO_HYDRA:
        raise SpecError(f"'{text}' is not the same to all readers", remedy="write true or false, or put it in quotes")


def checked_scalar(value: Scalar) -> Scalar:
    """Return a scalar after it was checked: numbers are finite and fit a database, text can be stored.

    Raises:
        SpecError: for any other.
    """
    if isinstance(value, str):
        return checked_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"{value} is not a finite number", remedy="write a finite number")
    if isinstance(value, int) and not -INTEGER_MAX <= value <= INTEGER_MAX:
        raise SpecError(_too_large(str(value)), remedy=f"use at most {INTEGER_MAX}")
    return value


def checked_text(text: str) -> str:
    """Return text that can be stored, shown and written to a file.

    Raises:
        SpecError: for text that is too long or holds a null byte or half of a surrogate pair.
    """
    if len(text) > TEXT_MAX:
        raise SpecError(f"a text has {len(text):,} characters ('{cut(text)}')", remedy=f"use at most {TEXT_MAX:,}")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise SpecError(f"the text {cut(text)!r} is not Unicode that can be stored", remedy="write it in UTF-8")
    return text


def as_value(value: object, key: str, where: str) -> Value:
    """Return a value that was read as an override's value: a scalar or a list of scalars.

    Raises:
        SpecError: for anything else, naming where it stands and its key.
    """
    if isinstance(value, list | tuple):
        if any(isinstance(item, list | tuple) for item in value):
            raise SpecError(f"{where}: {key} is a list of lists", remedy="use a list of numbers or names")
        return cast("Value", tuple(as_value(item, key, where) for item in value))
    if value is None or isinstance(value, bool | int | float | str):
        try:
            return checked_scalar(value)
        except SpecError as error:
            raise SpecError(f"{where}: {key}: {error.problem}", remedy=error.remedy) from error
    raise SpecError(f"{where}: {key} is a {type(value).__name__}", remedy="use a number, a name or a list")


def cut(text: str, limit: int = 40) -> str:
    """Return the beginning of a text, for messages."""
    return text if len(text) <= limit else f"{text[:limit]}..."


def _integer(text: str) -> int:
    digits = text.lstrip("+-").replace("_", "")
    if len(digits) > len(str(INTEGER_MAX)):  # not converted: Python refuses thousands of digits with a ValueError
        raise SpecError(_too_large(text), remedy=f"use at most {INTEGER_MAX}")
    return cast("int", checked_scalar(int(text.replace("_", ""))))


def _too_large(text: str) -> str:
    return f"the number {cut(text, 24)} is too large"
