"""Conversion of a composed configuration to a trial: applies widths, drops inactive parts and checks all values."""

import dataclasses
import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from stnbench.config.compose import Composer, Node
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.image_folder import Survey, remember, survey
from stnbench.spec.augment import AnyAugmentation, TtaSpec
from stnbench.spec.codec import from_plain, to_plain
from stnbench.spec.data import CLASSES as SIGNS_CLASSES
from stnbench.spec.data import (
    DATASETS,
    FRAMES_PER_TRACK,
    AnyDataset,
    DatasetSpec,
    DistortionSpec,
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

SIGNS_TRACKS_PER_CLASS_MIN = 5

DIGITS_COPIES_MIN = 8

DIGITS_TO_TRAIN_ON = 1100
"""Smallest number of digits left for training once tracks are held out."""

FOLDER_HELD_OUT = 5
"""By default, one in this number of tracks of a folder's rarest class is held out; an image is a track unless the
table says otherwise."""

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


@functools.cache
def surveyed(place: Path) -> Survey:
    """Survey a folder of images, once per process, since a sweep resolves thousands of trials."""
    found = survey(place)
    remember(found)
    return found


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
            raise SpecError(f"{where}: {key} is {section!r}", remedy="it holds keys of its own")
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
        split, tracks = self._section("split"), self._fill_folder()
        if tracks and split.get("kind") == "tracks" and split.get("tracks_per_class", 0) is None:
            split["tracks_per_class"] = max(1, tracks // FOLDER_HELD_OUT)
        if split.get("kind") == "tracks" and split.get("tracks_per_class", 0) is None:
            dataset = self._section("dataset")
            made = DATASETS.part(str(dataset.get("kind"))).spec
            held_out = getattr(made, "held_out_tracks", DatasetSpec.held_out_tracks)
            split["tracks_per_class"] = held_out(str(dataset.get("task", "")))

    def _fill_folder(self) -> int:
        """Replace the path of a folder of images by its contents.

        Returns:
            The number of tracks of its rarest class; 0 for other data sets.

        Raises:
            SpecError: if the path is no text.
            DataMissingError: if the folder does not exist or holds no images.
            DataCorruptError: if the folder cannot be used.
        """
        dataset = self._section("dataset")
        if dataset.get("kind") != "folder" or "path" not in dataset:
            return 0
        path = dataset.pop("path")
        if not isinstance(path, str) or not path:
            where = self.composer.file_of("dataset", self.choices)
            raise SpecError(f"{where}: dataset.path is {path!r}", remedy="name a folder, a tar or a zip of images")
        found = surveyed(Path(path).expanduser().resolve())
        dataset["name"] = found.place.name.partition(".")[0]
        dataset["digest"] = found.digest
        dataset["class_names"] = list(found.class_names)
        dataset["train_images"] = len(found.half(is_test=False))
        return found.tracks

    def _fill_dataset(self, split: SplitSpec, training: TrainingSpec) -> None:
        """Set the size and framing of synthetic data sets if they are not given: as many images as the trial needs."""
        dataset = self._section("dataset")
        if dataset.get("kind") == "signs" and dataset.get("framing", "") is None:
            is_distorted = self._section("distortion").get("kind") != "none"
            dataset["framing"] = "tight" if is_distorted else self.node["synthetic_framing"]
        held_out = getattr(split, "tracks_per_class", 1)
        wanted = training.train_images or self._integer("synthetic_train_images")
        match dataset:
            case {"kind": "signs", "tracks_per_class": None}:
                tracks = math.ceil(wanted / (SIGNS_CLASSES * FRAMES_PER_TRACK))
                dataset["tracks_per_class"] = max(SIGNS_TRACKS_PER_CLASS_MIN, tracks + held_out, 2 * held_out)
            case {"kind": "digits", "copies": None}:
                dataset["copies"] = max(DIGITS_COPIES_MIN, math.ceil(wanted / DIGITS_TO_TRAIN_ON))
            case _:  # the number is given, or the set is not synthetic
                pass

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
