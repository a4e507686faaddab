"""Drawing on the sign's own square with flat colours; smooth edges come from drawing large and shrinking."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stnbench.data.homography import apply_homography

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
