"""The parts of a classifier, built from its design: stages, and the head behind them."""

from collections.abc import Sequence
from typing import Final, assert_never

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stnbench.core.errors import InfeasibleError
from stnbench.models import designs
from stnbench.models.designs import LayerDesign, NetworkDesign, StageDesign
from stnbench.nn.initialization import OwnModule, batch_norm, conv, linear, own_module
from stnbench.nn.layers import CONTRASTIVE_KERNELS, ChannelDropout, ContrastiveNorm, Dense
from stnbench.nn.maps import MapSize
from stnbench.spec.network import NETWORKS

_REMEDY: Final = "use larger images or a network of fewer stages"


class Stage(nn.Module):
    """Layers before which a spatial transformer may stand, and a pooled copy of their input if the design keeps it.

    Attributes:
        layers: in the order of the design.
        output_size: the size of the stage's output.

    Raises: InfeasibleError where nothing is left of the map.
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
        """The stage's maps, and its pooled input behind them where the design keeps it."""
        features: Tensor = self.layers(maps)
        return features if self.shortcut is None else torch.cat([features, self.shortcut(maps)], dim=1)


class Head(nn.Module):
    """From the last stage's maps to the logits.

    Attributes:
        hidden: the layers before the logits; it may be empty.
        logits: the last, linear layer, which sees every number that ``hidden`` puts out.
    """

    def __init__(self, design: NetworkDesign, input_size: MapSize, *, classes: int) -> None:
        super().__init__()
        self.hidden, size = _build_layers(design.hidden, input_size)
        self.logits = linear(size.numbers, classes)

    def forward(self, maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """The logits."""
        logits: Tensor = self.logits(self.hidden(maps).flatten(1))
        return logits


def build_stage(design: StageDesign, input_size: MapSize) -> Stage:
    """The stage of a design, its weights not yet drawn.

    Raises: InfeasibleError where nothing is left of the map.
    """
    return Stage(design, input_size)


def build_head(design: NetworkDesign, input_size: MapSize, *, classes: int) -> Head:
    """What stands behind the stages of a design, its weights not yet drawn.

    Args:
        design: of the whole network.
        input_size: the size of the last stage's output.
        classes: how many logits.
    """
    return Head(design, input_size, classes=classes)


def _build_layers(layers: Sequence[LayerDesign], size: MapSize) -> tuple[nn.Sequential, MapSize]:
    """The layers one after another, and the size of what they put out.

    Raises: InfeasibleError where nothing is left of the map.
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
    """The module that a network makes for a stage, and the size of its output, found by running it without memory.

    Raises: InfeasibleError where it cannot be made for the maps, or gives neither maps nor features.
    """
    network = NETWORKS.implementation(layer.network.kind)(layer.network)

    def make(initial: bool) -> nn.Module:  # noqa: FBT001 - as MakeModule
        build = getattr(network, "initial_stage", network.stage) if initial else network.stage
        built: nn.Module = build(layer.stage, size.channels, size.height, size.width)
        return built

    return own_module(make, size, f"stage {layer.stage} of the network {layer.network.kind}")
