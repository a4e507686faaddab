"""The contract of a family of transformations."""

from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.core.errors import ShapeError
from stnbench.stn.precision import at_least_float32

Size = tuple[int, int]
"""Height and width in pixels."""


class Transformation(ABC):
    """A family of transformations of the plane, with the parameters that a localisation network emits.

    Instances hold no state and are shared. A new family defines its parameters, ``map_points`` and
    ``theta_out_to_in``; one without parameters (a fixed zoom) has no names and is mapped all the same.

    Convention: normalised coordinates (x, y), x to the right and y down, in [-1, 1]. Every map goes from the output to
    the input: it says where in the input an output pixel is read. Results are float32, or float64 for float64
    parameters, whatever precision the network runs in.
    """

    @property
    @abstractmethod
    def parameter_names(self) -> tuple[str, ...]:
        """One name a parameter, in order."""

    @property
    @final
    def number_of_parameters(self) -> int:
        """How many numbers the localisation network emits for an image."""
        return len(self.parameter_names)

    @abstractmethod
    def identity_parameters(self) -> tuple[float, ...]:
        """The parameters that change nothing; the bias of every localisation network's last layer."""

    @abstractmethod
    def map_points(
        self, parameters: Float[Tensor, "batch parameters"], points: Float[Tensor, "points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """Where in the input the output's points are read, for every image.

        Raises: ShapeError where the number of parameters is not the family's.
        """

    @abstractmethod
    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """The matrix [[a, b, tx], [c, d, ty]] of every image, with ``input = matrix (x, y, 1)``.

        Exact for affine families; for others the first-order approximation at the centre of the output.
        Raises: ShapeError where the number of parameters is not the family's.
        """

    @final
    def grid(
        self, parameters: Float[Tensor, "batch parameters"], size: Size, *, align_corners: bool
    ) -> Float[Tensor, "batch height width 2"]:
        """The sampling points in the input of every output pixel, as ``torch.nn.functional.grid_sample`` reads them.

        Args:
            parameters: one row an image.
            size: height and width of the output.
            align_corners: whether -1 and 1 are the centres of the border pixels, or their outer edges.
        Raises: ShapeError where the number of parameters is not the family's.
        """
        parameters = self.checked(parameters)
        points = pixel_centres(size, align_corners=align_corners, like=parameters)
        return self.map_points(parameters, points).reshape(len(parameters), *size, 2)

    @final
    def checked(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch parameters"]:
        """The parameters in geometry's precision.

        Raises: ShapeError where their number is not the family's.
        """
        if parameters.shape[1:] != (self.number_of_parameters,):
            names = ", ".join(self.parameter_names) or "none"
            expected = f"(batch, {self.number_of_parameters}): {names}"
            raise ShapeError(f"the parameters of {type(self).__name__}", parameters.shape, expected)
        return at_least_float32(parameters)


def pixel_centres(size: Size, *, align_corners: bool, like: Tensor) -> Float[Tensor, "points 2"]:
    """The normalised (x, y) of every pixel's centre, row by row, with the type and device of ``like``.

    Made anew each time (12 us for 48 x 48 pixels): a tensor kept from a call inside ``torch.func.grad`` or
    ``torch.inference_mode`` would spoil every later one.
    """
    height, width = size
    y, x = (_centres(n, align_corners=align_corners, like=like) for n in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).flatten(0, 1)


def _centres(pixels: int, *, align_corners: bool, like: Tensor) -> Float[Tensor, " pixels"]:
    """The normalised coordinates of the pixels along one axis; 0 where there is one pixel."""
    last = (pixels > 1) * 1.0 if align_corners else 1 - 1 / pixels
    return torch.linspace(-last, last, pixels, dtype=like.dtype, device=like.device)
