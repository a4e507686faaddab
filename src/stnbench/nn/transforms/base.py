"""Base class of the families of transformations, and the normalised coordinates they map."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.core.errors import ShapeError
from stnbench.nn.precision import at_least_float32

Size = tuple[int, int]
"""Height and width in pixels."""

_STEP: Final = 2.0**-10
"""Step of finite differences at the centre, in half sides of the output; a power of 2, so that the points are exact."""


class Transformation(ABC):
    """Base class of a family of transformations of the plane, by parameters that a localisation network emits.

    Instances hold nothing but constants and are shared. A new family defines its parameters and ``map_points``; one
    without parameters (a fixed zoom) has no names, and its ``map_points`` works with empty parameters.

    Convention: normalised coordinates (x, y), x to the right and y down, in [-1, 1]. Every map goes from the output to
    the input: it gives the point of the input at which an output pixel is read. Results are float32, or float64 for
    float64 parameters, whatever precision the network runs in.
    """

    is_discrete: ClassVar[bool] = False
    """Whether parameters choose one of finitely many maps: gradients are then those of a map between them."""

    @property
    @abstractmethod
    def parameter_names(self) -> tuple[str, ...]:
        """Return one name for each parameter, in order."""

    @property
    @final
    def number_of_parameters(self) -> int:
        """Return the number of parameters of an image."""
        return len(self.parameter_names)

    @abstractmethod
    def identity_parameters(self) -> tuple[float, ...]:
        """Return the parameters of the identity, which changes no bit: the initial bias of localisation networks."""

    @abstractmethod
    def map_points(
        self, parameters: Float[Tensor, "batch parameters"], points: Float[Tensor, "#batch points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """Return the points of the input at which points of the output are read, for every image.

        Args:
            parameters: the parameters, one row for each image.
            points: (x, y) in the output; shared by all images where their batch is 1, or different for each image, so
                that maps can be composed: ``first.map_points(p, second.map_points(q, points))`` reads with ``first`` at
                the points that ``second`` gives. float64 points give float64 results.

        Raises:
            ShapeError: where the number of parameters is not the family's.
        """

    def orbit(self, device: torch.device) -> Float[Tensor, "copies parameters"] | None:  # noqa: ARG002 - most have none
        """Return the parameters of the transformed copies of an image that the localisation network sees.

        The network emits one number for each copy, and these are the image's parameters. Most families return None: the
        network sees the image alone, and emits all parameters from it.
        """
        return None

    def penalty(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, ""] | None:  # noqa: ARG002 - likewise
        """Return the family's term of the training loss for its parameters, a scalar; None for most families."""
        return None

    def prepare(self, device: torch.device) -> None:  # noqa: B027 - most families have no constants
        """Move the constants of the map to a device, where they would otherwise be moved at every call.

        A spatial transformer calls this whenever it is moved to a device, so that a call on a GPU does not wait for the
        host.
        """

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """Return the matrix [[a, b, tx], [c, d, ty]] of every image from output to input: ``input = matrix (x, y, 1)``.

        It is exact for affine families; for others it is the first-order approximation at the centre of the output.

        Raises:
            ShapeError: where the number of parameters is not the family's.
        """
        parameters = self.checked(parameters)
        return first_order(lambda points: self.map_points(parameters, points), like=parameters)

    @final
    def grid(
        self, parameters: Float[Tensor, "batch parameters"], size: Size, *, align_corners: bool
    ) -> Float[Tensor, "batch height width 2"]:
        """Return the sampling points in the input of every output pixel, for ``torch.nn.functional.grid_sample``.

        Args:
            parameters: the parameters, one row for each image.
            size: height and width of the output in pixels.
            align_corners: whether -1 and 1 are the centres of the border pixels, or their outer edges.

        Raises:
            ShapeError: where the number of parameters is not the family's.
        """
        parameters = self.checked(parameters)
        points = pixel_centres(size, align_corners=align_corners, like=parameters)[None]
        return self.map_points(parameters, points).reshape(parameters.shape[0], *size, 2)

    @final
    def checked(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch parameters"]:
        """Return the parameters in the precision of geometry: float32, or float64 for float64 parameters.

        Raises:
            ShapeError: where their number is not the family's.
        """
        if parameters.shape[1:] != (self.number_of_parameters,):
            names = ", ".join(self.parameter_names) or "none"
            expected = f"(batch, {self.number_of_parameters}): {names}"
            raise ShapeError(f"the parameters of {type(self).__name__}", parameters.shape, expected)
        return at_least_float32(parameters)


def first_order(
    map_points: Callable[[Float[Tensor, "1 points 2"]], Float[Tensor, "batch points 2"]], *, like: Tensor
) -> Float[Tensor, "batch 2 3"]:
    """Return the matrix [[a, b, tx], [c, d, ty]] with the value and the slope of a map at the centre of the output.

    Central differences over five points an axis in float64, exact for polynomials up to the fourth degree; for the maps
    here the error is below 1e-9. Gradients pass, and nothing is recorded where none are wanted.

    Args:
        map_points: the map, from float64 points of the output that all images share to points of each image's input.
        like: a tensor with the device of the result, and its type (at least float32).
    """
    ahead = ((1, 0), (0, 1), (2, 0), (0, 2))
    steps = [(0, 0), *ahead, *((-x, -y) for x, y in ahead)]
    points = torch.tensor([[(x * _STEP, y * _STEP) for x, y in steps]], dtype=torch.float64, device=like.device)
    mapped = map_points(points)
    difference = mapped[:, 1:5] - mapped[:, 5:]
    slopes = (8 * difference[:, :2] - difference[:, 2:]) / (12 * _STEP)
    return torch.cat([slopes, mapped[:, :1]], dim=1).mT.to(at_least_float32(like).dtype)


def pixel_centres(size: Size, *, align_corners: bool, like: Tensor) -> Float[Tensor, "points 2"]:
    """Return the normalised (x, y) of every pixel's centre, row by row, with the type and device of ``like``.

    Made anew each time (12 us for 48 x 48 pixels): a tensor kept from a call inside ``torch.func.grad`` or
    ``torch.inference_mode`` would spoil every later one.

    Args:
        size: height and width in pixels.
        align_corners: whether -1 and 1 are the centres of the border pixels, or their outer edges.
        like: a tensor with the type and device of the result.
    """
    height, width = size
    y, x = (_centres(n, align_corners=align_corners, like=like) for n in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).flatten(0, 1)


def _centres(pixels: int, *, align_corners: bool, like: Tensor) -> Float[Tensor, " pixels"]:
    """Return the normalised coordinates of the pixels along one axis; 0 where there is one pixel."""
    last = (pixels > 1) * 1.0 if align_corners else 1 - 1 / pixels
    return torch.linspace(-last, last, pixels, dtype=like.dtype, device=like.device)
