"""Text that is safe to print, to use in file names and to log; durations with units."""

import hashlib
import math
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from stnbench.core.errors import SpecError

# Text from outside (labels, messages, questions), made safe to print on one line.


_MEANINGFUL = re.compile(r"[&<>\[\]*_`~|\\#!@$]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_LINE_START = re.compile(r"^(\d*)([-+=.):])")
"""Beginning of a line that Markdown reads as a list, a rule or a heading."""


def printable(text: str) -> str:
    r"""Return the text on one line, with every character that could control a terminal as an escape.

    Line breaks and tabs become single spaces. Control characters, direction marks, lone surrogates and other
    invisible characters (Unicode categories C) are written as Python writes them: ``\x1b``, ``\u202e``, ``\udc80``.
    """
    if not text.isprintable():  # fast path: a page has a hundred thousand texts
        text = "".join(map(_shown, text))
    return " ".join(text.split())


def _shown(letter: str) -> str:
    if letter.isspace():
        return " "
    if unicodedata.category(letter)[0] != "C":
        return letter
    code = ord(letter)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def plain_markdown(text: str) -> str:
    """Return text escaped for Markdown on one line, so that it contains no heading, link, picture or tag.

    Characters with a meaning become numeric entities, which every dialect of Markdown and HTML reads as text.
    """
    shown = _MEANINGFUL.sub(lambda found: f"&#{ord(found.group())};", printable(text))
    return _LINE_START.sub(lambda found: f"{found.group(1)}&#{ord(found.group(2))};", shown)


def counted(count: int, thing: str) -> str:
    """Return a count with its noun: ``1 trial``, ``2 trials``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


PRICE_VARIABLE: Final = "STNBENCH_PRICE"


@dataclass(frozen=True, slots=True)
class Price:
    """Price of a device hour as sweeps count them: an hour of one slot. ``unit`` is the currency, and may be empty."""

    amount: float
    unit: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Price | None":
        """Return the price in ``STNBENCH_PRICE``, such as ``2.50 EUR``, or None if it is empty.

        Raises:
            SpecError: if it is not an amount from 0 on, with or without a currency.
        """
        written = environment.get(PRICE_VARIABLE, "").strip()
        if not written:
            return None
        number, _, unit = written.partition(" ")
        try:
            amount = float(number)
        except ValueError:
            amount = math.nan
        if not (math.isfinite(amount) and amount >= 0):
            raise SpecError(
                f"{PRICE_VARIABLE} is {written!r}", remedy="set it to that of an hour of one slot, such as '2.50 EUR'"
            )
        return cls(amount=amount, unit=printable(unit))

    def of(self, hours: float) -> str:
        """Return the price of device hours with its unit and its derivation."""
        return f"{self._written(self.amount * hours)} ({hours:.2f} device hours at {self._written(self.amount)})"

    def plain(self, hours: float | None) -> dict[str, float | str | None]:
        """Return the price of device hours for programs; the amount is None if the hours are unknown."""
        return {
            "amount": None if hours is None else round(self.amount * hours, 6),
            "unit": self.unit,
            "device_hour": self.amount,
        }

    def _written(self, amount: float) -> str:
        digits = f"{amount:,.2f}" if amount >= 1 or amount == 0 else f"{amount:.2g}"
        return f"{digits} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of trials: that of the ``measured`` ones among ``trials``, in kWh, without work that was lost."""

    kwh: float
    measured: int
    trials: int

    def __str__(self) -> str:
        if not self.measured:
            return "not measured"
        return f"{written_kwh(self.kwh)} ({self.measured} of {counted(self.trials, 'trial')} measured)"

    @property
    def plain(self) -> dict[str, float | int | None]:
        """Return the energy for programs, or None if no trial was measured."""
        kwh = float(f"{self.kwh:.6g}") if self.measured else None
        return {"kwh": kwh, "measured": self.measured, "trials": self.trials}


def written_kwh(kwh: float) -> str:
    """Return energy with its unit: kWh, or Wh below a hundredth of one."""
    return f"{kwh:,.3g} kWh" if kwh >= 0.01 else f"{1000 * kwh:.3g} Wh"


# Names that file systems accept.


NAME_MAX: Final = 120
"""Largest number of bytes of a name without suffixes: file systems accept 255, encrypted ones 143."""

_DIGITS: Final = 8


def short_name(name: str, limit: int = NAME_MAX) -> str:
    """Return the name; if it has more than ``limit`` bytes in UTF-8, its beginning and a digest of the whole."""
    data = name.encode(errors="surrogatepass")
    if len(data) <= limit:
        return name
    digest = hashlib.sha256(data).hexdigest()[:_DIGITS]
    return f"{data[: limit - _DIGITS - 1].decode(errors='ignore').rstrip('-._ ')}-{digest}"


# Passwords in URLs, which no message, report or stored name may show.


HIDDEN = "***"
_OF_USER = re.compile(
    rf"(?:(https?)|(?<!http)(?<!https))(://[^:/?#@\s]*):(?!{re.escape(HIDDEN)}@[^@\s]*(?:\s|$))"
    r"(?(1)(?:(?!\d{1,5}(?:[/?#]|$))[^\n]*|\S*)|[^\n]*)@",
    re.IGNORECASE,
)
"""The password extends to the last ``@`` of the line, including spaces, unless it may be the port of a web server."""

_AS_PARAMETER = re.compile(rf"((?:ssl)?password)=(?!{re.escape(HIDDEN)})[^&\n]*", re.IGNORECASE)


def hide_passwords(text: str) -> str:
    """Return the text with every password in a URL (``//user:password@`` or ``?password=``) replaced by ``***``.

    A password with an unquoted ``@`` is hidden completely, even if more than the password is hidden with it.
    """
    return _AS_PARAMETER.sub(rf"\1={HIDDEN}", _OF_USER.sub(rf"\1\2:{HIDDEN}@", text))


# Durations with units.


_UNITS_S: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_PART: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(min|[smhd])\s*", re.ASCII)


def parse_duration_s(text: str) -> float:
    """Return the number of seconds of a duration such as ``90s``, ``30m``, ``2h``, ``1d`` or ``1h30m``.

    Raises:
        SpecError: for any other text; a number without a unit is refused because its unit is ambiguous.
    """
    seconds, position = 0.0, 0
    plain = text.strip()
    while part := _PART.match(plain, position):
        seconds, position = seconds + float(part[1]) * _UNITS_S[part[2]], part.end()
    if plain and position == len(plain) and seconds > 0:
        return seconds
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", plain, re.ASCII) and float(plain) > 0:
        raise SpecError(f"the duration '{plain}' has no unit", remedy=f"write {plain}s, {plain}m or {plain}h")
    shown = plain if len(plain) <= 40 else f"{plain[:40]}..."
    raise SpecError(f"'{shown}' is no duration", remedy="write a number above 0 and its unit: 90s, 30m, 2h or 1h30m")
