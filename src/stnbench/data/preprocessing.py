"""Preprocessing of images: normalisation, and the contrast adjustments of the committee of 2011."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from stnbench.core.errors import DataCorruptError, DataMissingError
from stnbench.core.process import advancing
from stnbench.data.augmentation import BRIGHTEST, COLOURS, lightness
from stnbench.nn.layers import ContrastiveNorm, exact_convolutions, full_precision, gaussian_kernel
from stnbench.spec.data import Contrast, PreprocessSpec

# The four contrast adjustments of the committee of 2011.
#
# Cireşan, Meier, Masci and Schmidhuber 2012 ("Multi-column deep neural network for traffic sign classification",
# Neural Networks 32) trained their columns on the original images and on four versions of them, made with MATLAB's
# imadjust, histeq and adapthisteq and with a difference of Gaussians. All four change only the lightness. The paper
# works in Lab; here the luma is used, whose inverse keeps the hue exactly and leaves no pixel outside the valid
# colours, at less than a tenth of the cost; the images look the same.
#
# All functions take and return levels in [0, 255], batch by batch; images are independent of each other. Counts are
# integers, so that a GPU gives the same ones each time.


_LEVELS = 256

_SATURATED = 0.01
"""The share of the pixels that image adjustment may saturate to black, and to white (MATLAB's stretchlim)."""

_TILES = 8
"""Tiles per side for CLAHE: of 6x6 pixels in the paper's images of 48x48 (MATLAB's adapthisteq)."""

_CLIP = 0.01
"""The share of a tile's pixels that may have one level in CLAHE before they are spread (MATLAB's adapthisteq)."""

_EDGE_DEVIATIONS = 3.0
"""The number of standard deviations of the filter's response that contrast normalisation maps to black and white."""


def adjust_contrast(
    images: Float[Tensor, "batch channels height width"], contrast: Contrast
) -> Float[Tensor, "batch channels height width"]:
    """Adjust the contrast of images with levels in [0, 255]; return them unchanged for ``none``.

    RGB images are adjusted in their luma and keep their hue; in other images, every channel is adjusted separately.
    """
    if contrast == "none":
        return images
    values = lightness(images)
    planes = values.reshape(-1, *values.shape[-2:])
    with full_precision(images.device.type):
        adjusted = _ADJUSTMENTS[contrast](planes)
    return with_lightness(images, adjusted.reshape(values.shape))


def with_lightness(
    images: Float[Tensor, "batch channels height width"], wanted: Float[Tensor, "batch lightnesses height width"]
) -> Float[Tensor, "batch channels height width"]:
    """Return the images with another lightness and the same hue.

    All three colours move by the same amount, which keeps hue and chroma; where one would leave [0, 255], the pixel is
    moved towards its grey until none does, so that hue and lightness stay exact and only the saturation falls.

    Args:
        images: levels in [0, 255].
        wanted: the new lightness, in [0, 255]; images that are not RGB are replaced by it.
    """
    if images.shape[1] != COLOURS:
        return wanted
    chroma = images - lightness(images)
    above, below = chroma.amax(1, keepdim=True), -chroma.amin(1, keepdim=True)
    smallest = torch.finfo(images.dtype).tiny
    room = torch.minimum((BRIGHTEST - wanted) / above.clamp(min=smallest), wanted / below.clamp(min=smallest))
    return (chroma * room.clamp(max=1) + wanted).clamp(0, BRIGHTEST)


def adjust_image(planes: Float[Tensor, "planes height width"]) -> Float[Tensor, "planes height width"]:
    """Apply image adjustment: stretch the levels until 1 % of the pixels are black and 1 % white.

    As in MATLAB's imadjust, the limits are the first levels at which the cumulative histogram exceeds 1 % and reaches
    99 %. A plane whose limits coincide is not changed.
    """
    shares = _cumulative(_rounded(planes)) / planes[0].numel()
    low = (shares <= _SATURATED).sum(1).to(planes.dtype)[:, None, None]
    high = (shares < 1 - _SATURATED).sum(1).to(planes.dtype)[:, None, None]
    stretched = ((planes - low) * (BRIGHTEST / (high - low).clamp(min=1))).clamp(0, BRIGHTEST)
    return torch.where(high > low, stretched, planes)


def equalise_histogram(planes: Float[Tensor, "planes height width"]) -> Float[Tensor, "planes height width"]:
    """Apply histogram equalisation: map every level to the share of pixels at or below it, the lowest one to black.

    A plane of one level is not changed. (kornia's and PIL's ``equalize`` divide counts by an integer number of pixels
    per level, which saturates up to a third of a small image.)
    """
    levels = _rounded(planes)
    cumulative = _cumulative(levels)
    lowest = torch.gather(cumulative, 1, levels.flatten(1).amin(1, keepdim=True))
    others = planes[0].numel() - lowest
    curve = (cumulative - lowest).clamp(min=0) * BRIGHTEST / others.clamp(min=1)
    equalised = torch.gather(curve, 1, levels.flatten(1)).reshape(planes.shape)
    return torch.where(others[..., None] > 0, equalised, planes)


def equalise_tiles(planes: Float[Tensor, "planes height width"]) -> Float[Tensor, "planes height width"]:
    """Apply CLAHE: contrast-limited adaptive histogram equalisation of 8x8 tiles (Zuiderveld 1994).

    Every tile has a separate curve; a pixel gets the bilinear mean of its four nearest tiles' curves. The clip limit is
    MATLAB's default of 0.01, one pixel per level for tiles of 6x6; clipped counts are spread over all levels, and the
    remainder at equal distances, as in OpenCV. Sides that 8 does not divide are extended by reflection. (kornia's
    ``equalize_clahe`` gives the same result and takes ten times as long: it copies four curves for every quarter of a
    tile.)
    """
    height, width = planes.shape[-2:]
    rows, columns = (math.ceil(side / _TILES) for side in (height, width))
    padding = (0, columns * _TILES - width, 0, rows * _TILES - height)
    levels = _rounded(functional.pad(planes[:, None], padding, mode="reflect")[:, 0])
    tiles = levels.reshape(-1, _TILES, rows, _TILES, columns).transpose(2, 3).reshape(-1, rows * columns)
    pixels = rows * columns
    counts = _clipped(_histogram(tiles), limit=math.ceil(pixels / _LEVELS) + round(_CLIP * (pixels - 1)))
    curves = (counts.cumsum(1, dtype=torch.int32) * (BRIGHTEST / pixels)).round().clamp(max=BRIGHTEST).flatten()
    plane = torch.arange(len(planes), device=planes.device)[:, None, None]
    equalised = torch.zeros_like(planes)
    for row, row_weight in _neighbours(height, rows, planes):
        for column, column_weight in _neighbours(width, columns, planes):
            tile = (plane * _TILES + row[:, None]) * _TILES + column
            values = curves.take(tile * _LEVELS + levels[:, :height, :width])
            equalised += row_weight[:, None] * column_weight * values
    return equalised


def enhance_edges(planes: Float[Tensor, "planes height width"]) -> Float[Tensor, "planes height width"]:
    """Apply contrast normalisation: return the planes' response to a difference of Gaussians of 5x5 pixels.

    The paper gives neither the widths nor the mapping back to levels. Here the centre's standard deviation is 0.625
    pixels and the surround's 1.25, both with a sum of 1, so that flat areas have no response; the border is replicated
    outwards. A response of 0 becomes middle grey, three standard deviations of the plane's responses black and white.
    A deviation below one level counts as one, so that noise is not amplified.
    """
    kernel = (_gaussian(5, 0.625, planes.device) - _gaussian(5, 1.25, planes.device)).to(planes.dtype)
    extended = functional.pad(planes[:, None], (2, 2, 2, 2), mode="replicate")
    with exact_convolutions():
        response = functional.conv2d(extended, kernel[None, None])[:, 0]
    deviation = response.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp(min=1)
    return (response * (BRIGHTEST / 2 / _EDGE_DEVIATIONS / deviation) + BRIGHTEST / 2).clamp(0, BRIGHTEST)


_ADJUSTMENTS: Final[Mapping[Contrast, Callable[[Tensor], Tensor]]] = {
    "image_adjustment": adjust_image,
    "histogram_equalisation": equalise_histogram,
    "clahe": equalise_tiles,
    "contrast_normalisation": enhance_edges,
}


def _rounded(planes: Float[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    return planes.round().clamp(0, BRIGHTEST).to(torch.int64)


def _histogram(levels: Int[Tensor, "planes *pixels"]) -> Int[Tensor, "planes 256"]:
    """Count the pixels of every plane at each level."""
    flat = levels.flatten(1)
    counts = flat.new_zeros(len(flat), _LEVELS)
    return counts.scatter_add_(1, flat, torch.ones_like(flat))  # bincount would make the host wait for the largest


def _cumulative(levels: Int[Tensor, "planes *pixels"]) -> Int[Tensor, "planes 256"]:
    return _histogram(levels).cumsum(1)


def _clipped(counts: Int[Tensor, "planes 256"], *, limit: int) -> Int[Tensor, "planes 256"]:
    """Clip the counts to the limit, and spread the excess over all levels, which may exceed the limit again."""
    clipped = counts.to(torch.int32).clamp_(max=limit)
    excess = counts.sum(1) - clipped.sum(1)
    everywhere = (excess // _LEVELS).to(torch.int32)[:, None]
    return clipped.add_(everywhere).add_(_spread(counts.device)[excess % _LEVELS])


def _spread(device: torch.device) -> Int[Tensor, "256 256"]:
    """Return a matrix whose row n marks the n levels that get one of n remaining pixels each.

    The levels are counted from black up, at equal distances.
    """
    level = torch.arange(_LEVELS, device=device)
    left = level[:, None]
    step = _LEVELS // left.clamp(min=1)
    return ((level % step == 0) & (level // step < left)).to(torch.int32)


def _neighbours(side: int, tile: int, like: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the tiles before and after every pixel along a side, and their weights.

    Beyond the centres of the outermost tiles both are the same tile.
    """
    position = (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) / tile - 0.5
    before = position.floor()
    weight = position - before
    tiles = [(before + step).clamp(0, _TILES - 1).to(torch.int64) for step in (0, 1)]
    return [(tiles[0], 1 - weight), (tiles[1], weight)]


def _gaussian(size: int, deviation: float, device: torch.device) -> Float[Tensor, "size size"]:
    """Return a Gaussian kernel of size x size pixels with a sum of 1, float64."""
    offsets = torch.arange(size, dtype=torch.float64, device=device) - size // 2
    along = torch.exp(-(offsets**2) / (2 * deviation**2))
    along = along / along.sum()
    return along[:, None] * along


# The processing of images before the network, and the statistics that it needs.


_BRIGHTEST = 255

_FEW_IMAGES = 32
"""Images adjusted at a time when statistics are measured: with hundreds CLAHE exceeds the cache and takes twice as
long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalStatistics:
    """One mean and one standard deviation over all pixels and channels of the training images, scaled to [0, 1]."""

    mean: float
    std: float


def measure_statistics(
    images: NDArray[np.uint8],
    rows: NDArray[np.int64] | None = None,
    *,
    contrast: Contrast = "none",
    chunk_images: int = 256,
) -> GlobalStatistics:
    """Measure the statistics of uint8 images, exact to the last bit for any size of the chunks.

    Args:
        images: (n, channels, height, width), may be a memory map.
        rows: the rows to measure; all of them if it is None.
        contrast: the adjustment of the images before they are measured, rounded to 8 bits.
        chunk_images: the number of images that are read at a time.

    Raises:
        DataMissingError: if there are no images.
        DataCorruptError: if all pixels are equal, so that nothing can be divided by their deviation.
    """
    measured = len(images) if rows is None else len(rows)
    counts = np.zeros(_LEVELS, dtype=np.int64)
    for start in advancing(range(0, measured, chunk_images), "measuring images"):
        part = slice(start, start + chunk_images)
        chunk = images[part if rows is None else rows[part]]
        counts += np.bincount(_adjusted(chunk, contrast).reshape(-1), minlength=_LEVELS)
    count, total, squares = (sum(int(n) * level**power for level, n in enumerate(counts)) for power in range(3))
    if count == 0:
        raise DataMissingError("there are no images to measure", remedy="the training half is empty")
    deviation = math.sqrt(count * squares - total**2) / count
    if deviation == 0:
        raise DataCorruptError(f"every pixel of the {measured} images is {total // count}", remedy="check the set")
    return GlobalStatistics(mean=total / count / _BRIGHTEST, std=deviation / _BRIGHTEST)


def _adjusted(images: NDArray[np.uint8], contrast: Contrast) -> NDArray[np.uint8]:
    if contrast == "none":
        return images
    adjusted = np.empty_like(images)
    for start in range(0, len(images), _FEW_IMAGES):
        levels = torch.from_numpy(images[start : start + _FEW_IMAGES].astype(np.float32))
        adjusted[start : start + _FEW_IMAGES] = adjust_contrast(levels, contrast).round().numpy()
    return adjusted


class Preprocess(nn.Module):
    """The processing of images before the network, in four steps, as specified.

    The steps are the contrast adjustment, the scaling to [0, 1], the global normalisation, and the contrastive
    normalisation.

    Args:
        spec: the steps that are applied.
        statistics: the statistics of the training images after ``spec.contrast``, for any set that is processed.
        image_size: height and width of the images in pixels.
    """

    def __init__(self, spec: PreprocessSpec, statistics: GlobalStatistics, *, image_size: int) -> None:
        super().__init__()
        mean, std = (statistics.mean, statistics.std) if spec.global_norm else (0.0, 1.0)
        self.contrast: Contrast = spec.contrast
        self.scale = 1 / (_BRIGHTEST * std)
        self.shift = -mean / std
        self.norm: nn.Module = nn.Identity()
        if spec.contrastive_norm:
            self.norm = ContrastiveNorm(gaussian_kernel(spec.kernel_size), height=image_size, width=image_size)

    def forward(
        self, images: UInt8[Tensor, "batch channels height width"] | Float32[Tensor, "batch channels height width"]
    ) -> Float32[Tensor, "batch channels height width"]:
        """Process images, either uint8 or float32 in [0, 255], as augmentation returns them.

        Raises:
            ShapeError: if contrastive normalisation is specified and the images are not ``image_size`` high and wide.
        """
        levels = adjust_contrast(images.to(torch.float32), self.contrast)
        processed: Tensor = self.norm(levels.mul(self.scale).add_(self.shift))
        return processed
