"""From a composed configuration to a trial: widths multiplied, inactive branches dropped, everything checked."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from stnbench.config.compose import Composer, Node
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.spec.codec import from_plain
from stnbench.spec.data import CLASSES, FRAMES_PER_TRACK, DatasetSpec, PreprocessSpec, SplitSpec
from stnbench.spec.network import NetworkSpec
from stnbench.spec.sweep import Override
from stnbench.spec.transformer import LocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import ScheduleSpec, SgdSpec, TrainingSpec, TrialSpec

PLACES = (1, 2, 3)
"""Where conf/trial.yaml offers transformers."""

SIGNS_TRACKS_PER_CLASS_MIN = 5

_PARTS = (
    "dataset",
    "split",
    "preprocess",
    "network",
    "optimizer",
    "schedule",
    "training",
    "seed",
    "width",
    "transformer",
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A trial, and what was left out of it because it has no effect."""

    spec: TrialSpec
    notes: tuple[str, ...]


def resolve_trial(composer: Composer, overrides: Iterable[Override]) -> Resolved:
    """The trial that the overrides describe.

    Raises: UnknownNameError or SpecError naming the key, the file and the nearest valid names; InfeasibleError.
    """
    overrides = tuple(overrides)
    return _Resolver(composer, overrides).resolve()


class _Resolver:
    def __init__(self, composer: Composer, overrides: tuple[Override, ...]) -> None:
        self.composer = composer
        self.choices = {override.key: override for override in overrides}
        self.node = composer.compose(overrides)
        self.notes: list[str] = []

    def resolve(self) -> Resolved:
        self._check_keys()
        split: SplitSpec = self._decode(SplitSpec, "split")
        training = self._decode(TrainingSpec, "training")
        self._fill_signs(split, training)
        width = self._width()
        self._widen("network", width)
        network: NetworkSpec = self._decode(NetworkSpec, "network")
        spec = TrialSpec(
            dataset=self._decode(DatasetSpec, "dataset"),
            split=split,
            preprocess=self._decode(PreprocessSpec, "preprocess"),
            network=network,
            transformers=self._transformers(network, width),
            optimizer=self._decode(SgdSpec, "optimizer"),
            schedule=self._decode(ScheduleSpec, "schedule"),
            training=training,
            seed=self._integer("seed"),
        )
        return Resolved(spec=spec, notes=tuple(self.notes))

    def _check_keys(self) -> None:
        placed = [f"{part}{place}" for part in ("locnet", "transformer") for place in PLACES]
        for key in self.node:
            if key not in (*_PARTS, *placed):
                raise UnknownNameError("key", key, [*_PARTS, *placed], where=self.composer.file_of(key, self.choices))

    def _decode(self, kind: Any, key: str) -> Any:  # noqa: ANN401 - a dataclass or a union of them
        where = self.composer.file_of(key, self.choices)
        return from_plain(kind, self.node[key], where=where, prefix=key)

    def _section(self, key: str) -> Node:
        section = self.node[key]
        if not isinstance(section, dict):
            where = self.composer.file_of(key, self.choices)
            raise SpecError(f"{where}: {key} is {section!r}", remedy="it holds keys of its own")
        return section

    def _integer(self, key: str) -> int:
        value = self.node[key]
        if not isinstance(value, int) or isinstance(value, bool):
            raise SpecError(f"the key {key} is {value!r}", remedy="use a whole number")
        return value

    def _width(self) -> float:
        width = self.node["width"]
        if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width <= 16:
            raise SpecError(f"the key width is {width!r}", remedy="use a number above 0, at most 16")
        return float(width)

    def _widen(self, key: str, width: float) -> None:
        """Multiply the sizes below a key; a size that is not a number is left for the decoder to refuse."""
        section = self._section(key)
        sizes = section.get("sizes")
        if isinstance(sizes, list) and all(isinstance(size, int) and size > 0 for size in sizes):
            section["sizes"] = [max(1, math.floor(cast("int", size) * width + 0.5)) for size in sizes]

    def _fill_signs(self, split: SplitSpec, training: TrainingSpec) -> None:
        """``signs`` draws as many tracks as the trial needs where nobody said how many."""
        dataset = self._section("dataset")
        if dataset.get("kind") != "signs" or dataset.get("tracks_per_class", 0) is not None:
            return
        held_out = getattr(split, "tracks_per_class", 1)
        wanted = math.ceil((training.train_images or 0) / (CLASSES * FRAMES_PER_TRACK))
        dataset["tracks_per_class"] = max(SIGNS_TRACKS_PER_CLASS_MIN, wanted + held_out, 2 * held_out)

    def _transformers(self, network: NetworkSpec, width: float) -> tuple[PlacedTransformerSpec, ...]:
        if self._section("transformer").get("family") == "same":
            raise SpecError("transformer is 'same'", remedy="`same` is for one place: choose a family for all of them")
        everywhere = self._decode(TransformerSpec, "transformer")
        placed = []
        for place in PLACES:
            key = f"locnet{place}"
            if self._section(key).get("kind") == "none":
                continue
            if place > network.stages:
                self.notes.append(f"{key} has no effect: {network.kind} has {network.stages} stages")
                continue
            self._widen(key, width)
            own = self._section(f"transformer{place}")
            same = own.get("family") == "same"
            transformer = everywhere if same else self._decode(TransformerSpec, f"transformer{place}")
            locnet = self._decode(LocnetSpec, key)
            placed.append(PlacedTransformerSpec(place=place, transformer=transformer, locnet=locnet))
        return tuple(placed)
