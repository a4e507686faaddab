"""Homographies of the plane: the mapping of points, and the homographies of augmentation."""

import itertools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy.typing import NDArray
from torch import Tensor

from stnbench.nn.transforms.affine import matrix_of_rows
from stnbench.nn.transforms.nonlinear import Corners, invert_homography
from stnbench.spec.optimizer import TtaSpec

# The mapping of points by one homography, in NumPy.


def apply_homography(homography: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map points (n, 2) by a homography (3, 3), and return them as (n, 2)."""
    moved = points @ homography[:, :2].T + homography[:, 2]
    projected: NDArray[np.float64] = moved[:, :2] / moved[:, 2:]
    return projected


# Homographies for augmentation: the elementary movements, and the mapping of points and boxes.
#
# Convention: normalised (x, y), x to the right and y down, -1 and 1 at the outer edges of the image; matrices act on
# (x, y, 1). For points of the image the third coordinate of the result is positive; the same holds for the moved points
# under the inverse.


_NEAREST = 1e-2
"""The lower limit of the third coordinate, which is about 1 in the image, 0 on the vanishing line, negative beyond."""


def moving_corners(offsets: Float[Tensor, "batch 8"]) -> Float[Tensor, "batch 3 3"]:
    """Return the homographies that move the corners of the image by x, y each.

    The corners are (-1, -1), (1, -1), (1, 1) and (-1, 1), in this order. The moved corners must form a convex
    quadrilateral.
    """
    return Corners().homography_out_to_in(offsets)


def scaling(x: Float[Tensor, " batch"], y: Float[Tensor, " batch"]) -> Float[Tensor, "batch 3 3"]:
    """Return matrices that multiply x and y by factors."""
    return _affine((x, 0.0, 0.0), (0.0, y, 0.0))


def shearing(angle_rad: Float[Tensor, " batch"]) -> Float[Tensor, "batch 3 3"]:
    """Return matrices that lean vertical lines by an angle in radians, to the left at the top if it is positive."""
    return _affine((1.0, angle_rad.tan(), 0.0), (0.0, 1.0, 0.0))


def rotation(angle_rad: Float[Tensor, " batch"]) -> Float[Tensor, "batch 3 3"]:
    """Return rotations about the centre by an angle in radians, from x to y: clockwise as seen if it is positive."""
    cosine, sine = angle_rad.cos(), angle_rad.sin()
    return _affine((cosine, -sine, 0.0), (sine, cosine, 0.0))


def translation(x: Float[Tensor, " batch"], y: Float[Tensor, " batch"]) -> Float[Tensor, "batch 3 3"]:
    """Return homographies that translate points by (x, y), in normalised coordinates."""
    return _affine((1.0, 0.0, x), (0.0, 1.0, y))


def map_points(
    homographies: Float[Tensor, "batch 3 3"], points: Float[Tensor, "#batch points 2"]
) -> Float[Tensor, "batch points 2"]:
    """Map the points by every homography, with products and sums, which TF32 does not round.

    Unlike ``stnbench.nn.transforms.nonlinear.map_homography``, which shows the plane mirrored beyond the vanishing
    line, the result there lies far outside the image, on the side where the line was crossed, so that the image's
    border extends to the horizon.
    """
    x, y = points.unbind(-1)
    rows = [row[..., None].unbind(1) for row in homographies.unbind(1)]
    x_mapped, y_mapped, third = (across * x + (down * y + constant) for across, down, constant in rows)
    return torch.stack([x_mapped, y_mapped], dim=-1).div_(third.clamp_(min=_NEAREST)[..., None])


def map_boxes(homographies: Float[Tensor, "batch 3 3"], boxes: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 4"]:
    """Return the smallest upright boxes x1, y1, x2, y2 around the mapped boxes, clipped to the image."""
    x1, y1, x2, y2 = boxes.unbind(1)
    corners = torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], dim=1).reshape(-1, 4, 2)
    mapped = map_points(homographies, corners)
    return torch.cat([mapped.amin(1), mapped.amax(1)], dim=1).clamp(-1, 1)


def radians(degrees: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Convert degrees to radians."""
    return degrees * (math.pi / 180)


def _affine(*rows: tuple[Tensor | float, Tensor | float, Tensor | float]) -> Float[Tensor, "batch 3 3"]:
    """Return the matrix of every image from its first two rows, in which plain numbers apply to all images."""
    like = next(entry for row in rows for entry in row if isinstance(entry, Tensor))
    whole = (*rows, (0.0, 0.0, 1.0))
    return matrix_of_rows(
        *(tuple(entry if isinstance(entry, Tensor) else torch.full_like(like, entry) for entry in row) for row in whole)
    )


def view_moves(spec: TtaSpec) -> Float[Tensor, "views 3 3"]:
    """Return the homography that moves the content in each view: zoom, then rotation, then shift; float64 on the CPU.

    Convention: homographies of normalised (x, y), -1 and 1 at the outer edges of the image, from input to output.
    """
    zoom, angle_deg, y, x = torch.tensor(view_grid(spec), dtype=torch.float64).unbind(1)
    turned = rotation(radians(angle_deg)) @ scaling(zoom, zoom)
    return translation(2 * x, 2 * y) @ turned


def view_grid(spec: TtaSpec) -> list[tuple[float, float, float, float]]:
    """Return the zoom, rotation in degrees, and shift along y and x of each view."""
    steps = (-spec.shift, 0.0, spec.shift) if spec.shift > 0 else (0.0,)
    return list(itertools.product(spec.zooms, spec.rotations_deg, steps, steps))


_STILL: Final = (1.0, 0.0, 0.0, 0.0)
"""Zoom, rotation and shifts of the view that moves nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class ViewMove:
    """One view: homographies (3, 3), float32 on the images' device, from input to output and back."""

    in_to_out: Float32[Tensor, "3 3"]
    out_to_in: Float32[Tensor, "3 3"]


def prepare_views(spec: TtaSpec, device: torch.device) -> tuple[ViewMove | None, ...]:
    """Return the move of each view on a device, None for a view that moves nothing."""
    moves = view_moves(spec)
    back = invert_homography(moves)
    return tuple(
        None if grid == _STILL else ViewMove(in_to_out.float().to(device), out_to_in.float().to(device))
        for grid, in_to_out, out_to_in in zip(view_grid(spec), moves, back, strict=True)
    )
