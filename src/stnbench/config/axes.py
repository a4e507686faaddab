"""The axes of a sweep file: YAML to Axis.

::

    axes:
      transformer: [affine, scale]                                   # values of one key
      optimizer.learning_rate: {float: [0.001, 0.1], log: true}      # a range; for a grid add step: or values: 5
      training.epochs: {int: [2, 10], step: 2}                       # whole numbers, both ends included
      st:                                                            # named choices, of several keys each
        one: {locnet@locnet1: conv}
        two: {locnet@locnet1: conv, locnet@locnet2: conv}
      size:                                                          # keys that change together
        zip:
          network.sizes: [[10, 20, 30], [20, 40, 60]]
          locnet1.sizes: [[5, 5, 5], [10, 10, 10]]
      transformer@transformer2: {values: [affine, scale], when: {st: two}}   # there at some points only

``when`` goes with every kind: ``{float: [...], when: ...}``, ``{zip: {...}, when: ...}``, and with named choices as
``{choices: {...}, when: ...}``. It names axes that stand above, each with the label or the list of labels with which
the axis is there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stnbench.config.values import as_value
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.spec.codec import from_plain
from stnbench.spec.space import FloatSpan, IntSpan, Span
from stnbench.spec.sweep import Axis, Choice, Override, label_of

_SPANS: dict[str, type[IntSpan] | type[FloatSpan]] = {"int": IntSpan, "float": FloatSpan}
_KINDS = (*_SPANS, "zip", "choices", "values")
_OPTIONS = {
    "int": ("log", "step", "values"),
    "float": ("log", "step", "values"),
    "zip": (),
    "choices": (),
    "values": (),
}
_WAYS = "a list of values, named choices, {float: [low, high]}, {int: [low, high]} or {zip: {...}}"


@dataclass(frozen=True, slots=True)
class AxisReader:
    """Reads axes; ``where`` names their file in messages."""

    where: str

    def grid(self, value: object) -> tuple[Axis, ...]:
        """The axes of one grid, in the order of the file.

        Raises: SpecError or UnknownNameError naming the file, the axis and the remedy.
        """
        axes: list[Axis] = []
        for name, item in self.mapping(value, "axes").items():
            axes.append(self._axis(name, item, axes))
        return tuple(axes)

    def mapping(self, value: object, key: str) -> dict[str, Any]:
        """Keys and values; none where nothing is said."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise SpecError(f"{self.where}: {key} is a {type(value).__name__}", remedy="write keys and values")
        return {str(name): item for name, item in value.items()}

    def overrides(self, value: object, key: str) -> tuple[Override, ...]:
        """Keys of the configuration with their values."""
        items = self.mapping(value, key).items()
        return tuple(Override(key=name, value=as_value(item, f"{key}.{name}", self.where)) for name, item in items)

    def _axis(self, name: str, value: object, above: list[Axis]) -> Axis:
        if isinstance(value, list):
            return Axis(name=name, choices=tuple(self._listed(name, value)))
        if not isinstance(value, dict):
            raise SpecError(f"{self.where}: axes.{name} is {value!r}", remedy=f"write {_WAYS}")
        said = self.mapping(value, f"axes.{name}")
        kind = next((kind for kind in _KINDS if kind in said), None)
        if kind is None:
            return Axis(name=name, choices=tuple(self._named(name, said)))
        for key in said:
            if key not in (kind, "when", *_OPTIONS[kind]):
                raise UnknownNameError(f"key of axes.{name}", key, (kind, "when", *_OPTIONS[kind]), where=self.where)
        when = self._when(name, said.pop("when", None), above)
        if kind in _SPANS:
            return Axis(name=name, span=self._span(name, kind, said), when=when)
        return Axis(name=name, choices=tuple(self._choices(name, kind, said[kind])), when=when)

    def _choices(self, name: str, kind: str, value: object) -> Iterator[Choice]:
        if kind == "values":
            if not isinstance(value, list):
                raise SpecError(f"{self.where}: axes.{name}.values is {value!r}", remedy="write a list of values")
            return self._listed(name, value)
        items = self.mapping(value, f"axes.{name}.{kind}")
        return self._named(name, items) if kind == "choices" else self._zipped(name, items)

    def _listed(self, name: str, items: list[object]) -> Iterator[Choice]:
        """Values of the key that the axis is called after."""
        for item in items:
            value = as_value(item, f"axes.{name}", self.where)
            yield Choice(label=label_of(name, value), overrides=(Override(key=name, value=value),))

    def _named(self, name: str, items: Mapping[str, object]) -> Iterator[Choice]:
        """Labels, and the keys that change together with each."""
        for label, item in items.items():
            yield Choice(label=label, overrides=self.overrides(item, f"axes.{name}.{label}"))

    def _zipped(self, name: str, items: Mapping[str, object]) -> Iterator[Choice]:
        """The first values of all keys, then their second ones, and so on."""
        where = f"{self.where}: axes.{name}.zip"
        columns: list[list[Override]] = []
        for key, values in items.items():
            if not isinstance(values, list):
                raise SpecError(f"{where}.{key} is {values!r}", remedy="write a list of values")
            columns.append([Override(key=key, value=as_value(value, f"{name}.{key}", self.where)) for value in values])
        lengths = [len(column) for column in columns]
        if len(columns) < 2 or len(set(lengths)) > 1:
            raise SpecError(f"{where} has lists of {lengths} values", remedy="write two keys or more, as many for each")
        for row in zip(*columns, strict=True):
            yield Choice(label=" / ".join(label_of(item.key, item.value) for item in row), overrides=row)

    def _span(self, name: str, kind: str, said: dict[str, Any]) -> Span:
        ends = said.pop(kind)
        if not isinstance(ends, list) or len(ends) != 2:
            raise SpecError(f"{self.where}: axes.{name}.{kind} is {ends!r}", remedy=f"write {kind}: [low, high]")
        plain = {**said, "kind": kind, "low": ends[0], "high": ends[1]}
        return from_plain(_SPANS[kind], plain, where=self.where, prefix=f"axes.{name}")

    def _when(self, name: str, value: object, above: list[Axis]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The conditions of an axis; a misspelt one would leave it out without a word."""
        known = {axis.name: [choice.label for choice in axis.choices] for axis in above if axis.choices}
        conditions: list[tuple[str, tuple[str, ...]]] = []
        for other, wanted in self.mapping(value, f"axes.{name}.when").items():
            if other not in known:
                raise UnknownNameError(f"axis above in axes.{name}.when", other, known, where=self.where)
            labels = tuple(self._label(name, other, item, known[other]) for item in _alternatives(wanted, known[other]))
            conditions.append((other, labels))
        return tuple(conditions)

    def _label(self, name: str, other: str, item: object, known: list[str]) -> str:
        label = label_of(other, as_value(item, f"axes.{name}.when.{other}", self.where))
        if label not in known:
            raise UnknownNameError(f"value of the axis {other} in axes.{name}.when", label, known, where=self.where)
        return label


def _alternatives(wanted: object, known: list[str]) -> list[object]:
    """One value or a list of them; a list may itself be the value of an axis of lists."""
    if not isinstance(wanted, list):
        return [wanted]
    is_value = ",".join(str(item) for item in wanted) in known
    return [wanted] if is_value else wanted
