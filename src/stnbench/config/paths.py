"""The one override that is a path: where GTSRB lies. Paths are never part of a trial."""

from collections.abc import Iterable
from pathlib import Path

from stnbench.core.errors import SpecError
from stnbench.core.paths import user_path
from stnbench.spec.sweep import Override

ROOT_KEY = "dataset.root"


def take_dataset_root(overrides: Iterable[Override]) -> tuple[Path | None, tuple[Override, ...]]:
    """The folder that ``dataset.root=...`` names, if any, and the other overrides.

    Raises: SpecError for a value that is no path.
    """
    root: Path | None = None
    others = []
    for override in overrides:
        if override.key != ROOT_KEY:
            others.append(override)
        elif isinstance(override.value, str) and override.value:
            root = user_path(override.value, ROOT_KEY)
        else:
            raise SpecError(f"{ROOT_KEY} is {override.value!r}", remedy="give the folder that holds GTSRB")
    return root, tuple(others)
