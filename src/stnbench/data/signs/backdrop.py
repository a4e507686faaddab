"""What is behind a sign: sky and trees, leaves, house fronts, trunks and streets, with coloured clutter."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

BACKDROP_SIZE: Final = 192
"""Pixels on a side of a backdrop; a frame shows a part of it."""

_Texture = NDArray[np.float32]


def draw_backdrop(rng: np.random.Generator) -> Image.Image:
    """One backdrop, RGB, BACKDROP_SIZE on a side."""
    scene = _SCENES[rng.integers(len(_SCENES))](rng)
    image = Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))
    _scatter(rng, image)
    return image


def texture(rng: np.random.Generator, size: int, coarsest: int) -> _Texture:
    """Smooth noise (size, size) of mean 0 and a reach of about 1: octaves from ``coarsest`` cells on a side."""
    total = np.zeros((size, size), np.float32)
    weight = 1.0
    while coarsest < size:
        cells = Image.fromarray(rng.uniform(-1, 1, (coarsest, coarsest)).astype(np.float32))
        total += weight * np.asarray(cells.resize((size, size), Image.Resampling.BICUBIC))
        weight, coarsest = weight * 0.6, coarsest * 3
    return total


def _colour(rng: np.random.Generator, low: tuple[int, int, int], high: tuple[int, int, int]) -> _Texture:
    """A colour between two: mostly one brightness, with a little hue of its own."""
    share = 0.75 * rng.uniform() + 0.25 * rng.uniform(size=3)
    return (low + share * (np.asarray(high) - low)).astype(np.float32)


def _speckled(rng: np.random.Generator, colour: _Texture, contrast: float, coarsest: int) -> _Texture:
    grain = 1 + contrast * texture(rng, BACKDROP_SIZE, coarsest)
    return colour * grain[..., None]


def _sky(rng: np.random.Generator) -> _Texture:
    """A sky over a line of trees."""
    top, low = _colour(rng, (90, 130, 170), (240, 245, 255)), _colour(rng, (170, 180, 190), (255, 255, 255))
    share = np.linspace(0, 1, BACKDROP_SIZE, dtype=np.float32)[:, None, None]
    sky = np.broadcast_to(top * (1 - share) + low * share, (BACKDROP_SIZE, BACKDROP_SIZE, 3))
    trees = _speckled(rng, _colour(rng, (20, 30, 15), (80, 100, 60)), 0.5, 12)
    horizon = rng.uniform(0.35, 1.1) * BACKDROP_SIZE + 14 * texture(rng, BACKDROP_SIZE, 6)[0]
    below = np.arange(BACKDROP_SIZE)[:, None] > horizon[None, :]
    return np.where(below[..., None], trees, sky)


def _leaves(rng: np.random.Generator) -> _Texture:
    """Bushes with the light between the leaves."""
    leaves = _speckled(rng, _colour(rng, (30, 45, 15), (110, 130, 70)), 0.7, 10)
    gaps = texture(rng, BACKDROP_SIZE, 24) > rng.uniform(0.7, 1.2)
    return np.where(gaps[..., None], _colour(rng, (150, 160, 120), (255, 255, 240)), leaves)


def _front(rng: np.random.Generator) -> _Texture:
    """The front of a house with rows of windows."""
    wall = _speckled(rng, _colour(rng, (90, 70, 60), (235, 225, 215)), 0.08, 6)
    pane = _colour(rng, (20, 25, 35), (90, 100, 120))
    pitch_x, pitch_y = rng.integers(24, 60, 2)
    across, down = np.arange(BACKDROP_SIZE) % pitch_x, np.arange(BACKDROP_SIZE) % pitch_y
    window = (down[:, None] > 0.4 * pitch_y) & (across[None, :] > 0.5 * pitch_x)
    wall[window] = pane
    return wall


def _trunks(rng: np.random.Generator) -> _Texture:
    """Bare trees before a bright or a green ground."""
    ground = _speckled(rng, _colour(rng, (100, 110, 90), (240, 240, 240)), 0.25, 5)
    bars = texture(rng, BACKDROP_SIZE, 16)[0][None, :] + 0.5 * texture(rng, BACKDROP_SIZE, 5)
    bark = _speckled(rng, _colour(rng, (25, 22, 18), (80, 70, 60)), 0.3, 20)
    return np.where((bars > rng.uniform(0.2, 0.6))[..., None], bark, ground)


def _street(rng: np.random.Generator) -> _Texture:
    """Asphalt, kerbs and walls: bands of grey."""
    levels = rng.uniform(50, 200, 7).astype(np.float32)
    edges = np.sort(rng.uniform(0, BACKDROP_SIZE, 6))
    bands = levels[np.searchsorted(edges, np.arange(BACKDROP_SIZE))]
    tint = _colour(rng, (230, 230, 225), (255, 255, 255)) / 255
    return bands[:, None, None] * tint * (1 + 0.15 * texture(rng, BACKDROP_SIZE, 8))[..., None]


_SCENES: Final[tuple[Callable[[np.random.Generator], _Texture], ...]] = (_sky, _leaves, _front, _trunks, _street)


def _scatter(rng: np.random.Generator, image: Image.Image) -> None:
    """Strew cars, posters, posts and wires over the scene."""
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
