"""Rotation, scale and translation, and every combination of them."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.nn.transforms.affine import AffineTransformation, matrix_of_rows

_SHORTEST: Final = 1e-6
"""Vectors whose larger number is smaller than this have no direction that could be relied on."""


class Similarity(AffineTransformation):
    """Those of rotation (1 parameter), scale (1) and translation (2) that are asked for, in this order.

    The matrix is M = R S T: ``input = R(angle) scale (output + t)``, so that the translation comes first, in units of
    the output, and is scaled and rotated with it (qassemoquab/stnbhwd, AffineTransformMatrixGenerator).

    Convention: (x, y), y down, R = [[cos, -sin], [sin, cos]], so that a positive angle turns what is read clockwise
    on the screen, and what is shown anticlockwise. stnbhwd builds the same matrix in (y, x) order: its angle is ours
    with the other sign, and its first translation moves y.

    Args:
        rotation: whether there is one.
        scale: likewise.
        translation: likewise.
        as_vector: emit the rotation as a vector of two numbers, see ``unit_vector``, instead of an angle.
    """

    def __init__(
        self, *, rotation: bool = False, scale: bool = False, translation: bool = False, as_vector: bool = False
    ) -> None:
        self._rotation = rotation
        self._scale = scale
        self._translation = translation
        self._as_vector = as_vector

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Those of angle (radians) or (cosine, sine) up to a common factor, scale, tx and ty that the family has."""
        rotation = ("cosine", "sine") if self._as_vector else ("angle",)
        return rotation * self._rotation + ("scale",) * self._scale + ("tx", "ty") * self._translation

    def identity_parameters(self) -> tuple[float, ...]:
        """Angle 0, scale 1, translation 0."""
        rotation = (1.0, 0.0) if self._as_vector else (0.0,)
        return rotation * self._rotation + (1.0,) * self._scale + (0.0, 0.0) * self._translation

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """The matrix of R S T."""
        parameters = self.checked(parameters)
        zero, one = parameters.new_zeros(parameters.shape[0]), parameters.new_ones(parameters.shape[0])
        numbers = iter(parameters.unbind(1))
        if self._rotation and self._as_vector:
            cosine, sine = unit_vector(next(numbers), next(numbers))
        else:
            angle = next(numbers) if self._rotation else zero
            cosine, sine = angle.cos(), angle.sin()
        scale = next(numbers) if self._scale else one
        tx, ty = (next(numbers), next(numbers)) if self._translation else (zero, zero)
        a, c = scale * cosine, scale * sine
        return matrix_of_rows((a, -c, a * tx - c * ty), (c, a, c * tx + a * ty))


def unit_vector(x: Float[Tensor, " batch"], y: Float[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
    """Return the cosine and the sine of the angle of every vector (x, y).

    A rotation as a vector has no jump at half a turn, where an angle would have to leap by a whole one (Zhou et al.
    2019, arXiv 1812.07035; Kaba et al. 2023, arXiv 2211.06489, normalise likewise). A vector shorter than 1e-6 counts
    as (1, 0) and has no gradient, so that every matrix is a rotation. Lengths beyond the root of the largest number do
    not overflow: the vector is divided by its larger number first, which changes neither result nor gradient.
    """
    larger = torch.maximum(x.abs(), y.abs()).detach()
    is_short = larger < _SHORTEST
    larger = torch.where(is_short, torch.ones_like(larger), larger)
    x, y = torch.where(is_short, torch.ones_like(x), x / larger), torch.where(is_short, torch.zeros_like(y), y / larger)
    length = (x.square() + y.square()).sqrt()
    return x / length, y / length
