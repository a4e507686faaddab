"""Parts from outside in tests: registered from files, and forgotten afterwards."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stnbench.spec import metrics, parts, registry
from stnbench.spec.parts import VARIABLE, add_places
from stnbench.spec.registry import REGISTRIES


@pytest.fixture
def parts_forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers and loads is forgotten after it."""
    monkeypatch.setenv(VARIABLE, "")
    known = {kind: dict(found._parts) for kind, found in REGISTRIES.items()}
    measured = dict(metrics._METRICS)
    loaded, modules, path = set(parts._loaded), set(sys.modules), list(sys.path)
    yield
    for kind, found in REGISTRIES.items():
        found._parts.clear()
        found._parts.update(known[kind])
    metrics._METRICS.clear()
    metrics._METRICS.update(measured)
    registry._generation += 1
    parts._loaded.clear()
    parts._loaded.update(loaded)
    for name in set(sys.modules) - modules:
        if name.startswith("stnbench_part_"):
            del sys.modules[name]
    sys.path[:] = path


def write_part(folder: Path, name: str, text: str) -> None:
    """Write a file that registers a part, and load it."""
    (folder / f"{name}.py").write_text(text)
    add_places([str(folder / f"{name}.py")], base=folder)


def forget(kind: str, name: str) -> None:
    """As in a process that does not know the part."""
    del REGISTRIES[kind]._parts[name]
    registry._generation += 1
