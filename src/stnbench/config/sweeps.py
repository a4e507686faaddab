"""Sweep files: YAML to SweepSpec."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stnbench.config.compose import Composer, as_value, read_yaml
from stnbench.config.locate import shown
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.spec.codec import from_plain
from stnbench.spec.sweep import Axis, Choice, GridPlannerSpec, Override, PlannerSpec, SweepSpec, Value, show_value

_KEYS = ("question", "base", "axes", "exclude", "seeds", "twins", "within", "planner")
_SWEEP_OVERRIDES = ("seeds", "twins")


def read_sweep(path: Path, composer: Composer, overrides: Iterable[Override] = ()) -> SweepSpec:
    """The sweep that a file describes, with overrides of the command line for all its cells.

    An override of an axis (``transformer=affine``) narrows the sweep to the points with that value; ``seeds`` and
    ``twins`` replace the file's; everything else joins the base. Unless it says aloud what holds anyway, it makes a
    variant with a name of its own (``locnet_sizes-gtsrb``), so that its trials and reports stand beside the sweep's as
    it is shipped.
    Raises: UnknownNameError or SpecError naming the file, the key and the remedy.
    """
    reader = _Reader(path)
    spec = reader.read()
    changes = [override for override in overrides if _changes(override, spec, composer)]
    for override in changes:
        spec = _apply(spec, override, reader.where)
    varied = sorted((override for override in changes if _varies(override)), key=lambda override: override.key)
    name = "-".join([path.stem, *(_suffix(override, composer) for override in varied)])
    return replace(spec, name=name, file=path.stem, overrides=tuple(changes))


def _changes(override: Override, spec: SweepSpec, composer: Composer) -> bool:
    """Whether the override is more than what the sweep's file or, where that is silent, the defaults say."""
    if any(axis.name == override.key for grid in spec.grids for axis in grid):
        return True
    base = {said.key: said.value for said in spec.base}
    return base[override.key] != override.value if override.key in base else not composer.is_default(override)


def _varies(override: Override) -> bool:
    return override.key not in _SWEEP_OVERRIDES


def _suffix(override: Override, composer: Composer) -> str:
    value = show_value(override.value).strip("[]").replace(",", "_")
    plain = override.key in composer.defaults and "@" not in override.key
    text = value if plain else f"{override.key}_{value}"
    return "".join(letter if letter.isalnum() or letter in "._" else "_" for letter in text)


def _apply(spec: SweepSpec, override: Override, where: str) -> SweepSpec:
    if override.key == "seeds":
        return replace(spec, seeds=_seeds(override.value, "the command line"))
    if override.key == "twins":
        return replace(spec, twins=_flag(override.value, "twins", "the command line"))
    if not any(axis.name == override.key for grid in spec.grids for axis in grid):
        return replace(spec, base=(*spec.base, override))
    return _narrow(spec, override.key, _label(override.key, override.value), where)


def _narrow(spec: SweepSpec, name: str, label: str, where: str) -> SweepSpec:
    """Only the points with this label; a grid that has none of them goes."""
    labels = [choice.label for grid in spec.grids for axis in grid if axis.name == name for choice in axis.choices]
    if label not in labels:
        raise UnknownNameError(f"value of the axis {name}", label, dict.fromkeys(labels), where=where)
    grids = []
    for grid in spec.grids:
        kept = [choice for axis in grid if axis.name == name for choice in axis.choices if choice.label == label]
        if kept:
            grids.append(tuple(replace(axis, choices=tuple(kept)) if axis.name == name else axis for axis in grid))
    return replace(spec, axes=grids[0], more_axes=tuple(grids[1:]))


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path

    @property
    def where(self) -> str:
        return shown(self.path)

    def read(self) -> SweepSpec:
        content: dict[str, Any] = read_yaml(self.path)
        for key in content:
            if key not in _KEYS:
                raise UnknownNameError("key", str(key), _KEYS, where=self.where)
        if not isinstance(content.get("question"), str):
            raise SpecError(f"{self.where} asks no question", remedy="write question: in a sentence")
        try:
            axes, *more_axes = self._grids(content.get("axes"))
            return SweepSpec(
                name=self.path.stem,
                question=" ".join(content["question"].split()),
                base=self._overrides(content.get("base"), "base"),
                axes=axes,
                more_axes=tuple(more_axes),
                exclude=self._exclude(content.get("exclude"), (axes, *more_axes)),
                seeds=_seeds(content.get("seeds", [1, 2]), self.where),
                twins=_flag(content.get("twins", True), "twins", self.where),
                within=self._text(content.get("within", ""), "within"),
                planner=self._planner(content.get("planner", "grid")),
            )
        except SpecError as error:
            if self.where in error.problem:
                raise
            raise type(error)(f"{self.where}: {error.problem}", remedy=error.remedy) from error

    def _mapping(self, value: object, key: str) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise SpecError(f"{self.where}: {key} is a {type(value).__name__}", remedy="write keys and values")
        return {str(name): item for name, item in value.items()}

    def _overrides(self, value: object, key: str) -> tuple[Override, ...]:
        items = self._mapping(value, key).items()
        return tuple(Override(key=name, value=as_value(item, f"{key}.{name}", self.where)) for name, item in items)

    def _grids(self, value: object) -> list[tuple[Axis, ...]]:
        """A mapping of axes spans one grid, a list of mappings one grid each."""
        items = value if isinstance(value, list) and value else [value]
        grids = [self._mapping(item, "axes").items() for item in items]
        return [tuple(self._axis(name, choices) for name, choices in grid) for grid in grids]

    def _axis(self, name: str, value: object) -> Axis:
        """A list of values for one key, or a mapping of labels to overrides that change together."""
        if isinstance(value, dict):
            named = self._mapping(value, f"axes.{name}").items()
            choices = [Choice(label=key, overrides=self._overrides(item, f"axes.{name}.{key}")) for key, item in named]
        elif isinstance(value, list):
            values = [as_value(item, f"axes.{name}", self.where) for item in value]
            choices = [Choice(label=_label(name, item), overrides=(Override(key=name, value=item),)) for item in values]
        else:
            raise SpecError(
                f"{self.where}: axes.{name} is {value!r}", remedy="write a list of values, or named choices"
            )
        return Axis(name=name, choices=tuple(choices))

    def _text(self, value: object, key: str) -> str:
        if isinstance(value, str):
            return value
        raise SpecError(f"{self.where}: {key} is {value!r}", remedy="write a name")

    def _exclude(self, value: object, grids: Iterable[tuple[Axis, ...]]) -> tuple[tuple[tuple[str, str], ...], ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            raise SpecError(f"{self.where}: exclude is a {type(value).__name__}", remedy="write a list of points")
        labels: dict[str, list[str]] = {}
        for axis in (axis for grid in grids for axis in grid):
            labels.setdefault(axis.name, []).extend(choice.label for choice in axis.choices)
        return tuple(self._excluded(item, labels) for item in value)

    def _excluded(self, value: object, labels: Mapping[str, Collection[str]]) -> tuple[tuple[str, str], ...]:
        """One point to leave out; a misspelt one would leave out nothing without a word."""
        pairs = tuple((pair.key, _label(pair.key, pair.value)) for pair in self._overrides(value, "exclude"))
        for name, label in pairs:
            if name not in labels:
                raise UnknownNameError("axis of exclude", name, labels, where=self.where)
            if label not in labels[name]:
                raise UnknownNameError(f"value of the axis {name}", label, labels[name], where=self.where)
        return pairs

    def _planner(self, value: object) -> PlannerSpec:
        plain: dict[str, Any] = {"kind": value} if isinstance(value, str) else self._mapping(value, "planner")
        return from_plain(GridPlannerSpec, plain, where=self.where, prefix="planner")


def _seeds(value: object, where: str) -> tuple[int, ...]:
    """A list of seeds, or how many: 3 means 1, 2, 3."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return tuple(range(1, value + 1))
    if isinstance(value, list | tuple) and all(isinstance(seed, int) and not isinstance(seed, bool) for seed in value):
        return tuple(int(seed) for seed in value)
    raise SpecError(f"{where}: seeds is {value!r}", remedy="write a list of whole numbers, or how many")


def _flag(value: object, key: str, where: str) -> bool:
    if isinstance(value, bool):
        return value
    raise SpecError(f"{where}: {key} is {value!r}", remedy="write true or false")


def _label(key: str, value: Value) -> str:
    """How tables name a value: names and sizes speak for themselves, numbers and switches carry their key."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return show_value(value).strip("[]")
    return f"{key.rpartition('.')[2]}={show_value(value)}"
