"""A sweep: a question, the axes that answer it, and the points they span."""

from dataclasses import dataclass, field
from typing import Literal

from stnbench.core.identity import Json
from stnbench.spec.check import require
from stnbench.spec.codec import Strict

Scalar = None | bool | int | float | str
Value = Scalar | tuple[Scalar, ...]
"""One choice of an axis: a number, a name, or a list such as the sizes of a localisation network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Override(Strict):
    """One key of the configuration set to one value, for example ``network=idsia`` or ``locnet1.sizes=[20,20,20]``."""

    key: str
    value: Value

    def __str__(self) -> str:
        return f"{self.key}={show_value(self.value)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice(Strict):
    """One value of an axis: its label in tables, and the overrides it stands for."""

    label: str
    overrides: tuple[Override, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis(Strict):
    """One thing that varies."""

    name: str
    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        """Check the values."""
        labels = [choice.label for choice in self.choices]
        require(bool(labels), f"axes.{self.name}", labels, "give at least one value")
        require(len(set(labels)) == len(labels), f"axes.{self.name}", labels, "give each value once")


@dataclass(frozen=True, kw_only=True, slots=True)
class GridPlannerSpec(Strict):
    """Every point of every grid, less the excluded ones, with every seed."""

    kind: Literal["grid"] = "grid"


PlannerSpec = GridPlannerSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepSpec(Strict):
    """A question, as its file says it.

    ``base`` holds for every cell. ``axes`` span a grid of points, and each of ``more_axes`` another beside it: what
    one grid cannot express is a union of several. ``exclude`` lists points to leave out (each a set of axis = label
    pairs that must all match), ``twins`` adds every cell's twin without its transformers, ``seeds`` repeats every cell.
    ``within`` names the axis whose choices are tasks of their own, so that cells are compared with those of the same
    choice only (empty where all are one task). ``file`` is the name of its file in ``sweeps/`` (empty for a single
    trial), ``overrides`` what the command line changed for all cells; both are in the values above already, and kept so
    that the sweep can be asked again.
    """

    name: str
    question: str
    base: tuple[Override, ...] = ()
    axes: tuple[Axis, ...] = ()
    more_axes: tuple[tuple[Axis, ...], ...] = ()
    exclude: tuple[tuple[tuple[str, str], ...], ...] = ()
    seeds: tuple[int, ...] = (1, 2)
    twins: bool = True
    within: str = ""
    planner: PlannerSpec = field(default_factory=GridPlannerSpec)
    file: str = ""
    overrides: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        """Check what no part can check alone."""
        meaning: dict[tuple[str, str], Choice] = {}
        for grid in self.grids:
            names = [axis.name for axis in grid]
            require(len(set(names)) == len(names), "axes", names, "name each axis once in a grid")
            known = not self.within or self.within in names
            require(known, "within", self.within, f"an axis of every grid, such as {', '.join(names)}")
            for name, choice in ((axis.name, choice) for axis in grid for choice in axis.choices):
                same = meaning.setdefault((name, choice.label), choice) == choice
                require(same, f"axes.{name}", choice.label, "let a name stand for the same in every grid")
        require(bool(self.seeds), "seeds", list(self.seeds), "give at least one seed")
        require(len(set(self.seeds)) == len(self.seeds), "seeds", list(self.seeds), "give each seed once")

    @property
    def grids(self) -> tuple[tuple[Axis, ...], ...]:
        """The axes of every grid, in the order of the file."""
        return (self.axes, *self.more_axes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point(Strict):
    """One label for every axis of a grid: where a cell stands in its sweep."""

    labels: tuple[tuple[str, str], ...]

    @property
    def label(self) -> str:
        """The labels joined, for tables."""
        return " · ".join(label for _, label in self.labels) or "base"


def show_value(value: Json | Value) -> str:
    """A value as a person writes it on a command line: lists without spaces, names without quotes."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{','.join(show_value(item) for item in value)}]"
    return str(value)
