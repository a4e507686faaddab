"""Specification of sweeps: a question, the axes that answer it, and the points they span."""

import functools
import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from stnbench.core.errors import INTEGER_MAX, SpecError, require
from stnbench.core.identity import Json
from stnbench.spec.codec import Strict, named_before
from stnbench.spec.planner import (
    AnyPlanner,
    AnyPruner,
    GridPlannerSpec,
    SamplerSpec,
    Span,
    UntilDecidedPlannerSpec,
    sampler_names,
)
from stnbench.spec.trial import TrialSpec

# Published results, and the configurations of a sweep that reproduce them.


PublishedSplit = Literal["test", "validation"]
LocnetSizes = tuple[int, int, int]

SWEEPS_OF_2015: Final = (
    "baseline",
    "locnet_sizes",
    "locnet_large",
    "multiple_st",
    "idsia_st",
    "idsia_multiple_st",
    "normalisation",
    "training_images",
)
"""Shipped sweeps that together reproduce the tables of 2015."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedResult(Strict):
    """One run of the tables of 2015 (``reports/published/README.md``).

    ``locnet1`` to ``locnet3`` are the sizes of the localisation networks before the first three stages, None for none.
    ``accuracy`` is a share in [0, 1] of the images of ``split``, from one run with one seed.
    """

    table: str
    network: Literal["lecun", "idsia"]
    cnn: tuple[int, int, int] | tuple[int, int, int, int]
    locnet1: LocnetSizes | None
    locnet2: LocnetSizes | None
    locnet3: LocnetSizes | None
    transformer: Literal["none", "affine", "scale_translation"]
    multi_scale: bool
    local_norm: bool
    contrastive_norm: bool
    momentum: float
    train_images: int
    epochs: int
    split: PublishedSplit
    accuracy: float

    @property
    def locnets(self) -> tuple[tuple[int, LocnetSizes], ...]:
        """Return the places that have a localisation network, with its sizes."""
        placed = ((1, self.locnet1), (2, self.locnet2), (3, self.locnet3))
        return tuple((place, sizes) for place, sizes in placed if sizes is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedConfiguration(Strict):
    """A configuration of a sweep, and its published result at full size."""

    config_id: Annotated[str, named_before("config_id", "cell_id")]
    result: PublishedResult


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTable(Strict):
    """Configurations of a sweep that have a published result; accuracies are shares of ``images`` images."""

    name: str
    images: int
    configs: Annotated[tuple[PublishedConfiguration, ...], named_before("configs", "cells")]


Labels = tuple[tuple[str, str], ...]
"""Pairs of the name of an axis and the label of its value."""

SEEDS_MAX: Final = 10_000
"""Largest number of seeds of a sweep."""

TRIALS_MAX: Final = 1_000_000
"""Largest number of trials of a sweep without a sampler."""

EQUAL_PARAMETERS: Final = "equal_parameters"

BaselineChoice = bool | Literal["equal_parameters"]
"""Whether configurations have a baseline without transformers; ``equal_parameters`` adds one of the same size."""

LABEL_SEPARATOR = " · "
"""Separator of the labels of a configuration, in tables."""

Scalar = None | bool | int | float | str
Value = Scalar | tuple[Scalar, ...]
"""One choice of an axis: a number, a name, or a list such as the sizes of a localisation network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Override(Strict):
    """Assignment of a value to a configuration key, such as ``network=idsia`` or ``locnet1.sizes=[20,20,20]``."""

    key: str
    value: Value

    def __str__(self) -> str:
        return f"{self.key}={show_value(self.value)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice(Strict):
    """One value of an axis: its label in tables, and its overrides."""

    label: str
    overrides: tuple[Override, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis(Strict):
    """A variable of a sweep, with ``choices`` or with the numbers of ``span`` as values of the key ``name``.

    ``when`` holds the conditions under which the axis is present: names of axes above it, each with the required
    labels.
    """

    name: str
    choices: tuple[Choice, ...] = ()
    span: Span | None = None
    when: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __post_init__(self) -> None:
        labels = [choice.label for choice in self.choices]
        require(bool(labels) != bool(self.span), f"axes.{self.name}", labels, "give at least one value")
        require(len(set(labels)) == len(labels), f"axes.{self.name}", labels, "give each value once")

    @property
    def values(self) -> tuple[Choice, ...]:
        """Return all values in order, including those of a range."""
        return self.choices if self.span is None else _values_of(self.name, self.span)

    @property
    def keys(self) -> frozenset[str]:
        """Return the configuration keys that the axis sets."""
        if self.span is not None:
            return frozenset({self.name})
        return frozenset(item.key for choice in self.choices for item in choice.overrides)

    def applies(self, labels: Collection[tuple[str, str]]) -> bool:
        """Check whether the axis is present at a point with these labels of the axes above."""
        return all(any((name, label) in labels for label in own) for name, own in self.when)


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitsSpec(Strict):
    """Upper limits of the cost of a configuration; None is no limit.

    Attributes:
        parameters: number of parameters of the network.
        flops: floating-point operations of one image's forward pass, two for each multiply-add.
        memory_mib: GPU memory in MiB, as estimated before a trial has run.
    """

    parameters: float | None = None
    flops: float | None = None
    memory_mib: float | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("parameters", "flops", "memory_mib")}
        require(
            any(value is not None for value in given.values()),
            "limits",
            given,
            "say parameters:, flops: or memory_mib:",
        )
        for name, value in given.items():
            require(value is None or value > 0, f"limits.{name}", value, "above 0")

    def exceeded_by(self, *, parameters: float, flops: float, memory_mib: float) -> str:
        """Return a description of the limits that a configuration exceeds; empty if it exceeds none."""
        costs = {"parameters": parameters, "flops": flops, "memory_mib": memory_mib}
        too_much = [
            f"{name} {cost:,.0f} is above the limit of {limit:,.0f}"
            for name, cost in costs.items()
            if (limit := getattr(self, name)) is not None and cost > limit
        ]
        return ", ".join(too_much)


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepSpec(Strict):
    """Specification of a sweep.

    Attributes:
        name: name of the sweep.
        question: the question that the sweep answers.
        base: overrides of every configuration.
        axes: axes that span a grid of points.
        more_axes: axes of further grids; the sweep is the union of all grids.
        exclude: points to leave out, each a set of axis = label pairs that must all match.
        seeds: seeds with which every configuration is trained.
        baselines: whether every configuration has a baseline without its transformers; ``equal_parameters`` adds one
            more that is widened to the number of parameters of the configuration.
        within: axis whose choices are separate tasks, so that only configurations of the same choice are compared;
            empty if all are one task.
        margin: difference in percentage points within which two configurations are equivalent; it only affects the
            report.
        columns: metrics that the leaderboard of the report shows.
        planner: planner that proposes configurations.
        pruner: pruner that ends trials early; None for none.
        limits: limits above whose cost configurations are left out.
        start_from: sweep of the same store from whose complete trials a sampler learns first; empty for none.
        file: name of the file in ``sweeps/``; empty for a single trial.
        overrides: changes of the command line to all configurations. They are already included in the other values,
            and are kept so that the sweep can be repeated.
        published: published results of its configurations; None if nothing is compared.
    """

    name: str
    question: str
    base: tuple[Override, ...] = ()
    axes: tuple[Axis, ...] = ()
    more_axes: tuple[tuple[Axis, ...], ...] = ()
    exclude: tuple[Labels, ...] = ()
    seeds: tuple[int, ...] = (1, 2)
    baselines: Annotated[BaselineChoice, named_before("baselines", "twins")] = True
    within: str = ""
    margin: float = 0.5
    columns: tuple[str, ...] = ()
    planner: AnyPlanner = field(default_factory=GridPlannerSpec)
    pruner: AnyPruner | None = None
    limits: LimitsSpec | None = None
    start_from: str = ""
    file: str = ""
    overrides: tuple[Override, ...] = ()
    published: PublishedTable | None = None

    def __post_init__(self) -> None:
        meaning: dict[tuple[str, str], Choice] = {}
        require(bool(self.seeds), "seeds", list(self.seeds), "give at least one seed")
        require(len(set(self.seeds)) == len(self.seeds), "seeds", list(self.seeds), "give each seed once")
        for seed in self.seeds:
            require(0 <= seed <= INTEGER_MAX, "seeds", seed, f"from 0 to {INTEGER_MAX}")
        for grid in self.grids:
            names = [axis.name for axis in grid]
            require(len(set(names)) == len(names), "axes", names, "name each axis once in a grid")
            known = not self.within or self.within in names
            require(known, "within", self.within, f"an axis of every grid, such as {', '.join(names)}")
            for name, choice in ((axis.name, choice) for axis in grid for choice in axis.values):
                same = meaning.setdefault((name, choice.label), choice) == choice
                require(same, f"axes.{name}", choice.label, "let a name stand for the same in every grid")
            self._check_grid(grid)
        fits = self.baselines != EQUAL_PARAMETERS or self.planner.compares_all
        require(fits, "baselines", self.baselines, "planner: grid has such baselines; with others say true")
        learns = not self.start_from or isinstance(self.planner, SamplerSpec)
        require(
            learns, "start_from", self.start_from, f"a planner that learns from answers: {', '.join(sampler_names())}"
        )
        require(0 <= self.margin < 100, "margin", self.margin, "give percentage points, such as 0.5")

    def _check_grid(self, grid: tuple[Axis, ...]) -> None:
        above: set[str] = set()
        samples = isinstance(self.planner, SamplerSpec)
        require(not (self.within and samples), "within", self.within, "planner: grid or racing compares within an axis")
        for axis in grid:
            key = f"axes.{axis.name}"
            for name, _ in axis.when:
                require(name in above, f"{key}.when", name, "an axis with choices that stands above it")
            if axis.span is None:
                above.add(axis.name)
            visited = samples or axis.span is None or axis.span.is_stepped
            remedy = "say step: or values: (how many), or let planner: random or tpe choose"
            require(visited, key, "a range without steps", remedy)
            whole = self.within != axis.name or (axis.span is None and not axis.when)
            require(whole, "within", self.within, "an axis with choices and without conditions")

    @property
    def grids(self) -> tuple[tuple[Axis, ...], ...]:
        """Return the axes of every grid, in the order of the file."""
        return (self.axes, *self.more_axes)

    @property
    def look_seeds(self) -> tuple[int, ...]:
        """Return the numbers of seeds per configuration at which interim analyses are planned; empty for none."""
        if not isinstance(self.planner, UntilDecidedPlannerSpec):
            return ()
        return self.planner.look_seeds(len(self.seeds))

    def points(self) -> Iterator["Point"]:
        """Yield the points of all grids, the last axis fastest, without excluded ones."""
        for grid in self.grids:
            for labels in _spread(grid, ()):
                if not self.excludes(labels):
                    yield Point(labels=labels)

    def excludes(self, labels: Labels) -> bool:
        """Check whether points with these labels are left out."""
        return any(set(excluded) <= set(labels) for excluded in self.exclude)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point(Strict):
    """Position of a configuration in its sweep: one label for every present axis of a grid."""

    labels: Labels

    @property
    def label(self) -> str:
        """Return the labels joined, for tables; ``base`` if there are none."""
        return LABEL_SEPARATOR.join(label for _, label in self.labels) or "base"


def require_askable(sweep: SweepSpec) -> None:
    """Check that a valid sweep may be run.

    A store may hold sweeps of earlier versions that fail this check; they can still be read.

    Raises:
        SpecError: if two axes of a point set one key, of which the lower one would silently win, or the grids have more
            than ``TRIALS_MAX`` trials.
    """
    for grid in sweep.grids:
        for upper, lower in itertools.combinations(grid, 2):
            for key in sorted(upper.keys & lower.keys):
                if _may_meet(upper, lower, key, grid):
                    problem = f"the axes {upper.name} and {lower.name} both set {key}"
                    raise SpecError(problem, remedy="let one of them set it, or give one a condition (when:)")
    if not isinstance(sweep.planner, SamplerSpec):
        trials = sum(math.prod(len(axis.values) for axis in grid) for grid in sweep.grids) * len(sweep.seeds)
        if trials > TRIALS_MAX:
            problem = f"the axes span a grid of up to {trials:,} trials, and {TRIALS_MAX:,} are the most"
            raise SpecError(problem, remedy="leave out values, or let planner: random or tpe choose")


def label_of(key: str, value: Value) -> str:
    """Return the label of a value in tables: names and sizes alone, numbers and truth values with their key."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return show_value(value).strip("[]")
    return f"{key.rpartition('.')[2]}={show_value(value)}"


def show_value(value: Json | Value) -> str:
    """Return a value as written on a command line: lists without spaces, names without quotes."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{','.join(show_value(item) for item in value)}]"
    return str(value)


def _may_meet(first: Axis, second: Axis, key: str, grid: tuple[Axis, ...]) -> bool:
    """Check whether a point may have two axes that both set a key."""
    allowed: dict[str, set[str]] = {axis.name: {choice.label for choice in axis.choices} for axis in grid}
    allowed[first.name] = {choice.label for choice in first.choices if key in {item.key for item in choice.overrides}}
    wanted = [first, second]
    while wanted:
        axis = wanted.pop()
        for name, labels in axis.when:
            before = set(allowed.get(name, ()))
            allowed[name] = before & set(labels)
            if not allowed[name]:
                return False
            if allowed[name] != before:
                wanted.extend(other for other in grid if other.name == name)
    return True


def _spread(axes: tuple[Axis, ...], labels: Labels) -> Iterator[Labels]:
    """Yield the labels of the points of a grid that begin with the given labels."""
    if not axes:
        yield labels
    elif not axes[0].applies(labels):
        yield from _spread(axes[1:], labels)
    else:
        for choice in axes[0].values:
            yield from _spread(axes[1:], (*labels, (axes[0].name, choice.label)))


@functools.lru_cache(maxsize=256)
def _values_of(name: str, span: Span) -> tuple[Choice, ...]:
    return tuple(
        Choice(label=label_of(name, number), overrides=(Override(key=name, value=number),)) for number in span.numbers()
    )


# Labels with the sizes that ran, such as ``19,19,13 (150,150,100 / 8)`` where a width divided the channel counts.


Sizes = tuple[int, ...]

_SIZES: Final = re.compile(r"\d+(?:,\d+)+")
_PLACE: Final = re.compile(r"locnet(\d)")
_DIVISORS: Final = (2, 4, 8, 16, 32, 64, *(number for number in range(3, 64) if number & (number - 1)))
"""Divisors of a width; powers of two come first, since small sizes fit several: 20 / 8 and 20 / 7 both round to 3."""

_FACTORS: Final = (1.25, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)


def sized_label(label: str, axes: Labels, spec: TrialSpec) -> str:
    """Return a configuration's label with the sizes of its networks, beside those that its sweep names.

    Args:
        label: the label in the sweep.
        axes: the names of its axes with its labels on them.
        spec: the specification that ran.
    """
    names = {own: axis for axis, own in axes}
    parts = [_sized(part, names.get(part, ""), spec) for part in label.split(LABEL_SEPARATOR)]
    return LABEL_SEPARATOR.join(parts)


def _sized(part: str, axis: str, spec: TrialSpec) -> str:
    if not _SIZES.fullmatch(part):
        return part
    named = tuple(map(int, part.split(",")))
    found = list(_sizes_of(axis, spec))
    if named in found:
        return part
    scaled = next((text for real in found if (text := _scaled(named, real))), "")
    return f"{scaled[0]} ({part} {scaled[1]})" if scaled else part


def _sizes_of(axis: str, spec: TrialSpec) -> Iterator[Sizes]:
    """Yield the sizes that an axis may have set: those at the place that it names, or those of all networks."""
    place = _PLACE.search(axis)
    for placed in spec.transformers:
        sizes = getattr(placed.locnet, "sizes", None)
        if sizes and (place is None or placed.place == int(place[1])):
            yield tuple(sizes)
    if place is None:
        yield tuple(getattr(spec.network, "sizes", ()))


def _scaled(named: Sizes, real: Sizes) -> tuple[str, str] | None:
    """Return the real sizes as text and the factor from the named ones, such as ``/ 8``; None if no width fits."""
    if len(named) != len(real):
        return None
    text = ",".join(map(str, real))
    for divisor in _DIVISORS:
        if _times(named, 1 / divisor) == real:
            return text, f"/ {divisor}"
    ratio = max(real) / max(named)
    for factor in (*_FACTORS, round(ratio, 2)):
        if factor > 0 and _times(named, factor) == real:
            return text, f"x {factor:g}"
    return None


def _times(sizes: Iterable[int], width: float) -> Sizes:
    """Multiply sizes by a width, with the rounding of channel counts when a trial is composed."""
    return tuple(max(1, math.floor(size * width + 0.5)) for size in sizes)
