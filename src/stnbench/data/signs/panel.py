"""The sign as it hangs: worn paint, pole and neighbours, at several sizes so that it shrinks without aliasing."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stnbench.data.homography import apply_homography
from stnbench.data.signs import difficulty
from stnbench.data.signs.backdrop import texture
from stnbench.data.signs.faces import FACE_SIZE, Face, face
from stnbench.data.signs.geometry import pixels_to_normalised
from stnbench.spec.data import CLASSES

PANEL_REACH: Final = 2.5
"""A panel covers [-PANEL_REACH, PANEL_REACH]^2 of the sign's square coordinates, which holds the pole as well."""

_LEVELS: Final = 5


class Panel:
    """A panel and its halvings, RGBA with premultiplied alpha, and the outline of the sign.

    Convention: texture pixels are counted from the outer edges of the border pixels; x to the right, y down.
    """

    def __init__(self, image: Image.Image, outline: NDArray[np.float64]) -> None:
        self.outline = outline
        self._levels = [image.convert("RGBa")]
        for _ in range(_LEVELS - 1):
            self._levels.append(self._levels[-1].reduce(2))

    def seen(self, pose: NDArray[np.float64], width: int, height: int) -> NDArray[np.float32]:
        """The panel through the homography ``pose`` (sign square to normalised image), float32 (height, width, 4)."""
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
        """The smallest level that still has about a texel for each pixel."""
        finest = self._levels[0].width / (2 * PANEL_REACH)
        return int(np.clip(np.rint(np.log2(finest / pixels_per_unit)), 0, _LEVELS - 1))

    @staticmethod
    def _pixels_per_unit(pose: NDArray[np.float64], width: int, height: int) -> float:
        """Square root of how much a unit square at the sign's centre is magnified."""
        step = 0.05
        seen = apply_homography(pose, np.array([[0, 0], [step, 0], [0, step]])) * np.array([width, height]) / 2
        area = np.linalg.det(seen[1:] - seen[0]) / step**2
        return float(np.sqrt(abs(area)))


def draw_panel(label: int, rng: np.random.Generator) -> Panel:
    """The panel of one track of a class."""
    sign = face(label)
    side = round(FACE_SIZE * PANEL_REACH)
    image = Image.new("RGBA", (side, side))
    _put_pole(rng, image)
    if rng.random() < difficulty.NEIGHBOUR_SHARE:
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
    """Another sign below or above, of any class."""
    above = rng.random() < 0.35
    y = float(rng.uniform(2.0, 2.3)) * (-1 if above else 1)
    _put(image, face(int(rng.integers(CLASSES))).pixels, (0.0, y))


def _wear(rng: np.random.Generator, sign: Face) -> NDArray[np.uint8]:
    """The face with faded paint, dirt, and perhaps a part covered; alpha stays."""
    rgb = sign.pixels[..., :3].astype(np.float32)
    grey = rgb.mean(axis=2, keepdims=True)
    rgb += rng.uniform(*difficulty.FADING) * (grey - rgb)
    rgb *= 1 + rng.normal(0, 0.05, 3).astype(np.float32)
    spots = np.clip(texture(rng, FACE_SIZE, int(rng.integers(3, 9))), 0, 1)
    rgb *= 1 - np.float32(rng.uniform(*difficulty.DIRT)) * spots[..., None]
    worn = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    if rng.random() < difficulty.COVER_SHARE:
        _cover(rng, worn)
    return np.dstack([np.asarray(worn), sign.pixels[..., 3]])


def _cover(rng: np.random.Generator, image: Image.Image) -> None:
    """Cover a part of the face with a few overlapping blots of one colour: leaves, snow or stickers."""
    draw = ImageDraw.Draw(image)
    x, y = rng.uniform(0.1, 0.9, 2) * FACE_SIZE
    colour = np.array(((40, 70, 30), (235, 238, 240), (120, 100, 80))[rng.integers(3)])
    for _ in range(4):
        radius = rng.uniform(*difficulty.COVER_RADIUS) * FACE_SIZE / 4
        shift_x, shift_y = rng.normal(0, radius, 2)
        red, green, blue = (int(part) for part in np.clip(colour + rng.integers(-20, 20), 0, 255))
        box = (x + shift_x - radius, y + shift_y - radius, x + shift_x + radius, y + shift_y + radius)
        draw.ellipse(box, fill=(red, green, blue))
