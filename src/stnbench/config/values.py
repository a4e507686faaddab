"""Reader of scalars and YAML files, shared by sweeps, ``conf/`` and the command line."""

import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, assert_never, cast

import yaml

from stnbench.config.locate import shown
from stnbench.core.errors import INTEGER_MAX, FormerNameWarning, SpecError
from stnbench.spec.sweep import Scalar, Value

# Scalars of sweep files, ``conf/`` and the command line.
#
# A plain (unquoted) scalar is read as YAML 1.2's core schema and Hydra's grammar of overrides agree to read it:
# ``null``, ``true`` and ``false`` in any case, whole numbers, decimal numbers with or without an exponent (``1e-3`` is
# 0.001), underscores between digits (``20_000``); everything else is text, including ``on``, ``off``, ``yes`` and
# ``no``.
#
# Scalars that readers of YAML interpret differently are refused: leading zeros (``016`` is 14 in YAML 1.1), other
# bases (``0x10``), sexagesimal numbers (``1:30`` is 90 in YAML 1.1), and numbers that are not finite.


TEXT_MAX: Final = 10_000
"""Largest number of characters of a text."""

_WORDS: Final[dict[str, Scalar]] = {"null": None, "true": True, "false": False}

_NOT_TO_HYDRA: Final = frozenset({"on", "off", "yes", "no", "=", "<<"})
"""Scalars that are text here and something else in YAML 1.1, which reads ``conf/``."""

_DIGITS: Final = r"[0-9](?:_?[0-9])*"
_WHOLE: Final = r"(?:0|[1-9](?:_?[0-9])*)"
_INTEGER: Final = re.compile(rf"[-+]?{_WHOLE}")
_DECIMAL: Final = re.compile(rf"[-+]?(?:{_WHOLE}?\.{_DIGITS}|{_WHOLE}\.?)(?:[eE][-+]?{_DIGITS})?")
_DISPUTED: Final = (
    (re.compile(r"[-+]?[0-9][0-9_]*"), "write the number without leading zeros and stray underscores"),
    (re.compile(r"[-+]?[0-9_]*\.?[0-9_]+\.?(?:[eE][-+]?[0-9_]+)?"), "write the number without leading zeros"),
    (re.compile(r"[-+]?0[xXoObB][0-9a-fA-F_]+"), "write it as a decimal number"),
    (re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"), "write the number of seconds"),
    (re.compile(r"[-+]?\.?(?:inf|nan)", re.IGNORECASE), "write a finite number"),
)
"""Patterns of scalars that readers interpret as different numbers or as text, each with its replacement."""


def plain_value(text: str) -> Scalar:
    """Return the value of a plain scalar.

    Raises:
        SpecError: if readers of YAML interpret it differently, a number is too large or not finite, or a text cannot
            be stored.
    """
    if text in ("", "~") or text.lower() in _WORDS:
        return _WORDS.get(text.lower())
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _DECIMAL.fullmatch(text):
        return checked_scalar(float(text.replace("_", "")))
    for pattern, remedy in _DISPUTED:
        if pattern.fullmatch(text):
            problem = f"'{cut(text)}' is not the same to all readers"
            raise SpecError(problem, remedy=f"{remedy}, or put it in quotes where it is a name")
    return checked_text(text)


def require_plain_to_hydra(text: str) -> None:
    """Raise SpecError for a plain scalar that is text here and not to Hydra's reader, such as ``on``."""
    if text.lower() in _NOT_TO_HYDRA:
        raise SpecError(f"'{text}' is not the same to all readers", remedy="write true or false, or put it in quotes")


def checked_scalar(value: Scalar) -> Scalar:
    """Return a scalar after checking it.

    Raises:
        SpecError: if a number is not finite or its magnitude exceeds ``INTEGER_MAX``, or a text cannot be stored.
    """
    if isinstance(value, str):
        return checked_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"{value} is not a finite number", remedy="write a finite number")
    if isinstance(value, int) and not -INTEGER_MAX <= value <= INTEGER_MAX:
        raise SpecError(_too_large(str(value)), remedy=f"use at most {INTEGER_MAX}")
    return value


def checked_text(text: str) -> str:
    """Return a text after checking that it can be stored, shown and written to a file.

    Raises:
        SpecError: if it is longer than ``TEXT_MAX`` or contains a null byte or half of a surrogate pair.
    """
    if len(text) > TEXT_MAX:
        raise SpecError(f"a text has {len(text):,} characters ('{cut(text)}')", remedy=f"use at most {TEXT_MAX:,}")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise SpecError(f"the text {cut(text)!r} is not Unicode that can be stored", remedy="write it in UTF-8")
    return text


def as_value(value: object, key: str, where: str) -> Value:
    """Return the value of an override: a scalar, or a tuple of scalars for a list.

    Args:
        value: the value as it was read.
        key: its key, for messages.
        where: where it stands, for messages.

    Raises:
        SpecError: if it is anything else.
    """
    if isinstance(value, list | tuple):
        if any(isinstance(item, list | tuple) for item in value):
            raise SpecError(f"{where}: {key} is a list of lists", remedy="use a list of numbers or names")
        return cast("Value", tuple(as_value(item, key, where) for item in value))
    if value is None or isinstance(value, bool | int | float | str):
        try:
            return checked_scalar(value)
        except SpecError as error:
            raise SpecError(f"{where}: {key}: {error.problem}", remedy=error.remedy) from error
    raise SpecError(f"{where}: {key} is a {type(value).__name__}", remedy="use a number, a name or a list")


FORMER_KEYS: Final = {"twins": "baselines", "views": "tta"}
"""Keys of sweeps and of trials that have new names."""


def current_key(key: str, where: str) -> str:
    """Return a key by its present name, with a warning where it was written by a former one."""
    first = re.split("[.@]", key, maxsplit=1)[0]
    if first not in FORMER_KEYS:
        return key
    current = FORMER_KEYS[first] + key[len(first) :]
    warnings.warn(f"{where}: {key} is now {current}; write that", FormerNameWarning, stacklevel=2)
    return current


def with_current_keys(content: Any, where: str) -> Any:  # noqa: ANN401 - whatever a file holds
    """Return the content of a sweep file with the present names of its keys, at any depth."""
    if isinstance(content, dict):
        return {
            current_key(key, where) if isinstance(key, str) else key: with_current_keys(value, where)
            for key, value in content.items()
        }
    return [with_current_keys(item, where) for item in content] if isinstance(content, list) else content


def cut(text: str, limit: int = 40) -> str:
    """Return the first ``limit`` characters of a text, with dots where it was cut, for messages."""
    return text if len(text) <= limit else f"{text[:limit]}..."


def _integer(text: str) -> int:
    digits = text.lstrip("+-").replace("_", "")
    if len(digits) > len(str(INTEGER_MAX)):  # Python raises ValueError for thousands of digits
        raise SpecError(_too_large(text), remedy=f"use at most {INTEGER_MAX}")
    return cast("int", checked_scalar(int(text.replace("_", ""))))


def _too_large(text: str) -> str:
    return f"the number {cut(text, 24)} is too large"


# YAML files: the loader of sweeps and ``conf/``.
#
# PyYAML's parser gives the events of a file, and this module builds the values, so that nothing is built before its
# size is known: file size, depth, aliases and the number of values are bounded. Repeated keys and tags are refused, so
# that nothing in a file is executed. Keys are always text, as they are written. ``<<`` merges mappings as usual.


BYTES_MAX: Final = 2**18
"""Largest size of a file in bytes; the largest shipped file has 5 kB."""

DEPTH_MAX: Final = 20
VALUES_MAX: Final = 100_000
"""Largest number of values of a file, including those repeated by aliases."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Parser of events; libyaml's parser, if PyYAML was built with it, is ten times faster."""

_Begin = yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent
_BEGIN: Final = (yaml.ScalarEvent, yaml.SequenceStartEvent, yaml.MappingStartEvent)
"""Events that begin a value."""

_MERGE: Final = "<<"
_PLAIN_TAGS: Final = (None, "!")


def read_yaml(path: Path, *, for_hydra: bool = False) -> dict[str, Any]:
    """Read the mapping in a YAML file; empty for an empty file.

    Args:
        path: the file.
        for_hydra: whether Hydra reads the file as well; scalars that it interprets differently are then refused.

    Raises:
        SpecError: if the file cannot be read or is invalid; the message names the file and the line.
    """
    return parse_yaml(_text(path), where=shown(path), for_hydra=for_hydra)


def parse_yaml(text: str, *, where: str, for_hydra: bool = False) -> dict[str, Any]:
    """Read the mapping in YAML text as ``read_yaml`` does; messages call the file ``where``."""
    try:
        events = yaml.parse(text, Loader=_LOADER)
        content = _Builder(where, for_hydra, iter(events)).document()
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise SpecError(f"{where}{line}: not YAML ({problem})", remedy="correct that line") from error
    except yaml.reader.ReaderError as error:
        number = text.count("\n", 0, error.position) + 1
        problem = f"{where}, line {number}: not YAML (the character U+{error.character:04X} is not allowed)"
        raise SpecError(problem, remedy="remove it") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{where} is not YAML ({' '.join(str(error).split())})", remedy="correct it there") from error
    if content is not None and not isinstance(content, dict):
        raise SpecError(f"{where} holds a {type(content).__name__}", remedy="write keys and values")
    return content or {}


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
        if len(data) > BYTES_MAX:
            problem = f"{shown(path)} is larger than {BYTES_MAX // 1024} KiB"
            raise SpecError(problem, remedy="split it into several files")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(f"{shown(path)}, line {line}: not UTF-8", remedy="save the file in UTF-8") from error
    except OSError as error:
        raise SpecError(f"{shown(path)} cannot be read ({error.strerror})", remedy="check the file") from error


@dataclass(slots=True)
class _Node:
    """A value with the number of values in it and the line where it begins."""

    value: Any
    size: int
    line: int


@dataclass(slots=True)
class _Builder:
    """Builder of values from the events of one file."""

    where: str
    for_hydra: bool
    events: Iterator[yaml.Event]
    anchors: dict[str, _Node] = field(default_factory=dict)
    under_way: set[str] = field(default_factory=set)
    values: int = 0

    def document(self) -> Any:  # noqa: ANN401 - whatever a file holds
        """Return the value of the only document, or None for an empty file."""
        next(self.events)  # the start of the stream
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        if isinstance(event, yaml.DocumentStartEvent) and event.version not in (None, (1, 2)):
            self._refuse(event, "another version of YAML is asked for", "remove the line that begins with %YAML")
        content = self._node(next(self.events), 1)
        next(self.events)  # the end of the document
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            self._refuse(after, "a second document begins", "write one a file, without ---")
        return content.value

    def _node(self, event: yaml.Event, depth: int) -> _Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if not isinstance(event, _BEGIN):
            self._refuse(event, f"an unexpected {type(event).__name__}", "correct that line")
        if event.tag not in _PLAIN_TAGS:
            self._refuse(event, f"the tag {event.tag}", "write the value without it; text goes in quotes")
        if depth > DEPTH_MAX:
            self._refuse(event, f"more than {DEPTH_MAX} levels, one in another", "write it flatter")
        anchor, before = event.anchor, self.values
        if anchor:
            self.under_way.add(anchor)
        self._count(event, 1)
        value = self._value(event, depth)
        node = _Node(value=value, size=self.values - before, line=_line(event))
        if anchor:
            self.under_way.discard(anchor)
            self.anchors[anchor] = node
        return node

    def _value(self, event: _Begin, depth: int) -> Any:  # noqa: ANN401 - whatever a file holds
        match event:
            case yaml.ScalarEvent():
                return self._scalar(event)
            case yaml.SequenceStartEvent():
                return self._sequence(depth)
            case yaml.MappingStartEvent():
                return self._mapping(depth)
            case _:
                assert_never(event)

    def _scalar(self, event: yaml.ScalarEvent) -> Any:  # noqa: ANN401 - a scalar
        is_plain = not event.style and event.tag is None  # plain is "" in libyaml and None in PyYAML
        try:
            if is_plain and self.for_hydra:
                require_plain_to_hydra(event.value)
            return plain_value(event.value) if is_plain else checked_text(event.value)
        except SpecError as error:
            self._refuse(event, error.problem, error.remedy)

    def _sequence(self, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1).value)
        return items

    def _mapping(self, depth: int) -> dict[str, Any]:
        own: dict[str, _Node] = {}
        merged: list[dict[str, Any]] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._key(event)
            if key in own:
                self._refuse(event, f"the key {key} stands twice (first in line {own[key].line})", "keep one of them")
            node = self._node(next(self.events), depth + 1)
            if key == _MERGE and isinstance(event, yaml.ScalarEvent) and not event.style:
                if merged:
                    self._refuse(event, "the key << stands twice", "merge a list of aliases: <<: [*one, *other]")
                merged.extend(self._merged(node, event))
            else:
                own[key] = _Node(value=node.value, size=node.size, line=_line(event))
        inherited = {key: value for mapping in reversed(merged) for key, value in mapping.items()}
        return inherited | {key: node.value for key, node in own.items()}

    def _key(self, event: yaml.Event) -> str:
        if isinstance(event, yaml.AliasEvent) or not isinstance(event, yaml.ScalarEvent):
            self._refuse(event, "a key is no text", "write key: value; a value that begins with [ or { is not a key")
        if event.tag not in _PLAIN_TAGS:
            self._refuse(event, f"the tag {event.tag}", "write the key without it")
        try:
            if self.for_hydra and not event.style and event.value != _MERGE:
                require_plain_to_hydra(event.value)
            self._count(event, 1)
            return checked_text(event.value)
        except SpecError as error:
            self._refuse(event, error.problem, error.remedy)

    def _merged(self, node: _Node, event: yaml.Event) -> list[dict[str, Any]]:
        mappings = node.value if isinstance(node.value, list) else [node.value]
        if not all(isinstance(mapping, dict) for mapping in mappings):
            self._refuse(event, "<< merges what is no mapping", "merge an alias of a mapping: <<: *name")
        return mappings

    def _alias(self, event: yaml.AliasEvent) -> _Node:
        name = str(event.anchor)
        if name in self.under_way:
            self._refuse(event, f"*{name} stands in what it refers to", "write the value out")
        if name not in self.anchors:
            self._refuse(event, f"*{name} refers to nothing above", f"write &{name} before the value that is meant")
        node = self.anchors[name]
        self._count(event, node.size)
        return _Node(value=_copied(node.value), size=node.size, line=_line(event))

    def _count(self, event: yaml.Event, size: int) -> None:
        self.values += size
        if self.values > VALUES_MAX:
            self._refuse(event, f"more than {VALUES_MAX:,} values", "use a range, or fewer aliases of aliases")

    def _refuse(self, event: yaml.Event, problem: str, remedy: str) -> NoReturn:
        if problem.startswith(self.where):
            raise SpecError(problem, remedy=remedy)
        raise SpecError(f"{self.where}, line {_line(event)}: {problem}", remedy=remedy)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _copied(value: Any) -> Any:  # noqa: ANN401 - whatever a file holds
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
