"""Strict conversion of dataclasses to plain JSON values and back.

Nothing is coerced silently and nothing unknown is let in: ``from_plain`` names the key, the value and the nearest
valid name. The ``kind`` of a dataclass selects it in a union.
"""

import dataclasses
import functools
import json
import math
import numbers
import typing
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Any, ClassVar, Final, TypeVar, cast

from pydantic import AliasChoices, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.identity import Json, canonical_json
from stnbench.spec.registry import REGISTRIES, Registry, generation, is_from_outside, own_fields

T = TypeVar("T")

Where = str | Callable[[str], str]
"""Source of values, for messages; or a function that returns the source of a dotted key."""


class Strict:
    """Base class of decoded dataclasses: unknown keys and wrong types are errors, numbers are finite."""

    __slots__ = ()
    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    def settle(self) -> None:
        """Convert every field to its declared type, so that equivalent values are equal.

        In a float field 1 becomes 1.0 and -0.0 becomes 0.0, in an int field 1.0 and NumPy's 1 become 1, and lists
        become tuples. JSON decodes to these types already; Python callers may pass others. ``__post_init__`` calls this
        method first.

        Raises:
            SpecError: if a number in an int field is not whole.
        """
        for name, convert in _converters(cast("Any", type(self))):
            object.__setattr__(self, name, convert(name, getattr(self, name)))


class PartSpec(Strict):
    """Base class of the specifications in a registry of parts."""

    __slots__ = ()

    @property
    def kind(self) -> str:
        """Return the name in the registry; each specification has a field of this name."""
        raise NotImplementedError


def is_required(field: "dataclasses.Field[Any]") -> bool:
    """Check whether a field of a dataclass has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def to_plain(value: object) -> dict[str, Json]:
    """Return a dataclass as JSON values, with all fields."""
    plain: dict[str, Json] = _adapter(cast("Any", type(value))).dump_python(value, mode="json")
    return plain


def to_json(value: object) -> str:
    """Return a dataclass as canonical JSON text."""
    return canonical_json(to_plain(value))


def from_plain(kind: type[T], plain: Json, *, where: Where, prefix: str = "") -> T:
    """Return the dataclass that JSON values describe.

    Args:
        kind: the dataclass, or a union of dataclasses.
        plain: the fields as JSON values.
        where: file or table of the values, for messages; or a function that returns that of a key.
        prefix: key below which the values stand there, for messages.

    Raises:
        UnknownNameError: if a key or choice does not exist.
        SpecError: if a value is invalid.
    """
    return from_json(kind, json.dumps(plain), where=where, prefix=prefix)


def from_json(kind: type[T], text: str | bytes, *, where: Where, prefix: str = "") -> T:
    """Return the dataclass that JSON text describes; arguments and errors are those of ``from_plain``."""
    try:
        decoded: T = _adapter(cast("Any", kind)).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "union_tag_invalid" and _knows_more():
            return from_json(kind, text, where=where, prefix=prefix)
        raise _explain(kind, first, where, prefix) from error
    return decoded


def from_stored(kind: type[T], text: str | bytes, *, where: str) -> T:
    """Return the dataclass that stored JSON text describes, also if an external part in it no longer exists.

    The keys of such a part are kept unchanged, so that its trial is listed and reported with its identity.
    """
    try:
        return from_json(kind, text, where=where)
    except UnknownNameError:
        if not _declare_absent(json.loads(text)):
            raise
        return from_json(kind, text, where=where)


def _knows_more() -> bool:
    """Load the external parts, and return whether any of them is new."""
    from stnbench.spec.parts import load_parts

    before = generation()
    load_parts()
    return generation() != before


def _declare_absent(plain: Any) -> bool:  # noqa: ANN401 - JSON values
    """Declare the missing parts that stored values name, and return whether there were any."""
    before = generation()
    for source in _part_sources(plain):
        registry = REGISTRIES.get(source.get("kind", ""))
        if registry is None:
            continue
        for node in _sections(plain, registry.section):
            if node.get(registry.discriminator) == source.get("name"):
                registry.declare_absent(str(source["name"]), node)
    for section in ("planner", "pruner"):  # a sweep does not store their sources
        below, registry = plain.get(section) if isinstance(plain, dict) else None, REGISTRIES.get(section)
        if registry is not None and isinstance(below, dict) and registry.is_absent(str(below.get("kind"))):
            registry.declare_absent(str(below.get("kind")), below)
    return generation() != before


def _part_sources(plain: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON values
    """Yield the mappings in lists under ``parts`` at any depth, since a trial may be nested in stored values."""
    if isinstance(plain, dict):
        below = plain.get("parts")
        yield from (source for source in below or () if isinstance(below, list) and isinstance(source, dict))
    for item in plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ():
        yield from _part_sources(item)


def _sections(plain: Any, section: str) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON values
    """Yield the mappings under a key, at any depth."""
    if isinstance(plain, dict):
        below = plain.get(section)
        if isinstance(below, dict):
            yield below
    for item in plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ():
        yield from _sections(item, section)


FORMER_NAMES: Final = {"tta": "views"}
"""Fields of specifications that were renamed: identities keep the former name, so that trials keep theirs."""


def named_before(name: str, former: str) -> FieldInfo:
    """Return the mark of a field that stored values may have under a former name."""
    return cast("FieldInfo", Field(validation_alias=AliasChoices(name, former)))


def to_identity(value: object) -> dict[str, Json]:
    """Return a dataclass as JSON values without plain fields at their defaults, which change nothing when stated.

    Fields that are dataclasses are kept, with their ``kind``. A change of a default's meaning therefore needs a higher
    ``RESULTS_VERSION``; a new field whose default keeps the meaning leaves every identity unchanged.
    """
    plain: dict[str, Json] = {}
    for name, default in _defaults(cast("Any", type(value))):
        item, key = getattr(value, name), FORMER_NAMES.get(name, name)
        if hasattr(item, "__dataclass_fields__"):
            plain[key] = to_identity(item)
        elif isinstance(item, tuple) and item and hasattr(item[0], "__dataclass_fields__"):
            plain[key] = [to_identity(part) for part in item]
        elif name == "kind" or item != default:
            plain[key] = _listed(item)
    return plain


def _listed(value: Any) -> Any:  # noqa: ANN401 - a JSON value, perhaps with tuples in it
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


@functools.cache
def _defaults(kind: Any) -> tuple[tuple[str, object], ...]:  # noqa: ANN401 - a dataclass, whose values never change
    """Return the names and defaults of a dataclass's fields, in order.

    Fields added by an external part have no default: its source is in the identity, and its defaults are unknown where
    the part is absent. The name of a part is compared with that of the base, since it is the default of its own class.
    """
    own = own_fields(kind)
    bases = {field.name: field for field in _fields_of(kind.__mro__[1])} if is_from_outside(kind) else _names(kind)
    return tuple(
        (field.name, dataclasses.MISSING if field.name in own else _default(bases.get(field.name, field)))
        for field in dataclasses.fields(kind)
    )


def _names(kind: Any) -> dict[str, "dataclasses.Field[Any]"]:  # noqa: ANN401 - a class
    """Return, for each registry whose specifications a class belongs to, the base's field with the name of the part."""
    bases = [(registry.base, registry.discriminator) for registry in REGISTRIES.values()]
    return {
        field.name: field
        for base, discriminator in bases
        if issubclass(kind, base)
        for field in _fields_of(base)
        if field.name == discriminator
    }


def _fields_of(kind: Any) -> tuple["dataclasses.Field[Any]", ...]:  # noqa: ANN401 - a class
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def _default(field: "dataclasses.Field[Any]") -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


_Convert = Callable[[str, Any], Any]


@functools.cache
def _converters(kind: Any) -> tuple[tuple[str, _Convert], ...]:  # noqa: ANN401 - a dataclass
    """Return the fields of a dataclass whose values need conversion, with their converters."""
    hints = typing.get_type_hints(kind)
    found = ((field.name, _converter(hints[field.name])) for field in dataclasses.fields(kind))
    return tuple((name, convert) for name, convert in found if convert is not None)


def _converter(hint: Any) -> _Convert | None:  # noqa: ANN401 - a type or a type form
    members = [member for member in _members(hint) if member is not type(None)]
    if float in members:
        return _as_float
    if int in members:
        return _as_int
    if members and all(typing.get_origin(member) is tuple for member in members):
        return functools.partial(_as_tuple, _converter(typing.get_args(members[0])[0]))
    return None


def _as_float(_name: str, value: object) -> object:
    number = _number(value)
    return value if number is None else float(number) + 0.0  # -0.0 becomes 0.0


def _as_int(name: str, value: object) -> object:
    number = _number(value)
    if number is None:
        return value
    if not math.isfinite(number) or int(number) != number:
        raise SpecError(f"{name} is {value!r}", remedy="use a whole number")
    return int(number)


def _number(value: object) -> float | None:
    """Return the value if it is a number of Python or NumPy and not a truth value, otherwise None."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return cast("float", value) if is_number else None


def _as_tuple(convert: _Convert | None, name: str, value: object) -> object:
    if not isinstance(value, list | tuple):
        return value
    return tuple(value) if convert is None else tuple(convert(name, item) for item in value)


def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - a dataclass or a union of them
    return _adapter_of(kind, generation())


@functools.cache
def _adapter_of(kind: Any, _generation: int) -> TypeAdapter[Any]:  # noqa: ANN401 - a dataclass or a union of them
    return TypeAdapter(kind)


def _explain(kind: type, error: ErrorDetails, said_in: Where, prefix: str) -> SpecError:
    location, value = error["loc"], error["input"]
    below, owner = _walk(kind, location)
    path = ".".join(part for part in (prefix, below) if part)
    where = said_in if isinstance(said_in, str) else said_in(_key_of(path, error))
    place = f"{where}: " if where else ""
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            known = [field.name for field in dataclasses.fields(owner) if field.name != "kind"]
            return UnknownNameError("key", path, _qualified(path, known), where=where)
        case "literal_error":
            choices = str(error["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
            return UnknownNameError(f"{path}", str(value), choices, where=where)
        case "union_tag_invalid":
            choices = str(error["ctx"]["expected_tags"]).replace("'", "").split(", ")
            key = str(error["ctx"]["discriminator"]).strip("'")
            return UnknownNameError(f"{path}.{key}" if path else key, str(error["ctx"]["tag"]), choices, where=where)
        case "value_error":
            cause = error["ctx"]["error"]
            if isinstance(cause, SpecError):
                prefix = f"{path}." if path else ""
                return type(cause)(f"{place}{prefix}{cause.problem}", remedy=cause.remedy)
            return SpecError(f"{place}{path} is {_short(value)}", remedy=str(cause))
        case _:
            return SpecError(f"{place}{path or 'the text'} is {_short(value)}", remedy=error["msg"].lower())


def _key_of(path: str, error: ErrorDetails) -> str:
    """Return the dotted key of an error; a check across a dataclass names the key in its first word."""
    cause = error["ctx"].get("error") if "ctx" in error else None
    name = cause.problem.partition(" ")[0] if isinstance(cause, SpecError) else ""
    return ".".join(part for part in (path.partition("[")[0], name) if part)


def _qualified(path: str, known: list[str]) -> list[str]:
    parent = path.rpartition(".")[0]
    return [f"{parent}.{name}" if parent else name for name in known]


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def _walk(kind: Any, location: tuple[int | str, ...]) -> tuple[str, Any]:  # noqa: ANN401 - a type or a type form
    """Return the dotted path of a location without the tags of unions, and the dataclass of its last key."""
    path, owner = "", kind
    for step in location:
        members = _members(kind)
        registry = _registry_of(kind)
        tagged = (
            registry.tagged()
            if registry is not None
            else {_kind_of(member): member for member in members if dataclasses.is_dataclass(member)}
        )
        if step in tagged and (registry is not None or len(members) > 1):
            kind = tagged[str(step)]
        elif isinstance(step, int):
            path, kind = f"{path}[{step}]", _item(members)
        else:
            path = f"{path}.{step}" if path else step
            owner = next((member for member in members if dataclasses.is_dataclass(member)), owner)
            kind = typing.get_type_hints(owner, include_extras=True).get(step)
    return path, owner


def _members(kind: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a type or a type form
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    return typing.get_args(kind) if isinstance(kind, UnionType) or typing.get_origin(kind) is typing.Union else (kind,)


def _registry_of(kind: Any) -> Registry | None:  # noqa: ANN401 - a type or a type form
    """Return the registry that decodes a type or an optional type, or None if there is none."""
    forms = (kind, *typing.get_args(kind)) if isinstance(kind, UnionType) or _is_union(kind) else (kind,)
    metadata = [item for form in forms for item in getattr(form, "__metadata__", ())]
    return next((item for item in metadata if isinstance(item, Registry)), None)


def _is_union(kind: Any) -> bool:  # noqa: ANN401 - a type or a type form
    return typing.get_origin(kind) is typing.Union


def _item(members: tuple[Any, ...]) -> Any:  # noqa: ANN401 - a type or a type form
    arguments = [argument for member in members for argument in typing.get_args(member)]
    return arguments[0] if arguments else None


def _kind_of(kind: Any) -> str:  # noqa: ANN401 - a dataclass
    return next((str(field.default) for field in dataclasses.fields(kind) if field.name == "kind"), "")
