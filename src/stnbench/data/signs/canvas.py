"""Drawing on the sign's own square with flat colours; smooth edges come from drawing large and shrinking."""

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
"""Faces are drawn this many times larger than they are kept."""

_TURN_STEPS: Final = 72


def arc(centre: Point, radii: Point, start: float, end: float) -> list[Point]:
    """Points on an axis-parallel ellipse, ends included.

    Convention: angles in degrees from +x towards +y (y down, so clockwise); ``end`` below ``start`` goes the other way.
    """
    steps = max(2, round(abs(end - start) / 360 * _TURN_STEPS) + 1)
    angles = np.radians(np.linspace(start, end, steps))
    return [(centre[0] + radii[0] * float(np.cos(a)), centre[1] + radii[1] * float(np.sin(a))) for a in angles]


def rounded_polygon(corners: Sequence[Point], radius: float) -> list[Point]:
    """The outline of a convex polygon (corners clockwise, y down) whose corners are arcs of the given radius."""
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
    """A drawing surface with its own coordinates: [-1, 1]^2 is the sign's square, x to the right, y down.

    ``to_pixels`` is a float64 (3, 3) similarity (perhaps mirrored) from these coordinates to pixels.
    """

    draw: ImageDraw.ImageDraw
    to_pixels: NDArray[np.float64]

    @classmethod
    def on(cls, image: Image.Image) -> "Canvas":
        """A canvas whose square fills a square image."""
        half = image.width / 2
        return cls(ImageDraw.Draw(image), np.array([[half, 0, half - 0.5], [0, half, half - 0.5], [0, 0, 1]]))

    def inset(self, centre: Point, scale: float, *, mirror: bool = False, degrees: float = 0.0) -> "Canvas":
        """A canvas on the same image, moved, scaled, turned clockwise, and mirrored left to right first."""
        cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
        sign = -1 if mirror else 1
        placed = np.array([[sign * cos, -sin, centre[0]], [sign * sin, cos, centre[1]], [0, 0, 1]])
        return Canvas(self.draw, self.to_pixels @ placed)

    def polygon(self, points: Path, colour: Colour) -> None:
        """A filled polygon."""
        self.draw.polygon(self._pixels(points), fill=colour)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """A filled circle."""
        self.polygon(arc(centre, (radius, radius), 0, 360), colour)

    def stroke(self, points: Path, width: float, colour: Colour, *, round_ends: bool = False) -> None:
        """A line through the points with round joints; its ends are flat unless they are asked round."""
        path = np.asarray(points, dtype=np.float64)
        for start, end in itertools.pairwise(path):
            ahead = _unit(end - start)
            across = np.array([-ahead[1], ahead[0]]) * width / 2
            self.polygon(np.stack([start + across, end + across, end - across, start - across]), colour)
        for x, y in path if round_ends else path[1:-1]:
            self.disc((float(x), float(y)), width / 2, colour)

    def arrow(self, points: Path, width: float, colour: Colour, *, head: Point) -> None:
        """A stroke whose last point is the tip of a triangular head; ``head`` is its width and length."""
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


# Where a sign appears: the homography of a plane seen by a camera, and the crop around it.


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """How the camera sees the sign in one frame, and how the frame is cropped.

    Attributes:
        size_px: the longer side of the sign's box in camera pixels.
        roll_deg: turn in the image plane, clockwise.
        yaw_deg: turn about the vertical axis; pitch_deg: about the horizontal one.
        pitch_deg: turn about the horizontal axis.
        distance: from the camera to the sign's centre, in half sides of the sign; small is strong perspective.
        fill: share of the image's sides that the sign's box takes.
        aspect: the share of the width over the share of the height.
        offset_x: where the box stands in the room that is left: -1 touches the left edge, 0 the centre, 1 the right.
        offset_y: likewise, -1 the top edge and 1 the bottom one.
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
    """What a view comes to.

    ``pose`` float64 (3, 3): sign square to normalised image coordinates; ``roi`` float64 (4,): x1, y1, x2, y2 of the
    outline, normalised; ``width`` and ``height``: the crop in camera pixels.
    """

    pose: NDArray[np.float64]
    roi: NDArray[np.float64]
    width: int
    height: int


def view_homography(view: View) -> NDArray[np.float64]:
    """The plane of the sign through a pinhole camera: (3, 3), the sign's centre at the origin, its last element 1.

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
    """The crop round the sign's outline (n, 2 points of the sign square), and where the sign stands in it.

    The crop leaves at least ``min_border_px`` camera pixels on either side before the offset moves the box.
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
    """(3, 3) from pixel coordinates to [-1, 1]^2, both counted from the outer edges of the border pixels."""
    return np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])
