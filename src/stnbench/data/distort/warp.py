"""Where the points of an image go: a homography, or a thin plate spline through 16 points.

Convention: a warp takes the undistorted image's own square [-1, 1]^2 to the normalised coordinates of the output; x to
the right, y down, -1 and 1 at the outer edges of the border pixels on both sides.
"""

import functools
from abc import ABC, abstractmethod
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stnbench.data.homography import apply_homography

Points: TypeAlias = NDArray[np.float64]
"""float64 (n, 2), x and y."""

LATTICE_SIDE: Final = 4

_NEWTON_STEPS: Final = 30
_TINY: Final = 1e-300


@functools.cache
def regular_lattice() -> Points:
    """The regular 4x4 lattice of the square, corners included, (16, 2): row by row, x fastest."""
    steps = np.linspace(-1, 1, LATTICE_SIDE)
    y, x = np.meshgrid(steps, steps, indexing="ij")
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    points.flags.writeable = False
    return points


CORNERS: Final = (0, 3, 15, 12)
"""The lattice's rows that are the corners of the square: round it, clockwise as seen, from the upper left one."""

BORDER: Final = (0, 1, 2, 3, 4, 7, 8, 11, 12, 13, 14, 15)
"""The lattice's rows on the border of the square."""


class Warp(ABC):
    """A one-to-one map of the plane."""

    @abstractmethod
    def to_output(self, points: Points) -> Points:
        """Points of the undistorted image's square, (n, 2), where they are seen in the output."""

    @abstractmethod
    def to_source(self, points: Points) -> Points:
        """Points of the output, (n, 2), where they are from."""

    @property
    @abstractmethod
    def lattice(self) -> Points:
        """Where the square's 4x4 lattice is seen in the output, (16, 2)."""

    @property
    @abstractmethod
    def homography(self) -> NDArray[np.float64]:
        """(3, 3), from the square to the output; the nearest affine map where the warp is no homography."""


class Projective(Warp):
    """A homography, (3, 3) from the square to the output."""

    def __init__(self, homography: NDArray[np.float64]) -> None:
        """Keep it with its last element 1."""
        self._homography: NDArray[np.float64] = homography / homography[2, 2]
        self._lattice = apply_homography(self._homography, regular_lattice())

    @property
    def homography(self) -> NDArray[np.float64]:
        """(3, 3), its last element 1."""
        return self._homography

    @property
    def lattice(self) -> Points:
        """As ``Warp``."""
        return self._lattice

    def to_output(self, points: Points) -> Points:
        """As ``Warp``."""
        return apply_homography(self._homography, points)

    def to_source(self, points: Points) -> Points:
        """As ``Warp``."""
        return apply_homography(np.linalg.inv(self._homography).astype(np.float64), points)


class Elastic(Warp):
    """A thin plate spline (Bookstein 1989) from the output to the square that brings 16 points to the regular lattice.

    It is a spline on the way in which images are rendered, so that every control point is exactly where it is said to
    be; on the way back it is inverted by Newton's method.
    """

    def __init__(self, control_points: Points) -> None:
        """Fit the spline to where the lattice lands in the output, (16, 2)."""
        self._centres = control_points
        count = len(control_points)
        affine = np.concatenate([np.ones((count, 1)), control_points], axis=1)
        system = np.zeros((count + 3, count + 3))
        system[:count, :count] = _kernel(control_points, control_points)
        system[:count, count:] = affine
        system[count:, :count] = affine.T
        solution = np.linalg.solve(system, np.concatenate([regular_lattice(), np.zeros((3, 2))]))
        self._bend, self._affine = solution[:count], solution[count:]

    @property
    def homography(self) -> NDArray[np.float64]:
        """(3, 3), the affine map that takes the regular lattice nearest to the control points in the least squares."""
        return nearest_affine(self._centres)

    @property
    def lattice(self) -> Points:
        """The control points."""
        return self._centres

    def to_source(self, points: Points) -> Points:
        """As ``Warp``."""
        moved: Points = self._affine[0] + points @ self._affine[1:] + _kernel(points, self._centres) @ self._bend
        return moved

    def to_output(self, points: Points) -> Points:
        """As ``Warp``, to about 1e-9: each step of Newton's method is halved where it would lead further away."""
        found = apply_homography(self.homography, points)
        miss = self.to_source(found) - points
        for _ in range(_NEWTON_STEPS):
            step = np.linalg.solve(self._slope(found), miss[..., None])[..., 0]
            for _ in range(6):
                tried = found - step
                missed = self.to_source(tried) - points
                worse = np.linalg.norm(missed, axis=1) > np.linalg.norm(miss, axis=1)
                if not worse.any():
                    break
                step[worse] /= 2
            found, miss = tried, missed
            if np.abs(miss).max(initial=0) < 1e-10:
                break
        return found

    def _slope(self, points: Points) -> NDArray[np.float64]:
        """How the source moves with the output: (n, 2 of the source, 2 of the output)."""
        away = points[:, None] - self._centres
        squared = (away**2).sum(axis=2)
        gradient = 2 * away * (np.log(squared + _TINY) + 1)[..., None]
        slope: NDArray[np.float64] = np.einsum("nki,kj->nji", gradient, self._bend) + self._affine[1:].T
        return slope


def nearest_affine(control_points: Points) -> NDArray[np.float64]:
    """(3, 3), the affine map from the square that takes the lattice nearest to these points (16, 2), by least squares.

    The lattice is centred and its coordinates are uncorrelated, so that each column is a mean.
    """
    x, y = regular_lattice().T
    columns = [(axis[:, None] * control_points).sum(axis=0) / (axis**2).sum() for axis in (x, y)]
    return np.array([*np.stack([*columns, control_points.mean(axis=0)], axis=1), [0.0, 0.0, 1.0]])


def homography_to(corners: Points) -> NDArray[np.float64]:
    """(3, 3), last element 1: the homography that takes the corners of the square, in ``CORNERS``' order, to these.

    Direct linear transformation: Hartley and Zisserman, Multiple View Geometry, 4.1.
    """
    rows, wanted = [], []
    for (x, y), (u, v) in zip(regular_lattice()[list(CORNERS)], corners, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        wanted += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(wanted)), 1.0).reshape(3, 3)


def _kernel(points: Points, centres: Points) -> NDArray[np.float64]:
    """r^2 log r^2 for each pair, (points, centres)."""
    squared = (points[:, :1] - centres[:, 0]) ** 2 + (points[:, 1:] - centres[:, 1]) ** 2
    kernel: NDArray[np.float64] = squared * np.log(squared + _TINY)
    return kernel
