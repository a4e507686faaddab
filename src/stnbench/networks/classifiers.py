"""Classifiers with spatial transformers before their convolution stages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stnbench.core.errors import InfeasibleError
from stnbench.networks.designs import NetworkDesign, StageDesign
from stnbench.networks.layers import BOX_SIZE, ContrastiveNorm, box_kernel
from stnbench.spec.transformer import PlacedTransformerSpec
from stnbench.stn.initialization import clear_weights, conv, draw_weights, linear, part_generator
from stnbench.stn.maps import MapSize
from stnbench.stn.module import SpatialTransformer, build_spatial_transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerRecord:
    """What one spatial transformer did to a batch; nothing here carries a gradient.

    Attributes:
        place: the stage that it stands before, from 1.
        parameters: (batch, parameters), as the localisation network emitted them.
        theta_out_to_in: (batch, 2, 3), float32.
        outside_share: (batch), the share of sampling points outside the image.
    """

    place: int
    parameters: Tensor
    theta_out_to_in: Tensor
    outside_share: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """Logits (batch, classes), and what each spatial transformer did on the way, by ascending place."""

    logits: Tensor
    transformers: tuple[TransformerRecord, ...]


class ConvStage(nn.Module):
    """Convolution, max-pool 2, ReLU and, if the design asks for it, contrastive norm with a 9x9 box.

    The code of 2015 pools after ReLU: the same numbers and gradients, with four times the work.
    Raises: InfeasibleError where nothing is left of the map.
    """

    def __init__(self, design: StageDesign, input_size: MapSize) -> None:
        super().__init__()
        size = input_size.convolved(design.channels, kernel=design.kernel, padding=design.padding).pooled()
        if size.is_empty:
            problem = f"a convolution of side {design.kernel} and pooling leave nothing of a {input_size} map"
            raise InfeasibleError(problem, remedy="use larger images or fewer stages")
        self.layers = nn.Sequential(
            conv(input_size.channels, design.channels, kernel=design.kernel, padding=design.padding),
            nn.MaxPool2d(2),
            nn.ReLU(),
        )
        if design.contrastive_norm:
            self.layers.append(ContrastiveNorm(box_kernel(BOX_SIZE), height=size.height, width=size.width))
        self.shortcut = nn.MaxPool2d(2) if design.keeps_input else None
        kept = input_size.channels if design.keeps_input else 0
        self.output_size = MapSize(size.channels + kept, size.height, size.width)

    def forward(
        self, maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """The stage's maps, and its pooled input behind them where the design keeps it."""
        features: Tensor = self.layers(maps)
        return features if self.shortcut is None else torch.cat([features, self.shortcut(maps)], dim=1)


class StnClassifier(nn.Module):
    """Convolution stages with spatial transformers before some of them, a hidden layer with ReLU, and the logits.

    The weights of every part depend on the seed and the part's name alone, so a network and its twin without
    transformers start with the same classifier.

    Args:
        design: the stages and the hidden layer.
        transformers: where spatial transformers stand, and which.
        input_size: the size of the images.
        classes: how many logits.
    Raises: InfeasibleError where a map shrinks to nothing.
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
        self.transformers = nn.ModuleDict()
        self.stages = nn.ModuleList()
        placed = {spec.place: spec for spec in transformers}
        size = input_size
        for place, stage_design in enumerate(design.stages, start=1):
            if place in placed:
                self.transformers[str(place)] = build_spatial_transformer(placed[place], size)
            stage = ConvStage(stage_design, size)
            self.stages.append(stage)
            size = stage.output_size
        self.hidden = nn.Sequential(linear(size.numbers, design.hidden), nn.ReLU())
        self.logits = linear(design.hidden, classes)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """The logits of preprocessed images."""
        maps = images
        for place, stage in enumerate(self.stages, start=1):
            transformer = self.transformer(place)
            maps = stage(maps if transformer is None else transformer(maps))
        return self._classify(maps)

    def explain(self, images: Float[Tensor, "batch channels height width"]) -> Explained:
        """The logits with what every spatial transformer did, in one pass."""
        maps, records = images, []
        for place, stage in enumerate(self.stages, start=1):
            transformer = self.transformer(place)
            if transformer is not None:
                done = transformer.explain(maps)
                maps = done.images
                record = TransformerRecord(
                    place=place,
                    parameters=done.parameters.detach(),
                    theta_out_to_in=done.theta_out_to_in,
                    outside_share=done.outside_share,
                )
                records.append(record)
            maps = stage(maps)
        return Explained(logits=self._classify(maps), transformers=tuple(records))

    def transformer(self, place: int) -> SpatialTransformer | None:
        """The spatial transformer before a stage, None where there is none."""
        for key, module in self.transformers.items():
            if key == str(place) and isinstance(module, SpatialTransformer):
                return module
        return None

    def localization_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of all localisation networks, which may learn at a rate of their own."""
        return self.transformers.parameters()

    def classifier_parameters(self) -> Iterator[nn.Parameter]:
        """All other parameters."""
        for part in (self.stages, self.hidden, self.logits):
            yield from part.parameters()

    def initialize(self, seed: int) -> None:
        """Draw all weights; spatial transformers are the identity then."""
        for place, stage in enumerate(self.stages, start=1):
            draw_weights(stage, part_generator(seed, f"stage{place}"))
            transformer = self.transformer(place)
            if transformer is not None:
                transformer.initialize(part_generator(seed, f"localization{place}"))
        draw_weights(self.hidden, part_generator(seed, "hidden"))
        draw_weights(self.logits, part_generator(seed, "logits"))

    def clear(self) -> None:
        """Set all weights to zero, for a checkpoint to be loaded."""
        clear_weights(self)

    def _classify(self, maps: Tensor) -> Tensor:
        logits: Tensor = self.logits(self.hidden(maps.flatten(1)))
        return logits
