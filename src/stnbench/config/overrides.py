"""Parser of ``key=value`` arguments of the command line.

Hydra's grammar reads values: ``3``, ``1e-3``, ``true``, ``null``, names, ``[1,2,3]``, and text in quotes. Plain text
that this grammar does not accept (umlauts, ``~``, ``#``, parentheses, a second ``=``) is text here as well. Scalars are
read as in a file (:mod:`stnbench.config.values`), so that a value means the same in both. The value of a key that is a
path is taken verbatim.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException

from stnbench.config.locate import ROOT_KEY, shown
from stnbench.config.resolve import COMMAND_LINE
from stnbench.config.values import as_value, checked_scalar, checked_text, current_key, cut, plain_value, read_yaml
from stnbench.core.errors import SpecError
from stnbench.core.identity import Json
from stnbench.spec.codec import from_plain
from stnbench.spec.slurm import SlurmOptions
from stnbench.spec.sweep import Override, Scalar, Value, label_of, show_value

_LEVELS_MAX: Final = 4
_OPENING: Final = tuple("'\"[{")
_FUNCTION: Final = re.compile(
    r"(choice|range|interval|glob|sort|shuffle|tag|int|float|str|bool|json_str|extend_list)\s*\("
)
"""Functions of Hydra's grammar, for its sweeps or to convert values; they are refused."""


def parse_overrides(arguments: Iterable[str]) -> tuple[Override, ...]:
    """Return the overrides of ``key=value`` arguments.

    Raises:
        SpecError: if an argument cannot be read, or adds, deletes or sweeps, or if a key is given twice.
    """
    overrides: dict[str, Override] = {}
    for argument in arguments:
        override = _parse(argument)
        if override.key in overrides:
            values = f"{show_value(overrides[override.key].value)} and {show_value(override.value)}"
            raise SpecError(f"{COMMAND_LINE}: {override.key} is given twice, {values}", remedy="give it once")
        overrides[override.key] = override
    return tuple(overrides.values())


def parse_only(texts: Iterable[str]) -> tuple[Override, ...]:
    """Return the overrides of ``--only AXIS=VALUE[,VALUE...]``, which narrow axes.

    A value is written as in a file, a list in brackets (``locnet1.sizes=[20,20,20],[30,60,30]``). An axis that is named
    again gets further values.

    Raises:
        SpecError: if an argument cannot be read.
    """
    values: dict[str, list[Scalar]] = {}
    for text in texts:
        key, equals, listed = text.partition("=")
        if not equals or not key.strip() or not listed.strip():
            raise SpecError(f"--only {cut(text)!r} names no axis with a value", remedy="write --only AXIS=VALUE,VALUE")
        items = _hydra_value(f"[{listed.strip()}]", f"--only {cut(text)!r}")
        key = current_key(key.strip(), "--only")
        values.setdefault(key, []).extend(_axis_value(key, item) for item in _items(items, text))
    return tuple(Override(key=key, value=tuple(items) if len(items) > 1 else items[0]) for key, items in values.items())


def _parse(argument: str) -> Override:
    key, equals, text = argument.partition("=")
    if not equals or not key.strip():
        raise SpecError(f"{COMMAND_LINE}: '{cut(argument)}' is no override", remedy="write key=value")
    if key[0] in "+~":
        raise SpecError(
            f"{COMMAND_LINE}: '{cut(argument)}' adds or deletes a key", remedy="write key=value with one value"
        )
    key = current_key(key.strip(), COMMAND_LINE)
    if key == ROOT_KEY:
        return Override(key=key, value=_unquoted(text))
    where = f"{COMMAND_LINE}: '{cut(argument)}'"
    try:
        return Override(key=checked_text(key), value=_value(key, text.strip(), where))
    except SpecError as error:
        problem = error.problem if error.problem.startswith(COMMAND_LINE) else f"{where}: {error.problem}"
        raise SpecError(problem, remedy=error.remedy) from error


def _value(key: str, text: str, where: str) -> Value:
    if _FUNCTION.match(text):
        raise SpecError(f"{where} calls a function", remedy=f"write {key}= and one value")
    if not text.startswith(_OPENING):
        if "," in text.replace("\\,", ""):
            remedy = f"write {key}=[{text}] for a list, or {key}='\"{text}\"' for text with commas"
            raise SpecError(f"{where} has several values", remedy=remedy)
        if "\\" not in text:  # Hydra reads escapes; a test checks that all else agrees
            return plain_value(text) if text else text
    value = _hydra_value(text, where)
    if isinstance(value, list):
        return as_value(tuple(_item(item) for item in value), key, COMMAND_LINE)
    return _scalar(value)


def _hydra_value(text: str, where: str) -> Any:  # noqa: ANN401 - as Hydra's grammar gives it
    """Return a value that begins with a quote or a bracket, as Hydra's grammar reads it."""
    levels = 0
    for letter in text:
        levels += (letter in "[{(") - (letter in "]})")
        if levels > _LEVELS_MAX:
            raise SpecError(f"{where} has brackets within brackets", remedy="write lists as [1,2,3]")
    checked_text(text)
    try:
        parsed = _parser().parse_override(f"x={text}")
    except HydraException as error:
        remedy = "write lists as [1,2,3], and text with commas or brackets in quotes: key='\"a, b\"'"
        raise SpecError(f"{where} cannot be read", remedy=remedy) from error
    except ValueError as error:  # Python raises it for thousands of digits
        raise SpecError(f"{where} has a number that is too large", remedy="use at most 9223372036854775807") from error
    if parsed.is_sweep_override() or isinstance(parsed._value, dict):  # noqa: SLF001 - as above
        raise SpecError(f"{where} is not one value", remedy="write a number, a name or a list")
    return parsed._value  # noqa: SLF001 - as above


def _items(value: Any, text: str) -> list[Any]:  # noqa: ANN401 - as Hydra's grammar gives it
    if not isinstance(value, list) or not value:
        raise SpecError(f"--only {cut(text)!r} cannot be read", remedy="write --only AXIS=VALUE,VALUE")
    return value


def _axis_value(axis: str, item: Any) -> Scalar:  # noqa: ANN401 - as Hydra's grammar gives it
    """Return a value of an axis; a list becomes its label in tables."""
    if isinstance(item, list):
        return label_of(axis, as_value(tuple(_item(one) for one in item), axis, "--only"))
    return _scalar(item)


def _item(value: Any) -> Any:  # noqa: ANN401 - an item of a list, which may be one itself
    return tuple(_item(item) for item in value) if isinstance(value, list) else _scalar(value)


def _scalar(value: Any) -> Scalar:  # noqa: ANN401 - as Hydra's grammar gives it
    """Return a scalar of Hydra's grammar: quoted text verbatim, plain text as ``plain_value`` reads it."""
    if isinstance(value, QuotedString):
        return checked_text(str(value.text))
    if isinstance(value, str):
        return plain_value(value) if value else value
    if value is None or isinstance(value, bool | int | float):
        return checked_scalar(value)
    raise SpecError(f"{cut(repr(value))} is no value", remedy="write a number, a name or a list")


def _unquoted(text: str) -> str:
    """Return a path verbatim, without quotes that a shell has left around all of it."""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text


@functools.cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


# Options of engines from ``conf/engine/NAME.yaml`` and ``engine.KEY=VALUE``, which are never part of a trial.


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
