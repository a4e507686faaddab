"""Names of a package that are imported on first access."""

import importlib
import sys
from collections.abc import Callable, Mapping


def lazy_names(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for a package whose names lie in modules that are slow to import.

    Args:
        package: ``__name__`` of the package.
        modules: the module of each name, or ``module:other`` if the name is another one there.
    """

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        module, _, attribute = modules[name].partition(":")
        value: object = getattr(importlib.import_module(module), attribute or name)
        setattr(sys.modules[package], name, value)  # the next look-up finds it at once
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names
