"""Durations as people write them."""

import re
from typing import Final

from stnbench.core.errors import SpecError

_UNITS_S: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_PART: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(min|[smhd])\s*", re.ASCII)


def parse_duration_s(text: str) -> float:
    """Return the seconds of ``90s``, ``30m``, ``2h``, ``1d`` or ``1h30m``.

    Raises:
        SpecError: for anything else; a number without a unit is refused, since 2 may mean hours or seconds.
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
