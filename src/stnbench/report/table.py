"""Tables and sections of a report, which every renderer shows, and the texts of their values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

from stnbench.analysis.inference import T_METHOD, WILSON_METHOD, Estimate
from stnbench.analysis.verdicts import SEEDS_METHOD, Effect
from stnbench.core.identity import Json
from stnbench.core.text import printable
from stnbench.report.board import Counted, Provenance
from stnbench.spec.sweep import LABEL_SEPARATOR

# Numbers and names as people read them, the same in every format.


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


# What renderers know of a report: columns, tables and sections.
#
# A column says what it is for programs (``key``, ``value``) and for people (``heading``, ``text``). Accuracies are
# shares in [0, 1] as values, percent or percentage points (pp) as text.


Item = TypeVar("Item")
Value = Any
"""What programs read: a scalar, an ``Estimate``, or lists and mappings of scalars."""

Tone = Literal["", "best", "good", "open", "bad", "faint"]

ESSENTIAL: Final = 9
"""The importance of columns that are never left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column(Generic[Item]):
    """One column of a table.

    Attributes:
        key: its name for programs; an ``Estimate`` under the key "" becomes the keys n, mean, low, high and method.
        value: for programs.
        heading: its name for people; empty for a column that only programs get.
        text: for people; by default the value.
        importance: the columns with the least are left out first where there is no room.
        is_number: whether it is aligned to the right.
        tone: how a cell stands out.
        sort: what a page sorts by; by default the value.
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
        """The cell of an item for people, on one line."""
        return printable(self.text(item)) if self.text else shown(self.value(item))

    def order(self, item: Item) -> float | str | None:
        """What the cell is sorted by: a number, a text, or None for what is missing."""
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
    """Rows of one kind under columns.

    Attributes:
        key: its name for programs.
        caption: what it is, for people.
        columns: in order.
        items: what the rows are of, the most important first.
        label: the key of the column that names a row.
        most: how many rows of a group documents show; all where it is None. Data have all.
        group: of which group a row is; lines of groups stand apart.
        tone: of a whole row.
        facets: what a page filters by.
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
        """The rows that documents show."""
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
        """A sentence about the rows that documents leave out; empty where there are none."""
        more = len(self.items) - len(self.first_items())
        return f"{counted(more, 'more row')}: --format json and csv have all." if more else ""

    def people_columns(self, most: int | None = None) -> list[Column[Item]]:
        """The columns that people get: essential ones and those that some row has a value for, at most so many."""
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

    ``facts`` are names with values that can be copied; ``is_detail`` says that a page may close the section at first;
    ``data`` are further values for programs.
    """

    key: str
    heading: str
    text: Sequence[str] = ()
    tables: Sequence[Table[Any]] = ()
    notes: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    is_detail: bool = False
    data: Mapping[str, Json] = field(default_factory=dict)
