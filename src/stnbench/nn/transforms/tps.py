"""Thin plate splines: smooth maps given by the movements of control points."""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from stnbench.nn.layers import full_precision
from stnbench.nn.transforms.base import Transformation


class ThinPlateSpline(Transformation):
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
        self._side = side
        self._prepared: dict[torch.device, tuple[Tensor, Tensor]] = {}
        lattice = range(side)
        self._names = tuple(f"{axis}_{row}_{column}" for row in lattice for column in lattice for axis in ("dx", "dy"))

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return ``dx_r_c`` and ``dy_r_c`` of the control point in row r and column c."""
        return self._names

    def identity_parameters(self) -> tuple[float, ...]:
        """Return no movement of any control point."""
        return (0.0,) * len(self._names)

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
    """Return the matrix from movements of the control points to the coefficients of (U of each, 1, x, y).

    It is the inverse of Bookstein's matrix L, less its last three columns: they belong to conditions whose value is 0.
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
