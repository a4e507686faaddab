"""The lightness of images, and images with another lightness and the same hue."""

import torch
from jaxtyping import Float
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue weigh in the luma of gamma-encoded RGB (Rec. ITU-R BT.601)."""

COLOURS = 3

BRIGHTEST = 255.0
"""The highest level; levels are 8-bit intensities, fractions included."""


def lightness(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch lightnesses height width"]:
    """The luma (batch, 1, height, width) of RGB images; of others, every channel is a lightness of its own."""
    if images.shape[1] != COLOURS:
        return images
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def with_lightness(
    images: Float[Tensor, "batch channels height width"], wanted: Float[Tensor, "batch lightnesses height width"]
) -> Float[Tensor, "batch channels height width"]:
    """The images (levels in [0, 255]) with the wanted lightness, which lies there as well.

    All three colours move by the same amount, which keeps hue and chroma; where one would leave [0, 255], the pixel is
    drawn towards its grey until none does, so that hue and lightness stay exact and only the saturation falls.
    """
    if images.shape[1] != COLOURS:
        return wanted
    chroma = images - lightness(images)
    above, below = chroma.amax(1, keepdim=True), -chroma.amin(1, keepdim=True)
    smallest = torch.finfo(images.dtype).tiny
    room = torch.minimum((BRIGHTEST - wanted) / above.clamp(min=smallest), wanted / below.clamp(min=smallest))
    return (chroma * room.clamp(max=1) + wanted).clamp(0, BRIGHTEST)
