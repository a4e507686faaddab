"""Registries of the parts of trials by kind and name, those of stnbench and those of users.

A part has a specification (a frozen dataclass, which is stored and hashed) and an implementation (which is built from
it). Parts of stnbench are declared with the place of their implementation, which is imported when one is built, so that
commands that only read specifications start quickly. An external part is a class, see :func:`stnbench.register`.
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
"""All registries, by the kind of their parts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartSource:
    """Source of an external part; it is included in the identity of trials that use the part.

    Attributes:
        kind: kind of the part, for example ``transformer``.
        name: name of the part.
        distribution: installed distribution with its version, or name of the file.
        digest: digest of the source code of the part.
    """

    kind: str
    name: str
    distribution: str
    digest: str

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Part:
    """A registered part.

    Attributes:
        name: value of the discriminator.
        spec: dataclass of the specification.
        implementation: callable that builds the part, or its ``"module:name"``.
        traits: properties that other code checks, for example ``control``.
        source: source of an external part; None for parts of stnbench.
        is_absent: whether only the name is known, from a stored trial.
    """

    name: str
    spec: type
    implementation: object
    traits: frozenset[str] = frozenset()
    source: PartSource | None = None
    is_absent: bool = False


_generation = 0


def generation() -> int:
    """Return the number of registrations so far; objects derived from registries at a lower number are stale."""
    return _generation


class Registry:
    """Registry of the parts of one kind; as metadata of an annotation, it decodes specifications by discriminator.

    Args:
        kind: kind of the parts, for messages, such as ``network``.
        base: dataclass that the specifications of external parts extend.
        discriminator: key that names the part in a specification.
        section: key of the specifications in a configuration (where the number of a place may follow) and in a stored
            trial.
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
            SpecError: if a part of another origin has the name.
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
        """Register parts of stnbench that share a specification.

        Args:
            spec: the dataclass.
            implementations: ``"module:name"`` of each part, by name.
            traits: traits of the parts that have any, by name.
        """
        for name, place in implementations.items():
            self.add(Part(name=name, spec=spec, implementation=place, traits=frozenset(traits.get(name, ()))))

    def declare_each(
        self, implementations: Mapping[type, str], traits: Mapping[type, Iterable[str]] | None = None
    ) -> None:
        """Register parts of stnbench with one specification each, named by the default of its discriminator.

        Args:
            implementations: ``"module:name"`` of each part, by specification.
            traits: traits of the parts that have any, by specification.
        """
        for spec, place in implementations.items():
            name = next(field.default for field in dataclasses.fields(spec) if field.name == self.discriminator)
            self.declare(spec, {str(name): place}, {str(name): (traits or {}).get(spec, ())})

    def names(self) -> list[str]:
        """Return the sorted names of the parts that exist, after loading external ones."""
        _load_from_outside()
        return sorted(name for name, part in self._parts.items() if not part.is_absent)

    def part(self, name: str) -> Part:
        """Return the part of a name, which may be absent.

        Raises:
            UnknownNameError: if there is none.
        """
        if name not in self._parts:
            raise UnknownNameError(self.kind, name, self.names())
        return self._parts[name]

    def is_absent(self, name: str) -> bool:
        """Check whether a part does not exist, or only its name is known."""
        if name not in self._parts or self._parts[name].is_absent:
            _load_from_outside()
        return name not in self._parts or self._parts[name].is_absent

    def has_trait(self, name: str, trait: str) -> bool:
        """Check whether a part has a trait; unknown parts have none."""
        return name in self._parts and trait in self._parts[name].traits

    def implementation(self, name: str) -> Any:  # noqa: ANN401 - what it is depends on the kind
        """Import and return the callable that builds a part.

        Raises:
            UnknownNameError: if the part does not exist or is absent.
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
        """Return the source of an external part, or None for parts of stnbench and for unknown ones."""
        part = self._parts.get(name)
        return None if part is None else part.source

    def declare_absent(self, name: str, keys: Iterable[str]) -> None:
        """Declare an unknown part, so that its specifications can be read and keep their keys; it cannot be built."""
        if not self.is_absent(name):
            return
        keys = {*keys}
        own = sorted(keys - {field.name for field in dataclasses.fields(self.base)} - {self.discriminator})
        known = self._parts.get(name)
        if known is not None and {*own} <= own_fields(known.spec):
            return
        spec = self.extended(name, [(key, Any, dataclasses.field(default=None)) for key in own], {})
        self.add(Part(name=name, spec=spec, implementation=None, is_absent=True, traits=frozenset(keys)))

    def extended(
        self,
        name: str,
        own: list[tuple[str, Any, Any]],
        namespace: Mapping[str, object],
        check: Callable[[Any], None] | None = None,
    ) -> type:
        """Return the dataclass of an external part: the base, the discriminator and the part's own fields.

        An own field with the name of a field of the base changes its default, and counts as one of the base.

        Args:
            name: name of the part.
            own: name, type and dataclass field of each own field.
            namespace: further attributes of the class.
            check: function that validates an instance, after the check of the base.
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
        """Return the specifications of all parts by name, including absent ones."""
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
    """Load the external parts that the user names or has installed."""
    from stnbench.spec.parts import load_parts

    load_parts()


OWN_FIELDS: Final = "own_fields_"
"""Attribute of an external specification with the names of the fields that it adds to the base."""


def own_fields(spec: type) -> frozenset[str]:
    """Return the names of the fields that an external specification adds; none for those of stnbench."""
    return getattr(spec, OWN_FIELDS, frozenset())


def is_from_outside(spec: type) -> bool:
    """Check whether a specification was made for an external part, present or absent."""
    return hasattr(spec, OWN_FIELDS)


def _is_same_origin(one: Part, other: Part) -> bool:
    """Check whether two parts are one part that was loaded twice, perhaps edited in between."""
    if one.source is None or other.source is None:
        return False
    return one.source.distribution == other.source.distribution
