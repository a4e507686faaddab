"""Imports that take time: names of a package that are imported on first access, and Ctrl-C during imports."""

import importlib
import os
import signal
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


def leave_at_ctrl_c() -> None:
    """Make Ctrl-C end the process with one line instead of a traceback while its modules are imported.

    Nothing changes for a process that ignores Ctrl-C, such as one in the background.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _leave(number: int, _frame: object) -> None:
    os.write(2, b"interrupted by SIGINT, at once\n")
    os._exit(128 + number)
