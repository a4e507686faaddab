"""Classifiers with spatial transformers before their convolution stages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stnbench.core.errors import InfeasibleError
from stnbench.models.designs import NetworkDesign
from stnbench.models.stages import Stage, build_head, build_stage
from stnbench.nn.initialization import clear_weights, draw_weights, part_generator
from stnbench.nn.localization import Localization
from stnbench.nn.maps import MapSize
from stnbench.nn.parallel import ParallelTransformers
from stnbench.nn.spatial_transformer import Look, Transformed
from stnbench.spec.transformer import LocnetSpec, PlacedTransformerSpec


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TransformerRecord:
    """What one spatial transformer did to a batch: the stage it stands before and its branch there, both from 1."""

    place: int
    branch: int
    done: Transformed


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explained:
    """What a network says of images, and how it came to it.

    Attributes:
        logits: (batch, classes).
        transformers: what each spatial transformer did on the way, by ascending place and branch.
    """

    logits: Tensor
    transformers: tuple[TransformerRecord, ...]

    @property
    def penalty(self) -> Tensor | None:
        """The sum of the transformers' penalties, to be added to the loss; None where there is none."""
        penalties = [record.done.penalty for record in self.transformers if record.done.penalty is not None]
        return torch.stack(penalties).sum() if penalties else None


class StnClassifier(nn.Module):
    """Stages with spatial transformers before some of them, then hidden layers and logits.

    Args:
        design: the stages and what follows.
        transformers: by ascending place, at most one specification a place.
        input_size: of the images.
        classes: how many logits.
    Raises: InfeasibleError where nothing is left of a map, or a localisation network shares a stage that is not there.
    """

    def __init__(
        self,
        design: NetworkDesign,
        transformers: Sequence[PlacedTransformerSpec],
        input_size: MapSize,
        *,
        classes: int,
    ) -> None:
        super().__init__()
        placed = {spec.place: spec for spec in transformers}
        self.transformers = nn.ModuleDict()
        self.stages = nn.ModuleList()
        self._shared = {place: shared_stages(spec.locnet) for place, spec in placed.items()}
        sizes = [input_size]
        for place, stage_design in enumerate(design.stages, start=1):
            size = sizes[-1]
            if place in placed:
                looked_at = size_looked_at(design, placed[place], size)
                self.transformers[str(place)] = ParallelTransformers(placed[place], size, looked_at)
                size = self._transformers(place).output_size
            self.stages.append(build_stage(stage_design, size))
            sizes.append(self._stage(place).output_size)
        self.head = build_head(design, sizes[-1], classes=classes)

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        boxes: Float[Tensor, "batch 4"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """The logits of preprocessed images. Arguments as of ``explain``."""
        return self.explain(images, boxes).logits

    def explain(
        self,
        images: Float[Tensor, "batch channels height width"],
        boxes: Float[Tensor, "batch 4"] | None = None,
    ) -> Explained:
        """The logits with what every spatial transformer did, in one pass.

        Args:
            images: preprocessed.
            boxes: x1, y1, x2, y2 of the sign, normalised, -1 and 1 at the image's outer edges; the control ``roi``
                reads them, and nothing else does.
        """
        maps, records = images, []
        for place in range(1, len(self.stages) + 1):
            if str(place) in self.transformers:
                done = self._transformers(place)(maps, boxes, self._look(place))
                maps = done.maps
                for branch, transformed in enumerate(done.branches, start=1):
                    records.append(TransformerRecord(place=place, branch=branch, done=transformed))
            maps = self._stage(place)(maps)
        logits: Tensor = self.head(maps)
        return Explained(logits=logits, transformers=tuple(records))

    def localization_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of all localisation networks alone, which may learn at a rate of their own."""
        return self.transformers.parameters()

    def classifier_parameters(self) -> Iterator[nn.Parameter]:
        """All other parameters, those of shared stages too."""
        for part in (self.stages, self.head):
            yield from part.parameters()

    def output_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the last layers: of the logits, and of what localisation networks emit."""
        yield from self.head.logits.parameters()
        for localization in (module for module in self.transformers.modules() if isinstance(module, Localization)):
            yield from localization.parameters_layer.parameters()

    def initialize(self, seed: int) -> None:
        """Draw all weights; spatial transformers that learn are the identity then."""
        for place in range(1, len(self.stages) + 1):
            draw_weights(self._stage(place), part_generator(seed, f"stage{place}"))
            if str(place) in self.transformers:
                self._transformers(place).initialize(seed)
        draw_weights(self.head.hidden, part_generator(seed, "hidden"))
        draw_weights(self.head.logits, part_generator(seed, "logits"))

    def clear(self) -> None:
        """Set all weights to zero, for a checkpoint to be loaded."""
        clear_weights(self)

    def _look(self, place: int) -> Look | None:
        """What the localisation network of a place sees; None for the maps as they come.

        The stages work as in the classifier itself: batch normalisation of a shared stage takes its running statistics
        from the maps before the transformer and from those behind it alike.
        """
        count = self._shared[place]
        if count == 0:
            return None
        stages = [self._stage(place + step) for step in range(count)]

        def look(maps: Tensor) -> Tensor:
            for stage in stages:
                maps = stage(maps)
            return maps

        return look

    def _transformers(self, place: int) -> ParallelTransformers:
        return cast("ParallelTransformers", self.transformers[str(place)])

    def _stage(self, place: int) -> Stage:
        return cast("Stage", self.stages[place - 1])


def shared_stages(locnet: LocnetSpec | None) -> int:
    """How many of the classifier's stages a localisation network looks through."""
    return 0 if locnet is None else locnet.shared_stages


def size_looked_at(design: NetworkDesign, spec: PlacedTransformerSpec, size: MapSize) -> MapSize:
    """The size of what a localisation network sees of maps of a size.

    Raises: InfeasibleError where it would share a stage that is not there, or made for other maps.
    """
    count = shared_stages(spec.locnet)
    other = spec.transformer
    if count and (other.branches > 1 or other.output_pooling > 1 or other.output_size is not None):
        problem = f"at place {spec.place}, a shared localisation network has branches, output_pooling or output_size"
        raise InfeasibleError(problem, remedy="the stages it shares fit the maps as they come: leave all three alone")
    shared = design.stages[spec.place - 1 : spec.place - 1 + count]
    if len(shared) < count:
        problem = f"at place {spec.place}, the localisation network shares {count} stages, and {len(shared)} follow"
        raise InfeasibleError(problem, remedy=f"share at most {len(shared)}")
    with torch.device("meta"):
        for stage_design in shared:
            size = build_stage(stage_design, size).output_size
    return size
