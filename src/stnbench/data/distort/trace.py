"""What is kept of a warp beside the image: pose, control points and box."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stnbench.data.distort.warp import BORDER, Elastic, Points, Warp, nearest_affine, regular_lattice
from stnbench.data.homography import apply_homography


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trace:
    """Where a warp has put a thing; meaning as in ``ImageSet``.

    ``pose`` (3, 3); ``control_points`` (16, 2), None where the warp is a homography; ``roi`` (4,).
    """

    pose: NDArray[np.float64]
    control_points: Points | None
    roi: NDArray[np.float64]


def trace_whole(warp: Warp) -> Trace:
    """What becomes of the whole undistorted image."""
    control_points = warp.lattice if isinstance(warp, Elastic) else None
    return Trace(pose=warp.homography, control_points=control_points, roi=_box_round(warp.lattice))


def trace_part(warp: Warp, pose: NDArray[np.float64], roi: NDArray[np.float64]) -> Trace:
    """What becomes of a thing that is a part of the undistorted image.

    Args:
        warp: from the undistorted image to the output.
        pose: (3, 3), from the thing's own square to the undistorted image.
        roi: (4,), the thing's box there, x1, y1, x2, y2; the result's is the box of the warped box, clipped.
    """
    box = _box_round(warp.to_output(apply_homography(box_pose(roi), regular_lattice()[list(BORDER)])))
    if isinstance(warp, Elastic):
        points = warp.to_output(apply_homography(pose, regular_lattice()))
        return Trace(pose=nearest_affine(points), control_points=points, roi=box)
    together = warp.homography @ pose
    return Trace(pose=together / together[2, 2], control_points=None, roi=box)


def box_pose(roi: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3), the affine map from the square [-1, 1]^2 to a box x1, y1, x2, y2."""
    centre, half = (roi[:2] + roi[2:]) / 2, (roi[2:] - roi[:2]) / 2
    return np.array([[half[0], 0, centre[0]], [0, half[1], centre[1]], [0, 0, 1]])


def _box_round(points: Points) -> NDArray[np.float64]:
    """The box of points (n, 2), clipped to the image."""
    box: NDArray[np.float64] = np.clip(np.concatenate([points.min(axis=0), points.max(axis=0)]), -1, 1)
    return box
