"""Flows of smooth velocity fields: maps without folds that can be inverted."""

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.nn.layers import full_precision
from stnbench.nn.transforms.base import Transformation
from stnbench.spec.transformer import DiffeomorphicSpec


class Diffeomorphic(Transformation):
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
        self._side = side
        self._steps = steps
        lattice = range(side)
        self._names = tuple(f"{axis}_{row}_{column}" for row in lattice for column in lattice for axis in ("vx", "vy"))

    @classmethod
    def build(cls, spec: DiffeomorphicSpec) -> "Diffeomorphic":
        """Return the transformation of a specification."""
        return cls(spec.control_points, spec.steps)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return ``vx_r_c`` and ``vy_r_c`` of the control point in row r and column c, half sides per unit of time."""
        return self._names

    def identity_parameters(self) -> tuple[float, ...]:
        """Return velocity 0 everywhere."""
        return (0.0,) * len(self._names)

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
