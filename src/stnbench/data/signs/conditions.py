"""What a track is like and how it goes on from frame to frame: drawn once per track, then smooth in time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stnbench.data.signs import difficulty
from stnbench.data.signs.difficulty import Range
from stnbench.data.signs.geometry import View
from stnbench.spec.data import FRAMES_PER_TRACK, Framing


@dataclass(frozen=True, kw_only=True, slots=True)
class Light:
    """The light in one frame.

    Attributes:
        gains: exposure of red, green and blue.
        gradient_stops: difference of exposure along ``direction`` (a unit vector, y down) from edge to edge.
        shadow_stops: how much darker it is beyond the shadow's edge; 0 where there is no shadow.
        shadow_at: where along ``direction`` the edge lies, normalised.
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
    """The camera in one frame: blur and smear in camera pixels, noise of a full scale of 1, JPEG quality 1 to 95."""

    defocus_px: float
    motion_px: tuple[float, float]
    noise: float
    jpeg_quality: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Everything about one frame but the sign and what is behind it.

    ``places`` are two backdrops by number, and ``passed`` is the share of the second one in what is seen.
    ``backdrop_at`` is the centre of the part of the backdrop that is seen, and ``backdrop_share`` its side, both as
    shares of the backdrop's side.
    """

    view: View
    light: Light
    camera: Camera
    places: tuple[int, int]
    passed: float
    backdrop_at: tuple[float, float]
    backdrop_share: float


def draw_frames(rng: np.random.Generator, framing: Framing = "tight") -> tuple[Frame, ...]:
    """The 30 frames of a track, the farthest first; all but the crop is the same in every framing."""
    sizes = _approach(rng)
    views = _draw_views(rng, sizes, framing)
    night = bool(rng.random() < difficulty.NIGHT_SHARE)
    lights = _draw_lights(rng, night=night)
    cameras = _draw_cameras(rng, sizes, night=night)
    corner, drift = rng.uniform(0.4, 0.6, 2), rng.uniform(-0.12, 0.12, 2)
    nearness = np.sqrt(sizes / sizes[-1])
    places = rng.integers(difficulty.PLACES, size=difficulty.PLACES_PER_TRACK + 1)
    journey = np.linspace(0, difficulty.PLACES_PER_TRACK, FRAMES_PER_TRACK, endpoint=False)
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
    """Longer side of the sign in camera pixels: the distance falls evenly, and size is one over distance."""
    last = _even_in_log(rng, difficulty.LAST_SIZE_PX)
    first = max(difficulty.MIN_SIZE_PX, last / _even_in_log(rng, difficulty.GROWTH))
    sizes: NDArray[np.float64] = 1 / np.linspace(1 / first, 1 / last, FRAMES_PER_TRACK)
    return sizes


def _draw_views(rng: np.random.Generator, sizes: NDArray[np.float64], framing: Framing) -> list[View]:
    roll = _wandering(rng, difficulty.ROLL_DEG)
    yaw = _wandering(rng, difficulty.YAW_DEG)
    pitch = _wandering(rng, difficulty.PITCH_DEG)
    distance = _even_in_log(rng, difficulty.DISTANCE)
    fill = _wandering(rng, difficulty.FILL[framing])
    aspect = _wandering(rng, difficulty.ASPECT)
    offset_x, offset_y = (_wandering(rng, difficulty.OFFSET[framing]) for _ in range(2))
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
    exposure = _wandering(rng, difficulty.NIGHT_STOPS if night else difficulty.DAY_STOPS)
    red, blue = np.exp(rng.normal(0, difficulty.CAST, 2))
    angle = rng.uniform(0, 2 * np.pi) + _wander(rng, 1.0)
    gradient = _wandering(rng, difficulty.GRADIENT_STOPS)
    shadow = rng.uniform(*difficulty.SHADOW_STOPS) if rng.random() < difficulty.SHADOW_SHARE else 0.0
    shadow_at = rng.uniform(-0.5, 0.5) + _wander(rng, 0.8)
    haze = _wandering(rng, difficulty.HAZE)
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
    defocus = _wandering(rng, difficulty.DEFOCUS_PX)
    smear = _wandering(rng, difficulty.MOTION_PX) * np.clip(sizes / difficulty.MOTION_SIZE_PX, 0.2, 2)
    angle = rng.uniform(0, np.pi) + _wander(rng, 0.6)
    noise = _wandering(rng, difficulty.NOISE) * (difficulty.NIGHT_NOISE if night else 1.0)
    quality = np.rint(_wandering(rng, difficulty.JPEG_QUALITY))
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
    """A smooth path (frames,) within the range: a share of it is the track's own, the rest is the track's centre."""
    middle, reach = sum(between) / 2, (between[1] - between[0]) / 2
    centre = middle + rng.uniform(-1, 1) * reach * (1 - difficulty.WANDER)
    return centre + _wander(rng, difficulty.WANDER * reach)


def _wander(rng: np.random.Generator, reach: float) -> NDArray[np.float64]:
    """A smooth path (frames,) about 0 within ``reach``: two slow waves."""
    times = np.linspace(0, 1, FRAMES_PER_TRACK)
    waves = rng.uniform(*difficulty.WANDER_CYCLES, 2)
    phases = rng.uniform(0, 2 * np.pi, 2)
    path: NDArray[np.float64] = reach * np.sin(2 * np.pi * np.outer(times, waves) + phases).mean(axis=1)
    return path
