"""Conversion of a composed configuration to a trial: applies widths, drops inactive parts and checks all values."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from stnbench.config.compose import Composer, Node
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.spec.augment import AnyAugmentation, TtaSpec
from stnbench.spec.codec import from_plain, to_plain
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
from stnbench.spec.optimizer import AnyOptimizer, AnySchedule
from stnbench.spec.sweep import Override
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
