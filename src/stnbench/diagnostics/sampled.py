"""Regions of the image that the spatial transformers of a network read, and the pictures that they show.

A transformer behind the image counts as one of the image: stages shift maps by less than their pixel, so the maps of
all transformers on the way are composed, and the picture is the image read where the last one reads its maps.

Convention: coordinates (x, y) have -1 and 1 at the outer edges of the border pixels, whatever ``align_corners`` of the
transformers is, as boxes and poses of a data set have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from stnbench.diagnostics.health import chain_to
from stnbench.models.classifiers import Explained, TransformerRecord
from stnbench.models.scored_network import Model
from stnbench.nn.sampling import sample
from stnbench.nn.transforms.base import pixel_centres
from stnbench.spec.transformer import TransformerSpec

LATTICE_SIDE: Final = 9
"""Points a side at which the output is mapped to the image; between them, positions are interpolated."""

_BRIGHTEST: Final = 255


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SampledRegion:
    """Points of the image that one transformer reads.

    Attributes:
        place: the stage it stands before, from 1.
        branch: its branch at this place, from 1.
        points: float64 (batch, points, 2), the places in the image of the requested points of its output.
    """

    place: int
    branch: int
    points: Tensor


def lattice(side: int = LATTICE_SIDE) -> Float[Tensor, "points 2"]:
    """Return the points (x, y) of a regular lattice from edge to edge of the output, row by row, float64 on the CPU."""
    axis = torch.linspace(-1, 1, side, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis).flip(1)


def look(model: Model, images: Tensor, boxes: Tensor) -> Explained:
    """Return a model's output for images in evaluation mode, without gradients; its mode is restored afterwards.

    Args:
        model: the model.
        images: (batch, channels, height, width), uint8, or float32 in [0, 255].
        boxes: (batch, 4), x1, y1, x2, y2 of the signs, which the control ``roi`` reads.
    """
    was_training = model.network.training
    model.network.eval()
    try:
        with torch.inference_mode():
            return model.explain(images, boxes)
    finally:
        model.network.train(was_training)


def zero_colour(model: Model) -> float:
    """Return the colour in [0, 255] that a model's preprocessing makes 0, which zero padding shows."""
    return -model.preprocess.shift / model.preprocess.scale


def sampled_regions(
    records: Sequence[TransformerRecord], points: Float[Tensor, "points 2"]
) -> tuple[SampledRegion, ...]:
    """Return the points of the image that each transformer reads for these points of its output.

    A transformer behind joined branches is left out: no map leads from its output to the image.
    """
    found = []
    for record in records:
        chain = chain_to(record, records)
        if chain is not None:
            mapped = map_to_image(chain, points)
            found.append(SampledRegion(place=record.place, branch=record.branch, points=mapped))
    return tuple(found)


def map_to_image(
    chain: Sequence[TransformerRecord], points: Float[Tensor, "points 2"]
) -> Float[Tensor, "batch points 2"]:
    """Return the points of the image that successive transformers read for points of the output, float64."""
    like = chain[-1].done.parameters[0]
    mapped = points.to(like.device)[None].double()
    for record in reversed(chain):
        done = record.done
        height, width = done.images.shape[-2:]
        scale = mapped.new_tensor([edge_scale(side, align_corners=done.align_corners) for side in (width, height)])
        mapped = done.map_points(mapped / scale) * scale
    return mapped.expand(len(like), -1, -1)


def render(
    images: UInt8[Tensor, "batch channels height width"],
    points: Float[Tensor, "batch points 2"],
    spec: TransformerSpec,
    *,
    fill: float = 0.0,
) -> Float[Tensor, "batch channels height width"]:
    """Return the images as a transformer shows them, in [0, 255] and in their size, float32.

    Args:
        images: the images.
        points: the places in the image of a square lattice of the output (``lattice``); positions between its points
            are interpolated, which is exact for affine maps.
        spec: the transformer, with its sampler, padding and ``align_corners``.
        fill: the colour in [0, 255] that zero padding shows beyond the image: the one that preprocessing makes 0.
    """
    height, width = images.shape[-2:]
    side = round(points.shape[1] ** 0.5)
    centres = pixel_centres((height, width), align_corners=False, like=points).reshape(1, height, width, 2)
    grid = functional.grid_sample(
        points.mT.reshape(len(points), 2, side, side),
        centres.expand(len(points), -1, -1, -1),
        padding_mode="border",
        align_corners=True,
    ).movedim(1, -1)
    scale = grid.new_tensor([edge_scale(size, align_corners=spec.align_corners) for size in (width, height)])
    shown = sample(
        images.float() - fill,
        (grid / scale).float(),
        sampler=spec.sampler,
        padding=spec.padding,
        align_corners=spec.align_corners,
    )
    return (shown + fill).clamp(0, _BRIGHTEST)


def edge_scale(side: int, *, align_corners: bool) -> float:
    """Return the factor from a transformer's coordinate along ``side`` pixels to one with -1 and 1 at the edges.

    The edges are the outer ones of the border pixels.
    """
    return (side - 1) / side if align_corners and side > 1 else 1.0
