"""Numbers and names as people read them, the same in every format."""

from collections.abc import Sequence
from typing import Protocol

from stnbench.analysis.inference import T_METHOD, WILSON_METHOD, Estimate
from stnbench.analysis.verdicts import SEEDS_METHOD
from stnbench.core.text import printable
from stnbench.report.board import Counted, Provenance
from stnbench.spec.sweep import LABEL_SEPARATOR


class Interval(Protocol):
    """A mean with its interval, which may be missing."""

    @property
    def mean(self) -> float:
        """The estimate."""

    @property
    def low(self) -> float | None:
        """The lower end."""

    @property
    def high(self) -> float | None:
        """The upper end."""


MISSING = "\u2013"
"""Stands where there is no value."""

METHOD_LETTERS = {T_METHOD: "t", WILSON_METHOD: "W", SEEDS_METHOD: "m"}
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def decimals_for(images: int | None) -> int:
    """Decimals of a percentage that so many images justify: one image in 1,000 weighs 0.1 points."""
    return 2 if images is None or images >= 1000 else 1


def percent(share: float | None, decimals: int) -> str:
    """A share in [0, 1] in percent, without the sign."""
    return MISSING if share is None else f"{100 * share:.{decimals}f}"


def interval(estimate: Interval | None, decimals: int) -> str:
    """``[97.12, 99.78]`` in percent; missing where there is no interval."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return MISSING
    return f"[{percent(estimate.low, decimals)}, {percent(estimate.high, decimals)}]"


def score(estimate: Interval | None, decimals: int) -> str:
    """``98.45 [97.12, 99.78]`` in percent."""
    return MISSING if estimate is None else f"{percent(estimate.mean, decimals)} {interval(estimate, decimals)}"


def points(difference: Interval | None, decimals: int) -> str:
    """A difference of shares in percentage points, with signs: ``+1.23 [-0.51, +2.97]``."""
    if difference is None:
        return MISSING
    mean = signed(difference.mean, decimals)
    if difference.low is None or difference.high is None:
        return mean
    return f"{mean} [{signed(difference.low, decimals)}, {signed(difference.high, decimals)}]"


def signed(share: float, decimals: int) -> str:
    """A difference of shares in percentage points with its sign; 0 has none."""
    written = f"{100 * share:+.{decimals}f}"
    return f"{0:.{decimals}f}" if float(written) == 0 else written


def method(estimate: Estimate | None) -> str:
    """The method of an interval in one letter, which the notes of a leaderboard explain."""
    return MISSING if estimate is None else METHOD_LETTERS.get(estimate.method, estimate.method)


def p_value(value: float | None) -> str:
    """A p-value to three decimals: ``0.012`` or ``< 0.001``."""
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def equals_p(value: float | None) -> str:
    """``= 0.012`` or ``< 0.001``, to stand behind a p."""
    said = p_value(value)
    return said if said.startswith("<") else f"= {said}"


def count(number: float | None) -> str:
    """A large number to three digits: ``1.24 M``."""
    if number is None:
        return MISSING
    rounded = float(f"{number:.3g}")
    for size, unit in _UNITS:
        if rounded >= size:
            scaled = rounded / size
            return f"{scaled:.{max(0, 2 - _digits_before(scaled))}f} {unit}"
    return f"{number:.0f}"


def seconds(duration_s: float | None) -> str:
    """Seconds to three digits."""
    if duration_s is None:
        return MISSING
    rounded = float(f"{duration_s:.3g}")
    return f"{rounded:.{max(0, 2 - _digits_before(rounded))}f}"


def duration(seconds_s: float | None) -> str:
    """A duration as people say it: ``8 s``, ``3 min 05 s``, ``2 h 07 min``, ``3 d 4 h``."""
    if seconds_s is None:
        return MISSING
    minutes, rest = divmod(round(seconds_s), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def counted(number: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def some(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")


def without_group(label: str, group: str) -> str:
    """A configuration's label without that of its group, where something is left."""
    parts = label.split(LABEL_SEPARATOR)
    if group in parts and len(parts) > 1:
        parts.remove(group)
    return LABEL_SEPARATOR.join(parts)


def with_group(label: str, group: str) -> str:
    """A label that names its group as well, once."""
    return f"{group}: {label}" if group and group not in label else label


def provenance_lines(known: Provenance) -> list[tuple[str, str]]:
    """What the numbers were made with, as pairs of a heading and a text."""
    return [
        ("Command", known.command),
        ("Seeds", ", ".join(map(str, known.seeds)) or MISSING),
        ("Commit", _values(known.commits)),
        ("Device", _values(known.devices)),
        ("Platform", _values(known.platforms)),
        ("Versions", _values(known.versions)),
        ("Data", _values(known.datasets)),
    ]


def shown(value: object) -> str:
    """Any plain value as text: missing for None, thousands separated, text on one printable line."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else printable(str(value))


def _values(values: tuple[Counted, ...]) -> str:
    if len(values) == 1:
        return values[0].value
    return "; ".join(f"{item.value} ({counted(item.trials, 'trial')})" for item in values) or MISSING


def _digits_before(number: float) -> int:
    """Digits before the decimal point beyond the first; none below ten."""
    return len(str(int(number))) - 1
