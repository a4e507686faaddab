"""Corruptions of images at known severities, after Hendrycks and Dietterich (2019), and errors under them.

Twelve of their fifteen kinds: glass blur, snow and frost are left out, the last of which needs photographs. Severities
1 to 5 have the parameters of CIFAR-10-C, for images of 32 pixels; lengths grow with the side. Random numbers depend on
the kind, the severity and the position of an image in its split alone, so every network sees the same images. They may
be kept in a folder, so that the networks of a sweep do not draw them again (``keeping_corruptions``).
"""

import contextlib
import hashlib
import io
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from stnbench.analysis.ensembles import mean_corruption_error
from stnbench.core.errors import UnknownNameError
from stnbench.core.files import write_atomic
from stnbench.core.identity import derive_seed
from stnbench.core.process import advancing
from stnbench.nn.sampling import sample
from stnbench.nn.transforms import pixel_centres

SEVERITIES: Final = 5

Classify: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.floating]]
"""Function from the images of a split in another form, uint8 (images, channels, height, width), to class probabilities
(images, classes)."""

_Corrupt: TypeAlias = Callable[[Tensor, int, torch.Generator], Tensor]
"""Function of levels in [0, 1], (batch, channels, height, width), the severity from 0, and a source of randomness."""

_AT_ONCE: Final = 500
"""Images that are corrupted together; fixed, because each part has random numbers of its own."""

_SIDE: Final = 32
"""Side in pixels of the images for which lengths are given."""

_BRIGHTEST: Final = 255


# Noise.


def _gaussian_noise(levels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[severity]
    return levels + deviation * torch.randn(levels.shape, generator=generator)


def _shot_noise(levels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    photons = (500, 250, 100, 75, 50)[severity]
    return torch.poisson(levels * photons, generator=generator) / photons


def _impulse_noise(levels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity]
    drawn = torch.rand(levels.shape, generator=generator)
    return levels.masked_fill(drawn < share, 0.0).masked_fill(drawn < share / 2, 1.0)


# Blur.


def _defocus_blur(levels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Convolve with a disc whose edge is softened by a Gaussian."""
    del generator
    radius, softness = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[severity]
    radius, softness = radius * _growth(levels), softness * _growth(levels)
    reach = math.ceil(radius + 2 * softness)
    away = torch.arange(-reach, reach + 1, dtype=torch.float32)
    distance = (away[:, None].square() + away.square()).sqrt()
    disc = torch.special.ndtr((radius - distance) / softness)
    kernel = (disc / disc.sum()).expand(levels.shape[1], 1, -1, -1)
    padded = functional.pad(levels, (reach,) * 4, mode="replicate")
    return functional.conv2d(padded, kernel, groups=levels.shape[1])


def _motion_blur(levels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Average along a line in a random direction up to 45 degrees from level, its weights half a Gaussian."""
    radius, deviation = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))[severity]
    taps = round(radius * _growth(levels))
    angle = math.radians(45) * _signed((len(levels),), generator)
    steps = torch.arange(taps + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (steps / (deviation * _growth(levels))).square())
    direction = torch.stack([angle.cos(), angle.sin()], dim=1)
    blurred = torch.zeros_like(levels)
    for step, weight in zip(steps.tolist(), (weights / weights.sum()).tolist(), strict=True):
        blurred += weight * _shifted(levels, (step * direction)[:, None])
    return blurred


def _zoom_blur(levels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Average the image with views of it that are enlarged more and more."""
    del generator
    last = (5, 10, 15, 20, 25)[severity]
    centres = _centres(levels)
    views = [_read(levels, centres / (1 + percent / 100)) for percent in range(last + 1)]
    return (levels + sum(views)) / (len(views) + 1)


# Weather.


def _fog(levels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Add a fractal of midpoint displacements (Fournier et al. 1982), and keep the brightest level where it was."""
    density, decay = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))[severity]
    brightest = levels.amax(dim=(1, 2, 3), keepdim=True)
    height, width = levels.shape[-2:]
    side = 2 ** math.ceil(math.log2(max(height, width)))
    mist = _fractal(len(levels), side, decay, generator)[:, None, :height, :width]
    return (levels + density * mist) * brightest / (brightest + density)


def _fractal(count: int, side: int, decay: float, generator: torch.Generator) -> Tensor:
    """Return random clouds (count, side, side) in [0, 1]; ``side`` is a power of two, and opposite edges meet."""
    cloud, step, spread = torch.zeros(count, 1, 1), side, 1.0
    while step >= 2:
        finer = cloud.new_zeros(count, 2 * cloud.shape[1], 2 * cloud.shape[2])
        finer[:, ::2, ::2] = cloud
        right, below = cloud.roll(-1, 2), cloud.roll(-1, 1)
        middle = (cloud + right + below + right.roll(-1, 1)) / 4 + spread * _signed(cloud.shape, generator)
        finer[:, 1::2, 1::2] = middle
        level = (cloud + right + middle + middle.roll(1, 1)) / 4 + spread * _signed(cloud.shape, generator)
        upright = (cloud + below + middle + middle.roll(1, 2)) / 4 + spread * _signed(cloud.shape, generator)
        finer[:, ::2, 1::2], finer[:, 1::2, ::2] = level, upright
        cloud, step, spread = finer, step // 2, spread / decay
    low, high = cloud.amin(dim=(1, 2), keepdim=True), cloud.amax(dim=(1, 2), keepdim=True)
    return (cloud - low) / (high - low).clamp(min=1e-12)


def _brightness(levels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Raise the largest of the colours, and the others in proportion: the value of HSV."""
    del generator
    value = levels.amax(dim=1, keepdim=True)
    raised = (value + (0.05, 0.1, 0.15, 0.2, 0.3)[severity]).clamp(max=1)
    return torch.where(value > 0, levels * (raised / value.clamp(min=1e-12)), raised.expand_as(levels))


# Digital.


def _contrast(levels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    del generator
    mean = levels.mean(dim=(2, 3), keepdim=True)
    return mean + (0.75, 0.5, 0.4, 0.3, 0.15)[severity] * (levels - mean)


def _elastic_transform(levels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Move three points of the image by an affine map, and every pixel by a smooth random field."""
    strength, smoothness, reach = (
        (0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)
    )[severity]  # fmt: skip
    # Shares of the side; coordinates in which the image is 2 wide. The three points lie a third of the side away.
    moved = 2 * reach * _signed((len(levels), 3, 2), generator)
    third = 2 / 3
    fixed = torch.tensor([[third, third, 1], [-third, third, 1], [-third, -third, 1]]).expand(len(levels), 3, 3)
    to_source = torch.linalg.solve(fixed, fixed[..., :2] + moved)
    points = _centres(levels)
    places = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1) @ to_source
    if strength > 0:
        height, width = levels.shape[-2:]
        field = _smooth(_signed((len(levels), 2, height, width), generator), smoothness * max(height, width))
        places = places + (2 * strength * field).flatten(2).mT
    return _read(levels, places)


def _smooth(field: Tensor, deviation: float) -> Tensor:
    """Return a field (batch, 2, height, width) blurred by a Gaussian that ends after 3 deviations."""
    reach = max(1, math.floor(3 * deviation + 0.5))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation).square())
    kernel = (kernel / kernel.sum()).expand(2, 1, -1)
    padded = functional.pad(field, (reach,) * 4, mode="replicate")
    level = functional.conv2d(padded, kernel[:, :, None, :], groups=2)
    return functional.conv2d(level, kernel[:, :, :, None], groups=2)


def _pixelate(levels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    del generator
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity]
    size = levels.shape[-2:]
    coarse = functional.interpolate(levels, [max(1, int(side * share)) for side in size], mode="area")
    return functional.interpolate(coarse, size, mode="nearest")


def _jpeg_compression(levels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    del generator
    quality = (80, 65, 58, 50, 40)[severity]
    images = levels.mul(_BRIGHTEST).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    read = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
        read.append(np.asarray(Image.open(file)).reshape(image.shape))
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).float() / _BRIGHTEST


CORRUPTIONS: Final[Mapping[str, _Corrupt]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}
"""The kinds of corruption, by their names in the paper's code."""


def corrupt(images: NDArray[np.uint8], kind: str, severity: int) -> NDArray[np.uint8]:
    """Return the images of a split as a corruption makes them.

    Args:
        images: (images, channels, height, width), grey or RGB.
        kind: a name of ``CORRUPTIONS``.
        severity: from 1 to ``SEVERITIES``.

    Raises:
        UnknownNameError: for an unknown kind.
        ValueError: for another severity.
    """
    if kind not in CORRUPTIONS:
        raise UnknownNameError("corruption", kind, CORRUPTIONS)
    if not 1 <= severity <= SEVERITIES:
        raise ValueError(f"severity {severity} is not from 1 to {SEVERITIES}")
    folder = _FOLDER.get()
    if folder is None or not len(images):
        return _draw(images, kind, severity)
    path = folder / _digest(images) / f"{kind}-{severity}"
    kept = _read_kept(path, images.shape)
    if kept is None:
        kept = _draw(images, kind, severity)
        _keep(path, kept)
    return kept


def _draw(images: NDArray[np.uint8], kind: str, severity: int) -> NDArray[np.uint8]:
    parts = []
    for start in range(0, len(images), _AT_ONCE):
        generator = torch.Generator("cpu").manual_seed(derive_seed(0, "corruption", kind, severity, start))
        levels = torch.from_numpy(np.array(images[start : start + _AT_ONCE])).float() / _BRIGHTEST
        made = CORRUPTIONS[kind](levels, severity - 1, generator)
        parts.append(made.clamp(0, 1).mul(_BRIGHTEST).round().to(torch.uint8).numpy())
    return np.concatenate(parts) if parts else images


# Corrupted images that were drawn before. A file holds the SHA-256 of the pixels and the pixels, in a folder named by
# all that decides them. Processes that draw the same images at once replace one file by an equal one.


_KEPT_IN: Final = "corrupted"
"""Folder of corrupted images in a cache of data sets."""

_FREE_SHARE: Final = 0.1
"""Largest share of the free disk space that the corrupted images of a split may take; others are not kept."""

_FOLDER: ContextVar[Path | None] = ContextVar("folder of corrupted images", default=None)

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def keeping_corruptions(cache_folder: Path) -> Iterator[None]:
    """Keep corrupted images in a cache of data sets, and read those that are there, in the code of this context.

    A split takes 60 times the space of its pixels, which is not used if it is more than a tenth of the free space. The
    folder ``corrupted`` in the cache may be deleted at any time.
    """
    token = _FOLDER.set(cache_folder / _KEPT_IN)
    try:
        yield
    finally:
        _FOLDER.reset(token)


def _digest(images: NDArray[np.uint8]) -> str:
    """Return a digest of the images and of the code that corrupts them."""
    found = hashlib.sha256(_code())
    found.update(repr((images.shape, images.dtype.str)).encode())
    found.update(np.ascontiguousarray(images).data)
    return found.hexdigest()[:32]


@cache
def _code() -> bytes:
    """Return a digest of this module and the versions of the libraries that compute pixels."""
    versions = f"{torch.__version__} {np.__version__} {PIL.__version__}"
    return hashlib.sha256(Path(__file__).read_bytes() + versions.encode()).digest()


def _read_kept(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Return images that were kept, or None if there are none, or the file is damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("%s cannot be read (%s): these images are corrupted again", path, error)
        return None
    length = hashlib.sha256().digest_size
    pixels = memoryview(data)[length:]
    if len(pixels) != math.prod(shape) or hashlib.sha256(pixels).digest() != data[:length]:
        _log.warning("%s is damaged: these images are corrupted again", path)
        return None
    return np.frombuffer(bytearray(pixels), np.uint8).reshape(shape)


def _keep(path: Path, images: NDArray[np.uint8]) -> None:
    pixels = np.ascontiguousarray(images).tobytes()
    needed = len(pixels) * len(CORRUPTIONS) * SEVERITIES
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if needed > _FREE_SHARE * shutil.disk_usage(path.parent).free:
            _log.info("corrupted images are not kept: they would take %d bytes in %s", needed, path.parent)
            return
        write_atomic(path, hashlib.sha256(pixels).digest() + pixels)
    except OSError as error:
        _log.warning("corrupted images cannot be kept in %s (%s)", path.parent, error)


def corruption_errors(
    classify: Classify, images: NDArray[np.uint8], labels: NDArray[np.int64], kinds: Sequence[str] = tuple(CORRUPTIONS)
) -> dict[str, tuple[float, ...]]:
    """Return the share of images that are misclassified, for each kind of corruption by ascending severity.

    Args:
        classify: the network.
        images: the images of a split as they are, (images, channels, height, width).
        labels: their true classes, (images,).
        kinds: names of ``CORRUPTIONS``.
    """
    errors: dict[str, tuple[float, ...]] = {}
    for kind in advancing(kinds, "corrupting"):
        wrong = [classify(corrupt(images, kind, 1 + step)).argmax(axis=1) != labels for step in range(SEVERITIES)]
        errors[kind] = tuple(float(one.mean()) for one in wrong)
    return errors


def unnormalised_error(classify: Classify, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Return the mean corruption error of a network, not divided by that of another one."""
    return mean_corruption_error(corruption_errors(classify, images, labels))


def _growth(levels: Tensor) -> float:
    """Return how much longer the images are than those for which lengths are given."""
    return max(levels.shape[-2:]) / _SIDE


def _signed(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw uniform numbers in [-1, 1)."""
    return 2 * torch.rand(tuple(shape), generator=generator) - 1


def _centres(levels: Tensor) -> Tensor:
    """Return the centres of the pixels, (1, height * width, 2), -1 and 1 at the outer edges."""
    height, width = levels.shape[-2:]
    return pixel_centres((height, width), align_corners=False, like=levels)[None]


def _shifted(levels: Tensor, shift_px: Tensor) -> Tensor:
    """Return the images read at a shift (x, y) in pixels, (batch, 1, 2)."""
    height, width = levels.shape[-2:]
    return _read(levels, _centres(levels) + shift_px * shift_px.new_tensor([2 / width, 2 / height]))


def _read(levels: Tensor, places: Tensor) -> Tensor:
    """Return the images read bilinearly at places (batch or 1, height * width, 2), mirrored beyond the edges."""
    height, width = levels.shape[-2:]
    grid = places.reshape(-1, height, width, 2).expand(len(levels), -1, -1, -1)
    return sample(levels, grid, sampler="bilinear", padding="reflection", align_corners=False)
