"""The contract of a family of transformations."""

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
"""Of finite differences at the centre, in half sides of the output; a power of 2, so that the points are exact."""


class Transformation(ABC):
    """A family of transformations of the plane, with the parameters that a localisation network emits.

    Instances hold nothing but constants and are shared. A new family defines its parameters and ``map_points``; one
    without parameters (a fixed zoom) has no names and is mapped all the same.

    Convention: normalised coordinates (x, y), x to the right and y down, in [-1, 1]. Every map goes from the output to
    the input: it says where in the input an output pixel is read. Results are float32, or float64 for float64
    parameters, whatever precision the network runs in.
    """

    is_discrete: ClassVar[bool] = False
    """Whether parameters choose one of finitely many maps: gradients are then those of a map between them."""

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
        """The parameters that change nothing, bit by bit; the bias of every localisation network's last layer."""

    @abstractmethod
    def map_points(
        self, parameters: Float[Tensor, "batch parameters"], points: Float[Tensor, "#batch points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """Where in the input the output's points are read, for every image.

        Args:
            parameters: one row an image.
            points: (x, y); the same for all images where their batch is 1, or each image's own, so that maps can be
                composed: ``first.map_points(p, second.map_points(q, points))`` reads with ``first`` what ``second``
                asks for. float64 points give float64 results.
        Raises: ShapeError where the number of parameters is not the family's.
        """

    def orbit(self, device: torch.device) -> Float[Tensor, "copies parameters"] | None:  # noqa: ARG002 - most have none
        """Return the parameters of the copies of an image that the localisation network looks at, one number each.

        None, for most families, is the image alone, from which the localisation network emits all parameters.
        """
        return None

    def penalty(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, ""] | None:  # noqa: ARG002 - likewise
        """Return what the family adds to the training loss for its parameters; None for most."""
        return None

    def prepare(self, device: torch.device) -> None:  # noqa: B027 - most families have no constants
        """Bring the constants of the map to a device, where they would otherwise be brought at every call.

        A spatial transformer does so whenever it is brought to a device; on a GPU a call then makes nobody wait.
        """

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """The matrix [[a, b, tx], [c, d, ty]] of every image, with ``input = matrix (x, y, 1)``.

        Exact for affine families; for others the first-order approximation at the centre of the output.
        Raises: ShapeError where the number of parameters is not the family's.
        """
        parameters = self.checked(parameters)
        return first_order(lambda points: self.map_points(parameters, points), like=parameters)

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
        points = pixel_centres(size, align_corners=align_corners, like=parameters)[None]
        return self.map_points(parameters, points).reshape(parameters.shape[0], *size, 2)

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


def first_order(
    map_points: Callable[[Float[Tensor, "1 points 2"]], Float[Tensor, "batch points 2"]], *, like: Tensor
) -> Float[Tensor, "batch 2 3"]:
    """The matrix [[a, b, tx], [c, d, ty]] with the value and the slope that any map has at the centre of the output.

    Central differences over five points an axis in float64, exact for polynomials up to the fourth degree; for the
    maps here the error is below 1e-9. Gradients pass, and nothing is recorded where none are wanted.

    Args:
        map_points: from points shared by all images, float64, to each image's own.
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
