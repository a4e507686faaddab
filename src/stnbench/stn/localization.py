"""Localisation networks: from images to the parameters of a transformation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stnbench.core.errors import InfeasibleError
from stnbench.spec.transformer import LocnetSpec
from stnbench.stn.initialization import clear_weights, conv, draw_weights, linear
from stnbench.stn.maps import MapSize
from stnbench.stn.precision import full_precision

_KERNEL, _PADDING = 5, 2


class ConvLocalization(nn.Module):
    """The localisation network ``a-b-c`` of 2015 (Moodstocks/gtsrb.torch).

    Max-pool 2; conv 5x5 (padding 2) to a, ReLU, max-pool 2; conv 5x5 to b, ReLU, max-pool 2; linear to c, ReLU; linear
    to the parameters, whose weights start at zero and whose bias is the identity (Jaderberg et al. 2015, A.3). Pooling
    stands before ReLU here, which gives the same numbers with a quarter of the work.

    Raises: InfeasibleError where nothing is left of the map after the three poolings.
    """

    def __init__(self, sizes: tuple[int, int, int], input_size: MapSize, *, identity: tuple[float, ...]) -> None:
        super().__init__()
        first, second, hidden = sizes
        self._identity = identity
        last_map = _last_map(sizes, input_size)
        self.features = nn.Sequential(
            nn.MaxPool2d(2),
            conv(input_size.channels, first, kernel=_KERNEL, padding=_PADDING),
            nn.MaxPool2d(2),
            nn.ReLU(),
            conv(first, second, kernel=_KERNEL, padding=_PADDING),
            nn.MaxPool2d(2),
            nn.ReLU(),
        )
        self.hidden = nn.Sequential(linear(last_map.numbers, hidden), nn.ReLU())
        self.parameters_layer = linear(hidden, len(identity))

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch parameters"]:
        """The parameters of every image; the last layer keeps the precision of its weights under autocast."""
        hidden = self.hidden(self.features(images).flatten(1))
        with full_precision(images.device.type):
            parameters: Tensor = self.parameters_layer(hidden.to(self.parameters_layer.weight.dtype))
        return parameters

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights, and let the last layer emit the identity."""
        draw_weights(self.features, generator)
        draw_weights(self.hidden, generator)
        clear_weights(self.parameters_layer)
        with torch.no_grad():
            self.parameters_layer.bias.copy_(torch.tensor(self._identity))


def build_localization(spec: LocnetSpec, input_size: MapSize, *, identity: tuple[float, ...]) -> ConvLocalization:
    """The localisation network of a specification, its weights not yet drawn.

    Args:
        spec: which network.
        input_size: the size of the maps it looks at.
        identity: the parameters it emits at the start.
    Raises: InfeasibleError where the maps are too small for it.
    """
    return ConvLocalization(spec.sizes, input_size, identity=identity)


def _last_map(sizes: tuple[int, int, int], input_size: MapSize) -> MapSize:
    """The map before the linear layers.

    Raises: InfeasibleError where nothing is left of it.
    """
    maps = [input_size, input_size.pooled()]
    for channels in sizes[:2]:
        maps.append(maps[-1].convolved(channels, kernel=_KERNEL, padding=_PADDING).pooled())
        if maps[-1].is_empty:
            steps = " -> ".join(f"{size.height} x {size.width}" for size in maps)
            name = "-".join(map(str, sizes))
            problem = f"the localisation network {name} pools its {input_size} input to nothing ({steps})"
            raise InfeasibleError(problem, remedy="give it maps of at least 8 x 8: an earlier place or larger images")
    return maps[-1]
