"""Homographies: maps of the plane that keep straight lines straight."""

from abc import abstractmethod
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.nn.transforms.affine import matrix_of_rows
from stnbench.nn.transforms.base import Transformation

_SMALLEST_DEPTH: Final = 1e-2
"""Lower bound of the third coordinate, which is 1 at the identity, for points near the vanishing line."""

_SMALLEST_AREA: Final = 1e-6
"""Lower bound of the area of the triangle at the last three corners over that of the identity."""


class HomographyTransformation(Transformation):
    """Base class of families whose members are homographies: a subclass makes the matrix from its parameters."""

    @abstractmethod
    def homography_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 3 3"]:
        """Return the matrix of every image, from (x, y, 1) in the output to a multiple of (x, y, 1) in the input.

        Raises:
            ShapeError: where the number of parameters is not the family's.
        """

    def map_points(
        self, parameters: Float[Tensor, "batch parameters"], points: Float[Tensor, "#batch points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """Return the input points at which the output's points are read: the matrix times (x, y, 1), dehomogenised."""
        return map_homography(self.homography_out_to_in(parameters), points)


class Projective(HomographyTransformation):
    """The unit matrix plus eight parameters (Jaderberg et al. 2015; in this form Lin & Lucey, CVPR 2017).

    ``(x', y', z') = [[1 + p11, p12, p13], [p21, 1 + p22, p23], [p31, p32, 1]] (x, y, 1)`` for (x, y) in the output, and
    the input is read at x' / z', y' / z'.
    """

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of the eight numbers, row by row."""
        return ("p11", "p12", "p13", "p21", "p22", "p23", "p31", "p32")

    def identity_parameters(self) -> tuple[float, ...]:
        """Return eight zeros."""
        return (0.0,) * 8

    def homography_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 3 3"]:
        """Return the unit matrix plus the parameters."""
        p11, p12, p13, p21, p22, p23, p31, p32 = self.checked(parameters).unbind(1)
        return matrix_of_rows((1 + p11, p12, p13), (p21, 1 + p22, p23), (p31, p32, torch.ones_like(p31)))


class Corners(HomographyTransformation):
    """The homography that reads the output's four corners at given places (DeTone et al. 2016, arXiv 1606.03798).

    The parameters are the movements of (-1, -1), (1, -1), (1, 1) and (-1, 1), in this order, in the input. The matrix
    is the closed form for a square and a quadrilateral (Heckbert 1989) rather than the solution of a linear system. A
    quadrilateral that is not convex has a vanishing line across it, see ``map_homography``.
    """

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of the movements in x and y, clockwise on the screen from the upper left corner."""
        corners = ("top_left", "top_right", "bottom_right", "bottom_left")
        return tuple(f"{axis}_{corner}" for corner in corners for axis in ("dx", "dy"))

    def identity_parameters(self) -> tuple[float, ...]:
        """Return no movement."""
        return (0.0,) * 8

    def homography_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 3 3"]:
        """Return Heckbert's matrix for the square from 0 to 1, after a shift and halving of the output's coordinates.

        Its third coordinate is 1 at the upper left corner. Where the triangle of the other three corners is all but
        flat, it counts as a very flat one, so that numbers and gradients stay finite.
        """
        dx0, dy0, dx1, dy1, dx2, dy2, dx3, dy3 = self.checked(parameters).unbind(1)
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = (
            (dx0 - 1, dy0 - 1),
            (dx1 + 1, dy1 - 1),
            (dx2 + 1, dy2 + 1),
            (dx3 - 1, dy3 + 1),
        )
        excess_x, excess_y = dx0 - dx1 + dx2 - dx3, dy0 - dy1 + dy2 - dy3  # 0 for a parallelogram
        area = (x3 - x2) * (y1 - y2) - (x1 - x2) * (y3 - y2)
        area = _away_from_zero(area, 4 * _SMALLEST_AREA)
        # halved, because the output's sides are 2 long
        g = (excess_y * (x3 - x2) - excess_x * (y3 - y2)) / area / 2
        h = (excess_x * (y1 - y2) - excess_y * (x1 - x2)) / area / 2
        a, b = (x1 - x0) / 2 + g * x1, (x3 - x0) / 2 + h * x3
        d, e = (y1 - y0) / 2 + g * y1, (y3 - y0) / 2 + h * y3
        return matrix_of_rows((a, b, a + b + x0), (d, e, d + e + y0), (g, h, g + h + 1))


def map_homography(
    homography: Float[Tensor, "batch 3 3"], points: Float[Tensor, "#batch points 2"]
) -> Float[Tensor, "batch points 2"]:
    """Return the points under the homography of every image.

    Where the third coordinate is nearer to 0 than 0.01, it counts as 0.01 with its own sign, and has no gradient: such
    points are read far outside the image, at finite places with finite gradients. Behind the vanishing line the plane
    appears mirrored, as a homography has it. Written as products and sums for the reason given at ``map_affine``.

    Args:
        homography: the matrices, from the coordinates of the points to those of the result.
        points: (x, y), shared by all images where their batch is 1, or different for each image.
    """
    by_x, by_y, offset = homography[:, None].unbind(-1)
    mapped = by_x * points[..., :1] + (by_y * points[..., 1:] + offset)
    return mapped[..., :2] / _away_from_zero(mapped[..., 2:], _SMALLEST_DEPTH)


def invert_homography(homography: Float[Tensor, "batch 3 3"]) -> Float[Tensor, "batch 3 3"]:
    """Return the inverse maps: from input to output for homographies that map output to input.

    A matrix of determinant zero has no inverse, and gives numbers that are not finite.
    """
    first, second, third = homography.unbind(-1)
    cross = torch.linalg.cross
    adjugate = torch.stack([cross(second, third), cross(third, first), cross(first, second)], dim=1)
    determinant = (adjugate[:, 0] * first).sum(dim=-1)
    return adjugate / determinant[:, None, None]


def _away_from_zero(values: Tensor, distance: float) -> Tensor:
    """Return the values, with those nearer to 0 than ``distance`` replaced by it with their sign, as a constant."""
    nearest = torch.full_like(values, distance)
    nearest = torch.where(values < 0, -nearest, nearest)  # copysign has no counterpart in ONNX
    return torch.where(values.abs() < distance, nearest, values)
