"""Homographies: agreement with kornia, corners, and the vanishing line."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.geometry.transform import get_perspective_transform, homography_warp
from torch import Tensor

from stnbench.nn.sampling import sample
from stnbench.nn.transforms.nonlinear import Corners, Projective, invert_homography, map_homography

CORNERS = [[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]


def eight(batch: int, spread: float) -> Tensor:
    """Random parameters around zero, float64."""
    generator = torch.Generator().manual_seed(5)
    return spread * (2 * torch.rand(batch, 8, generator=generator, dtype=torch.float64) - 1)


@pytest.mark.parametrize("align_corners", [True, False])
def test_projective_images_are_those_of_kornia(*, align_corners: bool) -> None:
    """The function homography_warp of kornia with the unit matrix plus the parameters gives the same, to 1e-9."""
    images = torch.rand(4, 2, 11, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    parameters = eight(4, 0.3)
    matrix = torch.eye(3, dtype=torch.float64) + torch.nn.functional.pad(parameters, (0, 1)).reshape(4, 3, 3)
    expected = homography_warp(images, matrix, (11, 8), align_corners=align_corners, padding_mode="zeros")
    grid = Projective().grid(parameters, (11, 8), align_corners=align_corners)
    actual = sample(images, grid, sampler="bilinear", padding="zeros", align_corners=align_corners)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


def test_matrices_of_corners_are_those_of_kornia() -> None:
    """Up to its factor, the closed form is the solution of kornia's linear system, to 1e-9."""
    parameters = eight(6, 0.4)
    corners = torch.tensor([CORNERS] * 6, dtype=torch.float64)
    expected = get_perspective_transform(corners, corners + parameters.reshape(6, 4, 2))
    matrix = Corners().homography_out_to_in(parameters)
    torch.testing.assert_close(matrix / matrix[:, 2:, 2:], expected / expected[:, 2:, 2:], rtol=0, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(offsets=st.lists(st.floats(-0.45, 0.45), min_size=8, max_size=8))
def test_corners_go_where_they_are_told(offsets: list[float]) -> None:
    """Each corner of the output is read at its place plus its movement."""
    corners = torch.tensor([CORNERS], dtype=torch.float64)
    parameters = torch.tensor([offsets], dtype=torch.float64)
    read = Corners().map_points(parameters, corners)
    torch.testing.assert_close(read, corners + parameters.reshape(1, 4, 2), rtol=0, atol=1e-12)


def test_corners_are_named_clockwise_from_the_upper_left() -> None:
    """The third corner is the lower right one: its movement changes nothing at the others."""
    names = Corners().parameter_names
    assert names[4:6] == ("dx_bottom_right", "dy_bottom_right")
    parameters = torch.zeros(1, 8)
    parameters[0, names.index("dx_bottom_right")] = -0.5
    read = Corners().map_points(parameters, torch.tensor([CORNERS]))
    expected = torch.tensor([[CORNERS[0], CORNERS[1], [0.5, 1.0], CORNERS[3]]])
    torch.testing.assert_close(read, expected, rtol=0, atol=1e-6)


def test_parallelograms_are_affine() -> None:
    """Corners that all move alike, or stay a parallelogram, have a third coordinate of 1 everywhere."""
    moved = torch.tensor([[0.3, -0.2] * 4, [0.3, 0.0, 0.3, 0.0, -0.3, 0.0, -0.3, 0.0]], dtype=torch.float64)
    assert Corners().homography_out_to_in(moved)[:, 2].tolist() == [[0.0, 0.0, 1.0]] * 2


def test_a_small_quadrilateral_is_read_right() -> None:
    """A zoom by a hundred is a homography like any other: no guard is in its way."""
    parameters = torch.tensor([[0.99, 0.99, -0.99, 0.99, -0.99, -0.99, 0.99, -0.99]], dtype=torch.float64)
    points = torch.tensor([[[0.5, -0.25], [1.0, 1.0]]], dtype=torch.float64)
    torch.testing.assert_close(Corners().map_points(parameters, points), points / 100, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tilt", [1.0, -1.0, 0.999, 30.0])
def test_points_on_the_vanishing_line_are_finite(tilt: float) -> None:
    """Where the third coordinate is 0 or near it, places and gradients are finite, and far outside the image."""
    parameters = torch.zeros(1, 8)
    parameters[0, 6] = tilt
    points = torch.tensor([[[-1 / tilt, 0.5], [0.0, 0.0]]])
    read = Projective().map_points(parameters.requires_grad_(), points)
    assert abs(read[0, 0, 1].item()) >= 0.5 / 0.0101
    (slope,) = torch.autograd.grad(read.sum(), parameters)
    assert read.isfinite().all()
    assert slope.isfinite().all()


@pytest.mark.parametrize(
    "collapsed", [[1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0], [0.0] * 4 + [0.0, -2.0, 0.0, -2.0]]
)
def test_a_collapsed_quadrilateral_is_finite(collapsed: list[float]) -> None:
    """Four corners at one point, or on one line, give finite places and gradients."""
    parameters = torch.tensor([collapsed], requires_grad=True)
    grid = Corners().grid(parameters, (5, 5), align_corners=True)
    (slope,) = torch.autograd.grad(grid.sum(), parameters)
    assert grid.isfinite().all()
    assert slope.isfinite().all()


def test_the_inverse_matrix_is_that_of_linear_algebra() -> None:
    """The closed form agrees with torch.linalg.inv, and a singular matrix has no finite inverse."""
    matrix = Projective().homography_out_to_in(eight(5, 0.4))
    torch.testing.assert_close(invert_homography(matrix), torch.linalg.inv(matrix), rtol=0, atol=1e-12)
    assert not invert_homography(torch.ones(1, 3, 3)).isfinite().any()


def test_the_matrix_counts_up_to_a_factor() -> None:
    """Twice the matrix is the same map."""
    matrix = Projective().homography_out_to_in(eight(2, 0.3))
    points = torch.tensor([[[0.5, -0.25]]], dtype=torch.float64)
    assert torch.equal(map_homography(2 * matrix, points), map_homography(matrix, points))
