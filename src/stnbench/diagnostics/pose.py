"""How far a spatial transformer is from the true pose of the signs: the measure behind ``theta_error``.

A transformer that undoes every pose shows the sign at one and the same place of its output, whatever place that is. So
with P the true pose of an image (sign square to image) and T the transformer's map (output to image), the map
``R = P^-1 T`` from output to sign is the same for all images, and how much R differs between images is the error. It is
measured at nine points of the output, in half sides of the output, as the sign is seen to move there: the difference
is taken back by the affine map C that fits the median R best, so that no choice of zoom, place or shear that is the
same for all images matters, and a transformer that zooms into one spot gains nothing. Of one image it is the root mean
square over the points, of a set the median over images, which a pose near a vanishing line does not upset.
"""

import math
from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.models.classifiers import TransformerRecord

_SIDE: Final = 3
"""Points a side at which maps are compared: corners, middles of edges, and the centre."""

_SMALLEST_DETERMINANT: Final = 1e-8
"""Of C: below it the output shows a line or a point of the sign, and nothing can be said of its movement."""


class PoseMeter:
    """Gathers what one spatial transformer did to images of known pose, batch by batch.

    Args:
        size: height and width of the images in pixels.
        align_corners: of the transformer's coordinates.
    """

    def __init__(self, size: tuple[int, int], *, align_corners: bool) -> None:
        self._edge_scale = _edge_scale(size, align_corners=align_corners)
        self._seen: list[Tensor] = []
        self._seen_by_identity: list[Tensor] = []

    def add(self, chain: Sequence[TransformerRecord], poses: Float[Tensor, "batch 3 3"]) -> None:
        """Take in one batch: the transformers from the image to the one that is measured, and the true poses."""
        points = sample_points().to(poses.device)[None]
        mapped = points
        for record in reversed(chain):
            mapped = record.done.map_points(mapped)
        inverse = torch.linalg.inv(poses.double())
        for seen, where in ((self._seen, mapped), (self._seen_by_identity, points)):
            scaled = where.double() * self._edge_scale.to(poses.device)
            seen.append(apply_homography(inverse, scaled.expand(len(poses), -1, -1)).cpu())

    def error(self) -> float | None:
        """The theta error over all images taken in; None where nothing can be said."""
        return pose_spread(torch.cat(self._seen))

    def identity_error(self) -> float | None:
        """The same had the transformer been the identity."""
        return pose_spread(torch.cat(self._seen_by_identity))


def sample_points() -> Float[Tensor, "points 2"]:
    """The nine points (x, y) of the output at which maps are compared, row by row, float32 on the CPU."""
    axis = torch.linspace(-1, 1, _SIDE)
    return torch.cartesian_prod(axis, axis).flip(1)


def pose_spread(seen: Float[Tensor, "images points 2"]) -> float | None:
    """How much the sign moves in the output, in its half sides; None where that is no finite number.

    Args:
        seen: where on the sign each of ``sample_points`` lies, in sign coordinates, by image.
    """
    middle = seen.nanmedian(dim=0).values
    if not bool(torch.isfinite(middle).all()):
        return None
    points = sample_points().to(seen)
    design = torch.cat([points, points.new_ones(len(points), 1)], dim=1)
    linear = torch.linalg.lstsq(design, middle).solution[:2].T
    if abs(float(torch.linalg.det(linear))) < _SMALLEST_DETERMINANT:
        return None
    moved = (seen - middle) @ torch.linalg.inv(linear).T
    error = float(moved.square().sum(dim=-1).mean(dim=-1).sqrt().nanmedian())
    return error if math.isfinite(error) else None


def apply_homography(
    homography: Float[Tensor, "batch 3 3"], points: Float[Tensor, "batch points 2"]
) -> Float[Tensor, "batch points 2"]:
    """Points under homographies; not finite on the vanishing line."""
    moved = points @ homography[:, :, :2].mT + homography[:, None, :, 2]
    return moved[..., :2] / moved[..., 2:]


def _edge_scale(size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """What takes the transformer's (x, y) to coordinates whose -1 and 1 are the image's outer edges."""
    height, width = size
    return torch.tensor([(side - 1) / side if align_corners else 1.0 for side in (width, height)], dtype=torch.float64)
