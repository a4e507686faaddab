"""Distance of a spatial transformer from the true pose of the signs: the measure behind ``theta_error``.

A transformer that undoes every pose shows the sign at one and the same place of its output, wherever that place is.
With P the true pose of an image (sign to image) and T the transformer's map (output to image), the map ``R = P^-1 T``
from output to sign is then the same for all images. The best constant pose C, output to sign, is the affine map that R
is on average, and the error is the distance of R from it: of one image, the root mean square distance of ``R(C^-1 q)``
from q over nine points q of the sign, in half sides of the sign; of a set, the mean over images, each counted with at
most ``LARGEST_ERROR``.

After any affine map that is the same for all images, T has the same error, since C takes up that map: no choice of
zoom, place or shear lowers it. A transformer that does the same to every image has the error of the identity, however
far it zooms in or out. Images that are thrown away count with the largest error each and hardly move C: the average is
weighted by 1 / (1 + error^2)^2 (Geman and McClure's weights) and begins at the map of the image that most others are
close to.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.models.classifiers import TransformerRecord
from stnbench.nn.spatial_transformer import compose

# Mean and variance of rows of numbers, added batch by batch.


class RunningMoments:
    """Mean and variance over all rows so far, with no row kept; rows that are not finite are left out.

    Batches are merged as in Chan, Golub & LeVeque 1979, so that a small spread about a large mean is kept.

    Args:
        width: the number of columns.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        """Number of rows added."""
        self.mean = torch.zeros(width, dtype=torch.float64)
        """Mean of every column, (width,); 0 before the first row."""
        self._squares = torch.zeros(width, dtype=torch.float64)

    @property
    def variance(self) -> Float[Tensor, " width"]:
        """Return the variance of every column, over the number of rows, not one less; 0 before the first row."""
        return self._squares / max(self.count, 1)

    def add(self, rows: Float[Tensor, "batch width"]) -> None:
        """Add a batch of rows, float64 on the CPU."""
        rows = rows[rows.isfinite().all(dim=1)]
        if len(rows) == 0:
            return
        total = self.count + len(rows)
        mean = rows.mean(dim=0)
        delta = mean - self.mean
        self._squares += (rows - mean).square().sum(dim=0) + delta.square() * (self.count * len(rows) / total)
        self.mean = self.mean + delta * (len(rows) / total)
        self.count = total


LARGEST_ERROR: Final = 2.0
"""Largest error of an image in half sides of the sign: it is shown beside its usual place, not overlapping it."""

FAR_ERROR: Final = 1.0
"""Error in half sides of the sign above which an image is far off: out of place by half its width, or a mere point."""

_SIDE: Final = 3
"""Points a side at which maps are compared: corners, middles of edges, and the centre."""

_CANDIDATES: Final = 64
"""Number of images, evenly spread, at whose map the average may begin."""

_ROUNDS: Final = 50
"""Largest number of rounds of reweighting."""

_SETTLED: Final = 1e-9
"""Smallest movement of the average in a round that another round follows."""

_LARGEST_CONDITION: Final = 1e6
"""Largest condition of the 2 x 2 part of C: above it the output shows a line or a point of the sign."""

MapPoints = Callable[[Tensor], Tensor]
"""Function from points (points, 2) of the output to their places on the sign of every image, (images, points, 2)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseError:
    """Error of a set of images.

    Attributes:
        mean: the mean over images, in half sides of the sign, each image with at most ``LARGEST_ERROR``.
        far_share: the share, in [0, 1], of images with an error above ``FAR_ERROR``.
    """

    mean: float
    far_share: float


class PoseMeter:
    """Meter of the pose error of one spatial transformer, batch by batch.

    Args:
        size: height and width of the images in pixels.
        align_corners: whether -1 and 1 in the transformer's coordinates are the centres of the border pixels, or their
            outer edges.
    """

    def __init__(self, size: tuple[int, int], *, align_corners: bool) -> None:
        self._edge_scale = _edge_scale(size, align_corners=align_corners)
        self._maps: list[MapPoints] = []
        self._identity_maps: list[MapPoints] = []

    def add(self, chain: Sequence[TransformerRecord], poses: Float[Tensor, "batch 3 3"]) -> None:
        """Add one batch, of which parameters are kept and images are not.

        Args:
            chain: the transformers from the image to the one that is measured.
            poses: the true poses, from sign to image coordinates, with -1 and 1 at the image's outer edges.
        """
        image_to_sign = torch.linalg.inv(poses.double().cpu())
        steps = tuple(_light_map(record) for record in reversed(chain))
        for maps, mapped_by in ((self._maps, steps), (self._identity_maps, ())):
            maps.append(functools.partial(_to_sign, mapped_by, self._edge_scale, image_to_sign))

    def error(self) -> PoseError | None:
        """Return the error over all images added, or None where it is not defined."""
        return pose_error(_together(self._maps))

    def identity_error(self) -> PoseError | None:
        """Return the error of the identity, as of any constant map, or None where it is not defined."""
        return pose_error(_together(self._identity_maps))


def sample_points() -> Float[Tensor, "points 2"]:
    """Return the nine points (x, y) of a square at which maps are compared, row by row, float32 on the CPU."""
    axis = torch.linspace(-1, 1, _SIDE)
    return torch.cartesian_prod(axis, axis).flip(1)


def pose_error(map_points: MapPoints) -> PoseError | None:
    """Return the error of maps from the output to the signs: their distance from one map for all images.

    Args:
        map_points: the map of every image.

    Returns:
        The error; None where the maps have no average from which anything on the sign could be found in the output.
    """
    points = sample_points().double()
    constant = _most_alike(_affine_fits(points, map_points(points)))
    errors = torch.zeros(0)
    for _ in range(_ROUNDS):
        if constant is None:
            return None
        where = _apply(torch.linalg.inv(constant)[None], points)[0]
        seen = map_points(where)
        errors = _distances(seen, points)
        weights = (1 + errors.square()).pow(-2)
        fits = _affine_fits(points, seen).nan_to_num(0, 0, 0)
        average = (weights[:, None, None] * fits).sum(dim=0) / weights.sum()
        constant = _usable(average @ constant)
        if float((average - torch.eye(3)).abs().max()) < _SETTLED:
            break
    far = (errors > FAR_ERROR).double()
    return PoseError(mean=float(errors.clamp(max=LARGEST_ERROR).mean()), far_share=float(far.mean()))


def apply_homography(
    homography: Float[Tensor, "batch 3 3"], points: Float[Tensor, "batch points 2"]
) -> Float[Tensor, "batch points 2"]:
    """Return the points under the homographies; they are not finite on the vanishing line."""
    moved = points @ homography[:, :, :2].mT + homography[:, None, :, 2]
    return moved[..., :2] / moved[..., 2:]


def _light_map(record: TransformerRecord) -> Callable[[Tensor], Tensor]:
    """Return the map of a transformer's output to its input, without the images, on the CPU."""
    done = record.done
    parameters = tuple(step.detach().cpu() for step in done.parameters)
    guard = None if done.guard is None else done.guard.on_cpu()
    return lambda points: compose(done.transformation, parameters, points, guard)


def _to_sign(
    steps: Sequence[Callable[[Tensor], Tensor]], edge_scale: Tensor, image_to_sign: Tensor, points: Tensor
) -> Tensor:
    mapped = points[None]
    for step in steps:
        mapped = step(mapped)
    return apply_homography(image_to_sign, (mapped.double() * edge_scale).expand(len(image_to_sign), -1, -1))


def _together(maps: Sequence[MapPoints]) -> MapPoints:
    return lambda points: torch.cat([batch(points) for batch in maps])


def _affine_fits(points: Tensor, seen: Tensor) -> Float[Tensor, "images 3 3"]:
    """Return the affine map nearest to each image's map by least squares over the points, a lattice of [-1, 1]."""
    linear = torch.einsum("npi,pj->nij", seen, points) / points.square().sum(dim=0)
    fits = torch.eye(3, dtype=seen.dtype).repeat(len(seen), 1, 1)
    fits[:, :2, :2], fits[:, :2, 2] = linear, seen.mean(dim=1)
    return fits


def _most_alike(fits: Tensor) -> Tensor | None:
    """Return the usable map, among some of the maps, with the least sum of bounded distances to all maps.

    None where none is usable.
    """
    count = min(_CANDIDATES, len(fits))
    candidates = fits[torch.arange(count) * len(fits) // count]
    usable = [candidate for candidate in candidates if _usable(candidate) is not None]
    if not usable:
        return None
    points = sample_points().double()
    totals = [
        _distances(_apply(fits @ torch.linalg.inv(one), points), points).clamp(max=LARGEST_ERROR).sum()
        for one in usable
    ]
    best: Tensor = usable[int(torch.stack(totals).argmin())]
    return best


def _usable(affine: Tensor) -> Tensor | None:
    """Return the affine map, or None where it is not finite, or cannot be inverted reliably."""
    if not bool(affine.isfinite().all()):
        return None
    largest, smallest = torch.linalg.svdvals(affine[:2, :2]).tolist()
    return affine if smallest > 0 and largest < _LARGEST_CONDITION * smallest else None


def _apply(affine: Tensor, points: Tensor) -> Tensor:
    """Return points (points, 2) under affine maps (images, 3, 3), (images, points, 2)."""
    return points @ affine[:, :2, :2].mT + affine[:, None, :2, 2]


def _distances(seen: Tensor, points: Tensor) -> Tensor:
    """Return every image's root mean square distance of ``seen`` from the points; infinite where it is not a number."""
    distances = (seen - points).square().sum(dim=-1).mean(dim=-1).sqrt()
    return distances.nan_to_num(math.inf, posinf=math.inf)


def _edge_scale(size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """Return the factors from the transformer's (x, y) to coordinates with -1 and 1 at the image's outer edges."""
    height, width = size
    return torch.tensor([(side - 1) / side if align_corners else 1.0 for side in (width, height)], dtype=torch.float64)
