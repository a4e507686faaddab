"""The conditions of a track (pose, light, camera): drawn once per track, and smooth in time from frame to frame."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.data.signs.canvas import View
from stnbench.spec.data import FRAMES_PER_TRACK, Framing

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
