"""Drawing in the sign's coordinates with flat colours, and the placement of signs; supersampling smooths edges."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stnbench.data.homographies import apply_homography

Colour = tuple[int, int, int]
Point = tuple[float, float]
Path = Sequence[Point] | NDArray[np.float64]

SUPERSAMPLING: Final = 4
"""The factor by which faces are drawn larger than they are kept."""

_TURN_STEPS: Final = 72


def arc(centre: Point, radii: Point, start: float, end: float) -> list[Point]:
    """Return points on an axis-parallel ellipse, ends included.

    Convention: angles in degrees from +x towards +y (y down, so clockwise); ``end`` below ``start`` goes the other way.
    """
    steps = max(2, round(abs(end - start) / 360 * _TURN_STEPS) + 1)
    angles = np.radians(np.linspace(start, end, steps))
    return [(centre[0] + radii[0] * float(np.cos(a)), centre[1] + radii[1] * float(np.sin(a))) for a in angles]


def rounded_polygon(corners: Sequence[Point], radius: float) -> list[Point]:
    """Return the outline of a convex polygon (corners clockwise, y down) with corners rounded by arcs of a radius."""
    count = len(corners)
    outline: list[Point] = []
    for index, corner in enumerate(corners):
        here = np.asarray(corner)
        before = _unit(np.asarray(corners[index - 1]) - here)
        after = _unit(np.asarray(corners[(index + 1) % count]) - here)
        half_angle = np.arccos(np.clip(before @ after, -1, 1)) / 2
        centre = here + _unit(before + after) * radius / np.sin(half_angle)
        first = centre + radius * np.array([-before[1], before[0]])
        start = np.degrees(np.arctan2(*(first - centre)[::-1]))
        outline += arc((centre[0], centre[1]), (radius, radius), start, start + 180 - np.degrees(2 * half_angle))
    return outline


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """A drawing surface in the sign's coordinates: [-1, 1]^2 is the sign's square, x to the right, y down.

    ``to_pixels`` is a float64 (3, 3) similarity (perhaps mirrored) from these coordinates to pixels.
    """

    draw: ImageDraw.ImageDraw
    to_pixels: NDArray[np.float64]

    @classmethod
    def on(cls, image: Image.Image) -> "Canvas":
        """Return a canvas whose square fills a square image."""
        half = image.width / 2
        return cls(ImageDraw.Draw(image), np.array([[half, 0, half - 0.5], [0, half, half - 0.5], [0, 0, 1]]))

    def inset(self, centre: Point, scale: float, *, mirror: bool = False, degrees: float = 0.0) -> "Canvas":
        """Return a canvas on the same image, mirrored left to right first, then rotated clockwise, scaled, and moved.

        ``centre`` is its new origin and ``scale`` its new unit, both in the coordinates of this canvas.
        """
        cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
        sign = -1 if mirror else 1
        placed = np.array([[sign * cos, -sin, centre[0]], [sign * sin, cos, centre[1]], [0, 0, 1]])
        return Canvas(self.draw, self.to_pixels @ placed)

    def polygon(self, points: Path, colour: Colour) -> None:
        """Draw a filled polygon."""
        self.draw.polygon(self._pixels(points), fill=colour)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """Draw a filled circle."""
        self.polygon(arc(centre, (radius, radius), 0, 360), colour)

    def stroke(self, points: Path, width: float, colour: Colour, *, round_ends: bool = False) -> None:
        """Draw a line through the points with round joints; its ends are flat unless ``round_ends`` is true."""
        path = np.asarray(points, dtype=np.float64)
        for start, end in itertools.pairwise(path):
            ahead = _unit(end - start)
            across = np.array([-ahead[1], ahead[0]]) * width / 2
            self.polygon(np.stack([start + across, end + across, end - across, start - across]), colour)
        for x, y in path if round_ends else path[1:-1]:
            self.disc((float(x), float(y)), width / 2, colour)

    def arrow(self, points: Path, width: float, colour: Colour, *, head: Point) -> None:
        """Draw a stroke whose last point is the tip of a triangular head; ``head`` is the head's width and length."""
        path = np.asarray(points, dtype=np.float64)
        ahead = _unit(path[-1] - path[-2])
        across = np.array([-ahead[1], ahead[0]])
        neck = path[-1] - head[1] * ahead
        body = path[np.linalg.norm(path - path[-1], axis=1) > head[1]]
        self.stroke(np.concatenate([body, [neck + 0.05 * ahead]]), width, colour)
        self.polygon(np.stack([neck + across * head[0] / 2, path[-1], neck - across * head[0] / 2]), colour)

    def _pixels(self, points: Path) -> list[Point]:
        return [(float(x), float(y)) for x, y in apply_homography(self.to_pixels, np.asarray(points, dtype=np.float64))]


# The colours of signs, as sRGB.


WHITE: Final[Colour] = (244, 244, 240)
BLACK: Final[Colour] = (22, 22, 24)
RED: Final[Colour] = (196, 30, 38)
BLUE: Final[Colour] = (24, 84, 168)
YELLOW: Final[Colour] = (240, 184, 24)
GREEN: Final[Colour] = (28, 142, 84)
GREY: Final[Colour] = (112, 114, 118)


# The position of a sign in the image: the homography of a plane seen by a camera, and the crop around it.


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """The pose of the sign relative to the camera in one frame, and the crop of the frame.

    Attributes:
        size_px: the longer side of the sign's box in camera pixels.
        roll_deg: rotation in the image plane, clockwise.
        yaw_deg: rotation about the vertical axis.
        pitch_deg: rotation about the horizontal axis.
        distance: distance from the camera to the sign's centre, in half sides of the sign; a small one gives a strong
            perspective.
        fill: share of the image's sides that the sign's box covers.
        aspect: the share of the width over the share of the height.
        offset_x: position of the box in the remaining width: -1 touches the left edge, 0 is centred, 1 touches the
            right edge.
        offset_y: position of the box in the remaining height: -1 touches the top edge, 1 the bottom edge.
    """

    size_px: float
    roll_deg: float
    yaw_deg: float
    pitch_deg: float
    distance: float
    fill: float
    aspect: float
    offset_x: float
    offset_y: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Placement:
    """The position of the sign in the crop that a view gives.

    Attributes:
        pose: float64 (3, 3), from the sign's square to normalised image coordinates.
        roi: float64 (4,), x1, y1, x2, y2 of the outline, normalised.
        width: width of the crop in camera pixels.
        height: height of the crop in camera pixels.
    """

    pose: NDArray[np.float64]
    roi: NDArray[np.float64]
    width: int
    height: int


def view_homography(view: View) -> NDArray[np.float64]:
    """Return the homography (3, 3) of the sign's plane in a pinhole camera, with its last element 1.

    The sign's centre is mapped to the origin.

    Hartley and Zisserman, Multiple View Geometry, 8.1: K [r1 r2 t], with the scale of the centre set to 1.
    Convention: sign square to camera plane; x to the right, y down, z away from the camera; roll after pitch after yaw.
    """
    roll, yaw, pitch = np.radians([view.roll_deg, view.yaw_deg, view.pitch_deg])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    columns = (about_z @ about_x @ about_y)[:, :2]
    columns[2] /= view.distance
    return np.concatenate([columns, [[0], [0], [1]]], axis=1)


def place(view: View, outline: NDArray[np.float64], min_border_px: int) -> Placement:
    """Return the crop around the sign's outline, and the position of the sign in it.

    The crop leaves at least ``min_border_px`` camera pixels on either side before the offset moves the box.

    Args:
        view: the pose of the sign and the crop.
        outline: (n, 2), points of the sign's square.
        min_border_px: the smallest border in camera pixels.
    """
    seen = view_homography(view)
    points = apply_homography(seen, outline)
    low, high = points.min(axis=0), points.max(axis=0)
    sides_px = (high - low) * view.size_px / (high - low).max()
    fills = view.fill * np.array([np.sqrt(view.aspect), 1 / np.sqrt(view.aspect)])
    crop_px = np.maximum(np.rint(sides_px / fills), np.ceil(sides_px) + 2 * min_border_px)
    half_box = sides_px / crop_px
    centre = (1 - half_box) * np.array([view.offset_x, view.offset_y])
    scale = 2 * half_box / (high - low)
    shift = centre - scale * (low + high) / 2
    to_image = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]], [0, 0, 1]])
    return Placement(
        pose=to_image @ seen,
        roi=np.concatenate([centre - half_box, centre + half_box]),
        width=int(crop_px[0]),
        height=int(crop_px[1]),
    )


def pixels_to_normalised(width: int, height: int) -> NDArray[np.float64]:
    """Return the map (3, 3) from pixel coordinates to [-1, 1]^2, both from the outer edges of the border pixels."""
    return np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])
