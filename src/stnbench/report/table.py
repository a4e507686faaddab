"""What renderers know of a report: columns, tables and sections.

A column says what it is for programs (``key``, ``value``) and for people (``heading``, ``text``). Accuracies are shares
in [0, 1] as values, percent or percentage points (pp) as text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar

from stnbench.analysis.inference import Estimate
from stnbench.analysis.verdicts import Effect
from stnbench.core.identity import Json
from stnbench.core.text import printable
from stnbench.report import text

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
        return printable(self.text(item)) if self.text else text.shown(self.value(item))

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
        return f"{text.counted(more, 'more row')}: --format json and csv have all." if more else ""

    def people_columns(self, most: int | None = None) -> list[Column[Item]]:
        """The columns that people get: essential ones and those that some row has a value for, at most so many."""
        told = [
            column
            for column in self.columns
            if column.heading
            and (
                column.importance >= ESSENTIAL
                or any(column.show(item) not in {text.MISSING, ""} for item in self.items)
            )
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
