"""Warps take points where they say, there and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.data.distort import (
    CORNERS,
    Elastic,
    Projective,
    Warp,
    box_pose,
    draw_warp,
    homography_to,
    nearest_affine,
    regular_lattice,
    trace_part,
    trace_whole,
)
from stnbench.data.homographies import apply_homography
from stnbench.spec.data import DistortionSpec

pytestmark = pytest.mark.slow

PERTURBED = DistortionSpec(rotation_deg=25, scale_min=0.7, scale_max=1.1, placement="random", corner_noise=0.1)
ELASTIC = DistortionSpec(scale_min=0.75, scale_max=1.0, point_noise=1.5 / 28)
BOTH = DistortionSpec(rotation_deg=90, canvas=1.5, placement="random", corner_noise=0.1, point_noise=0.03)

seeds = st.integers(0, 2**32)
specs = st.sampled_from([PERTURBED, ELASTIC, BOTH])


def drawn(spec: DistortionSpec, seed: int) -> Warp:
    """A warp of the specification."""
    return draw_warp(spec, np.random.default_rng(seed))


def test_the_lattice_is_row_by_row_with_x_fastest() -> None:
    """16 points with the corners where ``CORNERS`` says, clockwise as seen from the upper left."""
    assert regular_lattice().shape == (16, 2)
    np.testing.assert_allclose(regular_lattice()[:2], [[-1.0, -1.0], [-1 / 3, -1.0]])
    np.testing.assert_allclose(regular_lattice()[list(CORNERS)], [[-1, -1], [1, -1], [1, 1], [-1, 1]])


@given(specs, seeds)
def test_there_and_back_is_where_one_was(spec: DistortionSpec, seed: int) -> None:
    """Points inside the square come back from the output, for homographies and splines."""
    warp = drawn(spec, seed)
    points = np.random.default_rng(seed + 1).uniform(-0.9, 0.9, (12, 2))
    np.testing.assert_allclose(warp.to_source(warp.to_output(points)), points, atol=1e-7)


@given(seeds)
def test_control_points_are_where_the_lattice_lands(seed: int) -> None:
    """The spline brings each control point to its place in the regular lattice exactly."""
    warp = drawn(ELASTIC, seed)
    assert isinstance(warp, Elastic)
    np.testing.assert_allclose(warp.to_source(warp.lattice), regular_lattice(), atol=1e-8)


def test_a_spline_through_an_affine_lattice_is_that_affine_map() -> None:
    """Nothing bends where nothing has to, also far outside the lattice."""
    matrix = np.array([[0.6, -0.3, 0.1], [0.2, 0.7, -0.2], [0, 0, 1]])
    warp = Elastic(apply_homography(matrix, regular_lattice()))
    points = np.random.default_rng(0).uniform(-2, 2, (20, 2))
    np.testing.assert_allclose(warp.to_output(points), apply_homography(matrix, points), atol=1e-8)
    np.testing.assert_allclose(warp.homography, matrix, atol=1e-12)


@given(seeds)
def test_the_nearest_affine_map_is_that_of_least_squares(seed: int) -> None:
    """NumPy's solver finds the same."""
    points = regular_lattice() + 0.2 * np.random.default_rng(seed).standard_normal((16, 2))
    ours = nearest_affine(points)
    theirs = np.linalg.lstsq(np.concatenate([regular_lattice(), np.ones((16, 1))], axis=1), points, rcond=None)[0].T
    np.testing.assert_allclose(ours, [*theirs, [0, 0, 1]], atol=1e-12)


@given(seeds)
def test_a_homography_goes_through_its_corners(seed: int) -> None:
    """The four corners of the square land where they should."""
    square = regular_lattice()[list(CORNERS)]
    corners = square + 0.2 * np.random.default_rng(seed).uniform(-1, 1, (4, 2))
    np.testing.assert_allclose(apply_homography(homography_to(corners), square), corners, atol=1e-9)


@given(specs, seeds)
def test_the_whole_image_is_traced(spec: DistortionSpec, seed: int) -> None:
    """Pose and control points belong to the warp, the last element is 1, and the box is clipped to the image."""
    warp = drawn(spec, seed)
    traced = trace_whole(warp)
    assert traced.pose[2, 2] == 1
    assert (np.abs(traced.roi) <= 1).all()
    if isinstance(warp, Projective):
        assert traced.control_points is None
        np.testing.assert_allclose(apply_homography(traced.pose, regular_lattice()), warp.lattice, atol=1e-12)
    else:
        assert traced.control_points is warp.lattice


@given(specs, seeds)
def test_a_part_is_traced_through_its_own_pose(spec: DistortionSpec, seed: int) -> None:
    """A thing's square goes through its pose and then through the warp; its box holds what its border became."""
    warp = drawn(spec, seed)
    box = np.array([-0.7, -0.5, 0.4, 0.6])
    tilt = np.array([[1, 0.1, 0], [0, 1, 0], [0.05, 0.1, 1]])
    traced = trace_part(warp, box_pose(box) @ tilt, box)
    expected = warp.to_output(apply_homography(box_pose(box) @ tilt, regular_lattice()))
    if traced.control_points is None:
        np.testing.assert_allclose(apply_homography(traced.pose, regular_lattice()), expected, atol=1e-9)
    else:
        np.testing.assert_allclose(traced.control_points, expected, atol=1e-9)
        np.testing.assert_allclose(traced.pose, nearest_affine(expected), atol=1e-9)
    corners = np.clip(warp.to_output(np.array([[-0.7, -0.5], [0.4, -0.5], [0.4, 0.6], [-0.7, 0.6]])), -1, 1)
    assert (corners.min(axis=0) >= traced.roi[:2] - 1e-9).all()
    assert (corners.max(axis=0) <= traced.roi[2:] + 1e-9).all()
    assert traced.pose[2, 2] == pytest.approx(1)
