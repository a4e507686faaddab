"""JSON Schema of sweep files for editors, which offer completion and descriptions and mark errors.

It is generated from the readers of sweeps: the keys of :mod:`stnbench.config.sweeps`, the specifications of planners
and pruners, and the names of metrics and published tables. Errors that only composition finds, such as a key of
``base`` that does not exist, are left to ``stnbench sweep NAME --plan``.
"""

import dataclasses
import inspect
import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import TypeAdapter

from stnbench.config.axes import AXIS_KINDS, NO_PRUNER
from stnbench.config.locate import published_folder
from stnbench.config.sweeps import FIRST_SEEDS, SWEEP_KEYS, UNTIL_DECIDED
from stnbench.core.errors import INTEGER_MAX, SpecError
from stnbench.spec.codec import is_required
from stnbench.spec.metrics import metrics
from stnbench.spec.planner import (
    PLANNERS,
    PRUNERS,
    RESOLUTION,
    SCHEMA,
    FloatSpan,
    GridPlannerSpec,
    IntSpan,
    ThresholdPrunerSpec,
    UntilDecidedPlannerSpec,
    sampler_names,
)
from stnbench.spec.registry import Registry
from stnbench.spec.sweep import EQUAL_PARAMETERS, SEEDS_MAX, LimitsSpec

Schema = dict[str, Any]

TITLE: Final = "A sweep of stnbench"
"""Identifier of the schemas of stnbench."""

FILE_NAME: Final = "schema.json"
"""Name of the schema file, which lies beside the sweeps."""

MODELINE: Final = f"# yaml-language-server: $schema={FILE_NAME}"
"""First line of a sweep file, by which editors find the schema."""

_DIALECT: Final = "http://json-schema.org/draft-07/schema#"
"""Newest dialect that editors of YAML support completely."""

_DESCRIPTIONS: Final[Mapping[str, str]] = {
    "question": "The question that the sweep answers, in a sentence. The page and the leaderboard begin with it.",
    "base": "Keys of the configuration that hold for every configuration of the sweep: a group (network: lecun) or a "
    "key below one (network.sizes: [108, 200, 100]).",
    "axes": "What varies. Every combination of the axes is one configuration; a list of mappings is several grids.",
    "exclude": "Combinations to leave out: each names axes with the value that they have there.",
    "seeds": "The seeds of every configuration: how many, a list of them, or until_decided for as many as it takes.",
    "baselines": "Whether every configuration with a transformer gets a baseline without one; equal_parameters adds a "
    "second baseline that is as large as the whole network.",
    "within": "The axis whose values are separate tasks (data sets, distortions): configurations are compared "
    "within each.",
    "margin": "The difference in percentage points within which two configurations count as equivalent.",
    "columns": "The metrics that the leaderboard shows beside accuracy.",
    "published": "A table of reports/published with which the results are compared.",
    "parts": "The folder, file or module with parts of your own, or a list of them, inside the folder you work in.",
    "limits": "Upper limits on the cost of a configuration; those that cost more are left out.",
    "start_from": "A sweep of the same store from whose complete trials a planner that samples learns first.",
    "planner": "How configurations are proposed: the name of a planner, or a mapping with its kind and its keys.",
    "pruner": "When a trial ends early: the name of a pruner, or a mapping with its kind and its keys; none never.",
}

_SPAN_KEYS: Final[Mapping[str, Schema]] = {
    "log": {"description": "Whether the numbers are spread on a logarithmic scale, of positive numbers."},
    "step": {"description": "Keep the numbers at this distance from one another.", "exclusiveMinimum": 0},
    "values": {
        "description": "The number of values that are kept, evenly spread.",
        "minimum": 2,
        "maximum": RESOLUTION,
    },
}

_LIMITS: Final[Mapping[str, Schema]] = {
    "parameters": {"description": "Parameters of the network.", "exclusiveMinimum": 0},
    "flops": {"description": "FLOPs of one image's forward pass, two for a multiply-add.", "exclusiveMinimum": 0},
    "memory_mib": {"description": "Memory of a GPU in MiB, as it is estimated.", "exclusiveMinimum": 0},
}


def schema_text(*, own: bool = False) -> str:
    """Return the schema as the text of a file.

    Args:
        own: whether to include external planners, pruners and metrics: those of installed packages and of
            ``STNBENCH_PARTS``, which are loaded. They are included by name, without their keys.
    """
    return json.dumps(sweep_schema(own=own), indent=2, ensure_ascii=False) + "\n"


def sweep_schema(*, own: bool = False) -> Schema:
    """Return the schema; see :func:`schema_text`."""
    properties = {
        "question": {"type": "string"},
        "base": _ref("overrides"),
        "axes": {"anyOf": [_ref("grid"), {"type": "array", "minItems": 1, "items": _ref("grid")}]},
        "exclude": {"type": ["array", "null"], "items": _ref("overrides")},
        "seeds": _seeds(),
        "baselines": {"enum": [True, False, EQUAL_PARAMETERS], "default": True},
        "within": {"type": "string"},
        "margin": {"type": "number", "minimum": 0, "exclusiveMaximum": 100, "default": 0.5},
        "columns": {"type": ["string", "array"], "items": {"type": "string"}},
        "published": {"enum": sorted(path.stem for path in published_folder().glob("*.csv"))},
        "parts": {"type": ["string", "array", "null"], "items": {"type": "string"}},
        "limits": _limits(),
        "start_from": {"type": "string"},
        "planner": {"type": ["string", "object"], "default": GridPlannerSpec().kind},
        "pruner": {"type": ["string", "object", "null"], "default": NO_PRUNER},
    }
    return {
        "$schema": _DIALECT,
        "$comment": "Generated by docs/generate.py; do not edit.",
        "title": TITLE,
        "type": "object",
        "required": ["question"],
        "additionalProperties": False,
        "properties": {key: {"description": _DESCRIPTIONS[key], **_inline(properties[key])} for key in SWEEP_KEYS},
        "allOf": [_names(own=own), *_rules()],
        "definitions": {
            **_definitions(),
            "planner": _parts_of(PLANNERS, own=own),
            "pruner": {"anyOf": [{"enum": [NO_PRUNER, None]}, _parts_of(PRUNERS, own=own)]},
        },
    }


def is_schema(text: str) -> bool:
    """Check whether a text is a schema of stnbench, of any version."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        return False
    return isinstance(content, dict) and content.get("title") == TITLE


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def _inline(schema: Schema) -> Schema:
    """Return a schema that may be combined with a description; in this dialect, a reference hides its siblings."""
    return {"allOf": [schema]} if "$ref" in schema else schema


def _definitions() -> Schema:
    """Return the forms of values and axes."""
    listed = {
        "description": "Values of the key that the axis is called after.",
        "type": "array",
        "minItems": 1,
        "uniqueItems": True,
        "items": _ref("value"),
    }
    named = {
        "description": "Named choices, with the keys that each sets.",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": _ref("overrides"),
    }
    zipped = {
        "description": "Keys that change together: the first values of all, then the second ones, and so on.",
        "type": "object",
        "minProperties": 2,
        "additionalProperties": {"type": "array", "minItems": 1, "items": _ref("value")},
    }
    marked = {"zip": zipped, "choices": named, "values": listed}
    spans: dict[str, type] = {"int": IntSpan, "float": FloatSpan}
    unmarked = {"not": {"anyOf": [{"required": [kind]} for kind in AXIS_KINDS]}}
    return {
        "scalar": {"type": ["null", "boolean", "number", "string"]},
        "value": {"anyOf": [_ref("scalar"), {"type": "array", "items": _ref("scalar")}]},
        "overrides": {"type": ["object", "null"], "additionalProperties": _ref("value")},
        "grid": {"type": ["object", "null"], "additionalProperties": _ref("axis")},
        "when": {
            "description": "Axes that stand above, each with the value or the values with which this axis is there.",
            "type": ["object", "null"],
            "additionalProperties": {"anyOf": [_ref("value"), {"type": "array", "items": _ref("value")}]},
        },
        "axis": {
            "anyOf": [
                listed,
                {**named, **unmarked},
                *(_span(kind, spans[kind]) if kind in spans else _marked(kind, marked[kind]) for kind in AXIS_KINDS),
            ]
        },
    }


def _marked(kind: str, schema: Schema, further: Mapping[str, Schema] | None = None) -> Schema:
    """Return the schema of an axis whose kind is a key, with an optional condition."""
    return {
        "type": "object",
        "required": [kind],
        "additionalProperties": False,
        "properties": {kind: schema, **(further or {}), "when": _ref("when")},
    }


def _span(kind: str, spec: type) -> Schema:
    """Return the schema of an axis that is a range, with the optional keys of its specification."""
    keys = _properties(spec, _SPAN_KEYS, without=("kind", "low", "high"))
    number = {"int": "integer", "float": "number"}[kind]
    ends = {
        "description": "The range [low, high], both ends included.",
        "type": "array",
        "minItems": 2,
        "maxItems": 2,
        "items": {"type": number},
    }
    step, values = _set("step", {"type": "number"}), _set("values", {"type": "integer"})
    log = _set("log", {"const": True})
    return {
        **_marked(kind, ends, keys),
        "allOf": [{"not": {"allOf": [step, values]}}, {"not": {"allOf": [step, log]}}],
    }


def _set(key: str, schema: Schema) -> Schema:
    """Return the condition that a key exists with a value of the given schema."""
    return {"required": [key], "properties": {key: schema}}


def _seeds() -> Schema:
    seed = {"type": "integer", "minimum": 0, "maximum": INTEGER_MAX}
    listed = {"type": "array", "minItems": 1, "maxItems": SEEDS_MAX, "uniqueItems": True, "items": seed}
    count = {"type": "integer", "minimum": 1, "maximum": SEEDS_MAX}
    return {"anyOf": [count, listed, {"const": UNTIL_DECIDED}], "default": [*FIRST_SEEDS]}


def _limits() -> Schema:
    return {
        "type": ["object", "null"],
        "minProperties": 1,
        "additionalProperties": False,
        "properties": _properties(LimitsSpec, _LIMITS),
    }


def _names(*, own: bool) -> Schema:
    """Return the schema of the known planners, pruners and metrics; a sweep with ``parts:`` may name others."""
    columns: list[str] = [name for name, item in metrics().items() if own or not item.digest]
    closed: Schema = {
        "planner": _ref("planner"),
        "pruner": _ref("pruner"),
        "columns": {"anyOf": [{"enum": columns}, {"type": "array", "items": {"enum": columns}}]},
    }
    opened = {
        "planner": {"anyOf": [_ref("planner"), _another(PLANNERS)]},
        "pruner": {"anyOf": [_ref("pruner"), _another(PRUNERS)]},
    }
    return {"if": {"required": ["parts"]}, "then": {"properties": opened}, "else": {"properties": closed}}


def _parts_of(registry: Registry, *, own: bool) -> Schema:
    """Return the schema of a registry's parts: names alone if they are sufficient, and mappings with their keys."""
    specs = _specs(registry)
    others = sorted(set(registry.names()) - specs.keys()) if own else []
    alone = [name for name, spec in specs.items() if _is_complete(spec)]
    return {
        "anyOf": [
            {"enum": [*alone, *others]},
            *(_part(name, spec) for name, spec in specs.items()),
            *(_named(name) for name in others),
        ]
    }


def _another(registry: Registry) -> Schema:
    """Return the schema of a part whose name no part of stnbench has."""
    name = {"type": "string", "not": {"enum": [*_specs(registry), NO_PRUNER]}}
    return {"anyOf": [name, {"type": "object", "required": ["kind"], "properties": {"kind": name}}]}


def _specs(registry: Registry) -> dict[str, Any]:
    """Return the specifications of the parts of stnbench by name."""
    parts = (registry.part(name) for name in registry.tagged())
    return {part.name: part.spec for part in parts if part.source is None and not part.is_absent}


def _is_complete(spec: Any) -> bool:  # noqa: ANN401 - a dataclass
    """Check whether a specification is complete with its defaults."""
    try:
        spec()
    except (TypeError, SpecError):
        return False
    return True


def _part(name: str, spec: Any) -> Schema:  # noqa: ANN401 - a dataclass
    """Return the schema of a planner or a pruner as a mapping."""
    required = [field.name for field in dataclasses.fields(spec) if is_required(field)]
    said = {field.name: field.metadata[SCHEMA] for field in dataclasses.fields(spec) if SCHEMA in field.metadata}
    schema = _named(name, _properties(spec, said, without=("kind",)), required)
    schema |= {"description": inspect.getdoc(spec), "additionalProperties": False}
    if spec is ThresholdPrunerSpec:
        schema["anyOf"] = [{"required": ["accuracy"]}, {"required": ["outside_share"]}]
    return schema


def _named(name: str, keys: Mapping[str, Schema] = MappingProxyType({}), required: Iterable[str] = ()) -> Schema:
    return {
        "type": "object",
        "required": ["kind", *required],
        "properties": {"kind": {"description": "The kind.", "const": name}, **keys},
    }


def _properties(spec: Any, said: Mapping[str, Schema], without: Iterable[str] = ()) -> Schema:  # noqa: ANN401 - a dataclass
    """Return the keys of a specification: type and default as it declares them, with their descriptions."""
    schema = TypeAdapter(spec).json_schema()
    names = {field.name for field in dataclasses.fields(spec)} - {*without}
    if names != said.keys():
        raise KeyError(f"{spec.__name__} has the keys {sorted(names)}, described are {sorted(said)}")
    return {
        key: {**said[key], **_plain(schema["properties"][key], schema.get("$defs", {}))}
        for key in schema["properties"]
        if key in names
    }


def _plain(schema: Any, definitions: Mapping[str, Schema]) -> Any:  # noqa: ANN401 - JSON values
    """Return a schema of pydantic's without titles and references, and with ``null`` as one of several types."""
    if isinstance(schema, list):
        return [_plain(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        schema = {"enum": definitions[schema["$ref"].rpartition("/")[2]]["enum"]}
    plain = {key: _plain(item, definitions) for key, item in schema.items() if key != "title"}
    forms = plain.get("anyOf", ())
    if forms and all(form.keys() == {"type"} for form in forms):
        del plain["anyOf"]
        plain["type"] = [form["type"] for form in forms]
    return plain


def _rules() -> list[Schema]:
    """Return the rules between keys: the keys that each planner accepts."""
    specs = _specs(PLANNERS)
    until_decided = UntilDecidedPlannerSpec().kind
    on_grids = {"properties": {"planner": _is_one_of(*(name for name, spec in specs.items() if spec.compares_all))}}
    grids = {"properties": {"planner": _is_one_of(GridPlannerSpec().kind, until_decided)}}
    learns = _set("planner", _is_one_of(*sampler_names()))
    return [
        {"if": _set("baselines", {"const": EQUAL_PARAMETERS}), "then": on_grids},
        {"if": _set("seeds", {"const": UNTIL_DECIDED}), "then": grids},
        {"if": _set("start_from", {"minLength": 1}), "then": learns},
        {"if": _set("within", {"minLength": 1}), "then": {"not": learns}},
    ]


def _is_one_of(*kinds: str) -> Schema:
    """Return the schema of planners of these kinds, by name or as a mapping."""
    return {"anyOf": [{"enum": [*kinds]}, {"type": "object", **_set("kind", {"enum": [*kinds]})}]}
