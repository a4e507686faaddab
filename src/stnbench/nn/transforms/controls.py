"""Controls: transformations that learn nothing, to tell what learning adds."""

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.core.errors import ShapeError
from stnbench.nn.precision import at_least_float32
from stnbench.nn.transforms.affine import AffineTransformation, matrix_of_rows
from stnbench.nn.transforms.base import Size


class FixedZoom(AffineTransformation):
    """The same zoom about the centre for every image, without parameters: [[zoom, 0, 0], [0, zoom, 0]].

    It has no identity: the empty parameters, the only ones, give the zoom.

    Args:
        zoom: the share of each side that is read; below 1 the image is enlarged.
    """

    def __init__(self, zoom: float) -> None:
        self._zoom = zoom

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def identity_parameters(self) -> tuple[float, ...]:
        """The empty parameters, which do not stand for the identity here."""
        return ()

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """The zoom, for every row of no parameters."""
        parameters = self.checked(parameters)
        zoom = parameters.new_full((parameters.shape[0],), self._zoom)
        zero = torch.zeros_like(zoom)
        return matrix_of_rows((zoom, zero, zero), (zero, zoom, zero))


def box_parameters(
    boxes: Float[Tensor, "batch corners"], size: Size, *, align_corners: bool
) -> Float[Tensor, "batch parameters"]:
    """The parameters of the family ``crop`` that fill the output with a box of each image.

    The outer edges of the output's border pixels are read at the edges of the box, and its pixels' centres at even
    distances between, so that the same places are read whatever ``align_corners`` is. Where -1 and 1 are the centres
    of border pixels, a coordinate is smaller by the factor (side - 1) / side than where they are outer edges, in input
    and output alike (both have the same size): the scales stay, and the centre of the box is divided by the factor.

    Args:
        boxes: x1, y1, x2, y2 of each image (left, top, right, bottom), with -1 and 1 at the outer edges of the image's
            border pixels; (-1, -1, 1, 1) is the whole image, and gives the identity.
        size: height and width in pixels, of the images and of the output.
        align_corners: whether the parameters are for coordinates whose -1 and 1 are the centres of border pixels.
    Raises: ShapeError where a box has not four numbers.
    """
    if boxes.shape[1:] != (4,):
        raise ShapeError("the boxes of the images", boxes.shape, "(batch, 4): x1, y1, x2, y2")
    x1, y1, x2, y2 = at_least_float32(boxes).unbind(1)
    # Along a single pixel all coordinates mean the same place.
    height, width = (side / max(side - 1, 1) if align_corners else 1.0 for side in size)
    return torch.stack([(x2 - x1) / 2, (y2 - y1) / 2, (x1 + x2) / 2 * width, (y1 + y2) / 2 * height], dim=1)
