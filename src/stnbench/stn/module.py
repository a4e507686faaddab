"""The spatial transformer: a localisation network, a transformation and a sampler in one module."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stnbench.core.errors import InfeasibleError, ShapeError
from stnbench.spec.transformer import PlacedTransformerSpec, TransformerSpec
from stnbench.stn.base import Transformation
from stnbench.stn.localization import ConvLocalization, build_localization
from stnbench.stn.maps import MapSize
from stnbench.stn.sampler import outside_share, sample
from stnbench.stn.transforms import build_transformation


@dataclass(frozen=True, kw_only=True, slots=True)
class Transformed:
    """Images after a spatial transformer, and what it did to them.

    Attributes:
        images: (batch, channels, height, width).
        parameters: (batch, parameters), as the localisation network emitted them.
        theta_out_to_in: (batch, 2, 3), float32, detached.
        outside_share: (batch), the share of sampling points outside the image, detached.
    """

    images: Tensor
    parameters: Tensor
    theta_out_to_in: Tensor
    outside_share: Tensor


class SpatialTransformer(nn.Module):
    """Looks at images, decides on a transformation of each, and reads them accordingly (Jaderberg et al. 2015).

    The output is as large as the input.
    """

    def __init__(self, spec: TransformerSpec, transformation: Transformation, localization: ConvLocalization) -> None:
        super().__init__()
        self.spec = spec
        self.transformation = transformation
        self.localization = localization

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The transformed images."""
        return self.transform(images, self.locate(images))

    def locate(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch parameters"]:
        """The parameters that the localisation network chooses for every image."""
        parameters: Tensor = self.localization(images)
        return parameters

    def transform(
        self,
        images: Float[Tensor, "batch channels height width"],
        parameters: Float[Tensor, "rows parameters"],
    ) -> Float[Tensor, "batch channels height width"]:
        """The images under given parameters.

        Raises: ShapeError where the number of parameters is not the family's, or not one row an image.
        """
        return self._read(images, self._grid(images, parameters))

    def explain(self, images: Float[Tensor, "batch channels height width"]) -> Transformed:
        """The transformed images with what was done to them, in one pass."""
        parameters = self.locate(images)
        grid = self._grid(images, parameters)
        return Transformed(
            images=self._read(images, grid),
            parameters=parameters,
            theta_out_to_in=self.transformation.theta_out_to_in(parameters.detach()),
            outside_share=outside_share(grid),
        )

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights; the transformer is the identity then."""
        self.localization.initialize(generator)

    def _grid(self, images: Tensor, parameters: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if len(parameters) != len(images):
            expected = f"({len(images)}, {self.transformation.number_of_parameters}), one row an image"
            raise ShapeError("the parameters of the spatial transformer", parameters.shape, expected)
        return self.transformation.grid(parameters, (height, width), align_corners=self.spec.align_corners)

    def _read(self, images: Tensor, grid: Tensor) -> Tensor:
        spec = self.spec
        return sample(images, grid, sampler=spec.sampler, padding=spec.padding, align_corners=spec.align_corners)


def build_spatial_transformer(spec: PlacedTransformerSpec, input_size: MapSize) -> SpatialTransformer:
    """The spatial transformer of a specification for maps of a size, its weights not yet drawn.

    Raises: InfeasibleError where the maps are too small for its localisation network; the message names the place.
    """
    transformation = build_transformation(spec.transformer.family)
    try:
        localization = build_localization(spec.locnet, input_size, identity=transformation.identity_parameters())
    except InfeasibleError as error:
        raise InfeasibleError(f"at place {spec.place}, {error.problem}", remedy=error.remedy) from error
    return SpatialTransformer(spec.transformer, transformation, localization)
