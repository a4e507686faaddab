"""Base class of the families of transformations, and the normalised coordinates they map."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from stnbench.core.errors import ShapeError
from stnbench.nn.layers import at_least_float32

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

    def identity_parameters(self) -> tuple[float, ...]:
        """Return the parameters of the identity, which changes no bit: the initial bias of localisation networks.

        They are zeros, unless a family overrides this.
        """
        return (0.0,) * self.number_of_parameters

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

    def penalty(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, ""] | None:  # noqa: ARG002 - for subclasses
        """Return the family's term of the training loss for its parameters, a scalar, or None for most families."""
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


# A distribution over the parameters of any family, in place of one value each.


START: Final = -4.0
"""Initial number behind a spread: softplus of it is 0.018, so that a new layer draws close to the identity."""

_LOWEST: Final = -20.0
"""Lower bound of the numbers behind spreads: the spread is 2e-9 there, and its logarithm finite."""

_PRIOR: Final = 1.0
"""Spread with a divergence of 0."""


class StudentT(Transformation):
    """Student's t over the parameters of a family (Schwobel et al., UAI 2022, arXiv 2004.03637).

    The localisation network emits the mean mu and a number r for each parameter; ``theta = mu + sqrt(beta) t``, with
    ``beta = softplus(r)`` and t drawn from Student's t with 2 degrees of freedom: the marginal of a normal distribution
    whose precision is Gamma(1, beta)-distributed. The training loss gains ``weight`` times the divergence of these
    Gamma distributions, ``ln(beta / beta_p) + beta_p / beta - 1`` with ``beta_p = 1``, summed over parameters.

    As a family its map is that of the mean, which health, pictures and exports show; the layer draws. With 2 degrees of
    freedom draws have no variance, and a few of a hundred are extreme.

    Args:
        family: the family whose parameters are drawn.
        weight: the weight of the divergence in the loss.
    """

    def __init__(self, family: Transformation, *, weight: float) -> None:
        self.family = family
        self._weight = weight
        self._own = len(family.parameter_names)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of the family's parameters, then ``spread_NAME`` for each."""
        names = self.family.parameter_names
        return (*names, *(f"spread_{name}" for name in names))

    def identity_parameters(self) -> tuple[float, ...]:
        """Return the identity as mean, with a small spread."""
        return (*self.family.identity_parameters(), *(START,) * self._own)

    def prepare(self, device: torch.device) -> None:
        """Move the family's constants to the device."""
        self.family.prepare(device)

    def map_points(
        self, parameters: Float[Tensor, "batch parameters"], points: Float[Tensor, "#batch points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """Return the input points at which the output's points are read under the mean."""
        return self.family.map_points(self.checked(parameters)[:, : self._own], points)

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """Return the matrix of the mean, from output to input coordinates."""
        return self.family.theta_out_to_in(self.checked(parameters)[:, : self._own])

    def split(self, parameters: Float[Tensor, "batch parameters"]) -> tuple[Tensor, Tensor]:
        """Return the means and the scales sqrt(beta) of the family's parameters, one row for each image."""
        parameters = self.checked(parameters)
        return parameters[:, : self._own], self._spread(parameters).sqrt()

    def moved(self, parameters: Float[Tensor, "batch parameters"], drawn: Tensor) -> Tensor:
        """Return the parameters with their means replaced by drawn values (batch, parameters of the family)."""
        return torch.cat([drawn, self.checked(parameters)[:, self._own :]], dim=1)

    def penalty(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, ""] | None:
        """Return the weighted divergence from the prior plus the family's penalty, or None where there is neither."""
        of_family = self.family.penalty(self.checked(parameters)[:, : self._own])
        if not self._weight:
            return of_family
        spread = self._spread(self.checked(parameters))
        divergence = (spread / _PRIOR).log() + _PRIOR / spread - 1
        own = self._weight * divergence.sum(dim=1).mean()
        return own if of_family is None else own + of_family

    def _spread(self, parameters: Tensor) -> Tensor:
        return functional.softplus(parameters[:, self._own :].clamp(min=_LOWEST))
