"""Registries: every kind of part of a trial, by name; ours and those of users alike.

A part is a specification (a frozen dataclass, what is stored and hashed) and an implementation (what is built from it).
Ours are declared with the place of their implementation, which is imported when one is built, so that commands that
only read specifications stay light. A part from outside is one class, see :func:`stnbench.register`.
"""

import dataclasses
import functools
import importlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from stnbench.core.errors import SpecError, UnknownNameError

REGISTRIES: Final[dict[str, "Registry"]] = {}
"""Every registry, by the kind of its parts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartSource:
    """Where a part from outside comes from: it is in the identity of trials that use it.

    Attributes:
        kind: of part, for example ``transformer``.
        name: of the part.
        distribution: the installed distribution with its version, or the file's name.
        digest: of the source of the module that defines it.
    """

    kind: str
    name: str
    distribution: str
    digest: str

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Part:
    """What is registered under a name.

    Attributes:
        name: the value of the discriminator.
        spec: the dataclass of its specification.
        implementation: what builds it, or ``"module:name"`` of that.
        traits: what others ask about it, for example ``control``.
        source: where it comes from; None for ours.
        is_absent: whether only its name is known, from a stored trial.
    """

    name: str
    spec: type
    implementation: object
    traits: frozenset[str] = frozenset()
    source: PartSource | None = None
    is_absent: bool = False


_generation = 0


def generation() -> int:
    """How often a part was registered: what was derived from registries before is stale."""
    return _generation


class Registry:
    """The parts of one kind. As metadata of an annotation it decodes a specification by its discriminator.

    Args:
        kind: what its parts are, for messages: ``network``.
        base: the dataclass that specifications of parts from outside extend.
        discriminator: the key that names the part in a specification.
        section: the key under which its specifications stand, in a configuration (there perhaps with the number of a
            place behind it) and in a stored trial.
    """

    def __init__(self, kind: str, base: type, *, discriminator: str = "kind", section: str) -> None:
        self.kind = kind
        self.base = base
        self.discriminator = discriminator
        self.section = section
        self._parts: dict[str, Part] = {}
        REGISTRIES[kind] = self

    def add(self, part: Part) -> None:
        """Register a part.

        Raises:
            SpecError: where the name is taken by a part of another origin.
        """
        global _generation  # noqa: PLW0603 - registries are the process's own
        known = self._parts.get(part.name)
        if known is not None and not known.is_absent and not _is_same_origin(known, part):
            origin = "stnbench itself" if known.source is None else known.source.distribution
            problem = f"the {self.kind} {part.name} is registered twice"
            raise SpecError(problem, remedy=f"{origin} has it already: choose another name")
        self._parts[part.name] = part
        _generation += 1

    def declare(self, spec: type, implementations: Mapping[str, str], traits: Mapping[str, Iterable[str]]) -> None:
        """Register parts of ours that share a specification.

        Args:
            spec: the dataclass.
            implementations: ``"module:name"`` of each.
            traits: of those that have any.
        """
        for name, place in implementations.items():
            self.add(Part(name=name, spec=spec, implementation=place, traits=frozenset(traits.get(name, ()))))

    def declare_each(
        self, implementations: Mapping[type, str], traits: Mapping[type, Iterable[str]] | None = None
    ) -> None:
        """Register parts of ours that have a specification each, named by the default of its discriminator.

        Args:
            implementations: ``"module:name"`` of each.
            traits: of those that have any.
        """
        for spec, place in implementations.items():
            name = next(field.default for field in dataclasses.fields(spec) if field.name == self.discriminator)
            self.declare(spec, {str(name): place}, {str(name): (traits or {}).get(spec, ())})

    def names(self) -> list[str]:
        """Every part that is here, sorted; those from outside are loaded for it."""
        _load_from_outside()
        return sorted(name for name, part in self._parts.items() if not part.is_absent)

    def part(self, name: str) -> Part:
        """The part of a name, also one that is absent.

        Raises:
            UnknownNameError: where there is none.
        """
        if name not in self._parts:
            raise UnknownNameError(self.kind, name, self.names())
        return self._parts[name]

    def is_absent(self, name: str) -> bool:
        """Whether nothing but the name of a part is known."""
        if name not in self._parts or self._parts[name].is_absent:
            _load_from_outside()
        return name not in self._parts or self._parts[name].is_absent

    def has_trait(self, name: str, trait: str) -> bool:
        """Whether a part has a trait; one that is absent has none."""
        return name in self._parts and trait in self._parts[name].traits

    def implementation(self, name: str) -> Any:  # noqa: ANN401 - what it is depends on the kind
        """What builds the part, imported.

        Raises:
            UnknownNameError: for a part that is not here.
        """
        part = self._parts.get(name)
        if part is None or part.is_absent:
            _load_from_outside()
            part = self._parts.get(name)
        if part is None or part.is_absent:
            raise UnknownNameError(self.kind, name, self.names())
        if isinstance(part.implementation, str):
            module, _, attribute = part.implementation.partition(":")
            return operator.attrgetter(attribute)(importlib.import_module(module))
        return part.implementation

    def source(self, name: str) -> PartSource | None:
        """Where a part comes from; None for ours and for what is absent."""
        part = self._parts.get(name)
        return None if part is None else part.source

    def declare_absent(self, name: str, keys: Iterable[str]) -> None:
        """Let specifications with an unknown name be read; their keys are kept, and nothing can be built from them."""
        if not self.is_absent(name):
            return
        own = sorted({*keys} - {field.name for field in dataclasses.fields(self.base)} - {self.discriminator})
        known = self._parts.get(name)
        if known is not None and {*own} <= own_fields(known.spec):
            return
        spec = self.extended(name, [(key, Any, dataclasses.field(default=None)) for key in own], {})
        self.add(Part(name=name, spec=spec, implementation=None, is_absent=True))

    def extended(
        self,
        name: str,
        own: list[tuple[str, Any, Any]],
        namespace: Mapping[str, object],
        check: Callable[[Any], None] | None = None,
    ) -> type:
        """Return the specification of a part from outside: the base, the discriminator and the part's own fields.

        An own field with the name of one of the base changes its default, and stays one of the base.
        """
        shared = {field.name for field in dataclasses.fields(self.base)}
        base_check = getattr(self.base, "__post_init__", None)

        def post_init(spec: Any) -> None:  # noqa: ANN401 - the dataclass made here
            if base_check is not None:
                base_check(spec)
            if check is not None:
                check(spec)

        fields = [(self.discriminator, str, dataclasses.field(default=name)), *own]
        made: type = dataclasses.make_dataclass(
            f"{self.kind}_{name}",
            fields,
            bases=(self.base,),
            namespace={
                **namespace,
                "__post_init__": post_init,
                OWN_FIELDS: frozenset(item[0] for item in own) - shared,
            },
            frozen=True,
            kw_only=True,
        )
        return made

    def tagged(self) -> dict[str, type]:
        """The specification of every name, absent ones included."""
        return {name: part.spec for name, part in self._parts.items()}

    def __get_pydantic_core_schema__(self, _source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {name: handler.generate_schema(part.spec) for name, part in self._parts.items()}
        return core_schema.tagged_union_schema(choices, discriminator=self.discriminator)


def registry_of(section: str) -> Registry | None:
    """Return the registry whose specifications stand under a key, such as ``optimizer`` or ``transformer2``."""
    name = section.rstrip("0123456789")
    return next((registry for registry in REGISTRIES.values() if registry.section == name), None)


def used_parts(spec: Any) -> Iterator[tuple[Registry, str]]:  # noqa: ANN401 - a dataclass
    """Yield the registry and the name of every part that a specification names, at any depth."""
    kind: Any = type(spec)
    for name, registry in _fields_with_registries(kind):
        item = getattr(spec, name)
        if registry is not None and dataclasses.is_dataclass(item):
            yield registry, getattr(item, registry.discriminator)
        for below in item if isinstance(item, tuple) else (item,):
            if dataclasses.is_dataclass(below):
                yield from used_parts(below)


@functools.cache
def _fields_with_registries(kind: Any) -> tuple[tuple[str, Registry | None], ...]:  # noqa: ANN401 - a dataclass
    return tuple((field.name, registry_of(field.name)) for field in dataclasses.fields(kind))


def _load_from_outside() -> None:
    """Load the parts that the user names or has installed; once, where a name is not one of ours."""
    from stnbench.spec.parts import load_parts

    load_parts()


OWN_FIELDS: Final = "own_fields_"
"""The attribute of a specification from outside that names the fields it adds to the base."""


def own_fields(spec: type) -> frozenset[str]:
    """The fields that a specification from outside adds; none for ours."""
    return getattr(spec, OWN_FIELDS, frozenset())


def is_from_outside(spec: type) -> bool:
    """Return whether a specification was made for a part from outside, present or absent."""
    return hasattr(spec, OWN_FIELDS)


def _is_same_origin(one: Part, other: Part) -> bool:
    """Whether two parts are the same one, loaded twice: the later one, perhaps edited, counts then."""
    if one.source is None or other.source is None:
        return False
    return one.source.distribution == other.source.distribution
