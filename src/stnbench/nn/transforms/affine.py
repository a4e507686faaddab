"""Affine transformations: everything that a 2 x 3 matrix can do."""

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.nn.transforms.base import Transformation


class AffineTransformation(Transformation):
    """A family whose members are affine: a subclass says how its parameters make the matrix."""

    @abstractmethod
    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """The matrix [[a, b, tx], [c, d, ty]] of every image; exact."""

    def map_points(
        self, parameters: Float[Tensor, "batch parameters"], points: Float[Tensor, "#batch points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """The matrix times (x, y, 1)."""
        return map_affine(self.theta_out_to_in(parameters), points)


class Affine(AffineTransformation):
    """The six numbers of the matrix, row by row (Jaderberg et al. 2015, equation 1).

    Convention: ``x_in = a x + b y + tx``, ``y_in = c x + d y + ty``.
    """

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The six numbers, row by row."""
        return ("a", "b", "tx", "c", "d", "ty")

    def identity_parameters(self) -> tuple[float, ...]:
        """The unit matrix without translation."""
        return (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """The parameters as a matrix."""
        return self.checked(parameters).reshape(parameters.shape[0], 2, 3)


def map_affine(
    theta: Float[Tensor, "batch 2 3"], points: Float[Tensor, "#batch points 2"]
) -> Float[Tensor, "batch points 2"]:
    """The points, shared by all images or each image's own, under every matrix.

    Written as products and sums rather than a matrix product, which autocast and TF32 would round to 8 or 11 bits: up
    to a tenth of a pixel. The identity gives the points back bit by bit, and ``torch.vmap`` can batch it, which it
    cannot do with ``torch.nn.functional.affine_grid``.
    """
    a_c, b_d, offset = theta[:, None].unbind(-1)
    return a_c * points[..., :1] + (b_d * points[..., 1:] + offset)


def invert_affine(theta: Float[Tensor, "batch 2 3"]) -> Float[Tensor, "batch 2 3"]:
    """The matrices of the opposite direction: input to output for theta, which goes from output to input.

    A matrix of determinant zero has no inverse, and gives numbers that are not finite.
    """
    (a, b, tx), (c, d, ty) = (row.unbind(-1) for row in theta.unbind(1))
    determinant = a * d - b * c
    adjugate = matrix_of_rows((d, -b, b * ty - d * tx), (-c, a, c * tx - a * ty))
    return adjugate / determinant[:, None, None]


def matrix_of_rows(*rows: tuple[Float[Tensor, " batch"], ...]) -> Float[Tensor, "batch rows columns"]:
    """A matrix for every image, from its numbers row by row."""
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
