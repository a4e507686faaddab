"""From the scene to the photograph: light, blur, noise and JPEG compression."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from stnbench.data.signs.conditions import Camera, Light

Scene = NDArray[np.float32]
"""float32 (height, width, 3) in [0, 255]."""

_SHADOW_SOFTNESS = 0.12
_HAZE_LEVEL = 150.0


def expose(scene: Scene, light: Light) -> Scene:
    """The scene under a light; values may leave [0, 255]. Convention: light positions are normalised, y down."""
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
    """The scene through a camera, RGB.

    ``shrunk`` is the side of a camera pixel in the scene's pixels: 1, or less where a large frame was rendered small.
    Blur shrinks with it, and noise as it does when pixels are averaged.
    """
    smeared = smear(np.clip(scene, 0, 255), camera.motion_px[0] * shrunk, camera.motion_px[1] * shrunk)
    sharp = Image.fromarray(smeared.astype(np.uint8))
    soft = np.asarray(sharp.filter(ImageFilter.GaussianBlur(camera.defocus_px * shrunk)), dtype=np.float32)
    grain = rng.standard_normal(soft.shape, dtype=np.float32) * np.float32(255 * camera.noise * shrunk)
    noisy = np.clip(soft + grain + np.float32(0.5), 0, 255).astype(np.uint8)
    return compress(Image.fromarray(noisy), camera.jpeg_quality)


def smear(scene: Scene, motion_x: float, motion_y: float) -> Scene:
    """The mean of the scene moved along a straight line, centred, whose whole length is the motion in pixels."""
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
    """Weights by whole offsets (x, y) of a line of that length through the origin; they add up to 1."""
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
    """The image after JPEG compression with chroma at half resolution."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
