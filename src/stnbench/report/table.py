"""Tables and sections of a report, which every renderer shows, and the text form of their values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

from stnbench.analysis.effects import T_METHOD, WILSON_METHOD, Estimate
from stnbench.analysis.verdicts import SEEDS_METHOD, Effect
from stnbench.core.identity import Json
from stnbench.core.text import printable
from stnbench.report.board import Counted, Provenance
from stnbench.spec.sweep import LABEL_SEPARATOR

# Numbers and names as text for people, the same in every format.


class Interval(Protocol):
    """A mean with its interval, which may be missing."""

    @property
    def mean(self) -> float:
        """Return the estimate."""

    @property
    def low(self) -> float | None:
        """Return the lower end, or None where there is no interval."""

    @property
    def high(self) -> float | None:
        """Return the upper end, or None where there is no interval."""


MISSING = "\u2013"
"""The text of a missing value."""

METHOD_LETTERS = {T_METHOD: "t", WILSON_METHOD: "W", SEEDS_METHOD: "m"}
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def decimals_for(images: int | None) -> int:
    """Return the decimals of a percentage that a number of images justifies: one image in 1,000 weighs 0.1 points."""
    return 2 if images is None or images >= 1000 else 1


def percent(share: float | None, decimals: int) -> str:
    """Return a share in [0, 1] in percent, without the percent sign."""
    return MISSING if share is None else f"{100 * share:.{decimals}f}"


def interval(estimate: Interval | None, decimals: int) -> str:
    """Return an interval of shares in percent, such as ``[97.12, 99.78]``; ``MISSING`` without one."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return MISSING
    return f"[{percent(estimate.low, decimals)}, {percent(estimate.high, decimals)}]"


def score(estimate: Interval | None, decimals: int) -> str:
    """Return a share with its interval in percent, such as ``98.45 [97.12, 99.78]``."""
    return MISSING if estimate is None else f"{percent(estimate.mean, decimals)} {interval(estimate, decimals)}"


def points(difference: Interval | None, decimals: int) -> str:
    """Return a difference of shares in percentage points, with signs, such as ``+1.23 [-0.51, +2.97]``."""
    if difference is None:
        return MISSING
    mean = signed(difference.mean, decimals)
    if difference.low is None or difference.high is None:
        return mean
    return f"{mean} [{signed(difference.low, decimals)}, {signed(difference.high, decimals)}]"


def signed(share: float, decimals: int) -> str:
    """Return a difference of shares in percentage points with its sign; 0 has none."""
    written = f"{100 * share:+.{decimals}f}"
    return f"{0:.{decimals}f}" if float(written) == 0 else written


def method(estimate: Estimate | None) -> str:
    """Return the method of an interval as a letter, which the notes of a leaderboard explain, or else its name."""
    return MISSING if estimate is None else METHOD_LETTERS.get(estimate.method, estimate.method)


def p_value(value: float | None) -> str:
    """Return a p-value to three decimals: ``0.012`` or ``< 0.001``."""
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def equals_p(value: float | None) -> str:
    """Return a p-value to follow the letter p: ``= 0.012`` or ``< 0.001``."""
    said = p_value(value)
    return said if said.startswith("<") else f"= {said}"


def count(number: float | None) -> str:
    """Return a number to three digits with the prefix of its size, such as ``1.24 M``."""
    if number is None:
        return MISSING
    rounded = float(f"{number:.3g}")
    for size, unit in _UNITS:
        if rounded >= size:
            scaled = rounded / size
            return f"{scaled:.{max(0, 2 - _digits_before(scaled))}f} {unit}"
    return f"{number:.0f}"


def seconds(duration_s: float | None) -> str:
    """Return a duration in seconds to three digits, without the unit."""
    if duration_s is None:
        return MISSING
    rounded = float(f"{duration_s:.3g}")
    return f"{rounded:.{max(0, 2 - _digits_before(rounded))}f}"


def values_of(label: str) -> str:
    """Return a configuration's label without the names of axes before values."""
    return LABEL_SEPARATOR.join(part.partition("=")[2] or part for part in label.split(LABEL_SEPARATOR))


def short_label(label: str, most: int) -> str:
    """Return a configuration's label in at most ``most`` characters, on one line.

    If it is too long, the names of axes before values are left out, and then its middle: labels differ at both ends.
    """
    plain = printable(label)
    if len(plain) > most:
        plain = values_of(plain)
    if len(plain) > most:
        tail = (most - 1) // 2
        plain = f"{plain[: most - 1 - tail].rstrip()}\u2026{plain[-tail:].lstrip()}"
    return plain


def duration(seconds_s: float | None) -> str:
    """Return a duration, given in seconds, for people: ``8 s``, ``3 min 05 s``, ``2 h 07 min``, ``3 d 4 h``."""
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
    """Return a number with its noun: ``1 trial``, ``2 trials``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def some(names: Sequence[str], most: int) -> str:
    """Return the first names, ``most`` of them, and the number of the others."""
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")


def without_group(label: str, group: str) -> str:
    """Return a configuration's label without that of its group, unless nothing would be left."""
    parts = label.split(LABEL_SEPARATOR)
    if group in parts and len(parts) > 1:
        parts.remove(group)
    return LABEL_SEPARATOR.join(parts)


def with_group(label: str, group: str) -> str:
    """Return a label that also names its group, once."""
    return f"{group}: {label}" if group and group not in label else label


def provenance_lines(known: Provenance) -> list[tuple[str, str]]:
    """Return the provenance of the numbers, as pairs of a heading and a text."""
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
    """Return a plain value as text: ``MISSING`` for None, thousands separated, text on one printable line."""
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
    """Return the number of digits before the decimal point beyond the first; 0 below ten."""
    return len(str(int(number))) - 1


# The parts of a report that renderers know: columns, tables and sections.
#
# A column has one form for programs (``key``, ``value``) and one for people (``heading``, ``text``). Accuracies are
# shares in [0, 1] as values, percent or percentage points (pp) as text.


Item = TypeVar("Item")
Value = Any
"""A value for programs: a scalar, an ``Estimate`` or ``Effect``, or lists and mappings of scalars."""

Tone = Literal["", "best", "good", "open", "bad", "faint"]

ESSENTIAL: Final = 9
"""The importance of columns that are never left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column(Generic[Item]):
    """A column of a table.

    Attributes:
        key: its name for programs; an ``Estimate`` under the key "" becomes the keys n, mean, low, high and method.
        value: returns the value of an item for programs.
        heading: its name for people; empty for a column that only programs get.
        text: returns the text of an item for people; by default that of the value.
        importance: up to ``ESSENTIAL``; the least important columns are left out first where there is no room.
        is_number: whether it is aligned to the right.
        tone: returns the emphasis of an item's cell.
        sort: returns the value that a page sorts by; by default the value for programs.
        prefix: of the names of CSV columns that a mapping or an estimate becomes; by default the key and "_".
        is_estimate: whether its values are estimates, or None.
        in_data: whether programs get it.
        has_whisker: whether a page draws the interval of its value.
    """

    key: str
    value: Callable[[Item], Value]
    heading: str = ""
    text: Callable[[Item], str] | None = None
    importance: int = 5
    is_number: bool = True
    tone: Callable[[Item], Tone] | None = None
    sort: Callable[[Item], Value] | None = None
    prefix: str | None = None
    is_estimate: bool = False
    in_data: bool = True
    has_whisker: bool = False

    def show(self, item: Item) -> str:
        """Return the text of an item's cell for people, on one line."""
        return printable(self.text(item)) if self.text else shown(self.value(item))

    def order(self, item: Item) -> float | str | None:
        """Return the value that an item's cell is sorted by: a number, a text, or None for a missing value."""
        value = self.sort(item) if self.sort else self.value(item)
        if isinstance(value, Estimate | Effect):
            return value.mean
        if value is None or isinstance(value, bool | int | float):
            return value
        return printable(str(value)) or None


@dataclass(frozen=True, kw_only=True, slots=True)
class Facet(Generic[Item]):
    """A property by which the rows of a table can be filtered on a page."""

    heading: str
    value: Callable[[Item], str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table(Generic[Item]):
    """A table of items of one kind, with a row for each.

    Attributes:
        key: its name for programs.
        caption: its name for people.
        columns: in order.
        items: the subjects of the rows, the most important first.
        label: the key of the column that names a row.
        most: the number of rows of a group that documents show; None for all. Data have all rows.
        group: returns the group of an item; the rows of groups are set apart.
        tone: returns the emphasis of a whole row.
        facets: the properties that a page filters by.
    """

    key: str
    caption: str
    columns: Sequence[Column[Item]]
    items: Sequence[Item]
    label: str = ""
    most: int | None = None
    group: Callable[[Item], str] | None = None
    tone: Callable[[Item], Tone] | None = None
    facets: Sequence[Facet[Item]] = ()

    def first_items(self) -> list[Item]:
        """Return the items of the rows that documents show."""
        if self.most is None:
            return list(self.items)
        seen: dict[str, int] = {}
        kept = []
        for item in self.items:
            group = self.group(item) if self.group else ""
            seen[group] = seen.get(group, 0) + 1
            if seen[group] <= self.most:
                kept.append(item)
        return kept

    def left_out(self) -> str:
        """Return a sentence about the rows that documents leave out; empty where there are none."""
        more = len(self.items) - len(self.first_items())
        return f"{counted(more, 'more row')}: --format json and csv have all." if more else ""

    def people_columns(self, most: int | None = None) -> list[Column[Item]]:
        """Return the columns that people get: essential ones and those with a value in some row.

        Args:
            most: the largest number of columns, of which the most important are kept; None for all.
        """
        told = [
            column
            for column in self.columns
            if column.heading
            and (column.importance >= ESSENTIAL or any(column.show(item) not in {MISSING, ""} for item in self.items))
        ]
        if most is not None and len(told) > most:
            kept = sorted(told, key=lambda column: -column.importance)[:most]
            told = [column for column in told if column in kept]
        return told


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of a report: a heading, sentences, tables, and notes below them.

    ``facts`` are names with values that can be copied; ``is_detail`` is whether a page may show the section closed at
    first; ``data`` are further values for programs.
    """

    key: str
    heading: str
    text: Sequence[str] = ()
    tables: Sequence[Table[Any]] = ()
    notes: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    is_detail: bool = False
    data: Mapping[str, Json] = field(default_factory=dict)
