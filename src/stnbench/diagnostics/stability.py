"""Stability of a sign behind a spatial transformer: measures along tracks, and under known warps.

The animations of 2015 show the frames of one approach to a sign, and the sign at rest in the transformer's output. No
published number says how stable it is; these do. All are geometry or pixels, need no training, and are compared with
the values of the identity and of one fixed zoom for the same images: along a track of GTSRB the annotated box hardly
moves, so a stable output is worth something only where it is more stable than that.

Convention: coordinates (x, y) have -1 and 1 at the outer edges of the border pixels; corners are in the order upper
left, upper right, lower right, lower left of the output.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from stnbench.core.identity import derive_seed
from stnbench.data.homographies import map_points
from stnbench.diagnostics.health import chain_to
from stnbench.models.classifiers import Explained, TransformerRecord
from stnbench.models.scored_network import Model
from stnbench.nn.sampling import sample
from stnbench.nn.transforms import pixel_centres
from stnbench.spec.transformer import TransformerSpec

# Regions of the image that the spatial transformers of a network read, and the pictures that they show.
#
# A transformer behind the image counts as one of the image: stages shift maps by less than their pixel, so the maps of
# all transformers on the way are composed, and the picture is the image read where the last one reads its maps.
#
# Convention: coordinates (x, y) have -1 and 1 at the outer edges of the border pixels, whatever ``align_corners`` of
# the transformers is, as boxes and poses of a data set have.


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


CORNERS: Final = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
"""Corners of the output, in the order in which they are drawn."""

_LARGEST_ENLARGEMENT: Final = 4.0
"""Largest enlargement by a pose's perspective over that at the sign's centre: points of the sign stay well below."""

_RESAMPLES: Final = 2000
_CONFIDENCE: Final = 0.95

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackMean:
    """Mean over tracks with the 95 % interval of its percentile bootstrap over tracks; no interval for one track."""

    tracks: int
    mean: float
    low: float | None
    high: float | None


def sign_coordinates(
    points: Float[Tensor, "batch points 2"], boxes: Float[Tensor, "batch 4"], poses: Float[Tensor, "batch 3 3"] | None
) -> Float[Tensor, "batch points 2"]:
    """Return points of the image in coordinates of the sign, where the sign is [-1, 1]^2, float64.

    By the inverse of the true pose where it is known, else by the sign's box. Towards the vanishing line of a pose
    places diverge; they are enlarged at most four times as much as at the sign's centre.

    Args:
        points: (x, y) in the image.
        boxes: x1, y1, x2, y2 of the sign in every image.
        poses: the true poses, from sign to image coordinates; None where they are not known.
    """
    if poses is None:
        low, high = boxes.double()[:, None, :2], boxes.double()[:, None, 2:]
        return (2 * points.double() - low - high) / (high - low)
    inverse = torch.linalg.inv(poses.double())
    centres = poses.double()[:, :, 2:]
    to_sign = inverse / (inverse[:, 2:] @ centres)
    across, down, third = (points.double() @ to_sign[:, :, :2].mT + to_sign[:, None, :, 2]).unbind(-1)
    seen: Tensor = torch.stack([across, down], dim=-1) / third.clamp(min=1 / _LARGEST_ENLARGEMENT)[..., None]
    return seen


def corner_spread(corners: Float[Tensor, "images 4 2"], tracks: Int[Tensor, " images"]) -> Float[Tensor, " tracks"]:
    """Return the standard deviation of a corner's place along each track, in half sides of the sign.

    The root of the sum of the variances of x and y, averaged over the four corners. Tracks are in ascending order; one
    of a single image has no spread, and gives NaN.

    Args:
        corners: the corners in sign coordinates.
        tracks: the track of every image.
    """
    spread = [own.var(dim=0).sum(dim=-1).mean().sqrt() if len(own) > 1 else _nan() for own in by_track(corners, tracks)]
    return torch.stack(spread)


def sign_movement(corners: Float[Tensor, "images 4 2"], tracks: Int[Tensor, " images"]) -> Float[Tensor, " tracks"]:
    """Return the movement of the sign in the output along each track, in half sides of the output.

    The spread of the corners over the side of the region read: unlike the spread alone it is no smaller for a
    transformer that zooms into one spot. Reading a wider region makes it smaller, as it makes the sign.

    Args:
        corners: the corners in sign coordinates.
        tracks: the track of every image.
    """
    sides = by_track(quadrilateral_area(corners), tracks)
    mean_half_side = torch.stack([(own / 4).sqrt().mean() for own in sides])
    return corner_spread(corners, tracks) / mean_half_side


def quadrilateral_area(corners: Float[Tensor, "images 4 2"]) -> Float[Tensor, " images"]:
    """Return the areas of quadrilaterals without crossing sides; 4 for the whole of [-1, 1]^2."""
    across, down = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    return (across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]).abs() / 2


def quadrilateral_iou(
    corners: Float[Tensor, "images 4 2"], boxes: Float[Tensor, "images 4"]
) -> Float[Tensor, " images"]:
    """Return intersection over union of quadrilaterals (convex, or nearly) with upright boxes x1, y1, x2, y2."""
    overlap = corners.new_tensor(
        [
            _area(_clip_to_box([(x, y) for x, y in quadrilateral], box))
            for quadrilateral, box in zip(corners.tolist(), boxes.tolist(), strict=True)
        ]
    )
    box_area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return overlap / (quadrilateral_area(corners) + box_area - overlap)


def pixel_variance(images: Tensor, tracks: Int[Tensor, " images"]) -> Float[Tensor, " tracks"]:
    """Return the variance of a pixel over the frames of each track, averaged over pixels and channels, float64.

    A track of a single image gives NaN.

    Args:
        images: (images, channels, height, width), numbers of any type.
        tracks: the track of every image.
    """
    variances = [own.double().var(dim=0).mean() if len(own) > 1 else _nan() for own in by_track(images, tracks)]
    return torch.stack([variance.cpu() for variance in variances])


def by_track(values: Tensor, tracks: Int[Tensor, " images"]) -> list[Tensor]:
    """Return the values (images, ...) of each track, by ascending track."""
    return [values[(tracks == track).to(values.device)] for track in torch.unique(tracks)]


def track_means(values: Float[Tensor, " images"], tracks: Int[Tensor, " images"]) -> Float[Tensor, " tracks"]:
    """Return the mean of the images of each track, by ascending track."""
    return torch.stack([own.mean() for own in by_track(values, tracks)])


def _homography(*rows: tuple[float, float, float]) -> Float[Tensor, "3 3"]:
    return torch.tensor([*rows, (0.0, 0.0, 1.0)][:3], dtype=torch.float64)


def _rotation(degrees: float) -> Float[Tensor, "3 3"]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _homography((cos, -sin, 0), (sin, cos, 0))


def _around(step: float) -> tuple[tuple[float, float], ...]:
    return ((step, 0), (-step, 0), (0, step), (0, -step))


WARPS: Final[Mapping[str, tuple[Tensor, ...]]] = {
    "rotation": (_rotation(10), _rotation(-10)),
    "zoom": tuple(_homography((zoom, 0, 0), (0, zoom, 0)) for zoom in (1.15, 1 / 1.15)),
    "shift": tuple(_homography((1, 0, x), (0, 1, y)) for x, y in _around(0.1)),
    "shear": tuple(_homography((1, shear, 0), (0, 1, 0)) for shear in (0.15, -0.15)),
    "perspective": tuple(_homography((1, 0, 0), (0, 1, 0), (x, y, 1)) for x, y in _around(0.1)),
}
"""Known warps g by family, (3, 3) each, from points of the warped image to points of the image.

10 degrees, 15 %, 0.1 half sides, a shear of 0.15, and a perspective under which one edge is 10 % farther away and the
opposite one nearer.
"""


def warp_images(images: Tensor, warp: Float[Tensor, "3 3"]) -> Tensor:
    """Return the images as seen through a warp, float32; border pixels are repeated beyond the edge.

    Args:
        images: (images, channels, height, width), uint8 or float32.
        warp: the map from points of the warped image to points of the image.
    """
    height, width = images.shape[-2:]
    like = warp.to(images.device)
    centres = pixel_centres((height, width), align_corners=False, like=like)[None]
    grid = map_points(like[None], centres).reshape(1, height, width, 2).float().expand(len(images), -1, -1, -1)
    warped: Tensor = functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return warped


def equivariance_error(
    warp: Float[Tensor, "3 3"], warped: Float[Tensor, "images points 2"], plain: Float[Tensor, "images points 2"]
) -> Float[Tensor, " images"]:
    """Return the mean over points of ``|g(T(theta(g x))) - T(theta(x))|``, in half sides of the image.

    It is 0 where T follows g.

    Args:
        warp: g, from points of the warped image to points of the image.
        warped: the places in the warped images g x at which the transformer reads the points of its output.
        plain: the same for the images x.
    """
    carried = map_points(warp.to(warped).expand(len(warped), -1, -1), warped)
    return (carried - plain).square().sum(dim=-1).sqrt().mean(dim=-1)


def track_mean(values: NDArray[np.float64], *, seed: int) -> TrackMean | None:
    """Return the mean over tracks with its interval, or None where no track has a number.

    Args:
        values: (tracks,), NaN for tracks without a number.
        seed: the seed of the bootstrap.
    """
    known = values[np.isfinite(values)]
    return _bootstrap(len(known), lambda drawn: known[drawn].mean(axis=-1), seed) if len(known) else None


def track_ratio(values: NDArray[np.float64], base: NDArray[np.float64], *, seed: int) -> TrackMean | None:
    """Return the mean of ``values`` over that of ``base``, on the same tracks, which are drawn in pairs.

    None where no track has both numbers, or the base is 0.

    Args:
        values: (tracks,), NaN for tracks without a number.
        base: (tracks,), NaN for tracks without a number.
        seed: the seed of the bootstrap.
    """
    known = np.isfinite(values) & np.isfinite(base)
    over, under = values[known], base[known]
    if not under.any():
        return None
    return _bootstrap(len(over), lambda drawn: over[drawn].mean(axis=-1) / under[drawn].mean(axis=-1), seed)


def _bootstrap(tracks: int, statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], seed: int) -> TrackMean:
    """Return a statistic of rows of tracks with its percentile interval (Efron 1979)."""
    mean = float(statistic(np.arange(tracks)[None])[0])
    if tracks == 1:
        return TrackMean(tracks=1, mean=mean, low=None, high=None)
    generator = np.random.default_rng(derive_seed(seed, "stability"))
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw of tracks whose base is 0
        drawn = statistic(generator.integers(0, tracks, size=(_RESAMPLES, tracks)))
    tail = (1 - _CONFIDENCE) / 2
    low, high = (float(bound) for bound in np.nanquantile(drawn, [tail, 1 - tail]))
    return TrackMean(tracks=tracks, mean=mean, low=low, high=high)


def _nan() -> Tensor:
    return torch.tensor(math.nan, dtype=torch.float64)


def _area(polygon: Sequence[Point]) -> float:
    """Return the area of a polygon, by the shoelace formula."""
    turned = [*polygon[1:], *polygon[:1]]
    return abs(sum(x * below - y * right for (x, y), (right, below) in zip(polygon, turned, strict=True))) / 2


def _clip_to_box(polygon: list[Point], box: Sequence[float]) -> list[Point]:
    """Return the part of a polygon in an upright box (Sutherland & Hodgman 1974)."""
    for axis, bound, sign in ((0, box[0], 1), (1, box[1], 1), (0, box[2], -1), (1, box[3], -1)):
        kept: list[Point] = []
        for start, end in zip(polygon, [*polygon[1:], *polygon[:1]], strict=True):
            inside, next_inside = (sign * (point[axis] - bound) >= 0 for point in (start, end))
            if inside:
                kept.append(start)
            if inside != next_inside:
                share = (bound - start[axis]) / (end[axis] - start[axis])
                kept.append((start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])))
        polygon = kept
    return polygon
