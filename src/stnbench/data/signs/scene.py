"""Photographs of a sign: backdrop, panel, camera, and the frames of a track."""

import functools
import io
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from stnbench.core.identity import derive_seed
from stnbench.data.homographies import apply_homography
from stnbench.data.signs import canvas
from stnbench.data.signs.canvas import (
    MIN_BORDER_PX,
    PLACES,
    Camera,
    Frame,
    Light,
    Placement,
    draw_frames,
    pixels_to_normalised,
    place,
)
from stnbench.data.signs.faces import FACE_SIZE, Face, face
from stnbench.spec.data import CLASSES, FRAMES_PER_TRACK, Framing

# Backdrops: sky and trees, leaves, facades, trunks and streets, with coloured clutter.


BACKDROP_SIZE: Final = 192
"""Side of a backdrop in pixels; a frame shows a part of it."""

_Texture = NDArray[np.float32]


def draw_backdrop(rng: np.random.Generator) -> Image.Image:
    """Draw one backdrop, RGB, BACKDROP_SIZE pixels on a side."""
    scene = _SCENES[rng.integers(len(_SCENES))](rng)
    image = Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))
    _scatter(rng, image)
    return image


def texture(rng: np.random.Generator, size: int, coarsest: int) -> _Texture:
    """Draw smooth noise (size, size) of mean 0 and amplitude of about 1.

    It is a sum of grids of random numbers, the coarsest with ``coarsest`` numbers on a side, each of the next ones
    three times finer, with 0.6 of the weight.
    """
    total = np.zeros((size, size), np.float32)
    weight = 1.0
    while coarsest < size:
        cells = Image.fromarray(rng.uniform(-1, 1, (coarsest, coarsest)).astype(np.float32))
        total += weight * np.asarray(cells.resize((size, size), Image.Resampling.BICUBIC))
        weight, coarsest = weight * 0.6, coarsest * 3
    return total


def _colour(rng: np.random.Generator, low: tuple[int, int, int], high: tuple[int, int, int]) -> _Texture:
    """Draw a colour between two: mostly a common brightness, with a small independent share per channel."""
    share = 0.75 * rng.uniform() + 0.25 * rng.uniform(size=3)
    return (low + share * (np.asarray(high) - low)).astype(np.float32)


def _speckled(rng: np.random.Generator, colour: _Texture, contrast: float, coarsest: int) -> _Texture:
    grain = 1 + contrast * texture(rng, BACKDROP_SIZE, coarsest)
    return colour * grain[..., None]


def _sky(rng: np.random.Generator) -> _Texture:
    """Draw a sky over a line of trees."""
    top, low = _colour(rng, (90, 130, 170), (240, 245, 255)), _colour(rng, (170, 180, 190), (255, 255, 255))
    share = np.linspace(0, 1, BACKDROP_SIZE, dtype=np.float32)[:, None, None]
    sky = np.broadcast_to(top * (1 - share) + low * share, (BACKDROP_SIZE, BACKDROP_SIZE, 3))
    trees = _speckled(rng, _colour(rng, (20, 30, 15), (80, 100, 60)), 0.5, 12)
    horizon = rng.uniform(0.35, 1.1) * BACKDROP_SIZE + 14 * texture(rng, BACKDROP_SIZE, 6)[0]
    below = np.arange(BACKDROP_SIZE)[:, None] > horizon[None, :]
    return np.where(below[..., None], trees, sky)


def _leaves(rng: np.random.Generator) -> _Texture:
    """Draw bushes with light between the leaves."""
    leaves = _speckled(rng, _colour(rng, (30, 45, 15), (110, 130, 70)), 0.7, 10)
    gaps = texture(rng, BACKDROP_SIZE, 24) > rng.uniform(0.7, 1.2)
    return np.where(gaps[..., None], _colour(rng, (150, 160, 120), (255, 255, 240)), leaves)


def _front(rng: np.random.Generator) -> _Texture:
    """Draw a facade with rows of windows."""
    wall = _speckled(rng, _colour(rng, (90, 70, 60), (235, 225, 215)), 0.08, 6)
    pane = _colour(rng, (20, 25, 35), (90, 100, 120))
    pitch_x, pitch_y = rng.integers(24, 60, 2)
    across, down = np.arange(BACKDROP_SIZE) % pitch_x, np.arange(BACKDROP_SIZE) % pitch_y
    window = (down[:, None] > 0.4 * pitch_y) & (across[None, :] > 0.5 * pitch_x)
    wall[window] = pane
    return wall


def _trunks(rng: np.random.Generator) -> _Texture:
    """Draw bare trees in front of a bright or green ground."""
    ground = _speckled(rng, _colour(rng, (100, 110, 90), (240, 240, 240)), 0.25, 5)
    bars = texture(rng, BACKDROP_SIZE, 16)[0][None, :] + 0.5 * texture(rng, BACKDROP_SIZE, 5)
    bark = _speckled(rng, _colour(rng, (25, 22, 18), (80, 70, 60)), 0.3, 20)
    return np.where((bars > rng.uniform(0.2, 0.6))[..., None], bark, ground)


def _street(rng: np.random.Generator) -> _Texture:
    """Draw asphalt, kerbs and walls: bands of grey."""
    levels = rng.uniform(50, 200, 7).astype(np.float32)
    edges = np.sort(rng.uniform(0, BACKDROP_SIZE, 6))
    bands = levels[np.searchsorted(edges, np.arange(BACKDROP_SIZE))]
    tint = _colour(rng, (230, 230, 225), (255, 255, 255)) / 255
    return bands[:, None, None] * tint * (1 + 0.15 * texture(rng, BACKDROP_SIZE, 8))[..., None]


_SCENES: Final[tuple[Callable[[np.random.Generator], _Texture], ...]] = (_sky, _leaves, _front, _trunks, _street)


def _scatter(rng: np.random.Generator, image: Image.Image) -> None:
    """Draw clutter over the scene, as of cars, posters, posts and wires: boxes, ellipses and lines."""
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 9)):
        x, y = rng.uniform(0, BACKDROP_SIZE, 2)
        width, height = rng.uniform(4, 46, 2)
        grey, vividness = rng.uniform(20, 230), rng.uniform(0, 1)
        red, green, blue = (int(grey + vividness * (part - grey)) for part in rng.uniform(10, 240, 3))
        box = (x, y, x + width, y + height)
        if rng.random() < 0.5:
            draw.rectangle(box, fill=(red, green, blue))
        else:
            draw.ellipse(box, fill=(red, green, blue))
    for _ in range(rng.integers(0, 5)):
        ends = rng.uniform(-0.2, 1.2, 4) * BACKDROP_SIZE
        grey = int(rng.integers(20, 200))
        draw.line([float(end) for end in ends], fill=(grey, grey, grey), width=int(rng.integers(1, 5)))


# The panel of a sign: worn paint, pole and neighbours, at several sizes so that it shrinks without aliasing.


PANEL_REACH: Final = 2.5
"""A panel covers [-PANEL_REACH, PANEL_REACH]^2 of the sign's square coordinates, which holds the pole as well."""

_LEVELS: Final = 5


class Panel:
    """A panel as an image pyramid, RGBA with premultiplied alpha, and the outline of the sign.

    Convention: texture pixels are counted from the outer edges of the border pixels; x to the right, y down.
    """

    def __init__(self, image: Image.Image, outline: NDArray[np.float64]) -> None:
        self.outline = outline
        self._levels = [image.convert("RGBa")]
        for _ in range(_LEVELS - 1):
            self._levels.append(self._levels[-1].reduce(2))

    def seen(self, pose: NDArray[np.float64], width: int, height: int) -> NDArray[np.float32]:
        """Render the panel as seen under a pose.

        Args:
            pose: (3, 3), the homography from the sign's square to normalised image coordinates.
            width: width of the result in pixels.
            height: height of the result in pixels.

        Returns:
            The image, float32 (height, width, 4), RGBA in [0, 255] with premultiplied alpha.
        """
        scale = self._pixels_per_unit(pose, width, height)
        level = self._levels[self._level_for(scale)]
        half = level.width / 2
        to_texture = np.array([[half / PANEL_REACH, 0, half], [0, half / PANEL_REACH, half], [0, 0, 1]])
        back = to_texture @ np.linalg.inv(pose) @ pixels_to_normalised(width, height)
        coefficients = (back / back[2, 2]).ravel()[:8].tolist()
        method, resample = Image.Transform.PERSPECTIVE, Image.Resampling.BICUBIC
        warped = level.transform((width, height), method, coefficients, resample)
        return np.asarray(warped, dtype=np.float32)

    def _level_for(self, pixels_per_unit: float) -> int:
        """Return the smallest level that still has about one texel per pixel."""
        finest = self._levels[0].width / (2 * PANEL_REACH)
        return int(np.clip(np.rint(np.log2(finest / pixels_per_unit)), 0, _LEVELS - 1))

    @staticmethod
    def _pixels_per_unit(pose: NDArray[np.float64], width: int, height: int) -> float:
        """Return the square root of the magnification of the area at the sign's centre, in pixels per unit."""
        step = 0.05
        seen = apply_homography(pose, np.array([[0, 0], [step, 0], [0, step]])) * np.array([width, height]) / 2
        area = np.linalg.det(seen[1:] - seen[0]) / step**2
        return float(np.sqrt(abs(area)))


def draw_panel(label: int, rng: np.random.Generator) -> Panel:
    """Draw the panel of one track of a class."""
    sign = face(label)
    side = round(FACE_SIZE * PANEL_REACH)
    image = Image.new("RGBA", (side, side))
    _put_pole(rng, image)
    if rng.random() < canvas.NEIGHBOUR_SHARE:
        _put_neighbour(rng, image)
    _put(image, _wear(rng, sign), (0.0, 0.0))
    return Panel(image, sign.outline)


def _put(image: Image.Image, pixels: NDArray[np.uint8], centre: tuple[float, float]) -> None:
    """Paste RGBA pixels of a face with its centre at the given point of the sign's square coordinates."""
    left, top = (round((part + PANEL_REACH - 1) * FACE_SIZE / 2) for part in centre)
    layer = Image.fromarray(pixels)
    image.paste(layer, (left, top), layer)


def _put_pole(rng: np.random.Generator, image: Image.Image) -> None:
    middle, half = image.width / 2, rng.uniform(0.05, 0.11) * FACE_SIZE / 2
    top = middle - (rng.uniform(0.2, 2.0) * FACE_SIZE / 2)
    grey = int(rng.integers(60, 190))
    draw = ImageDraw.Draw(image)
    draw.rectangle((middle - half, top, middle + half, image.height), fill=(grey, grey, grey, 255))
    draw.rectangle((middle - half, top, middle - half / 2, image.height), fill=(grey // 2, grey // 2, grey // 2, 255))


def _put_neighbour(rng: np.random.Generator, image: Image.Image) -> None:
    """Draw another sign below or above, of any class."""
    above = rng.random() < 0.35
    y = float(rng.uniform(2.0, 2.3)) * (-1 if above else 1)
    _put(image, face(int(rng.integers(CLASSES))).pixels, (0.0, y))


def _wear(rng: np.random.Generator, sign: Face) -> NDArray[np.uint8]:
    """Return the pixels of the face with faded paint, dirt, and sometimes a covered part; alpha is not changed."""
    rgb = sign.pixels[..., :3].astype(np.float32)
    grey = rgb.mean(axis=2, keepdims=True)
    rgb += rng.uniform(*canvas.FADING) * (grey - rgb)
    rgb *= 1 + rng.normal(0, 0.05, 3).astype(np.float32)
    spots = np.clip(texture(rng, FACE_SIZE, int(rng.integers(3, 9))), 0, 1)
    rgb *= 1 - np.float32(rng.uniform(*canvas.DIRT)) * spots[..., None]
    worn = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    if rng.random() < canvas.COVER_SHARE:
        _cover(rng, worn)
    return np.dstack([np.asarray(worn), sign.pixels[..., 3]])


def _cover(rng: np.random.Generator, image: Image.Image) -> None:
    """Cover a part of the face with a few overlapping blots of one colour: leaves, snow or stickers."""
    draw = ImageDraw.Draw(image)
    x, y = rng.uniform(0.1, 0.9, 2) * FACE_SIZE
    colour = np.array(((40, 70, 30), (235, 238, 240), (120, 100, 80))[rng.integers(3)])
    for _ in range(4):
        radius = rng.uniform(*canvas.COVER_RADIUS) * FACE_SIZE / 4
        shift_x, shift_y = rng.normal(0, radius, 2)
        red, green, blue = (int(part) for part in np.clip(colour + rng.integers(-20, 20), 0, 255))
        box = (x + shift_x - radius, y + shift_y - radius, x + shift_x + radius, y + shift_y + radius)
        draw.ellipse(box, fill=(red, green, blue))


# From the scene to the photograph: light, blur, noise and JPEG compression.


Scene = NDArray[np.float32]
"""float32 (height, width, 3) in [0, 255]."""

_SHADOW_SOFTNESS = 0.12
_HAZE_LEVEL = 150.0


def expose(scene: Scene, light: Light) -> Scene:
    """Return the scene under a light; values may leave [0, 255].

    Convention: light positions are normalised, y down.
    """
    height, width = scene.shape[:2]
    x = (2 * np.arange(width, dtype=np.float32) + 1) / width - 1
    y = (2 * np.arange(height, dtype=np.float32) + 1) / height - 1
    right, down = (np.float32(part) for part in light.direction)
    along = right * x[None, :] + down * y[:, None]
    stops: NDArray[np.float32] = np.float32(light.gradient_stops / 2) * along
    if light.shadow_stops > 0:
        inside = 1 / (1 + np.exp((np.float32(light.shadow_at) - along) / np.float32(_SHADOW_SOFTNESS)))
        stops -= np.float32(light.shadow_stops) * inside
    gains = np.asarray(light.gains, dtype=np.float32)
    hazy = scene + np.float32(light.haze) * (_HAZE_LEVEL - scene)
    exposed: Scene = hazy * np.exp2(stops)[..., None] * gains
    return exposed


def photograph(scene: Scene, camera: Camera, shrunk: float, rng: np.random.Generator) -> Image.Image:
    """Photograph the scene with a camera, and return the RGB image.

    ``shrunk`` is the side of a camera pixel in the scene's pixels: 1, or less if a large frame was rendered smaller.
    Blur shrinks with it, and noise decreases as it does when pixels are averaged.
    """
    smeared = smear(np.clip(scene, 0, 255), camera.motion_px[0] * shrunk, camera.motion_px[1] * shrunk)
    sharp = Image.fromarray(smeared.astype(np.uint8))
    soft = np.asarray(sharp.filter(ImageFilter.GaussianBlur(camera.defocus_px * shrunk)), dtype=np.float32)
    grain = rng.standard_normal(soft.shape, dtype=np.float32) * np.float32(255 * camera.noise * shrunk)
    noisy = np.clip(soft + grain + np.float32(0.5), 0, 255).astype(np.uint8)
    return compress(Image.fromarray(noisy), camera.jpeg_quality)


def smear(scene: Scene, motion_x: float, motion_y: float) -> Scene:
    """Average the scene along a centred straight line whose whole length is the motion in pixels."""
    taps = motion_kernel(motion_x, motion_y)
    if len(taps) == 1:
        return scene
    reach_x, reach_y = (max(abs(key[axis]) for key in taps) for axis in (0, 1))
    height, width = scene.shape[:2]
    padded = np.pad(scene, ((reach_y, reach_y), (reach_x, reach_x), (0, 0)), mode="edge")
    total = np.zeros_like(scene)
    for (x, y), weight in taps.items():
        top, left = reach_y + y, reach_x + x
        total += np.float32(weight) * padded[top : top + height, left : left + width]
    return total


def motion_kernel(motion_x: float, motion_y: float) -> dict[tuple[int, int], float]:
    """Return the weights by integer offsets (x, y) of a line of that length through the origin; they add up to 1."""
    steps = int(np.ceil(max(abs(motion_x), abs(motion_y)))) + 1
    taps: dict[tuple[int, int], float] = {}
    for share in (np.arange(steps) + 0.5) / steps - 0.5:
        x, y = float(share * motion_x), float(share * motion_y)
        left, top = int(np.floor(x)), int(np.floor(y))
        for column, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
                if weight_x * weight_y > 0:
                    taps[column, row] = taps.get((column, row), 0.0) + weight_x * weight_y / steps
    return taps


def compress(image: Image.Image, quality: int) -> Image.Image:
    """Return the image after JPEG compression with chroma at half resolution."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


# One track: 30 frames of one sign as a car approaches it.


OVERSAMPLING: Final = 2
"""The largest size of a rendered frame over that of the final image; finer details would be averaged away anyway."""


def frame_dtype(image_size: int) -> np.dtype[np.void]:
    """Return the type of a frame as a record; its fields are as in ``ImageSet``."""
    return np.dtype(
        [
            ("image", np.uint8, (3, image_size, image_size)),
            ("roi", np.float32, (4,)),
            ("original_size", np.int64, (2,)),
            ("pose", np.float32, (3, 3)),
        ]
    )


def draw_track(
    drawing_seed: int, half: str, label: int, track: int, image_size: int, framing: Framing = "tight"
) -> NDArray[np.void]:
    """Draw the frames of one track, (30,) of ``frame_dtype``; they depend on the arguments alone.

    Poses, light and backdrop are the same at every image size.
    """
    conditions, wear, noise = (
        np.random.default_rng(derive_seed(drawing_seed, "signs", half, label, track, purpose))
        for purpose in ("conditions", "wear", "noise")
    )
    panel = draw_panel(label, wear)
    records = np.zeros(FRAMES_PER_TRACK, frame_dtype(image_size))
    for index, frame in enumerate(draw_frames(conditions, framing)):
        placement = place(frame.view, panel.outline, MIN_BORDER_PX)
        behind = [place_backdrop(drawing_seed, half, number) for number in frame.places]
        image = draw_frame(panel, behind, frame, placement, image_size, noise)
        record = records[index]
        record["image"] = np.asarray(image).transpose(2, 0, 1)
        record["roi"] = placement.roi
        record["original_size"] = placement.width, placement.height
        record["pose"] = placement.pose
    return records


def draw_frame(
    panel: Panel,
    behind: Sequence[Image.Image],
    frame: Frame,
    placement: Placement,
    image_size: int,
    rng: np.random.Generator,
) -> Image.Image:
    """Render one photograph, resized to the square image: averaged if it shrinks, bilinear if it grows."""
    shrunk = min(1.0, OVERSAMPLING * image_size / max(placement.width, placement.height))
    width, height = round(placement.width * shrunk), round(placement.height * shrunk)
    sign = panel.seen(placement.pose, width, height)
    ground = np.asarray(_seen_backdrop(behind, frame, width, height), dtype=np.float32)
    scene: Scene = sign[..., :3] + ground * (1 - sign[..., 3:] / np.float32(255))
    photo = photograph(expose(scene, frame.light), frame.camera, shrunk, rng)
    return photo.resize((image_size, image_size), Image.Resampling.BILINEAR)


@functools.lru_cache(maxsize=2 * PLACES)
def place_backdrop(drawing_seed: int, half: str, number: int) -> Image.Image:
    """Return one of the backdrops of a half, drawn once per process while the cache holds it."""
    return draw_backdrop(np.random.default_rng(derive_seed(drawing_seed, "signs", half, "place", number)))


def _seen_backdrop(behind: Sequence[Image.Image], frame: Frame, width: int, height: int) -> Image.Image:
    """Return the visible part of the two backdrops of a frame, one fading into the other."""
    side = behind[0].width
    half = frame.backdrop_share / 2 * side
    x, y = (float(np.clip(at * side, half, side - half)) for at in frame.backdrop_at)
    box = (x - half, y - half, x + half, y + half)
    first, second = (image.resize((width, height), Image.Resampling.BICUBIC, box=box) for image in behind)
    return Image.blend(first, second, frame.passed)
