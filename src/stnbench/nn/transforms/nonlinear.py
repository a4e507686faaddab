"""Transformations beyond affine maps: homographies, thin plate splines, diffeomorphisms and saliency sampling."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from stnbench.nn.layers import full_precision
from stnbench.nn.transforms import Transformation
from stnbench.nn.transforms.affine import matrix_of_rows

# Homographies: maps of the plane that keep straight lines straight.


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


class LatticeTransformation(Transformation):
    """Base class of families whose parameters belong to the points of a lattice.

    Args:
        side: number of points a side.
        names: name of each parameter.
    """

    def __init__(self, side: int, names: Sequence[str]) -> None:
        self._side = side
        self._names = tuple(names)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the name of each parameter, with the row and the column of its point."""
        return self._names


def _names_by_row(side: int, *axes: str) -> list[str]:
    """Return ``axis_row_column`` of every point of a lattice and axis, row by row."""
    lattice = range(side)
    return [f"{axis}_{row}_{column}" for row in lattice for column in lattice for axis in axes]


# Thin plate splines: smooth maps given by the movements of control points.


class ThinPlateSpline(LatticeTransformation):
    """The smoothest map with given movements of the points of a lattice (Bookstein 1989; Jaderberg et al. 2015).

    The control points lie in the output, ``side`` times ``side`` of them, evenly from -1 to 1 in x and in y; the
    parameters are the distances (dx, dy) from there to the place in the input where each is read, row by row. The
    movement of any other point is ``sum of w U(distance) + affine part`` with ``U(r) = r^2 log r^2``, exact at the
    control points. Movements that are those of an affine map give this affine map everywhere.

    The movement is linear in the parameters, so no system is solved here: a constant matrix is. It is kept on the
    devices that the spline was prepared for, and moved to others at every call. The movements are computed in float64,
    because splines of many points are small differences of large numbers.

    Args:
        side: the number of control points a side, at least 2.
    """

    def __init__(self, side: int) -> None:
        super().__init__(side, _names_by_row(side, "dx", "dy"))
        self._prepared: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def prepare(self, device: torch.device) -> None:
        """Keep the constant matrix and the control points on the device."""
        with torch.inference_mode(mode=False):  # otherwise no later gradient could pass through them
            self._prepared[device] = self._constants(device)

    def map_points(
        self, parameters: Float[Tensor, "batch parameters"], points: Float[Tensor, "#batch points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """Return the input points at which the output's points are read: each is moved by the spline's value there."""
        parameters = self.checked(parameters)
        precision = torch.promote_types(parameters.dtype, points.dtype)
        kept = None if torch.compiler.is_compiling() else self._prepared.get(parameters.device)  # a program has its own
        influence, lattice = kept or self._constants(parameters.device)
        # One column an image and axis, so that points shared by all images need one matrix product.
        moves = parameters.reshape(parameters.shape[0], self._side**2, 2).permute(1, 0, 2).flatten(1).double()
        with full_precision(parameters.device.type):
            coefficients = influence @ moves
            terms = _terms(points.double(), lattice)
            shared = points.shape[0] == 1
            moved = _by_image(terms[0] @ coefficients) if shared else terms @ _by_image(coefficients)
        return points + moved.to(precision)

    def _constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the matrix from movements to coefficients, and the control points, float64 on a device."""
        influence, lattice = (
            torch.tensor(numbers, dtype=torch.float64, device=device)
            for numbers in (_influence(self._side), _lattice(self._side))
        )
        return influence, lattice


def _terms(
    points: Float[Tensor, "#batch points 2"], lattice: Float[Tensor, "controls 2"]
) -> Float[Tensor, "#batch points terms"]:
    """Return U of the distance to every control point, 1, x and y."""
    x, y = points[..., :1], points[..., 1:]
    squared = (x - lattice[:, 0]).square() + (y - lattice[:, 1]).square()
    # The logarithm's argument is kept from 0, where the product and its slope are 0 anyway. Not by the smallest
    # float64: an exporter that keeps constants as float32 makes it 0.
    kernel = squared * torch.where(squared > 0, squared, 1.0).log()
    return torch.cat([kernel, torch.ones_like(x), x, y], dim=-1)


def _by_image(columns: Float[Tensor, "rows columns"]) -> Float[Tensor, "batch rows 2"]:
    """Return one matrix for each image from a matrix with one column for each image and axis."""
    return columns.reshape(columns.shape[0], -1, 2).permute(1, 0, 2)


def _lattice(side: int) -> NDArray[np.float64]:
    """Return the control points (x, y), row by row, (side * side, 2)."""
    axis = np.linspace(-1, 1, side)
    return np.stack([np.tile(axis, side), np.repeat(axis, side)], axis=1)


@cache
def _influence(side: int) -> NDArray[np.float64]:
    """Compute the matrix that maps displacements of the control points to the coefficients of the spline.

    The rows are the coefficients of U at each control point, of 1, of x and of y, (side * side + 3, side * side). It is
    the inverse of Bookstein's matrix L without the last three columns, whose conditions have the value 0.
    """
    lattice = _lattice(side)
    points = len(lattice)
    squared = ((lattice[:, None] - lattice) ** 2).sum(axis=-1)
    affine = np.column_stack([np.ones(points), lattice])
    system = np.zeros((points + 3, points + 3))
    system[:points, :points] = squared * np.log(np.where(squared > 0, squared, 1))
    system[:points, points:] = affine
    system[points:, :points] = affine.T
    return np.ascontiguousarray(np.linalg.inv(system)[:, :points])


# Flows of smooth velocity fields: maps without folds that can be inverted.


class Diffeomorphic(LatticeTransformation):
    """The flow, at time 1, of a stationary velocity field given by control velocities of a cubic B-spline.

    ``dq/dt = v(q)`` from ``q(0) = p`` in the output, and ``q(1)`` is read in the input, with ``v(q) = sum of B((x -
    x_i) / h) B((y - y_j) / h) c_ij``. The class of Skafte Detlefsen et al., CVPR 2018 (deep diffeomorphic transformer
    networks), with a spline of free-form deformations (Rueckert et al. 1999) for their piecewise affine velocities;
    stationary velocity fields: Arsigny et al. 2006. B is the uniform cubic B-spline, the spacing ``h`` is 2 / (side -
    3), and one ring of control points lies outside the image: inside it the field can be any constant, affine or
    quadratic one, so that the maps of ``lie_affine`` that stay in the image are among the flows. The field vanishes at
    a distance and has two continuous derivatives, so its flow is a diffeomorphism of the whole plane.

    The flow is integrated by the classical Runge-Kutta scheme of fourth order. Its inverse is the flow of the opposite
    velocities, exact but for the scheme's error, which falls with the fourth power of the step.

    Args:
        side: the number of control points a side, at least 4.
        steps: the number of steps of the integration.
    """

    def __init__(self, side: int, steps: int) -> None:
        super().__init__(side, _names_by_row(side, "vx", "vy"))  # half sides per unit of time
        self._steps = steps

    def map_points(
        self, parameters: Float[Tensor, "batch parameters"], points: Float[Tensor, "#batch points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """Return the input points to which the output's points flow."""
        parameters = self.checked(parameters)
        places = points.to(torch.promote_types(parameters.dtype, points.dtype)).mT
        # one row for each axis and row of the lattice, one column for each of its columns
        controls = parameters.reshape(parameters.shape[0], self._side, self._side, 2).permute(0, 3, 1, 2).flatten(1, 2)
        controls, step = controls.to(places.dtype), 1 / self._steps
        with full_precision(parameters.device.type):  # it is made of matrix products
            for _ in range(self._steps):
                first = self._velocity(controls, places)
                second = self._velocity(controls, places + step / 2 * first)
                third = self._velocity(controls, places + step / 2 * second)
                fourth = self._velocity(controls, places + step * third)
                places = places + step / 6 * (first + 2 * (second + third) + fourth)
        return places.mT.contiguous()

    def invert_points(
        self, parameters: Float[Tensor, "batch parameters"], points: Float[Tensor, "#batch points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """Return the points of the output that are read at given points of the input."""
        return self.map_points(-self.checked(parameters), points)

    def _velocity(
        self, controls: Float[Tensor, "batch axes_rows columns"], places: Float[Tensor, "#batch 2 points"]
    ) -> Float[Tensor, "batch 2 points"]:
        """Return the velocity at the places, (x, y) in rows."""
        side = self._side
        lattice = torch.arange(side, dtype=places.dtype, device=places.device) - (side - 1) / 2
        weights = cubic_b_spline(places[:, :, None] * ((side - 3) / 2) - lattice[:, None])  # axis, control, point
        rows = (controls @ weights[:, 0]).reshape(controls.shape[0], 2, side, places.shape[2])
        return (rows * weights[:, None, 1]).sum(dim=2)


def cubic_b_spline(distance: Tensor) -> Tensor:
    """Return the uniform cubic B-spline: 2/3 at 0, 1/6 at 1, 0 from 2 on, with two continuous derivatives."""
    distance = distance.abs()
    outer, inner = (2 - distance).relu(), (1 - distance).relu()
    return outer * outer * outer / 6 - inner * inner * inner * (2 / 3)


# Sampling that is denser at salient places.


KERNEL_WIDTH: Final = 13 / 31
"""Full width at half maximum of the kernel, over the side of the lattice (the code of Recasens et al.: 13 of 31)."""

_FAINTEST: Final = -60.0
"""Lower bound of the logarithm of a saliency over the largest, so that none is rounded to 0."""


class Saliency(LatticeTransformation):
    """Sampling points drawn towards salient places (Recasens et al., ECCV 2018, arXiv 1809.03355).

    The parameters are logits of the saliency S at ``side`` x ``side`` places evenly from -1 to 1, row by row. Every
    place draws a sampling point p with the weight ``S k(q - p)``, k a Gaussian whose width at half maximum is 13/31 of
    the lattice, so that the drawn mean is ``m(p) = sum of S k (q - p) / sum of S k``. Beyond the border the saliency of
    the nearest place counts. For p in the output, ``u(p) = p + m(p) - m_uniform(p)`` is read in the input: equal
    logits, whatever their value, are the identity bit by bit.

    ``separable`` has one row of logits for x and one for y, and S is their product (Thavamani et al., CVPR 2023): ``2
    side`` parameters in place of ``side`` squared, and each coordinate moves by itself and keeps its order, so that the
    map folds nowhere.

    Args:
        side: the number of places a side, at least 2.
        separable: whether the saliency is a product of marginals.
    """

    def __init__(self, side: int, *, separable: bool) -> None:
        by_axis = [f"s{axis}_{place}" for axis in "xy" for place in range(side)]
        super().__init__(side, by_axis if separable else _names_by_row(side, "s"))
        self._separable = separable

    def map_points(
        self, parameters: Float[Tensor, "batch parameters"], points: Float[Tensor, "#batch points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """Return the input points at which the output's points are read: each point moved by the mean that draws it."""
        parameters = self.checked(parameters)
        points = points.to(torch.promote_types(parameters.dtype, points.dtype))
        (weight_x, drawn_x), (weight_y, drawn_y) = (self._kernel(points[..., axis]) for axis in (0, 1))
        rows = 2 if self._separable else self._side
        logits = parameters.to(points.dtype).reshape(parameters.shape[0], rows, self._side)
        with full_precision(parameters.device.type):  # it is made of matrix products
            if self._separable:
                extra, total = _saliency(logits, dims=(-1,))  # one row for each axis
                (extra_x, extra_y), (total_x, total_y) = extra.unbind(1), total.unbind(1)
                moved = (
                    _rows(drawn_x, extra_x) / _rows(weight_x, total_x),
                    _rows(drawn_y, extra_y) / _rows(weight_y, total_y),
                )
            else:
                extra, total = _saliency(logits, dims=(-2, -1))
                by_row = weight_y @ extra
                weights = ((weight_y @ total) * weight_x).sum(dim=-1)
                moved = (
                    (by_row * drawn_x).sum(dim=-1) / weights,
                    ((drawn_y @ extra) * weight_x).sum(dim=-1) / weights,
                )
        return points + torch.stack(moved, dim=-1)

    def _kernel(
        self, coordinates: Float[Tensor, "#batch points"]
    ) -> tuple[Float[Tensor, "#batch points places"], Float[Tensor, "#batch points places"]]:
        """Return the kernel at every place along one axis, and the kernel times the distance beyond the uniform mean.

        The places repeat those at the border, ``side - 1`` of them beyond each end; their terms are added to those of
        the border. The kernel's terms sum to 1, which changes no mean, and is never 0 / 0 however far a point is.
        """
        side = self._side
        places = torch.arange(3 * side - 2, dtype=coordinates.dtype, device=coordinates.device) - (3 * side - 3) / 2
        away = places * (2 / (side - 1)) - coordinates[..., None]
        width = KERNEL_WIDTH * side * 2 / (side - 1)
        weight = (-4 * math.log(2) / width**2 * away.square()).softmax(dim=-1)
        uniform = (weight * away).sum(dim=-1, keepdim=True)
        return self._fold(weight), self._fold(weight * (away - uniform))

    def _fold(self, terms: Tensor) -> Tensor:
        """Return the terms of all places with those beyond the border added to the border's."""
        side = self._side
        first, last = (terms[..., part].sum(dim=-1, keepdim=True) for part in (slice(side), slice(2 * side - 2, None)))
        return torch.cat([first, terms[..., side : 2 * side - 2], last], dim=-1)


def _saliency(logits: Tensor, *, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the excess of saliency over the faintest place, and the saliency; its largest value is 1.

    Only ratios of saliency matter, and the uniform part moves nothing: the movement therefore comes from the excess
    over the faintest, which is exactly 0 where all are equal, and loses no digit where they differ.
    """
    saliency = (logits - logits.amax(dim=dims, keepdim=True).detach()).clamp(min=_FAINTEST).exp()
    return saliency - saliency.amin(dim=dims, keepdim=True).detach(), saliency


def _rows(kernel: Float[Tensor, "#batch points places"], values: Float[Tensor, "batch places"]) -> Tensor:
    """Return the sum over places for every point, (batch, points)."""
    return (kernel * values[:, None]).sum(dim=-1)
