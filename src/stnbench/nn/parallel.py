"""All spatial transformers at one place: side by side, their outputs joined by channel."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from stnbench.core.errors import InfeasibleError
from stnbench.nn.initialization import part_generator
from stnbench.nn.maps import MapSize
from stnbench.nn.spatial_transformer import Look, SpatialTransformer, Transformed, build_spatial_transformer
from stnbench.spec.transformer import PlacedTransformerSpec


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlaceOutput:
    """What stands behind a place: the maps (batch, out_channels, out_height, out_width), and each branch's doing."""

    maps: Tensor
    branches: tuple[Transformed, ...]


class ParallelTransformers(nn.Module):
    """The branches of one place (Jaderberg et al. 2015, MNIST addition), then average pooling where it is asked for.

    Args:
        spec: the place, and what stands there.
        input_size: of the maps that are transformed.
        looked_at: of the maps that the localisation networks see.
    Raises: InfeasibleError where these maps are too small.
    """

    def __init__(self, spec: PlacedTransformerSpec, input_size: MapSize, looked_at: MapSize) -> None:
        super().__init__()
        transformer = spec.transformer
        self.place = spec.place
        self.pooling = transformer.output_pooling
        self.branches = nn.ModuleList(build_spatial_transformer(spec, looked_at) for _ in range(transformer.branches))
        height, width = self.transformers()[0].output_size((input_size.height, input_size.width))
        written = replace(input_size, height=height, width=width)
        self.output_size = replace(
            written,
            channels=input_size.channels * transformer.branches,
            height=height // self.pooling,
            width=width // self.pooling,
        )
        if self.output_size.is_empty:
            problem = f"at place {spec.place}, output_pooling {self.pooling} leaves nothing of a {written} map"
            raise InfeasibleError(problem, remedy="pool less")

    def forward(
        self,
        maps: Float[Tensor, "batch channels height width"],
        boxes: Float[Tensor, "batch 4"] | None = None,
        look: Look | None = None,
    ) -> PlaceOutput:
        """The maps of all branches. Arguments and errors as of ``SpatialTransformer.explain``."""
        branches = tuple(transformer.explain(maps, boxes, look) for transformer in self.transformers())
        joined = branches[0].images if len(branches) == 1 else torch.cat([done.images for done in branches], dim=1)
        pooled = joined if self.pooling == 1 else functional.avg_pool2d(joined, self.pooling)
        return PlaceOutput(maps=pooled, branches=branches)

    def transformers(self) -> list[SpatialTransformer]:
        """The branches, in order."""
        return [branch for branch in self.branches if isinstance(branch, SpatialTransformer)]

    def initialize(self, seed: int) -> None:
        """Draw the weights; no two branches share their random numbers."""
        for number, transformer in enumerate(self.transformers(), start=1):
            part = f"localization{self.place}" if number == 1 else f"localization{self.place}.{number}"
            transformer.initialize(part_generator(seed, part))
