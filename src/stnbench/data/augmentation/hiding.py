"""What hides a sign: blur, and rectangles painted over. Numbers are drawn beforehand, as all of augmentation's are."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from stnbench.data.augmentation.draws import draw_uniform
from stnbench.data.augmentation.lightness import BRIGHTEST
from stnbench.nn.precision import exact_convolutions
from stnbench.nn.transforms.base import pixel_centres

_SIGMA_PX: Final = 1.25
_REACH_PX: Final = 2
"""Of the gaussian, to either side; beyond it are 4 percent of its weight."""


def draw_blur(share: float, *, seed: int, epoch: int, count: int) -> Float[Tensor, " n"] | None:
    """A share from minus to plus ``share`` for every image of an epoch, on the CPU; None where it is 0."""
    if share == 0:
        return None
    return share * (2 * draw_uniform("blur", seed, epoch, (count,)) - 1)


def draw_erased(share: float, *, seed: int, epoch: int, count: int) -> Float[Tensor, "n 4"] | None:
    """A rectangle x1, y1, x2, y2 that lies in the image, for every image of an epoch, on the CPU; None where it is 0.

    Its sides are uniform from 0 to ``share`` of the image's, its place likewise. Coordinates are normalised, -1 and 1
    at the outer edges.
    """
    if share == 0:
        return None
    drawn = draw_uniform("erase", seed, epoch, (count, 4))
    sides = 2 * share * drawn[:, :2]
    start = -1 + drawn[:, 2:] * (2 - sides)
    return torch.cat([start, start + sides], dim=1)


def blurred(
    levels: Float[Tensor, "batch channels height width"], share: Float[Tensor, " batch"]
) -> Float[Tensor, "batch channels height width"]:
    """The images moved by a share of the way to their gaussian means, cut to [0, 255]; borders are continued."""
    channels, reach = levels.shape[1], _REACH_PX
    offsets = torch.arange(-reach, reach + 1, dtype=levels.dtype, device=levels.device)
    kernel = torch.exp(-(offsets**2) / (2 * _SIGMA_PX**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, -1)
    padded = functional.pad(levels, (reach, reach, reach, reach), mode="replicate")
    with exact_convolutions():
        mean = functional.conv2d(padded, kernel[:, :, None, :], groups=channels)
        mean = functional.conv2d(mean, kernel[:, :, :, None], groups=channels)
    return torch.lerp(levels, mean, share[:, None, None, None]).clamp_(0, BRIGHTEST)


def erased(
    levels: Float[Tensor, "batch channels height width"], boxes: Float[Tensor, "batch 4"]
) -> Float[Tensor, "batch channels height width"]:
    """The images with every pixel whose centre lies in the image's box painted in its mean colour."""
    height, width = levels.shape[-2:]
    x, y = pixel_centres((height, width), align_corners=False, like=levels).unbind(-1)
    x1, y1, x2, y2 = (edge[:, None] for edge in boxes.unbind(1))
    covered = ((x >= x1) & (x < x2) & (y >= y1) & (y < y2)).reshape(-1, 1, height, width)
    return torch.where(covered, levels.mean(dim=(2, 3), keepdim=True), levels)
