"""Conversion of a composed configuration to a trial: applies widths, drops inactive parts and checks all values."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException

from stnbench.config.compose import Composer, Node
from stnbench.config.locate import ROOT_KEY, shown
from stnbench.config.values import as_value, checked_scalar, checked_text, current_key, cut, plain_value, read_yaml
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.identity import Json
from stnbench.spec.codec import Where, from_plain, to_plain
from stnbench.spec.data import (
    DATASETS,
    AnyDataset,
    DataNeeds,
    DatasetSpec,
    DistortionSpec,
    Framing,
    PreprocessSpec,
    SplitSpec,
)
from stnbench.spec.network import AnyNetwork, NetworkSpec
from stnbench.spec.optimizer import AnyAugmentation, AnyOptimizer, AnySchedule, TtaSpec
from stnbench.spec.slurm import SlurmOptions
from stnbench.spec.sweep import Override, Scalar, Value, label_of, show_value
from stnbench.spec.transformer import (
    CONTROL,
    TRANSFORMERS,
    AnyLocnet,
    AnyTransformer,
    PlacedTransformerSpec,
    TransformerSpec,
)
from stnbench.spec.trial import TrainingSpec, TrialSpec

PLACES = (1, 2, 3, 4)
"""Places at which ``conf/trial.yaml`` offers transformers."""

HELD_OUT = 5
"""By default, one in this number of tracks of the rarest class is held out, where it is known; in a folder, an image is
a track unless the table says otherwise."""

_PARTS = (
    "dataset",
    "distortion",
    "split",
    "preprocess",
    "augment",
    "network",
    "optimizer",
    "schedule",
    "training",
    "tta",
    "synthetic_train_images",
    "synthetic_framing",
    "seed",
    "width",
    "transformer",
)

T = TypeVar("T")

COMMAND_LINE: Final = "the command line"
"""Name of the source of overrides, for messages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A trial, with notes on the values that were left out because they have no effect."""

    spec: TrialSpec
    notes: tuple[str, ...]


def resolve_trial(composer: Composer, overrides: Iterable[Override], *, said_in: str = COMMAND_LINE) -> Resolved:
    """Return the trial that the overrides describe.

    Args:
        composer: composer of the configuration groups.
        overrides: overrides in ascending precedence.
        said_in: where the overrides stand, for messages; empty if the caller adds it.

    Raises:
        UnknownNameError: if a key or choice does not exist; the message suggests the most similar names.
        SpecError: if a value is invalid; the message names the key and the file.
        InfeasibleError: if no network can be built from the values together.
    """
    overrides = tuple(overrides)
    return _Resolver(composer, overrides, said_in).resolve()


class _Resolver:
    def __init__(self, composer: Composer, overrides: tuple[Override, ...], said_in: str) -> None:
        self.composer = composer
        self.said_in = said_in
        self.choices = {override.key: override for override in overrides}
        self.node = composer.compose(overrides)
        self.notes: list[str] = []

    def resolve(self) -> Resolved:
        self._check_keys()
        self._fill_split()
        split: SplitSpec = self._decode(SplitSpec, "split")
        training = self._decode(TrainingSpec, "training")
        self._fill_dataset(split, training)
        width = self._width()
        self._widen("network", width)
        network: NetworkSpec = self._decode(AnyNetwork, "network")
        dataset: DatasetSpec = self._decode(AnyDataset, "dataset")
        spec = TrialSpec(
            dataset=dataclasses.replace(dataset, distortion=self._decode_optional(DistortionSpec, "distortion")),
            split=split,
            preprocess=self._decode(PreprocessSpec, "preprocess"),
            augment=self._decode_optional(AnyAugmentation, "augment"),
            network=network,
            transformers=self._transformers(network, width),
            optimizer=self._decode(AnyOptimizer, "optimizer"),
            schedule=self._decode(AnySchedule, "schedule"),
            training=training,
            tta=self._decode_optional(TtaSpec, "tta"),
            seed=self._integer("seed"),
        )
        self._note_idle_keys(spec)
        return Resolved(spec=spec, notes=tuple(self.notes))

    def _note_idle_keys(self, spec: TrialSpec) -> None:
        """Add a note for each given value that has no effect and is therefore not part of the trial."""
        for key in ("preprocess", "optimizer", "training"):
            settled = to_plain(getattr(spec, key))
            said = [name for name in settled if f"{key}.{name}" in self.choices]
            self._note_idle(key, {name: self._section(key)[name] for name in said}, settled, "in this trial")
        for placed in spec.transformers:
            key, settled = self._transformer_key(placed.place), to_plain(placed.transformer)
            family = placed.transformer.family
            clamped = ("zoom",) if family == "fixed_zoom" else ()  # clamped by its guard, not reset
            section = {name: value for name, value in self._section(key).items() if name not in clamped}
            self._note_idle(key, section, settled, f"on {family}")

    def _note_idle(self, key: str, said: Node, settled: Node, where: str) -> None:
        idle = [f"{key}.{name} has no effect {where}" for name, value in said.items() if settled[name] != value]
        self.notes.extend(note for note in idle if note not in self.notes)

    def _check_keys(self) -> None:
        placed = [f"{part}{place}" for part in ("locnet", "transformer") for place in PLACES]
        for key in self.node:
            if key not in (*_PARTS, *placed):
                raise UnknownNameError("key", key, [*_PARTS, *placed], where=self.composer.file_of(key, self.choices))

    def _decode(self, kind: Any, key: str) -> Any:  # noqa: ANN401 - a dataclass or a union of them
        def where(path: str) -> str:
            return self.said_in if path in self.choices else self.composer.file_of(key, self.choices)

        return from_plain(kind, self.node[key], where=where, prefix=key)

    def _decode_optional(self, kind: Any, key: str) -> Any:  # noqa: ANN401 - a dataclass
        """Decode a group, or return None for its choice ``none``."""
        return None if self._section(key).get("kind") == "none" else self._decode(kind, key)

    def _section(self, key: str) -> Node:
        section = self.node[key]
        if not isinstance(section, dict):
            where = self.composer.file_of(key, self.choices)
            raise SpecError(f"{where}: {key} is {section!r}", remedy="it holds a mapping of keys")
        return section

    def _integer(self, key: str) -> int:
        value = self.node[key]
        if not isinstance(value, int) or isinstance(value, bool):
            raise SpecError(f"{key} is {value!r}", remedy="use a whole number")
        return value

    def _width(self) -> float:
        width = self.node["width"]
        if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width <= 16:
            raise SpecError(f"width is {width!r}", remedy="use a number above 0, at most 16")
        return float(width)

    def _widen(self, key: str, width: float) -> None:
        """Multiply the sizes below a key by the width; invalid sizes are left for the decoder to refuse."""
        section = self._section(key)
        sizes = section.get("sizes")
        if isinstance(sizes, list) and all(isinstance(size, int) and size > 0 for size in sizes):
            section["sizes"] = [max(1, math.floor(cast("int", size) * width + 0.5)) for size in sizes]

    def _fill_split(self) -> None:
        """Set the number of held-out tracks per class by the data set if it is not given."""
        split, dataset = self._section("split"), self._section("dataset")
        tracks = self._locate()
        if split.get("kind") == "tracks" and split.get("tracks_per_class", 0) is None:
            usual = self._dataset_spec().held_out_tracks(str(dataset.get("task", "")))
            split["tracks_per_class"] = max(1, tracks // HELD_OUT) if tracks else usual

    def _locate(self) -> int:
        """Replace the place of images by their contents; see ``DatasetSpec.locate``."""
        try:
            return self._dataset_spec().locate(self._section("dataset"))
        except SpecError as error:
            where = self.composer.file_of("dataset", self.choices)
            raise type(error)(f"{where}: dataset.{error.problem}", remedy=error.remedy) from error

    def _dataset_spec(self) -> type[DatasetSpec]:
        """Return the class of the data set's specification; the base class for one that is not registered."""
        name = str(self._section("dataset").get("kind"))
        return DatasetSpec if DATASETS.is_absent(name) else cast("type[DatasetSpec]", DATASETS.part(name).spec)

    def _fill_dataset(self, split: SplitSpec, training: TrainingSpec) -> None:
        """Set the numbers that the configuration of the data set leaves open."""
        is_distorted = self._section("distortion").get("kind") != "none"
        needs = DataNeeds(
            train_images=training.train_images or self._integer("synthetic_train_images"),
            held_out=getattr(split, "tracks_per_class", 1),
            framing="tight" if is_distorted else cast("Framing", self.node["synthetic_framing"]),
        )
        self._dataset_spec().fill(self._section("dataset"), needs)

    def _transformers(self, network: NetworkSpec, width: float) -> tuple[PlacedTransformerSpec, ...]:
        everywhere = self._section("transformer")
        if everywhere.get("family") == "same":
            raise SpecError("transformer is 'same'", remedy="`same` is for one place: choose a family for all of them")
        placed = []
        for place in PLACES:
            key = f"locnet{place}"
            if self._section(key).get("kind") == "none":
                continue
            if place > network.stages:
                self.notes.append(f"{key} has no effect: {network.kind} has {network.stages} stages")
                continue
            self._widen(key, width)
            locnet = self._decode(AnyLocnet, key)
            transformer = self._transformer(self._transformer_key(place))
            if transformer.is_control:
                self.notes.append(f"{key} has no effect: the control {transformer.family} learns nothing")
                locnet = None
            placed.append(PlacedTransformerSpec(place=place, transformer=transformer, locnet=locnet))
        return tuple(placed)

    def _transformer_key(self, place: int) -> str:
        """Return the section of the transformer at a place."""
        key = f"transformer{place}"
        return "transformer" if self._section(key).get("family") == "same" else key

    def _transformer(self, key: str) -> TransformerSpec:
        """Decode a transformer, without repetitions of a control, which does the same each time."""
        section, family = self._section(key), self._section(key).get("family")
        for name in ("iterations", "branches") if TRANSFORMERS.has_trait(str(family), CONTROL) else ():
            usual = getattr(TransformerSpec(), name)
            if section.get(name, usual) != usual:
                self.notes.append(f"{key}.{name} has no effect on {family}")
            section[name] = usual
        spec: TransformerSpec = self._decode(AnyTransformer, key)
        return spec


# Parser of ``key=value`` arguments of the command line.
#
# Hydra's grammar reads values: ``3``, ``1e-3``, ``true``, ``null``, names, ``[1,2,3]``, and text in quotes. Plain text
# that this grammar does not accept (umlauts, ``~``, ``#``, parentheses, a second ``=``) is text here as well. Scalars
# are read as in a file (:mod:`stnbench.config.values`), so that a value means the same in both. The value of a key
# that is a path is taken verbatim.


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
        if value and all(isinstance(item, list) for item in value):
            remedy = f"to narrow an axis to these lists, write --only '{key}={text[1:-1].strip()}'"
            raise SpecError(f"{where} is a list of lists", remedy=remedy)
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
        if key.removeprefix(PREFIX).partition(".")[0] in ours:
            return COMMAND_LINE
        # A value of the file that contradicts one of the command line is wrong only beside it.
        return f"{COMMAND_LINE} and {shown(path)}" if ours and _are_valid(said) else shown(path)

    return _slurm_options({**said, **ours}, place), tuple(others)


def _slurm_options(plain: Mapping[str, Json], where: Where) -> SlurmOptions:
    declared = {key: _as_declared(key, value) for key, value in plain.items()}
    return from_plain(SlurmOptions, declared, where=where, prefix=PREFIX.rstrip("."))


def _are_valid(plain: Mapping[str, Json]) -> bool:
    try:
        _slurm_options(plain, "")
    except SpecError:
        return False
    return True


def _as_declared(key: str, value: Json) -> Json:
    """Convert a number to text where text is declared (``memory: 16000``), and a single text to a list of one."""
    declared = {field.name: field.type for field in dataclasses.fields(SlurmOptions)}.get(key)
    if declared is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if declared is not None and "tuple" in str(declared) and isinstance(value, str):
        return [value]
    return value
