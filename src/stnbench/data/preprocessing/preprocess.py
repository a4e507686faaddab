"""What is done to images before the network, and the statistics it needs."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from stnbench.core.activity import advancing
from stnbench.core.errors import DataCorruptError, DataMissingError
from stnbench.data.preprocessing.contrast import adjust_contrast
from stnbench.nn.layers import ContrastiveNorm, gaussian_kernel
from stnbench.spec.data import Contrast, PreprocessSpec

_LEVELS = 256
_BRIGHTEST = 255

_FEW_IMAGES = 32
"""Adjusted at a time where statistics are measured: with hundreds CLAHE leaves the cache and takes twice as long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalStatistics:
    """One mean and one standard deviation over all pixels and channels of the training images, which lie in [0, 1]."""

    mean: float
    std: float


def measure_statistics(
    images: NDArray[np.uint8],
    rows: NDArray[np.int64] | None = None,
    *,
    contrast: Contrast = "none",
    chunk_images: int = 256,
) -> GlobalStatistics:
    """The statistics of uint8 images, exact to the last bit whatever the chunks.

    Args:
        images: (n, channels, height, width), may be a memory map; ``chunk_images`` of them are read at a time.
        rows: which of them to measure; all of them where it is None.
        contrast: what is measured are the images after this adjustment, rounded to 8 bits.
        chunk_images: how many.
    Raises: DataMissingError without images; DataCorruptError where all pixels are equal, so that nothing can be
        divided by their deviation.
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
    """Images to what the network sees: contrast, [0, 1], global normalisation, contrastive normalisation, as specified.

    Args:
        spec: which of them.
        statistics: of the training images after ``spec.contrast``, whatever set is processed.
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
        """The processed images, of uint8 ones or of float32 ones in [0, 255], as augmentation gives them.

        Raises: ShapeError where they are not ``image_size`` high and wide and a contrastive norm is asked for.
        """
        levels = adjust_contrast(images.to(torch.float32), self.contrast)
        processed: Tensor = self.norm(levels.mul(self.scale).add_(self.shift))
        return processed
