"""Options of engines from ``conf/engine/NAME.yaml`` and ``engine.KEY=VALUE``, which are never part of a trial."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from stnbench.config.locate import shown
from stnbench.config.resolve import COMMAND_LINE
from stnbench.config.values import read_yaml
from stnbench.core.errors import SpecError
from stnbench.core.identity import Json
from stnbench.spec.codec import from_plain
from stnbench.spec.slurm import SlurmOptions
from stnbench.spec.sweep import Override

PREFIX: Final = "engine."
SLURM: Final = "slurm"


def take_engine_options(
    overrides: Iterable[Override], engine: str, folder: Path
) -> tuple[SlurmOptions, tuple[Override, ...]]:
    """Return the Slurm options of ``conf/engine/slurm.yaml`` and the overrides, and the overrides of trials.

    Args:
        overrides: overrides of the command line.
        engine: name of the chosen engine.
        folder: folder of the configuration groups.

    Raises:
        SpecError: if a value is invalid, a key does not exist, or a key belongs to an engine that is not chosen.
    """
    others, ours = [], dict[str, Json]()
    for override in overrides:
        if not override.key.startswith(PREFIX):
            others.append(override)
            continue
        if engine != SLURM:
            remedy = f"add --engine {SLURM}, or leave it out"
            raise SpecError(f"{COMMAND_LINE}: {override.key} is no key of the engine {engine}", remedy=remedy)
        value = override.value
        ours[override.key.removeprefix(PREFIX)] = list(value) if isinstance(value, tuple) else value
    if engine != SLURM:
        return SlurmOptions(), tuple(others)
    path = folder / "engine" / f"{SLURM}.yaml"
    said = dict[str, Json](read_yaml(path))

    def place(key: str) -> str:
        if key in {"", PREFIX.rstrip(".")} and ours:
            return f"{COMMAND_LINE} and {shown(path)}"
        return COMMAND_LINE if key.removeprefix(PREFIX).partition(".")[0] in ours else shown(path)

    plain = {key: _as_declared(key, value) for key, value in {**said, **ours}.items()}
    return from_plain(SlurmOptions, plain, where=place, prefix=PREFIX.rstrip(".")), tuple(others)


def _as_declared(key: str, value: Json) -> Json:
    """Convert a number to text where text is declared (``memory: 16000``), and a single text to a list of one."""
    declared = {field.name: field.type for field in dataclasses.fields(SlurmOptions)}.get(key)
    if declared is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if declared is not None and "tuple" in str(declared) and isinstance(value, str):
        return [value]
    return value
