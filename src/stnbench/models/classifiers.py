"""Classifiers with spatial transformers before their convolution stages, built from their designs."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, assert_never, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stnbench.core.errors import InfeasibleError
from stnbench.data.augmentation import build_augmentation
from stnbench.models import designs
from stnbench.models.designs import LayerDesign, NetworkDesign, StageDesign, design_network
from stnbench.nn.initialization import (
    MapSize,
    OwnModule,
    batch_norm,
    clear_weights,
    conv,
    draw_weights,
    linear,
    own_module,
    part_generator,
)
from stnbench.nn.layers import CONTRASTIVE_KERNELS, ChannelDropout, ContrastiveNorm, Dense
from stnbench.nn.localization import Localization
from stnbench.nn.spatial_transformer import Look, ParallelTransformers, Transformed
from stnbench.spec.network import NETWORKS
from stnbench.spec.parts import require_same_parts
from stnbench.spec.transformer import LocnetSpec, PlacedTransformerSpec
from stnbench.spec.trial import TrialSpec

# Parts of a classifier, built from its design: stages, and the head behind them.


_REMEDY: Final = "use larger images or a network of fewer stages"


class Stage(nn.Module):
    """Layers before which a spatial transformer may stand, and a pooled copy of their input if the design keeps it.

    Args:
        design: the layers.
        input_size: the size of the input maps.

    Attributes:
        layers: the layers in the order of the design.
        output_size: the size of the stage's output.

    Raises:
        InfeasibleError: where nothing is left of the map.
    """

    def __init__(self, design: StageDesign, input_size: MapSize) -> None:
        super().__init__()
        self.layers, size = _build_layers(design.layers, input_size)
        self.shortcut = nn.MaxPool2d(2) if design.keeps_input else None
        kept = input_size.channels if design.keeps_input else 0
        self.output_size = MapSize(size.channels + kept, size.height, size.width)

    def forward(
        self, maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """Return the maps of the stage, followed by its pooled input as further channels if the design keeps it."""
        features: Tensor = self.layers(maps)
        return features if self.shortcut is None else torch.cat([features, self.shortcut(maps)], dim=1)


class Head(nn.Module):
    """Hidden layers and logits, from the maps of the last stage.

    Args:
        design: the design of the whole network.
        input_size: the size of the last stage's output.
        classes: the number of logits.

    Attributes:
        hidden: the layers before the logits; it may be empty.
        logits: the last, linear layer, whose input is the flattened output of ``hidden``.
    """

    def __init__(self, design: NetworkDesign, input_size: MapSize, *, classes: int) -> None:
        super().__init__()
        self.hidden, size = _build_layers(design.hidden, input_size)
        self.logits = linear(size.numbers, classes)

    def forward(self, maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        logits: Tensor = self.logits(self.hidden(maps).flatten(1))
        return logits


def build_stage(design: StageDesign, input_size: MapSize) -> Stage:
    """Return the stage of a design, with weights that are not yet drawn.

    Raises:
        InfeasibleError: where nothing is left of the map.
    """
    return Stage(design, input_size)


def build_head(design: NetworkDesign, input_size: MapSize, *, classes: int) -> Head:
    """Return the layers behind the stages of a design, with weights that are not yet drawn.

    Args:
        design: the design of the whole network.
        input_size: the size of the last stage's output.
        classes: the number of logits.

    Raises:
        InfeasibleError: where nothing is left of the map.
    """
    return Head(design, input_size, classes=classes)


def _build_layers(layers: Sequence[LayerDesign], size: MapSize) -> tuple[nn.Sequential, MapSize]:
    """Return the layers one after another, and the size of their output.

    Raises:
        InfeasibleError: where nothing is left of the map.
    """
    built = nn.Sequential()
    for layer in layers:
        module, output_size = _build_layer(layer, size)
        if output_size.is_empty:
            what = f"a convolution of side {layer.kernel}" if isinstance(layer, designs.Conv) else "pooling"
            raise InfeasibleError(f"{what} leaves nothing of a {size} map", remedy=_REMEDY)
        built.append(module)
        size = output_size
    return built, size


def _build_layer(layer: LayerDesign, size: MapSize) -> tuple[nn.Module, MapSize]:  # noqa: C901, PLR0911 - one case a layer
    match layer:
        case designs.OwnLayers():
            return _own_layers(layer, size)
        case designs.Conv():
            module = conv(size.channels, layer.channels, kernel=layer.kernel, padding=layer.padding, bias=layer.bias)
            return module, size.convolved(layer.channels, kernel=layer.kernel, padding=layer.padding)
        case designs.Dense():
            return Dense(size.numbers, layer.units), MapSize(layer.units, 1, 1)
        case designs.MaxPool():
            return nn.MaxPool2d(2), size.pooled()
        case designs.GlobalAverage():
            return nn.AdaptiveAvgPool2d(1), MapSize(size.channels, 1, 1)
        case designs.Activation():
            return nn.LeakyReLU() if layer.function == "leaky_relu" else nn.ReLU(), size
        case designs.BatchNorm():
            return batch_norm(size.channels), size
        case designs.Contrastive():
            kernel = CONTRASTIVE_KERNELS[layer.kernel]
            return ContrastiveNorm(kernel, height=size.height, width=size.width), size
        case designs.ChannelDropout():
            return ChannelDropout(layer.share), size
        case _:
            assert_never(layer)


def _own_layers(layer: designs.OwnLayers, size: MapSize) -> tuple[OwnModule, MapSize]:
    """Return the module that a network makes for a stage, and the size of its output.

    The size is found by a run on the meta device.

    Raises:
        InfeasibleError: where it cannot be made for the maps, or returns neither maps nor features.
    """
    network = NETWORKS.implementation(layer.network.kind)(layer.network)

    def make(initial: bool) -> nn.Module:  # noqa: FBT001 - as MakeModule
        build = getattr(network, "initial_stage", network.stage) if initial else network.stage
        built: nn.Module = build(layer.stage, size.channels, size.height, size.width)
        return built

    return own_module(make, size, f"stage {layer.stage} of the network {layer.network.kind}")


# Classifiers with spatial transformers before their convolution stages.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TransformerRecord:
    """Output of one spatial transformer for a batch.

    Attributes:
        place: the stage it stands before, from 1.
        branch: its branch at this place, from 1.
        done: its output.
    """

    place: int
    branch: int
    done: Transformed


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explained:
    """Logits of a network for a batch of images, with the transformations behind them.

    Attributes:
        logits: (batch, classes).
        transformers: the output of each spatial transformer, by ascending place and branch.
    """

    logits: Tensor
    transformers: tuple[TransformerRecord, ...]

    @property
    def penalty(self) -> Tensor | None:
        """Return the sum of the transformers' penalties, to be added to the loss, or None where there is none."""
        penalties = [record.done.penalty for record in self.transformers if record.done.penalty is not None]
        return torch.stack(penalties).sum() if penalties else None


class StnClassifier(nn.Module):
    """Stages with spatial transformers before some of them, then hidden layers and logits.

    Args:
        design: the stages and the layers behind them.
        transformers: the specifications of the transformers, by ascending place, at most one for each place.
        input_size: the size of the images.
        classes: the number of logits.

    Raises:
        InfeasibleError: where nothing is left of a map, or a localisation network shares a stage that does not exist.

    Shape:
        - Input: (batch, channels, height, width), preprocessed.
        - Output: (batch, classes).
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
                locnet_input = locnet_input_size(design, placed[place], size)
                self.transformers[str(place)] = ParallelTransformers(placed[place], size, locnet_input)
                size = self._transformers(place).output_size
            self.stages.append(build_stage(stage_design, size))
            sizes.append(self._stage(place).output_size)
        self.head = build_head(design, sizes[-1], classes=classes)

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        boxes: Float[Tensor, "batch 4"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of preprocessed images; arguments are those of ``explain``."""
        return self.explain(images, boxes).logits

    def explain(
        self,
        images: Float[Tensor, "batch channels height width"],
        boxes: Float[Tensor, "batch 4"] | None = None,
    ) -> Explained:
        """Return the logits with the output of every spatial transformer, in one pass.

        Args:
            images: the preprocessed images.
            boxes: x1, y1, x2, y2 of the sign in every image, normalised, -1 and 1 at the image's outer edges; used by
                the control ``roi`` alone.

        Raises:
            ShapeError: where ``roi`` has no boxes.
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
        """Return the parameters of all localisation networks, which may have a different learning rate."""
        return self.transformers.parameters()

    def classifier_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all other parameters, including those of shared stages."""
        for part in (self.stages, self.head):
            yield from part.parameters()

    def output_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the last layers: of the logits, and of the outputs of localisation networks."""
        yield from self.head.logits.parameters()
        for localization in (module for module in self.transformers.modules() if isinstance(module, Localization)):
            yield from localization.parameters_layer.parameters()

    def initialize(self, seed: int) -> None:
        """Draw all weights from a seed; spatial transformers that learn are the identity then."""
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
        """Return the function from a place's maps to its localisation network's input, or None for the maps themselves.

        The stages work as in the classifier itself: batch normalisation of a shared stage takes its running statistics
        from both the maps before the transformer and those behind it.
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
    """Return the number of the classifier's stages that a localisation network shares."""
    return 0 if locnet is None else locnet.shared_stages


def locnet_input_size(design: NetworkDesign, spec: PlacedTransformerSpec, size: MapSize) -> MapSize:
    """Return the size of the maps that a localisation network sees, for maps of a size at its place.

    Raises:
        InfeasibleError: where it would share a stage that does not exist, or one that is made for other maps.
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


# Networks of trials, built from their specifications.


def build_network(spec: TrialSpec, *, classes: int, seed: int | None) -> StnClassifier:
    """Return the network of a trial, on the default device.

    Args:
        spec: the trial, with its network, transformers and image size.
        classes: the number of logits.
        seed: the seed of the weights; with None they are zero, for a checkpoint to be loaded or a cost to be measured.

    Raises:
        InfeasibleError: where the images are too small for the network or for a localisation network, or have no
            colours that could be augmented.
        SpecError: where a third-party part is absent, or differs from that which the trial was planned with.
    """
    with feasible(spec):
        network = StnClassifier(design_network(spec.network), spec.transformers, input_map(spec), classes=classes)
    if seed is None:
        network.clear()
    else:
        network.initialize(seed)
    return network


@contextlib.contextmanager
def feasible(spec: TrialSpec) -> Iterator[None]:
    """Name the network in errors that are raised while a trial's network, or parts of it, are built in this context.

    Raises:
        InfeasibleError: where a part cannot be built, or the images cannot be augmented; the message names the network.
        SpecError: where a third-party part is absent, or differs from that which the trial was planned with.
    """
    require_same_parts(spec.parts)
    size = input_map(spec)
    if spec.augment is not None:
        build_augmentation(spec.augment).require_channels(size.channels)
    try:
        yield
    except InfeasibleError as error:
        problem = f"the network {spec.network.kind} on {size} images is not possible: {error.problem}"
        raise InfeasibleError(problem, remedy=error.remedy) from error


def input_map(spec: TrialSpec) -> MapSize:
    """Return the size of the images that a trial's network sees."""
    return MapSize(spec.dataset.channels, spec.dataset.image_size, spec.dataset.image_size)
