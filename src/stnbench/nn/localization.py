"""Localisation networks: from images to the parameters of a transformation."""

import itertools
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from stnbench.core.errors import InfeasibleError, ShapeError
from stnbench.nn.initialization import MapSize, clear_weights, conv, draw_weights, linear, own_module
from stnbench.nn.layers import full_precision
from stnbench.spec.transformer import LOCNETS, ConvLocnetSpec, DenseLocnetSpec, LocnetSpec, SharedLocnetSpec

KERNEL, _PADDING = 5, 2


class Localization(nn.Module):
    """Localisation network: features, hidden layers with ReLU, and a last linear layer that emits the parameters.

    The weights of the last layer start at zero and its bias at the parameters of the identity (Jaderberg et al. 2015,
    A.3).

    Args:
        features: a module from the input maps to maps of any size.
        sizes: the sizes of the linear layers, from the flattened features to the last hidden layer; at least one.
        identity: the parameters emitted at the start.
        locnet_input: the size of the input maps.

    Shape:
        - Input: (batch * copies, channels, height, width).
        - Output: (batch, parameters), with parameters = copies * len(identity).
    """

    def __init__(
        self, features: nn.Module, sizes: tuple[int, ...], *, identity: tuple[float, ...], locnet_input: MapSize
    ) -> None:
        super().__init__()
        self._identity = identity
        self.copies = 1
        """Number of copies of each image in the input, one after the other; their outputs are joined in this order."""
        self._locnet_input = locnet_input
        self.features = features
        self.hidden = nn.Sequential()
        for inputs, outputs in itertools.pairwise(sizes):
            self.hidden.extend([linear(inputs, outputs), nn.ReLU()])
        self.parameters_layer = linear(sizes[-1], len(identity))
        self._emit_identity()

    def forward(self, maps: Float[Tensor, "rows channels height width"]) -> Float[Tensor, "batch parameters"]:
        """Return the transformation parameters of every image.

        The last layer keeps the precision of its weights under autocast.

        Raises:
            ShapeError: if the size of the maps is not the one that the network was built for.
        """
        expected = self._locnet_input
        if tuple(maps.shape[1:]) != (expected.channels, expected.height, expected.width):
            raise ShapeError(
                "the input of a localisation network",
                maps.shape,
                f"(batch, {expected.channels}, {expected.height}, {expected.width})",
            )
        hidden = self.hidden(self.features(maps).flatten(1))
        with full_precision(maps.device.type):
            parameters: Tensor = self.parameters_layer(hidden.to(self.parameters_layer.weight.dtype))
        if self.copies == 1:
            return parameters
        return parameters.reshape(maps.shape[0] // self.copies, self.copies * len(self._identity))

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights, and reset the last layer so that it emits the identity."""
        draw_weights(self.features, generator)
        draw_weights(self.hidden, generator)
        clear_weights(self.parameters_layer)
        self._emit_identity()

    def _emit_identity(self) -> None:
        with torch.no_grad():
            self.parameters_layer.bias.copy_(torch.tensor(self._identity))


def build_localization(spec: LocnetSpec, locnet_input: MapSize, *, identity: tuple[float, ...]) -> Localization:
    """Return the localisation network of a specification, which emits the identity; its weights are zero until drawn.

    Args:
        spec: the specification of the network.
        locnet_input: the size of its input maps: the transformer's input, or the output of the shared stages.
        identity: the parameters emitted at the start.

    Raises:
        UnknownNameError: for a network that is not registered.
        InfeasibleError: where the maps are too small for it.
    """
    made = LOCNETS.implementation(spec.kind)(spec)
    if isinstance(made, LocalizationLayers):
        features, sizes = made.layers(locnet_input)
        return Localization(features, sizes, identity=identity, locnet_input=locnet_input)

    def make(initial: bool) -> nn.Module:  # noqa: FBT001 - as MakeModule
        del initial
        built: nn.Module = made.features(locnet_input.channels, locnet_input.height, locnet_input.width)
        return built

    own, seen = own_module(make, locnet_input, f"the localisation network {spec.kind}")
    return Localization(own, (seen.numbers,), identity=identity, locnet_input=locnet_input)


class LocalizationLayers(ABC):
    """Layers of a built-in localisation network before the last one, built from its specification."""

    @abstractmethod
    def layers(self, locnet_input: MapSize) -> tuple[nn.Module, tuple[int, ...]]:
        """Return the features module, and the sizes of the linear layers: the flattened features, then hidden layers.

        Raises:
            InfeasibleError: where the maps are too small.
        """


class ConvLayers(LocalizationLayers):
    """Layers of the localisation networks a-b-c of 2015: two convolutions with a and b channels, c hidden units."""

    def __init__(self, spec: ConvLocnetSpec) -> None:
        self._spec = spec

    @override
    def layers(self, locnet_input: MapSize) -> tuple[nn.Module, tuple[int, ...]]:
        numbers = last_map(self._spec, locnet_input).numbers
        return _conv_features(self._spec, locnet_input.channels), (numbers, self._spec.sizes[-1])


class DenseLayers(LocalizationLayers):
    """Hidden layers on the maps themselves, which may come from stages of the classifier."""

    def __init__(self, spec: DenseLocnetSpec | SharedLocnetSpec) -> None:
        self._spec = spec

    @override
    def layers(self, locnet_input: MapSize) -> tuple[nn.Module, tuple[int, ...]]:
        return nn.Identity(), (locnet_input.numbers, *self._spec.sizes)


def _conv_features(spec: ConvLocnetSpec, channels: int) -> nn.Sequential:
    """Return the convolutions of a network a-b-c of 2015 (Moodstocks/gtsrb.torch).

    Pooling stands before ReLU, which gives the same numbers with a quarter of the work.
    """
    first, second, _ = spec.sizes
    return nn.Sequential(
        nn.MaxPool2d(2),
        conv(channels, first, kernel=KERNEL, padding=_PADDING),
        nn.MaxPool2d(2),
        nn.ReLU(),
        conv(first, second, kernel=KERNEL, padding=_PADDING),
        nn.MaxPool2d(2),
        nn.ReLU(),
    )


def last_map(spec: ConvLocnetSpec, locnet_input: MapSize) -> MapSize:
    """Return the size of the map before the linear layers of a convolutional localisation network.

    Raises:
        InfeasibleError: where nothing is left of the map.
    """
    maps = [locnet_input, locnet_input.pooled()]
    for channels in spec.sizes[:2]:
        maps.append(maps[-1].convolved(channels, kernel=KERNEL, padding=_PADDING).pooled())
        if maps[-1].is_empty:
            steps = " -> ".join(f"{size.height} x {size.width}" for size in maps)
            name = "-".join(map(str, spec.sizes))
            problem = f"the localisation network {name} pools its {locnet_input} input to nothing ({steps})"
            raise InfeasibleError(problem, remedy="give it maps of at least 8 x 8: an earlier place or larger images")
    return maps[-1]
