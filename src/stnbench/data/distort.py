"""Distortions of images with known parameters: drawing, tracing of points, and rendering."""

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stnbench.data.homographies import apply_homography
from stnbench.spec.data import DistortionSpec

# The maps of image points: a homography, or a thin plate spline through 16 points.
#
# Convention: a warp takes the undistorted image's own square [-1, 1]^2 to the normalised coordinates of the output; x
# to the right, y down, -1 and 1 at the outer edges of the border pixels on both sides.


Points: TypeAlias = NDArray[np.float64]
"""float64 (n, 2), x and y."""

LATTICE_SIDE: Final = 4

_NEWTON_STEPS: Final = 30
_TINY: Final = 1e-300


@functools.cache
def regular_lattice() -> Points:
    """Return the regular 4x4 lattice of the square, corners included, (16, 2): row by row, x fastest; read-only."""
    steps = np.linspace(-1, 1, LATTICE_SIDE)
    y, x = np.meshgrid(steps, steps, indexing="ij")
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    points.flags.writeable = False
    return points


CORNERS: Final = (0, 3, 15, 12)
"""The lattice's rows that are the corners of the square: clockwise as seen, from the upper left one."""

BORDER: Final = (0, 1, 2, 3, 4, 7, 8, 11, 12, 13, 14, 15)
"""The lattice's rows on the border of the square."""


class Warp(ABC):
    """A one-to-one map of the plane."""

    @abstractmethod
    def to_output(self, points: Points) -> Points:
        """Map points of the undistorted image's square, (n, 2), to the output, (n, 2)."""

    @abstractmethod
    def to_source(self, points: Points) -> Points:
        """Map points of the output, (n, 2), to the undistorted image's square, (n, 2)."""

    @property
    @abstractmethod
    def lattice(self) -> Points:
        """Return the positions of the square's 4x4 lattice in the output, (16, 2)."""

    @property
    @abstractmethod
    def homography(self) -> NDArray[np.float64]:
        """Return the homography (3, 3) from the square to the output; the nearest affine map if the warp is none."""


class Projective(Warp):
    """A homography, (3, 3) from the square to the output."""

    def __init__(self, homography: NDArray[np.float64]) -> None:
        """Normalise the homography to a last element of 1."""
        self._homography: NDArray[np.float64] = homography / homography[2, 2]
        self._lattice = apply_homography(self._homography, regular_lattice())

    @property
    def homography(self) -> NDArray[np.float64]:
        """Return the homography (3, 3), its last element 1."""
        return self._homography

    @property
    def lattice(self) -> Points:
        """Return the positions of the square's 4x4 lattice in the output, (16, 2)."""
        return self._lattice

    def to_output(self, points: Points) -> Points:
        """Map points of the square, (n, 2), to the output."""
        return apply_homography(self._homography, points)

    def to_source(self, points: Points) -> Points:
        """Map points of the output, (n, 2), to the square."""
        return apply_homography(np.linalg.inv(self._homography).astype(np.float64), points)


class Elastic(Warp):
    """A thin plate spline (Bookstein 1989) from the output to the square that maps 16 points to the regular lattice.

    It is a spline from the output to the source, the direction in which images are rendered, so that every control
    point lies exactly at its stated position; the other direction is its inverse, found by Newton's method.
    """

    def __init__(self, control_points: Points) -> None:
        """Fit the spline to the positions of the lattice in the output, (16, 2)."""
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
        """Return the affine map (3, 3) that takes the lattice nearest to the control points, by least squares."""
        return nearest_affine(self._centres)

    @property
    def lattice(self) -> Points:
        """Return the control points, (16, 2)."""
        return self._centres

    def to_source(self, points: Points) -> Points:
        """Map points of the output, (n, 2), to the square."""
        moved: Points = self._affine[0] + points @ self._affine[1:] + _kernel(points, self._centres) @ self._bend
        return moved

    def to_output(self, points: Points) -> Points:
        """Map points of the square, (n, 2), to the output, with an error of about 1e-9.

        Each step of Newton's method is halved where it would increase the distance.
        """
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
        """Return the Jacobian of the source with respect to the output: (n, 2 of the source, 2 of the output)."""
        away = points[:, None] - self._centres
        squared = (away**2).sum(axis=2)
        gradient = 2 * away * (np.log(squared + _TINY) + 1)[..., None]
        slope: NDArray[np.float64] = np.einsum("nki,kj->nji", gradient, self._bend) + self._affine[1:].T
        return slope


def nearest_affine(control_points: Points) -> NDArray[np.float64]:
    """Return the affine map (3, 3) from the square that takes the lattice nearest to points (16, 2), by least squares.

    The lattice is centred and its coordinates are uncorrelated, so that each column is a mean.
    """
    x, y = regular_lattice().T
    columns = [(axis[:, None] * control_points).sum(axis=0) / (axis**2).sum() for axis in (x, y)]
    return np.array([*np.stack([*columns, control_points.mean(axis=0)], axis=1), [0.0, 0.0, 1.0]])


def homography_to(corners: Points) -> NDArray[np.float64]:
    """Return the homography (3, 3), last element 1, that takes the corners of the square to the points ``corners``.

    The corners (4, 2) are in the order of ``CORNERS``. Direct linear transformation: Hartley and Zisserman, Multiple
    View Geometry, 4.1.
    """
    rows, wanted = [], []
    for (x, y), (u, v) in zip(regular_lattice()[list(CORNERS)], corners, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        wanted += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(wanted)), 1.0).reshape(3, 3)


def _kernel(points: Points, centres: Points) -> NDArray[np.float64]:
    """Return r^2 log r^2 for each pair of a point and a centre, (points, centres)."""
    squared = (points[:, :1] - centres[:, 0]) ** 2 + (points[:, 1:] - centres[:, 1]) ** 2
    kernel: NDArray[np.float64] = squared * np.log(squared + _TINY)
    return kernel


# Random warps from a specification.


KEPT_AREA: Final = 0.1
"""Noise that folds the image, or shrinks the triangle at a corner below this share of its area, is drawn again."""


def draw_warp(spec: DistortionSpec, rng: np.random.Generator) -> Warp:
    """Draw a warp as ``spec`` describes it.

    Scale and rotation come first, then the position, then noise on the corners, then noise on the lattice.
    """
    # Parts that a specification leaves out are drawn as well, so that two specifications with one seed agree in the
    # parts that they have in common.
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
    """Add noise to the corners, drawn again until the centre is in the frame, so that the digit is visible."""
    while True:
        corners = _jitter(placed.lattice[list(CORNERS)], sd, np.array([[0, 1, 2, 3]]), rng)
        if sd == 0:
            return placed
        moved = homography_to(corners)
        if (np.abs(moved[:2, 2]) < 1).all():
            return Projective(moved)


def _jitter(points: Points, sd: float, cells: NDArray[np.int64], rng: np.random.Generator) -> Points:
    """Add normal noise to points (n, 2), drawn again until all quadrilaterals ``cells`` (m, 4) stay convex.

    ``cells`` holds rows of ``points``, ``sd`` is the standard deviation.
    """
    while True:
        moved = points + sd * rng.standard_normal(points.shape)
        if sd == 0 or (_corner_areas(moved[cells]) > KEPT_AREA * _corner_areas(points[cells])).all():
            return moved


def _corner_areas(quadrilaterals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return twice the signed area of the triangle at each corner, (m, 4), of quadrilaterals (m, 4, 2)."""
    ahead = np.roll(quadrilaterals, -1, axis=1) - quadrilaterals
    back = np.roll(quadrilaterals, 1, axis=1) - quadrilaterals
    areas: NDArray[np.float64] = ahead[..., 0] * back[..., 1] - ahead[..., 1] * back[..., 0]
    return areas


def _lattice_cells() -> NDArray[np.int64]:
    """Return the nine quadrilaterals of the lattice, (9, 4), each clockwise from its upper left corner."""
    rows = np.arange(LATTICE_SIDE**2).reshape(LATTICE_SIDE, LATTICE_SIDE)
    cells = np.stack([rows[:-1, :-1], rows[:-1, 1:], rows[1:, 1:], rows[1:, :-1]], axis=-1)
    return cells.reshape(-1, 4)


_CELLS: Final = _lattice_cells()


# The annotations of a warped image: pose, control points and box.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trace:
    """The position of a warped object; the meaning is as in ``ImageSet``.

    ``pose`` (3, 3); ``control_points`` (16, 2), None where the warp is a homography; ``roi`` (4,).
    """

    pose: NDArray[np.float64]
    control_points: Points | None
    roi: NDArray[np.float64]


def trace_whole(warp: Warp) -> Trace:
    """Return the position of the whole undistorted image after the warp."""
    control_points = warp.lattice if isinstance(warp, Elastic) else None
    return Trace(pose=warp.homography, control_points=control_points, roi=_box_round(warp.lattice))


def trace_part(warp: Warp, pose: NDArray[np.float64], roi: NDArray[np.float64]) -> Trace:
    """Return the position after the warp of an object that is a part of the undistorted image.

    Args:
        warp: the map from the undistorted image to the output.
        pose: (3, 3), the homography from the object's own square to the undistorted image.
        roi: (4,), the object's box there, x1, y1, x2, y2; that of the result bounds the warped box, clipped.
    """
    box = _box_round(warp.to_output(apply_homography(box_pose(roi), regular_lattice()[list(BORDER)])))
    if isinstance(warp, Elastic):
        points = warp.to_output(apply_homography(pose, regular_lattice()))
        return Trace(pose=nearest_affine(points), control_points=points, roi=box)
    together = warp.homography @ pose
    return Trace(pose=together / together[2, 2], control_points=None, roi=box)


def box_pose(roi: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine map (3, 3) from the square [-1, 1]^2 to a box x1, y1, x2, y2, (4,)."""
    centre, half = (roi[:2] + roi[2:]) / 2, (roi[2:] - roi[:2]) / 2
    return np.array([[half[0], 0, centre[0]], [0, half[1], centre[1]], [0, 0, 1]])


def _box_round(points: Points) -> NDArray[np.float64]:
    """Return the box (4,) of points (n, 2), clipped to the image."""
    box: NDArray[np.float64] = np.clip(np.concatenate([points.min(axis=0), points.max(axis=0)]), -1, 1)
    return box


# The rendering of warped images: cubic splines, averaged where the image shrinks.


SHRINK_UNAVERAGED: Final = 1.5
"""The number of source pixels along a side that an output pixel may cover without averaging."""
OVERSAMPLING_MAX: Final = 6

BAND_MIN: Final = 0.05
"""The smallest width of a mirrored band, in normalised coordinates."""

_MARGIN: Final = 4
"""The number of black pixels around an image, in which the spline decays."""
_ORDER: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Picture:
    """An image ready to be sampled: the cubic B-spline coefficients of its channels (Unser et al. 1993).

    Attributes:
        coefficients: float32 (channels, side + 2 margin, side + 2 margin), of pixels in [0, 255].
        side: side of the image in pixels.
        margin: width of the black border in pixels.
        box: (4,), x1, y1, x2, y2 of the object in a photograph, normalised; None if all is black beyond the edges.
    """

    coefficients: NDArray[np.float32]
    side: int
    margin: int
    box: NDArray[np.float64] | None


def make_picture(image: NDArray[np.uint8], box: NDArray[np.float64] | None) -> Picture:
    """Prepare a square image, uint8 (channels, side, side), for sampling.

    Beyond the edges the image is black. If a ``box`` is given, the bands between it and the edges are mirrored back
    and forth instead: mirroring the whole photograph would show a second, mirrored sign.
    """
    from scipy import ndimage  # the light commands import this module

    margin = _MARGIN if box is None else 0
    padded = np.pad(image, ((0, 0), (margin, margin), (margin, margin))).astype(np.float32)
    mode = "mirror" if box is None else "reflect"
    filtered = [ndimage.spline_filter(channel, _ORDER, output=np.float32, mode=mode) for channel in padded]
    return Picture(coefficients=np.stack(filtered), side=image.shape[-1], margin=margin, box=box)


def render(picture: Picture, warp: Warp, size: int) -> NDArray[np.uint8]:
    """Render the warped picture, uint8 (channels, size, size)."""
    from scipy import ndimage

    oversampling = _oversampling(picture, warp, size)
    source = warp.to_source(pixel_centres(size * oversampling))
    if picture.box is not None:
        source = fold(source, picture.box)
    columns, rows = ((source + 1) / 2 * picture.side - 0.5 + picture.margin).T
    mode = "constant" if picture.box is None else "reflect"
    shape = (size, oversampling, size, oversampling)
    channels = [
        ndimage.map_coordinates(channel, (rows, columns), np.float32, _ORDER, mode, prefilter=False)
        .reshape(shape)
        .mean(axis=(1, 3))
        for channel in picture.coefficients
    ]
    return np.clip(np.rint(channels), 0, 255).astype(np.uint8)


def fold(points: Points, box: NDArray[np.float64]) -> Points:
    """Reflect points (n, 2) beyond the edges of the square into the bands between a box and the edges."""
    before, after = np.maximum(box[:2] + 1, BAND_MIN), np.maximum(1 - box[2:], BAND_MIN)
    inside: Points = np.clip(points, -1, 1)
    return inside + _zigzag(np.maximum(-1 - points, 0), before) - _zigzag(np.maximum(points - 1, 0), after)


def _zigzag(way: Points, width: NDArray[np.float64]) -> Points:
    """Reflect distances ``way`` from the edge back and forth within a band of the given width."""
    return width - np.abs(way % (2 * width) - width)


@functools.lru_cache(maxsize=8)
def pixel_centres(size: int) -> Points:
    """Return the pixel centres of a square image in normalised coordinates, (size^2, 2), row by row; read-only."""
    steps = (2 * np.arange(size) + 1) / size - 1
    y, x = np.meshgrid(steps, steps, indexing="ij")
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    points.flags.writeable = False
    return points


def _oversampling(picture: Picture, warp: Warp, size: int) -> int:
    """Return the number of samples along a side of an output pixel.

    It is 1, or the number of source pixels that an output pixel covers along a side, from the area of the warped
    square, at most ``OVERSAMPLING_MAX``.
    """
    x, y = warp.lattice[list(CORNERS)].T
    seen = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    shrink = picture.side / (size * math.sqrt(seen / 4))
    return 1 if shrink <= SHRINK_UNAVERAGED else min(OVERSAMPLING_MAX, math.ceil(shrink))
