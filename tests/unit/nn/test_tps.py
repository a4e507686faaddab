"""Thin plate splines: interpolation, agreement with scipy and kornia, and the affine maps among them."""

import numpy as np
import pytest
import torch
from kornia.geometry.transform import get_tps_transform, warp_points_tps
from scipy.interpolate import RBFInterpolator
from torch import Tensor

from stnbench.nn.transforms import pixel_centres
from stnbench.nn.transforms.affine import invert_affine, map_affine
from stnbench.nn.transforms.nonlinear import ThinPlateSpline

every_side = pytest.mark.parametrize("side", [2, 3, 4, 16])


def movements(side: int, batch: int = 2, *, spread: float = 0.2) -> Tensor:
    """Random movements of the control points, float64."""
    generator = torch.Generator().manual_seed(6)
    return spread * torch.randn(batch, 2 * side**2, generator=generator, dtype=torch.float64)


def lattice(side: int) -> Tensor:
    """The control points, shared by all images."""
    like = torch.zeros(1, dtype=torch.float64)
    return pixel_centres((side, side), align_corners=True, like=like)[None]


def some_points(count: int = 40) -> Tensor:
    """Points inside and outside the image, shared by all images."""
    return 2.6 * torch.rand(1, count, 2, generator=torch.Generator().manual_seed(8), dtype=torch.float64) - 1.3


def affine_movements(theta: Tensor, side: int) -> Tensor:
    """How the control points move under affine maps."""
    return (map_affine(theta, lattice(side)) - lattice(side)).flatten(1)


@every_side
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float64, 1e-11)])
def test_control_points_go_where_they_are_told(side: int, dtype: torch.dtype, atol: float) -> None:
    """Each control point is read at its place plus its movement, also among 256 of them in float32."""
    parameters = movements(side).to(dtype)
    read = ThinPlateSpline(side).map_points(parameters, lattice(side).to(dtype))
    expected = lattice(side).to(dtype) + parameters.reshape(2, side**2, 2)
    torch.testing.assert_close(read, expected, rtol=0, atol=atol)


@every_side
def test_maps_are_those_of_scipy(side: int) -> None:
    """The interpolator of scipy with the same kernel and an affine part gives the same places, to 1e-9."""
    parameters, points = movements(side, 1), some_points()
    moves = parameters.reshape(side**2, 2).numpy()
    spline = RBFInterpolator(lattice(side)[0].numpy(), moves, kernel="thin_plate_spline", degree=1)
    expected = points[0].numpy() + spline(points[0].numpy())
    actual = ThinPlateSpline(side).map_points(parameters, points)[0].numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-9)


def test_control_points_come_row_by_row() -> None:
    """The name dx_1_2 means the second row from the top and the third column from the left."""
    names = ThinPlateSpline(3).parameter_names
    assert names[:3] == ("dx_0_0", "dy_0_0", "dx_0_1")
    parameters = torch.zeros(1, 18)
    parameters[0, names.index("dx_1_2")] = 0.25
    read = ThinPlateSpline(3).map_points(parameters, torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
    torch.testing.assert_close(read, torch.tensor([[[1.25, 0.0], [0.0, 1.0]]]), rtol=0, atol=1e-6)


@every_side
def test_affine_movements_give_the_affine_map(side: int) -> None:
    """Where the control points move as under a matrix, all points do, and those of the inverse matrix lead back."""
    noise = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theta = torch.eye(2, 3, dtype=torch.float64) + 0.2 * noise
    spline, points = ThinPlateSpline(side), some_points()
    read = spline.map_points(affine_movements(theta, side), points)
    torch.testing.assert_close(read, map_affine(theta, points), rtol=0, atol=1e-10)
    back = spline.map_points(affine_movements(invert_affine(theta), side), read)
    torch.testing.assert_close(back, points.expand(3, -1, 2), rtol=0, atol=1e-10)


def test_maps_agree_with_kornia_where_both_interpolate() -> None:
    """At control points, and everywhere for affine movements; else kornia puts its kernels at the points' aims."""
    side, points = 4, some_points()
    theta = torch.tensor([[[1.1, 0.2, 0.1], [-0.1, 0.9, -0.2]]], dtype=torch.float64)
    for parameters, where in ((movements(side, 1), lattice(side)), (affine_movements(theta, side), points)):
        aims = lattice(side) + parameters.reshape(1, -1, 2)
        expected = warp_points_tps(where, aims, *get_tps_transform(lattice(side), aims))
        torch.testing.assert_close(ThinPlateSpline(side).map_points(parameters, where), expected, rtol=0, atol=1e-9)
