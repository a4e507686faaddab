"""The planner and the pruner of a sweep: YAML and overrides of the command line to their specifications.

::

    planner: grid                                      # the default
    planner: {kind: racing, max_seeds: 10}
    planner: {kind: until_decided, max_seeds: 20, looks: 6}
    planner: {kind: random, trials: 50}                # likewise tpe, and nsga2 for accuracy and FLOPs
    planner: {kind: optuna, sampler: CmaEsSampler, trials: 50, options: {n_startup_trials: 5}}
    pruner: asha                                       # or hyperband, median, {kind: threshold, accuracy: 0.1}
    pruner: health                                     # ends a trial whose transformer has collapsed
"""

import dataclasses
from typing import Any

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.identity import Json
from stnbench.spec.codec import from_plain, to_plain
from stnbench.spec.planner import (
    PLANNERS,
    AnyPlanner,
    AnyPruner,
    GridPlannerSpec,
    Nsga2PlannerSpec,
    OptunaPlannerSpec,
    PlannerSpec,
    PrunerSpec,
    RacingPlannerSpec,
    RandomPlannerSpec,
    TpePlannerSpec,
    UntilDecidedPlannerSpec,
)
from stnbench.spec.sweep import Override, SweepSpec

PLANNER_KEYS = ("planner", "pruner")
NO_PRUNER = "none"


def read_planner(value: object, where: str) -> PlannerSpec:
    """The planner that a kind, or a mapping with one, describes.

    Raises: UnknownNameError or SpecError naming the file, the key and the nearest valid names.
    """
    planner: PlannerSpec = _read(AnyPlanner, value, where, "planner")
    return planner


def read_pruner(value: object, where: str) -> PrunerSpec | None:
    """The pruner that a kind, or a mapping with one, describes; None for ``none`` and where nothing is said.

    Raises: UnknownNameError or SpecError naming the file, the key and the nearest valid names.
    """
    return None if value is None or value == NO_PRUNER else _read(AnyPruner, value, where, "pruner")


def is_planned(spec: SweepSpec, override: Override) -> bool:
    """Whether ``planner=tpe`` or ``pruner=asha`` says only what the sweep says itself."""
    if override.key == "planner":
        return spec.planner.kind == override.value
    return (spec.pruner.kind if spec.pruner else NO_PRUNER) == override.value


def until_decided(planner: PlannerSpec, where: str) -> PlannerSpec:
    """The planner that adds seeds until every configuration has a verdict, in the place of a grid.

    Raises: SpecError for a planner that adds or chooses trials itself.
    """
    match planner:
        case UntilDecidedPlannerSpec():
            return planner
        case GridPlannerSpec():
            return UntilDecidedPlannerSpec()
        case RacingPlannerSpec():
            problem = f"{where}: planner: racing adds seeds itself, and cannot go on until all is decided as well"
        case RandomPlannerSpec() | TpePlannerSpec() | Nsga2PlannerSpec() | OptunaPlannerSpec():
            problem = f"{where}: planner: {planner.kind} proposes configurations, which are too many to decide on each"
        case _:
            problem = f"{where}: planner: {planner.kind} proposes trials itself"
    raise SpecError(problem, remedy="use planner: grid")


def change_planner(spec: SweepSpec, override: Override) -> SweepSpec:
    """The sweep with another planner or pruner, or with another value of its own (``planner.trials=100``).

    Another planner keeps what it has in common with the one before.
    Raises: UnknownNameError or SpecError naming the key.
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
