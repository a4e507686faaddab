"""What a choice in ``conf/`` does not say: the defaults of the specification that it fills."""

import copy
import dataclasses
import functools
from typing import Any

from stnbench.core.identity import Json
from stnbench.spec.codec import to_plain
from stnbench.spec.registry import Registry, registry_of

Node = dict[str, Json]
"""A section of the configuration, or the whole of it."""


def fill_defaults(node: Node) -> None:
    """Add the keys that sections leave out, with the defaults of their specification."""
    for key, section in node.items():
        registry = registry_of(key)
        if registry is None or not isinstance(section, dict):
            continue
        name = section.get(registry.discriminator)
        if isinstance(name, str) and not (name in _UNFILLED or registry.is_absent(name)):
            for field, value in _defaults(registry, name, registry.part(name).spec).items():
                section.setdefault(field, copy.copy(value))


_UNFILLED = frozenset({"same", "none"})
"""Choices that stand for no specification of their own."""


@functools.cache
def _defaults(registry: Registry, name: str, spec: Any) -> Node:  # noqa: ANN401 - a dataclass
    """The defaults of a specification, but for parts of it that are groups of their own."""
    given = {field.name for field in dataclasses.fields(spec) if _has_no_default(field)}
    if given:  # what a composed configuration cannot leave out
        return {}
    plain = to_plain(spec(**{registry.discriminator: name}))
    return {key: value for key, value in plain.items() if key not in _GROUPS}


def _has_no_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


_GROUPS = frozenset({"distortion"})
"""Keys that a group of its own fills."""
