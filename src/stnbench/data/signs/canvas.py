"""Drawing in the sign's coordinates with flat colours, and the placement of signs; supersampling smooths edges."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stnbench.data.homographies import apply_homography
from stnbench.spec.data import FRAMES_PER_TRACK, Framing

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


# The conditions of a track (pose, light, camera): drawn once per track, and smooth in time from frame to frame.


# The difficulty of the data set: the ranges from which poses, light and the camera are drawn.
#
# Each pair is the lower and upper end of a range; unless stated otherwise, the distribution is uniform. A change here
# changes the images: increase ``DRAWING_VERSION`` in ``source`` with it.


Range = tuple[float, float]

# The approach. GTSRB: 25 to 266 pixels, of which the sign covers about three quarters; the last frame is 2.9 times as
# large as the first in the median and 5.3 times at the 95th percentile.
LAST_SIZE_PX: Final[Range] = (48.0, 250.0)
"""Longer side of the sign's box in the last frame; its logarithm is uniform."""
GROWTH: Final[Range] = (1.7, 5.5)
"""Size in the last frame over size in the first; its logarithm is uniform."""
MIN_SIZE_PX: Final = 15.0
"""The smallest size of a sign, as in GTSRB."""
MIN_BORDER_PX: Final = 5
"""The smallest border around the sign's box in camera pixels, as in GTSRB."""

# The pose, which a spatial transformer has to undo.
ROLL_DEG: Final[Range] = (-10.0, 10.0)
"""Rotation in the image; far below 45 degrees, since rotated arrows must remain distinguishable."""
YAW_DEG: Final[Range] = (-20.0, 20.0)
"""Rotation about the vertical axis."""
PITCH_DEG: Final[Range] = (-10.0, 10.0)
"""Rotation about the horizontal axis."""
DISTANCE: Final[Range] = (3.0, 9.0)
"""Distance of the camera in half sides of the sign, its logarithm uniform; a small one gives a strong perspective."""
FILL: Final[Mapping[Framing, Range]] = {"tight": (0.64, 0.84), "loose": (0.4, 0.6)}
"""Share of the image's sides that the sign's box covers; GTSRB's 5th and 95th percentiles are 0.625 and 0.833."""
ASPECT: Final[Range] = (0.92, 1.08)
"""Share of the width over that of the height."""
OFFSET: Final[Mapping[Framing, Range]] = {"tight": (-0.34, 0.34), "loose": (-1.0, 1.0)}
"""Position of a track's box in the remaining space, in x and in y; GTSRB's boxes are centred."""
WANDER: Final = 0.6
"""Share of each range that varies within a single track (pose, light, camera); the rest varies between tracks."""
WANDER_CYCLES: Final[Range] = (0.4, 2.5)
"""The number of periods of a varying value within a track."""

# The backdrop. Tracks of all classes share the places of their half, so that no place reveals the class.
PLACES: Final = 64
"""The number of backdrops of one half."""
PLACES_PER_TRACK: Final = 6
"""The number of backdrops that pass behind one sign, each fading into the next."""

# The sign.
FADING: Final[Range] = (0.0, 0.25)
"""Share by which paint is faded towards its grey."""
DIRT: Final[Range] = (0.0, 0.2)
"""Share of the lightness that the darkest spots of dirt remove."""
COVER_SHARE: Final = 0.12
"""Share of tracks in which leaves or stickers cover a part of the sign."""
COVER_RADIUS: Final[Range] = (0.12, 0.3)
"""Radius of the cover, in half sides of the sign."""
NEIGHBOUR_SHARE: Final = 0.25
"""Share of tracks with another sign on the same pole."""

# The light.
NIGHT_SHARE: Final = 0.15
"""Share of tracks at night or in deep dusk."""
DAY_STOPS: Final[Range] = (-1.0, 0.5)
"""Exposure by day, in stops; above about 0.1 white paint is overexposed."""
NIGHT_STOPS: Final[Range] = (-2.5, -1.2)
"""Exposure by night, in stops."""
CAST: Final = 0.05
"""Standard deviation of the logarithm of the red and the blue gain."""
GRADIENT_STOPS: Final[Range] = (0.0, 0.6)
"""Difference of exposure across the image."""
SHADOW_SHARE: Final = 0.25
"""Share of tracks in which the edge of a shadow lies across the sign."""
SHADOW_STOPS: Final[Range] = (0.5, 1.5)
"""Difference of exposure between light and shadow, in stops."""
HAZE: Final[Range] = (0.0, 0.2)
"""Share of the contrast that haze and glare remove."""

# The camera.
DEFOCUS_PX: Final[Range] = (0.3, 1.0)
"""Standard deviation of the blur in camera pixels."""
MOTION_PX: Final[Range] = (0.0, 2.2)
"""Length of the motion blur in camera pixels of a sign of ``MOTION_SIZE_PX``; it is proportional to the size."""
MOTION_SIZE_PX: Final = 64.0
"""The size of a sign to which ``MOTION_PX`` refers."""
NOISE: Final[Range] = (0.006, 0.035)
"""Standard deviation of the noise by day, relative to a full scale of 1."""
NIGHT_NOISE: Final = 1.5
"""The factor of the noise by night."""
JPEG_QUALITY: Final[Range] = (30.0, 92.0)
"""Quality of the JPEG compression."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Light:
    """The light in one frame.

    Attributes:
        gains: exposure factors of red, green and blue.
        direction: unit vector of the gradient and of the shadow, y down.
        gradient_stops: difference of exposure along ``direction`` from edge to edge, in stops.
        shadow_stops: difference of exposure beyond the shadow's edge, in stops; 0 without a shadow.
        shadow_at: position of the edge along ``direction``, normalised.
        haze: share of the contrast that is lost to grey.
    """

    gains: tuple[float, float, float]
    direction: tuple[float, float]
    gradient_stops: float
    shadow_stops: float
    shadow_at: float
    haze: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """The camera in one frame.

    Attributes:
        defocus_px: standard deviation of the blur in camera pixels.
        motion_px: motion blur in x and y, in camera pixels.
        noise: standard deviation of the noise, relative to a full scale of 1.
        jpeg_quality: quality of the compression, 1 to 95.
    """

    defocus_px: float
    motion_px: tuple[float, float]
    noise: float
    jpeg_quality: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """The conditions of one frame, except for the sign and the images of the backdrops.

    Attributes:
        view: the pose of the sign and the crop.
        light: the light.
        camera: the camera.
        places: the numbers of two backdrops.
        passed: the share of the second backdrop in the visible mixture.
        backdrop_at: centre of the visible part of the backdrop, as shares of the backdrop's side.
        backdrop_share: side of the visible part, as a share of the backdrop's side.
    """

    view: View
    light: Light
    camera: Camera
    places: tuple[int, int]
    passed: float
    backdrop_at: tuple[float, float]
    backdrop_share: float


def draw_frames(rng: np.random.Generator, framing: Framing = "tight") -> tuple[Frame, ...]:
    """Draw the 30 frames of a track, the farthest first; everything but the crop is the same in every framing."""
    sizes = _approach(rng)
    views = _draw_views(rng, sizes, framing)
    night = bool(rng.random() < NIGHT_SHARE)
    lights = _draw_lights(rng, night=night)
    cameras = _draw_cameras(rng, sizes, night=night)
    corner, drift = rng.uniform(0.4, 0.6, 2), rng.uniform(-0.12, 0.12, 2)
    nearness = np.sqrt(sizes / sizes[-1])
    places = rng.integers(PLACES, size=PLACES_PER_TRACK + 1)
    journey = np.linspace(0, PLACES_PER_TRACK, FRAMES_PER_TRACK, endpoint=False)
    return tuple(
        Frame(
            view=views[k],
            light=lights[k],
            camera=cameras[k],
            places=(int(places[int(journey[k])]), int(places[int(journey[k]) + 1])),
            passed=float(journey[k] % 1),
            backdrop_at=(float(corner[0] + drift[0] * nearness[k]), float(corner[1] + drift[1] * nearness[k])),
            backdrop_share=float(0.55 * nearness[k]),
        )
        for k in range(FRAMES_PER_TRACK)
    )


def _approach(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the longer side of the sign in camera pixels, (frames,).

    The distance falls linearly, and the size is proportional to its inverse.
    """
    last = _even_in_log(rng, LAST_SIZE_PX)
    first = max(MIN_SIZE_PX, last / _even_in_log(rng, GROWTH))
    sizes: NDArray[np.float64] = 1 / np.linspace(1 / first, 1 / last, FRAMES_PER_TRACK)
    return sizes


def _draw_views(rng: np.random.Generator, sizes: NDArray[np.float64], framing: Framing) -> list[View]:
    roll = _wandering(rng, ROLL_DEG)
    yaw = _wandering(rng, YAW_DEG)
    pitch = _wandering(rng, PITCH_DEG)
    distance = _even_in_log(rng, DISTANCE)
    fill = _wandering(rng, FILL[framing])
    aspect = _wandering(rng, ASPECT)
    offset_x, offset_y = (_wandering(rng, OFFSET[framing]) for _ in range(2))
    return [
        View(
            size_px=float(sizes[k]),
            roll_deg=float(roll[k]),
            yaw_deg=float(yaw[k]),
            pitch_deg=float(pitch[k]),
            distance=distance,
            fill=float(fill[k]),
            aspect=float(aspect[k]),
            offset_x=float(offset_x[k]),
            offset_y=float(offset_y[k]),
        )
        for k in range(FRAMES_PER_TRACK)
    ]


def _draw_lights(rng: np.random.Generator, *, night: bool) -> list[Light]:
    exposure = _wandering(rng, NIGHT_STOPS if night else DAY_STOPS)
    red, blue = np.exp(rng.normal(0, CAST, 2))
    angle = rng.uniform(0, 2 * np.pi) + _wander(rng, 1.0)
    gradient = _wandering(rng, GRADIENT_STOPS)
    shadow = rng.uniform(*SHADOW_STOPS) if rng.random() < SHADOW_SHARE else 0.0
    shadow_at = rng.uniform(-0.5, 0.5) + _wander(rng, 0.8)
    haze = _wandering(rng, HAZE)
    gains = 2.0**exposure
    return [
        Light(
            gains=(float(gains[k] * red), float(gains[k]), float(gains[k] * blue)),
            direction=(float(np.cos(angle[k])), float(np.sin(angle[k]))),
            gradient_stops=float(gradient[k]),
            shadow_stops=float(shadow),
            shadow_at=float(shadow_at[k]),
            haze=float(haze[k]),
        )
        for k in range(FRAMES_PER_TRACK)
    ]


def _draw_cameras(rng: np.random.Generator, sizes: NDArray[np.float64], *, night: bool) -> list[Camera]:
    defocus = _wandering(rng, DEFOCUS_PX)
    smear = _wandering(rng, MOTION_PX) * np.clip(sizes / MOTION_SIZE_PX, 0.2, 2)
    angle = rng.uniform(0, np.pi) + _wander(rng, 0.6)
    noise = _wandering(rng, NOISE) * (NIGHT_NOISE if night else 1.0)
    quality = np.rint(_wandering(rng, JPEG_QUALITY))
    return [
        Camera(
            defocus_px=float(defocus[k]),
            motion_px=(float(smear[k] * np.cos(angle[k])), float(smear[k] * np.sin(angle[k]))),
            noise=float(noise[k]),
            jpeg_quality=int(quality[k]),
        )
        for k in range(FRAMES_PER_TRACK)
    ]


def _even_in_log(rng: np.random.Generator, between: Range) -> float:
    return float(np.exp(rng.uniform(*np.log(between))))


def _wandering(rng: np.random.Generator, between: Range) -> NDArray[np.float64]:
    """Draw a smooth path (frames,) within the range, which varies by the share ``WANDER`` around a random centre."""
    middle, reach = sum(between) / 2, (between[1] - between[0]) / 2
    centre = middle + rng.uniform(-1, 1) * reach * (1 - WANDER)
    return centre + _wander(rng, WANDER * reach)


def _wander(rng: np.random.Generator, reach: float) -> NDArray[np.float64]:
    """Draw a smooth path (frames,) around 0, from -``reach`` to ``reach``: the mean of two slow waves."""
    times = np.linspace(0, 1, FRAMES_PER_TRACK)
    waves = rng.uniform(*WANDER_CYCLES, 2)
    phases = rng.uniform(0, 2 * np.pi, 2)
    path: NDArray[np.float64] = reach * np.sin(2 * np.pi * np.outer(times, waves) + phases).mean(axis=1)
    return path
