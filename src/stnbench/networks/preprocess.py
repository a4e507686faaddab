"""What is done to images before the network, and the statistics it needs."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from stnbench.core.errors import DataCorruptError, DataMissingError
from stnbench.networks.layers import ContrastiveNorm, gaussian_kernel
from stnbench.spec.data import PreprocessSpec

_LEVELS = 256
_BRIGHTEST = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalStatistics:
    """One mean and one standard deviation over all pixels and channels of the training images, which lie in [0, 1]."""

    mean: float
    std: float


def measure_statistics(images: NDArray[np.uint8], *, chunk_images: int = 256) -> GlobalStatistics:
    """The statistics of uint8 images, exact to the last bit whatever the chunks.

    Args:
        images: (n, 3, height, width), may be a memory map; ``chunk_images`` of them are read at a time.
        chunk_images: how many.
    Raises: DataMissingError without images; DataCorruptError where all pixels are equal, so that nothing can be
        divided by their deviation.
    """
    counts = np.zeros(_LEVELS, dtype=np.int64)
    for start in range(0, len(images), chunk_images):
        counts += np.bincount(images[start : start + chunk_images].reshape(-1), minlength=_LEVELS)
    count, total, squares = (sum(int(n) * level**power for level, n in enumerate(counts)) for power in range(3))
    if count == 0:
        raise DataMissingError("there are no images to measure", remedy="the training half is empty")
    deviation = math.sqrt(count * squares - total**2) / count
    if deviation == 0:
        raise DataCorruptError(f"every pixel of the {len(images)} images is {total // count}", remedy="check the set")
    return GlobalStatistics(mean=total / count / _BRIGHTEST, std=deviation / _BRIGHTEST)


class Preprocess(nn.Module):
    """uint8 images to what the network sees: [0, 1], global normalisation, contrastive normalisation, as specified.

    Args:
        spec: which of them.
        statistics: of the training images, whatever set is processed.
        image_size: height and width of the images in pixels.
    """

    def __init__(self, spec: PreprocessSpec, statistics: GlobalStatistics, *, image_size: int) -> None:
        super().__init__()
        mean, std = (statistics.mean, statistics.std) if spec.global_norm else (0.0, 1.0)
        self.scale = 1 / (_BRIGHTEST * std)
        self.shift = -mean / std
        self.norm: nn.Module = nn.Identity()
        if spec.contrastive_norm:
            self.norm = ContrastiveNorm(gaussian_kernel(spec.kernel_size), height=image_size, width=image_size)

    def forward(self, images: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """The processed images, float32.

        Raises: ShapeError where they are not ``image_size`` high and wide and a contrastive norm is asked for.
        """
        shares = images.to(torch.float32).mul_(self.scale).add_(self.shift)
        processed: Tensor = self.norm(shares)
        return processed
