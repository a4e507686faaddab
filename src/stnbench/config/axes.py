"""Reader of the axes, planner and pruner of a sweep file.

The axes: YAML to Axis.

::

    axes:
      transformer: [affine, scale]                                   # values of one key
      optimizer.learning_rate: {float: [0.001, 0.1], log: true}      # a range; for a grid add step: or values: 5
      training.epochs: {int: [2, 10], step: 2}                       # whole numbers, both ends included
      st:                                                            # named choices, of several keys each
        one: {locnet@locnet1: conv}
        two: {locnet@locnet1: conv, locnet@locnet2: conv}
      size:                                                          # keys that change together
        zip:
          network.sizes: [[10, 20, 30], [20, 40, 60]]
          locnet1.sizes: [[5, 5, 5], [10, 10, 10]]
      transformer@transformer2: {values: [affine, scale], when: {st: two}}   # present at some points only

``when`` may be added to every kind: ``{float: [...], when: ...}``, ``{zip: {...}, when: ...}``, and to named choices as
``{choices: {...}, when: ...}``. It names axes that stand above, each with the label or the list of labels at which
the axis is present.

The planner and the pruner: YAML and overrides of the command line to their specifications.

::

    planner: grid                                      # the default
    planner: {kind: racing, max_seeds: 10}
    planner: {kind: until_decided, max_seeds: 20, looks: 6}
    planner: {kind: random, trials: 50}                # or tpe, or nsga2 for accuracy and FLOPs
    planner: {kind: optuna, sampler: CmaEsSampler, trials: 50, options: {n_startup_trials: 5}}
    pruner: asha                                       # or hyperband, median, {kind: threshold, accuracy: 0.1}
    pruner: health                                     # ends a trial whose transformer has collapsed
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stnbench.config.compose import Composer
from stnbench.config.resolve import COMMAND_LINE, Resolved, resolve_trial
from stnbench.config.values import as_value
from stnbench.core.errors import DataError, SpecError, UnknownNameError
from stnbench.core.identity import Json
from stnbench.spec.codec import from_plain, to_plain
from stnbench.spec.planner import (
    PLANNERS,
    AnyPlanner,
    AnyPruner,
    FloatSpan,
    IntSpan,
    PlannerSpec,
    PrunerSpec,
    SamplerSpec,
    Span,
    UntilDecidedPlannerSpec,
)
from stnbench.spec.sweep import Axis, Choice, Override, Point, SweepSpec, label_of
from stnbench.spec.trial import TrialSpec

_SPANS: dict[str, type[IntSpan] | type[FloatSpan]] = {"int": IntSpan, "float": FloatSpan}
AXIS_KINDS = (*_SPANS, "zip", "choices", "values")
"""Keys that define an axis; a mapping without one of them has named choices."""

_OPTIONS = {
    "int": ("log", "step", "values"),
    "float": ("log", "step", "values"),
    "zip": (),
    "choices": (),
    "values": (),
}
_WAYS = "a list of values, named choices, {float: [low, high]}, {int: [low, high]} or {zip: {...}}"


@dataclass(frozen=True, slots=True)
class AxisReader:
    """Reader of axes; ``where`` names their file in messages."""

    where: str

    def grid(self, value: object) -> tuple[Axis, ...]:
        """Return the axes of one grid, in the order of the file.

        Raises:
            SpecError: if an axis is invalid; the message names the file and the axis.
            UnknownNameError: if an axis has an unknown key or condition.
        """
        axes: list[Axis] = []
        for name, item in self.mapping(value, "axes").items():
            axes.append(self._axis(name, item, axes))
        return tuple(axes)

    def mapping(self, value: object, key: str) -> dict[str, Any]:
        """Return a mapping with text keys; empty for None."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise SpecError(f"{self.where}: {key} is a {type(value).__name__}", remedy="write keys and values")
        return {str(name): item for name, item in value.items()}

    def overrides(self, value: object, key: str) -> tuple[Override, ...]:
        """Return the overrides that a mapping of configuration keys to values describes."""
        items = self.mapping(value, key).items()
        return tuple(Override(key=name, value=as_value(item, f"{key}.{name}", self.where)) for name, item in items)

    def _axis(self, name: str, value: object, above: list[Axis]) -> Axis:
        if isinstance(value, list):
            return Axis(name=name, choices=tuple(self._listed(name, value)))
        if not isinstance(value, dict):
            raise SpecError(f"{self.where}: axes.{name} is {value!r}", remedy=f"write {_WAYS}")
        said = self.mapping(value, f"axes.{name}")
        kind = next((kind for kind in AXIS_KINDS if kind in said), None)
        if kind is None:
            return Axis(name=name, choices=tuple(self._named(name, said)))
        for key in said:
            if key not in (kind, "when", *_OPTIONS[kind]):
                raise UnknownNameError(f"key of axes.{name}", key, (kind, "when", *_OPTIONS[kind]), where=self.where)
        when = self._when(name, said.pop("when", None), above)
        if kind in _SPANS:
            return Axis(name=name, span=self._span(name, kind, said), when=when)
        return Axis(name=name, choices=tuple(self._choices(name, kind, said[kind])), when=when)

    def _choices(self, name: str, kind: str, value: object) -> Iterator[Choice]:
        if kind == "values":
            if not isinstance(value, list):
                raise SpecError(f"{self.where}: axes.{name}.values is {value!r}", remedy="write a list of values")
            return self._listed(name, value)
        items = self.mapping(value, f"axes.{name}.{kind}")
        return self._named(name, items) if kind == "choices" else self._zipped(name, items)

    def _listed(self, name: str, items: list[object]) -> Iterator[Choice]:
        """Yield the choices of a list of values of the key that names the axis."""
        for item in items:
            value = as_value(item, f"axes.{name}", self.where)
            yield Choice(label=label_of(name, value), overrides=(Override(key=name, value=value),))

    def _named(self, name: str, items: Mapping[str, object]) -> Iterator[Choice]:
        """Yield the choices of labels, each with the keys that it changes."""
        for label, item in items.items():
            yield Choice(label=label, overrides=self.overrides(item, f"axes.{name}.{label}"))

    def _zipped(self, name: str, items: Mapping[str, object]) -> Iterator[Choice]:
        """Yield one choice for the first values of all keys, one for the second values, and so on."""
        where = f"{self.where}: axes.{name}.zip"
        columns: list[list[Override]] = []
        for key, values in items.items():
            if not isinstance(values, list):
                raise SpecError(f"{where}.{key} is {values!r}", remedy="write a list of values")
            columns.append([Override(key=key, value=as_value(value, f"{name}.{key}", self.where)) for value in values])
        lengths = [len(column) for column in columns]
        if len(columns) < 2 or len(set(lengths)) > 1:
            raise SpecError(f"{where} has lists of {lengths} values", remedy="write two keys or more, as many for each")
        for row in zip(*columns, strict=True):
            yield Choice(label=" / ".join(label_of(item.key, item.value) for item in row), overrides=row)

    def _span(self, name: str, kind: str, said: dict[str, Any]) -> Span:
        ends = said.pop(kind)
        if not isinstance(ends, list) or len(ends) != 2:
            raise SpecError(f"{self.where}: axes.{name}.{kind} is {ends!r}", remedy=f"write {kind}: [low, high]")
        plain = {**said, "kind": kind, "low": ends[0], "high": ends[1]}
        return from_plain(_SPANS[kind], plain, where=self.where, prefix=f"axes.{name}")

    def _when(self, name: str, value: object, above: list[Axis]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return the conditions of an axis; unknown names are refused, since they would drop the axis silently."""
        known = {axis.name: [choice.label for choice in axis.choices] for axis in above if axis.choices}
        conditions: list[tuple[str, tuple[str, ...]]] = []
        for other, wanted in self.mapping(value, f"axes.{name}.when").items():
            if other not in known:
                raise UnknownNameError(f"axis above in axes.{name}.when", other, known, where=self.where)
            labels = tuple(self._label(name, other, item, known[other]) for item in _alternatives(wanted, known[other]))
            conditions.append((other, labels))
        return tuple(conditions)

    def _label(self, name: str, other: str, item: object, known: list[str]) -> str:
        label = label_of(other, as_value(item, f"axes.{name}.when.{other}", self.where))
        if label not in known:
            raise UnknownNameError(f"value of the axis {other} in axes.{name}.when", label, known, where=self.where)
        return label


def _alternatives(wanted: object, known: list[str]) -> list[object]:
    """Return the values of a condition as a list; a list may itself be one value of an axis of lists."""
    if not isinstance(wanted, list):
        return [wanted]
    is_value = ",".join(str(item) for item in wanted) in known
    return [wanted] if is_value else wanted


# Composition of the points of a sweep to trials.


class PointComposer:
    """A composer of the points of one sweep, which counts the notes on values without an effect."""

    def __init__(self, sweep: SweepSpec, composer: Composer) -> None:
        self._sweep = sweep
        self._composer = composer
        axes = [axis for grid in sweep.grids for axis in grid]
        self._choices = {(axis.name, choice.label): choice for axis in axes for choice in axis.values}
        self.notes: dict[str, int] = {}

    def overrides(self, point: Point) -> tuple[Override, ...]:
        """Return the overrides of the sweep's base, then those of each label of the point."""
        chosen = [override for pair in point.labels for override in self._choices[pair].overrides]
        return (*self._sweep.base, *chosen)

    def __call__(self, point: Point) -> TrialSpec:
        """Return the trial of a point, and count its notes.

        Raises:
            SpecError: if the point has no valid trial; the message names the command line, or the sweep and the point.
        """
        resolved = self.resolve(point)
        for note in resolved.notes:
            self.notes[note] = self.notes.get(note, 0) + 1
        return resolved.spec

    def resolve(self, point: Point) -> Resolved:
        """Return the trial of a point with its notes on values without an effect; raises as ``__call__`` does."""
        try:
            return resolve_trial(self._composer, self.overrides(point), said_in="")
        except SpecError as error:
            error.problem = f"{self._blamed(point)}: {error.problem}"
            raise

    def _blamed(self, point: Point) -> str:
        """Return the source of an error at a point: the command line if the point is valid without it."""
        said = [override for override in self._sweep.overrides if override in self._sweep.base]
        if said:
            base = tuple(override for override in self._sweep.base if override not in said)
            without = PointComposer(dataclasses.replace(self._sweep, base=base), self._composer)
            with contextlib.suppress(SpecError, DataError):
                resolve_trial(self._composer, without.overrides(point))
                return COMMAND_LINE
        return f"sweep {self._sweep.name}, configuration {point.label}"


def require_effects(sweep: SweepSpec, composer: Composer) -> None:
    """Check that every override of the command line changes a configuration.

    An override with the value that holds without it is accepted.

    Raises:
        SpecError: if an override has no effect; the message names it and, if known, the reason.
    """
    for override in sweep.overrides:
        if override in sweep.base:
            base = tuple(said for said in sweep.base if said != override)
            without = PointComposer(dataclasses.replace(sweep, base=base), composer)
            _require_effect(override, PointComposer(sweep, composer), without, composer, _points(sweep))


def require_effect(override: Override, overrides: Sequence[Override], composer: Composer) -> None:
    """Check one override of a trial as ``require_effects`` does."""
    sweep = SweepSpec(name="", question="", base=tuple(overrides), overrides=tuple(overrides))
    without = dataclasses.replace(sweep, base=tuple(said for said in overrides if said != override))
    points = PointComposer(sweep, composer), PointComposer(without, composer)
    _require_effect(override, *points, composer, [Point(labels=())])


def _require_effect(
    override: Override, asked: PointComposer, without: PointComposer, composer: Composer, points: Iterable[Point]
) -> None:
    notes: tuple[str, ...] = ()
    for point in points:
        with_it, without_it = asked.overrides(point), without.overrides(point)
        try:
            before = without.resolve(point)
        except (SpecError, DataError):
            return  # the point is valid, or has images, only with the override
        after = asked.resolve(point)
        if after.spec != before.spec or composer.compose(with_it) == composer.compose(without_it):
            return
        notes = notes or tuple(note for note in after.notes if note not in before.notes)
    reason = notes[0] if notes else "nothing that is configured here reads it"
    raise SpecError(f"{COMMAND_LINE}: {override} has no effect", remedy=f"leave it out: {reason}")


def _points(sweep: SweepSpec) -> Iterator[Point]:
    """Yield the points of a sweep; of ranges that a search draws from, only the first value."""
    if not isinstance(sweep.planner, SamplerSpec):
        yield from sweep.points()
        return
    for grid in sweep.grids:
        firsts = [
            axis if axis.span is None else dataclasses.replace(axis, choices=axis.values[:1], span=None)
            for axis in grid
        ]
        yield from dataclasses.replace(sweep, axes=tuple(firsts), more_axes=()).points()


PLANNER_KEYS = ("planner", "pruner")
NO_PRUNER = "none"


def read_planner(value: object, where: str) -> PlannerSpec:
    """Return the planner that a kind, or a mapping with a kind, describes.

    Raises:
        UnknownNameError: if the kind or a key does not exist.
        SpecError: if a value is invalid; the message names the file and the key.
    """
    planner: PlannerSpec = _read(AnyPlanner, value, where, "planner")
    return planner


def read_pruner(value: object, where: str) -> PrunerSpec | None:
    """Return the pruner that a kind, or a mapping with a kind, describes, or None for ``none`` and for None.

    Raises:
        UnknownNameError: if the kind or a key does not exist.
        SpecError: if a value is invalid; the message names the file and the key.
    """
    return None if value is None or value == NO_PRUNER else _read(AnyPruner, value, where, "pruner")


def is_planned(spec: SweepSpec, override: Override) -> bool:
    """Check whether ``planner=tpe`` or ``pruner=asha`` names the kind that the sweep already has."""
    if override.key == "planner":
        return spec.planner.kind == override.value
    return (spec.pruner.kind if spec.pruner else NO_PRUNER) == override.value


def until_decided(planner: PlannerSpec, where: str) -> PlannerSpec:
    """Return the planner that replaces a grid and adds seeds until every configuration has a verdict.

    Raises:
        SpecError: if the planner adds or chooses trials itself.
    """
    if isinstance(planner, UntilDecidedPlannerSpec):
        return planner
    if planner.is_grid:
        return UntilDecidedPlannerSpec()
    if planner.chooses_seeds:
        reason = "adds seeds itself, and cannot go on until all is decided as well"
    elif isinstance(planner, SamplerSpec):
        reason = "proposes configurations, which are too many to decide on each"
    else:
        reason = "proposes trials itself"
    raise SpecError(f"{where}: planner: {planner.kind} {reason}", remedy="use planner: grid")


def change_planner(spec: SweepSpec, override: Override) -> SweepSpec:
    """Return the sweep with another planner or pruner, or with another value of a key of it (``planner.trials=100``).

    Another planner keeps the values of the keys that it shares with the previous one.

    Raises:
        UnknownNameError: if a kind or key does not exist.
        SpecError: if a value is invalid, or a key is set and there is no pruner.
    """
    where = "the command line"
    part, _, key = override.key.partition(".")
    now = spec.planner if part == "planner" else spec.pruner
    value: Any = list(override.value) if isinstance(override.value, tuple) else override.value
    said: dict[str, Json] = {}
    if key and now is None:
        raise SpecError(f"{where}: {override.key} is set, and the sweep has no pruner", remedy="choose pruner=asha")
    if key:
        said = to_plain(now) | {key: value}
    elif part == "planner" and isinstance(value, str):
        common = (
            set()
            if PLANNERS.is_absent(value)
            else {field.name for field in dataclasses.fields(PLANNERS.part(value).spec)}
        )
        said = {name: item for name, item in to_plain(now).items() if name in common} | {"kind": value}
    if part == "planner":
        return dataclasses.replace(spec, planner=read_planner(said or value, where))
    return dataclasses.replace(spec, pruner=read_pruner(said or value, where))


def _read(kind: Any, value: object, where: str, key: str) -> Any:  # noqa: ANN401 - a union of dataclasses
    plain: Any = {"kind": value} if isinstance(value, str) else value
    if not isinstance(plain, dict):
        raise SpecError(f"{where}: {key} is {value!r}", remedy=f"write {key}: and its kind, or keys and values")
    if "kind" not in plain:
        raise UnknownNameError(f"{key} without a kind", "", ("kind",), where=where)
    return from_plain(kind, {str(name): item for name, item in plain.items()}, where=where, prefix=key)
