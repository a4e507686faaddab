"""Reader of sweep files: YAML to SweepSpec."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from stnbench.config.axes import (
    PLANNER_KEYS,
    AxisReader,
    change_planner,
    is_planned,
    read_planner,
    read_pruner,
    until_decided,
)
from stnbench.config.compose import Composer
from stnbench.config.locate import shown
from stnbench.config.published import match_published
from stnbench.config.resolve import COMMAND_LINE
from stnbench.config.values import read_yaml, with_current_keys
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.identity import digest
from stnbench.core.text import short_name
from stnbench.spec.codec import from_plain, to_plain
from stnbench.spec.metrics import metric
from stnbench.spec.parts import VARIABLE as PARTS_VARIABLE
from stnbench.spec.parts import add_places
from stnbench.spec.sweep import (
    EQUAL_PARAMETERS,
    SEEDS_MAX,
    Axis,
    BaselineChoice,
    Choice,
    Labels,
    LimitsSpec,
    Override,
    SweepSpec,
    Value,
    label_of,
    require_askable,
    show_value,
)

SWEEP_KEYS: Final = (
    "question",
    "base",
    "axes",
    "exclude",
    "seeds",
    "baselines",
    "within",
    "margin",
    "columns",
    "published",
    "parts",
    "limits",
    "start_from",
    *PLANNER_KEYS,
)
"""Keys of a sweep file."""

UNTIL: Final = "until"
DECIDED: Final = "decided"
UNTIL_DECIDED: Final = "until_decided"
FIRST_SEEDS: Final = (1, 2)
_PLAN_KEYS: Final = ("limits", "start_from")
_SWEEP_OVERRIDES = ("seeds", "baselines", UNTIL)


def read_sweep(
    path: Path, composer: Composer, overrides: Iterable[Override] = (), *, only: Iterable[Override] = ()
) -> SweepSpec:
    """Read a sweep from its file, with overrides of the command line for all its configurations.

    An override of an axis (``transformer=affine``, or several values ``transformer=[affine,scale]``) narrows the sweep
    to the points with these values; ``seeds``, ``baselines``, ``planner``, ``planner.trials`` and the like replace the
    file's; all others join the base. Overrides that change the sweep make a variant with a separate name
    (``locnet_sizes-gtsrb``), whose trials and reports are kept apart from those of the shipped sweep.

    Args:
        path: the sweep file.
        composer: composer of the configuration groups.
        overrides: overrides of the command line.
        only: overrides that narrow axes, as ``--only`` does; they may do nothing else.

    Raises:
        UnknownNameError: if a key, axis or value does not exist.
        SpecError: if a value is invalid; the message names the file and the key.
    """
    reader = _Reader(path)
    content: dict[str, Any] = read_yaml(path)
    _load_parts(content.get("parts"), path, reader)
    spec = reader.read(content)
    changes = [override for override in overrides if _changes(override, spec, composer, overrides)]
    for override in only:
        _require_axis(override, spec, changes)
        changes.append(override)
    # The planner is set before seeds, which may replace it, and seeds before its keys (``planner.max_seeds``).
    steps = {"planner": 0, "seeds": 1, UNTIL: 1}
    for override in sorted(changes, key=lambda item: steps.get(item.key, 2)):
        spec = _apply(spec, override, reader.where)
    varied = sorted((override for override in changes if _varies(override)), key=lambda override: override.key)
    name = "-".join([path.stem, *(_suffix(override, composer) for override in varied)])
    spec = replace(spec, name=short_name(name), file=path.stem, overrides=tuple(changes))
    try:
        require_askable(spec)
    except SpecError as error:
        raise SpecError(f"{reader.where}: {error.problem}", remedy=error.remedy) from error
    table = reader.text(content.get("published", ""), "published")
    return replace(spec, published=match_published(spec, composer, table)) if table else spec


def _load_parts(value: object, path: Path, reader: "_Reader") -> None:
    """Load the parts that a sweep of the working folder names.

    Raises:
        SpecError: if the sweep or a part lies outside the working folder; its code is not run.
    """
    if value is None:
        return
    places = [value] if isinstance(value, str) else value
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise SpecError(f"{reader.where}: parts is {value!r}", remedy="write a folder, a file or a module, or a list")
    base = Path.cwd()
    inside = [path.resolve(), *((base / place).resolve() for place in places)]
    if not all(item.is_relative_to(base.resolve()) for item in inside):
        problem = f"{reader.where}: parts names code outside the folder you work in ({', '.join(places)})"
        raise SpecError(problem, remedy=f"if you trust it, name it yourself in {PARTS_VARIABLE}")
    add_places(places, base=base)


def with_own_name(spec: SweepSpec, files: Collection[str]) -> SweepSpec:
    """Return the sweep under a name that no other sweep's file has.

    ``mine scale=smoke`` is named mine-smoke, unless there is a file mine-smoke.yaml: then a digest is appended.

    Args:
        spec: the sweep.
        files: names of all sweep files.
    """
    if spec.name == spec.file or spec.name not in files:
        return spec
    said = "".join(sorted(str(override) for override in spec.overrides if _varies(override)))
    return replace(spec, name=short_name(f"{spec.name}-{digest([spec.file, said])[:8]}"))


def require_same_sweep(spec: SweepSpec, stored: Iterable[SweepSpec]) -> None:
    """Check that a sweep does not have the name of another sweep in the store, which it would replace.

    Raises:
        SpecError: if the stored sweep of this name has another file or other overrides; the message names both.
    """
    known = next((other for other in stored if other.name == spec.name and other.file), None)
    if known is None or not spec.file:
        return
    mine, other = _asked(spec), _asked(known)
    if mine != other:
        problem = f"two sweeps would be called {spec.name}: '{mine}', and '{other}' in the store"
        raise SpecError(problem, remedy=f"rename {spec.file}.yaml, or set STNBENCH_RUNS to another folder")


def _asked(spec: SweepSpec) -> str:
    """Return the file and the overrides of a sweep, as typed on a command line."""
    return " ".join([spec.file, *sorted(str(override) for override in spec.overrides if _varies(override))])


def _changes(override: Override, spec: SweepSpec, composer: Composer, said: Iterable[Override]) -> bool:
    """Check whether an override differs from the sweep's file or, for keys that it leaves out, from the defaults.

    Args:
        override: an override of the command line.
        spec: the sweep of the file.
        composer: composer of the configuration groups.
        said: all overrides of the command line; a scale or an experiment among them changes the defaults.
    """
    if any(axis.name == override.key for grid in spec.grids for axis in grid):
        return True
    if override.key in PLANNER_KEYS:
        return not is_planned(spec, override)
    if override.key.partition(".")[0] in _PLAN_KEYS:
        return _with_plan_key(spec, override) != spec
    base = {said.key: said.value for said in spec.base}
    if override.key in base:
        return base[override.key] != override.value
    return not all(composer.is_default(override, wide) for wide in _wide_choices(spec, composer, said))


def _wide_choices(spec: SweepSpec, composer: Composer, said: Iterable[Override]) -> list[list[Override]]:
    """Return the choices of wide groups (scale, experiment) that the sweep's configurations build on."""
    base = [override for override in (*spec.base, *said) if override.key in composer.wide_groups]
    axes = [choice.overrides for grid in spec.grids for axis in grid for choice in axis.values]
    chosen = [item for overrides in axes for item in overrides if item.key in composer.wide_groups]
    return [base, *([*base, item] for item in chosen)]


def _require_axis(override: Override, spec: SweepSpec, changes: Iterable[Override]) -> None:
    """Raise an error if ``--only`` names no axis, or one that an override narrows as well."""
    names = dict.fromkeys(axis.name for grid in spec.grids for axis in grid)
    if override.key not in names:
        raise UnknownNameError("axis", override.key, names, where="--only")
    if any(change.key == override.key for change in changes):
        problem = f"{COMMAND_LINE}: the axis {override.key} is narrowed twice"
        raise SpecError(problem, remedy=f"write --only '{override.key}=...' alone")


def _varies(override: Override) -> bool:
    """Return whether an override makes a sweep another one: axes and planners do, more trials of a search do not."""
    return override.key not in _SWEEP_OVERRIDES and not override.key.startswith(("planner.", "pruner."))


def _suffix(override: Override, composer: Composer) -> str:
    value = show_value(override.value).strip("[]").replace(",", "_")
    plain = override.key in composer.defaults and "@" not in override.key
    text = value if plain else f"{override.key}_{value}"
    return "".join(letter if letter.isalnum() or letter in "._" else "_" for letter in text)


def _apply(spec: SweepSpec, override: Override, where: str) -> SweepSpec:
    if override.key in {"seeds", UNTIL}:
        return _with_seeds(spec, override)
    if override.key == "baselines":
        return replace(spec, baselines=_baselines(override.value, COMMAND_LINE))
    if override.key.partition(".")[0] in PLANNER_KEYS:
        return change_planner(spec, override)
    if override.key.partition(".")[0] in _PLAN_KEYS:
        return _with_plan_key(spec, override)
    axes = [axis for grid in spec.grids for axis in grid]
    if any(axis.name == override.key for axis in axes):
        return _narrow(spec, override.key, override.value, where)
    setting = next((axis for axis in axes if override.key in axis.keys), None)
    if setting is not None:
        problem = f"{COMMAND_LINE}: {override} has no effect where the axis {setting.name} sets {override.key}"
        labels = ", ".join(choice.label for choice in setting.choices[:6])
        raise SpecError(problem, remedy=f"narrow that axis with --only '{setting.name}=...' (it has {labels})")
    return replace(spec, base=(*spec.base, override))


def _with_plan_key(spec: SweepSpec, override: Override) -> SweepSpec:
    """Return the sweep with other limits (``limits.flops=5e7``), or starting from another sweep's results."""
    if override.key == "start_from":
        return replace(spec, start_from=_name_of_sweep(override.value, COMMAND_LINE))
    name = override.key.partition(".")[2]
    if not name:
        raise SpecError(f"{COMMAND_LINE}: {override} is not known", remedy="write limits.parameters=1e6, or the like")
    said: dict[str, object] = {} if spec.limits is None else dict(to_plain(spec.limits))
    return replace(spec, limits=read_limits(said | {name: override.value}, COMMAND_LINE))


def read_limits(value: object, where: str) -> LimitsSpec | None:
    """Return the limits that a mapping describes, or None if it has none.

    Raises:
        UnknownNameError: if a key does not exist.
        SpecError: if a value is invalid.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise SpecError(f"{where}: limits is {value!r}", remedy="write {parameters: 1e6, flops: 5e7, memory_mib: 8000}")
    plain = {str(key): item for key, item in value.items()}
    if plain.keys() <= LimitsSpec.__dataclass_fields__.keys() and plain and set(plain.values()) == {None}:
        return None
    return from_plain(LimitsSpec, plain, where=where, prefix="limits")


def _name_of_sweep(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    raise SpecError(f"{where}: start_from is {value!r}", remedy="write the name of a sweep of the store")


def _with_seeds(spec: SweepSpec, override: Override) -> SweepSpec:
    """Return the sweep with other seeds, or with as many as needed (``until=decided``, ``seeds=until_decided``)."""
    if override.key == "seeds" and override.value != UNTIL_DECIDED:
        return replace(spec, seeds=_seeds(override.value, COMMAND_LINE))
    if override.key == UNTIL and override.value != DECIDED:
        raise SpecError(f"{COMMAND_LINE}: {override} is not known", remedy=f"write --until {DECIDED}")
    seeds = FIRST_SEEDS if override.key == "seeds" else spec.seeds
    return replace(spec, seeds=seeds, planner=until_decided(spec.planner, COMMAND_LINE))


def _narrow(spec: SweepSpec, name: str, value: Value, where: str) -> SweepSpec:
    """Return the sweep with the given value or values of an axis alone.

    Points without the axis are kept. A grid that has none of the values is dropped.
    """
    axes = [axis for grid in spec.grids for axis in grid if axis.name == name]
    is_one = not isinstance(value, tuple) or any(_kept(axis, value) for axis in axes)
    wanted: tuple[Value, ...] = (value,) if is_one else tuple(value)  # type: ignore[arg-type]
    for item in wanted:
        if not any(_kept(axis, item) for axis in axes):
            known = dict.fromkeys(choice.label for axis in axes for choice in axis.values)
            raise UnknownNameError(f"value of the axis {name}", label_of(name, item), known, where=where)
    grids = []
    for grid in spec.grids:
        kept = next((_kept_of(axis, wanted) for axis in grid if axis.name == name), ())
        if kept:
            narrowed = [replace(axis, choices=kept, span=None) if axis.name == name else axis for axis in grid]
            grids.append(tuple(narrowed))
    return replace(spec, axes=grids[0], more_axes=tuple(grids[1:]))


def _kept_of(axis: Axis, wanted: Iterable[Value]) -> tuple[Choice, ...]:
    """Return the choices of an axis with the wanted values, in the order of the axis."""
    kept = {choice.label: choice for value in wanted for choice in _kept(axis, value)}
    order = [choice.label for choice in axis.choices] or list(kept)
    return tuple(kept[label] for label in order if label in kept)


def _kept(axis: Axis, value: Value) -> tuple[Choice, ...]:
    """Return the choices of an axis with a value; a range contains every number between its ends."""
    if axis.span is None:
        labels = {label_of(axis.name, value), show_value(value)}
        return tuple(choice for choice in axis.choices if choice.label in labels)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not axis.span.low <= value <= axis.span.high:  # type: ignore[operator]
        return ()
    return (Choice(label=label_of(axis.name, value), overrides=(Override(key=axis.name, value=value),)),)


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path

    @property
    def where(self) -> str:
        return shown(self.path)

    @property
    def axes(self) -> AxisReader:
        return AxisReader(self.where)

    def read(self, content: Mapping[str, Any]) -> SweepSpec:
        content = with_current_keys(content, self.where)
        for key in content:
            if key not in SWEEP_KEYS:
                raise UnknownNameError("key", str(key), SWEEP_KEYS, where=self.where)
        if not isinstance(content.get("question"), str):
            raise SpecError(f"{self.where} asks no question", remedy="write question: in a sentence")
        seeds = content.get("seeds", list(FIRST_SEEDS))
        try:
            planner = read_planner(content.get("planner", "grid"), self.where)
            if seeds == UNTIL_DECIDED:
                seeds, planner = list(FIRST_SEEDS), until_decided(planner, self.where)
            axes, *more_axes = self._grids(content.get("axes"))
            return SweepSpec(
                name=self.path.stem,
                question=" ".join(content["question"].split()),
                base=self.axes.overrides(content.get("base"), "base"),
                axes=axes,
                more_axes=tuple(more_axes),
                exclude=self._exclude(content.get("exclude"), (axes, *more_axes)),
                seeds=_seeds(seeds, self.where),
                baselines=_baselines(content.get("baselines", True), self.where),
                within=self.text(content.get("within", ""), "within"),
                margin=self.number(content.get("margin", 0.5), "margin"),
                columns=self.metrics(content.get("columns", [])),
                planner=planner,
                pruner=read_pruner(content.get("pruner"), self.where),
                limits=read_limits(content.get("limits"), self.where),
                start_from=_name_of_sweep(content.get("start_from", ""), self.where),
            )
        except SpecError as error:
            if self.where in error.problem:
                raise
            raise type(error)(f"{self.where}: {error.problem}", remedy=error.remedy) from error

    def _grids(self, value: object) -> list[tuple[Axis, ...]]:
        """Return the grids: a mapping of axes spans one grid, a list of mappings one grid each."""
        items = value if isinstance(value, list) and value else [value]
        return [self.axes.grid(item) for item in items]

    def metrics(self, value: object) -> tuple[str, ...]:
        names = [name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]
        if names != (value if isinstance(value, list) else [value]):
            raise SpecError(f"{self.where}: columns is {value!r}", remedy="list names of metrics: [ece, nll]")
        try:
            return tuple(dict.fromkeys(metric(name).name for name in names))
        except UnknownNameError as error:
            raise UnknownNameError("metric", error.name, error.known, where=f"columns of {self.where}") from error

    def number(self, value: object, key: str) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        raise SpecError(f"{self.where}: {key} is {value!r}", remedy="write a number of percentage points, such as 0.5")

    def text(self, value: object, key: str) -> str:
        if isinstance(value, str):
            return value
        raise SpecError(f"{self.where}: {key} is {value!r}", remedy="write a name")

    def _exclude(self, value: object, grids: Iterable[tuple[Axis, ...]]) -> tuple[Labels, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            raise SpecError(f"{self.where}: exclude is a {type(value).__name__}", remedy="write a list of points")
        labels: dict[str, list[str]] = {}
        for axis in (axis for grid in grids for axis in grid):
            labels.setdefault(axis.name, []).extend(choice.label for choice in axis.values)
        return tuple(self._excluded(item, labels) for item in value)

    def _excluded(self, value: object, labels: Mapping[str, Collection[str]]) -> Labels:
        """Return one point to leave out; unknown names are refused, since they would exclude nothing silently."""
        pairs = tuple((pair.key, label_of(pair.key, pair.value)) for pair in self.axes.overrides(value, "exclude"))
        for name, label in pairs:
            if name not in labels:
                raise UnknownNameError("axis of exclude", name, labels, where=self.where)
            if label not in labels[name]:
                raise UnknownNameError(f"value of the axis {name}", label, labels[name], where=self.where)
        return pairs


def _seeds(value: object, where: str) -> tuple[int, ...]:
    """Return the seeds of a list, or of their number: 3 means 1, 2, 3."""
    count = len(value) if isinstance(value, list | tuple) else value
    if isinstance(count, int) and count > SEEDS_MAX:  # checked before the tuple is built
        raise SpecError(f"{where}: seeds asks for {count:,} seeds", remedy=f"use at most {SEEDS_MAX:,}")
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return tuple(range(1, value + 1))
    if isinstance(value, list | tuple) and all(isinstance(seed, int) and not isinstance(seed, bool) for seed in value):
        return tuple(int(seed) for seed in value)
    raise SpecError(f"{where}: seeds is {value!r}", remedy="write a list of whole numbers, how many, or until_decided")


def _baselines(value: object, where: str) -> BaselineChoice:
    if isinstance(value, bool):
        return value
    if value == EQUAL_PARAMETERS:
        return EQUAL_PARAMETERS
    raise SpecError(f"{where}: baselines is {value!r}", remedy=f"write true or false, or {EQUAL_PARAMETERS}")
