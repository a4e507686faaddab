"""One random warp from a specification."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.data.distort.warp import (
    CORNERS,
    LATTICE_SIDE,
    Elastic,
    Points,
    Projective,
    Warp,
    homography_to,
)
from stnbench.spec.data import DistortionSpec

KEPT_AREA: Final = 0.1
"""Noise that folds the image, or squeezes a corner below this share of its area, is drawn again."""


def draw_warp(spec: DistortionSpec, rng: np.random.Generator) -> Warp:
    """A warp as ``spec`` describes it.

    Scale and rotation come first, then the place, then noise on the corners, then noise on the lattice. What a
    specification leaves out is drawn as well, so that two specifications of one seed share what they have in common.
    """
    angle = np.radians(rng.uniform(-1, 1) * spec.rotation_deg)
    scale = spec.scale_min + rng.uniform() * (spec.scale_max - spec.scale_min)
    where = rng.uniform(-1, 1, 2)
    half_side = scale / spec.canvas
    centre = where * max(0.0, 1 - half_side) if spec.placement == "random" else np.zeros(2)
    cos, sin = half_side * np.cos(angle), half_side * np.sin(angle)
    similarity = np.array([[cos, -sin, centre[0]], [sin, cos, centre[1]], [0, 0, 1]])
    side = 2 / spec.canvas  # of the undistorted image, in output coordinates
    warp = _move_corners(Projective(similarity), spec.corner_noise * side, rng)
    points = _jitter(warp.lattice, spec.point_noise * side, _CELLS, rng)
    return Elastic(points) if spec.point_noise > 0 else warp


def _move_corners(placed: Projective, sd: float, rng: np.random.Generator) -> Projective:
    """The homography with noise on its corners, drawn again until its centre is in the frame: a digit is to be seen."""
    while True:
        corners = _jitter(placed.lattice[list(CORNERS)], sd, np.array([[0, 1, 2, 3]]), rng)
        if sd == 0:
            return placed
        moved = homography_to(corners)
        if (np.abs(moved[:2, 2]) < 1).all():
            return Projective(moved)


def _jitter(points: Points, sd: float, cells: NDArray[np.int64], rng: np.random.Generator) -> Points:
    """The points (n, 2) with normal noise, drawn again until all the quadrilaterals ``cells`` (m, 4) stay convex."""
    while True:
        moved = points + sd * rng.standard_normal(points.shape)
        if sd == 0 or (_corner_areas(moved[cells]) > KEPT_AREA * _corner_areas(points[cells])).all():
            return moved


def _corner_areas(quadrilaterals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twice the signed area of the triangle at each corner, (m, 4), of quadrilaterals (m, 4, 2) round their border."""
    ahead = np.roll(quadrilaterals, -1, axis=1) - quadrilaterals
    back = np.roll(quadrilaterals, 1, axis=1) - quadrilaterals
    areas: NDArray[np.float64] = ahead[..., 0] * back[..., 1] - ahead[..., 1] * back[..., 0]
    return areas


def _lattice_cells() -> NDArray[np.int64]:
    """The lattice's cells, (9, 4), each clockwise from its upper left corner."""
    rows = np.arange(LATTICE_SIDE**2).reshape(LATTICE_SIDE, LATTICE_SIDE)
    cells = np.stack([rows[:-1, :-1], rows[:-1, 1:], rows[1:, 1:], rows[1:, :-1]], axis=-1)
    return cells.reshape(-1, 4)


_CELLS: Final = _lattice_cells()
