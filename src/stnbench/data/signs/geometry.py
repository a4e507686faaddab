"""Where a sign appears: the homography of a plane seen by a camera, and the crop around it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stnbench.data.homography import apply_homography


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """How the camera sees the sign in one frame, and how the frame is cropped.

    Attributes:
        size_px: the longer side of the sign's box in camera pixels.
        roll_deg: turn in the image plane, clockwise.
        yaw_deg: turn about the vertical axis; pitch_deg: about the horizontal one.
        pitch_deg: turn about the horizontal axis.
        distance: from the camera to the sign's centre, in half sides of the sign; small is strong perspective.
        fill: share of the image's sides that the sign's box takes.
        aspect: the share of the width over the share of the height.
        offset_x: where the box stands in the room that is left: -1 touches the left edge, 0 the centre, 1 the right.
        offset_y: likewise, -1 the top edge and 1 the bottom one.
    """

    size_px: float
    roll_deg: float
    yaw_deg: float
    pitch_deg: float
    distance: float
    fill: float
    aspect: float
    offset_x: float
    offset_y: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Placement:
    """What a view comes to.

    ``pose`` float64 (3, 3): sign square to normalised image coordinates; ``roi`` float64 (4,): x1, y1, x2, y2 of the
    outline, normalised; ``width`` and ``height``: the crop in camera pixels.
    """

    pose: NDArray[np.float64]
    roi: NDArray[np.float64]
    width: int
    height: int


def view_homography(view: View) -> NDArray[np.float64]:
    """The plane of the sign through a pinhole camera: (3, 3), the sign's centre at the origin, its last element 1.

    Hartley and Zisserman, Multiple View Geometry, 8.1: K [r1 r2 t], with the scale of the centre set to 1.
    Convention: sign square to camera plane; x to the right, y down, z away from the camera; roll after pitch after yaw.
    """
    roll, yaw, pitch = np.radians([view.roll_deg, view.yaw_deg, view.pitch_deg])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    columns = (about_z @ about_x @ about_y)[:, :2]
    columns[2] /= view.distance
    return np.concatenate([columns, [[0], [0], [1]]], axis=1)


def place(view: View, outline: NDArray[np.float64], min_border_px: int) -> Placement:
    """The crop round the sign's outline (n, 2 points of the sign square), and where the sign stands in it.

    The crop leaves at least ``min_border_px`` camera pixels on either side before the offset moves the box.
    """
    seen = view_homography(view)
    points = apply_homography(seen, outline)
    low, high = points.min(axis=0), points.max(axis=0)
    sides_px = (high - low) * view.size_px / (high - low).max()
    fills = view.fill * np.array([np.sqrt(view.aspect), 1 / np.sqrt(view.aspect)])
    crop_px = np.maximum(np.rint(sides_px / fills), np.ceil(sides_px) + 2 * min_border_px)
    half_box = sides_px / crop_px
    centre = (1 - half_box) * np.array([view.offset_x, view.offset_y])
    scale = 2 * half_box / (high - low)
    shift = centre - scale * (low + high) / 2
    to_image = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]], [0, 0, 1]])
    return Placement(
        pose=to_image @ seen,
        roi=np.concatenate([centre - half_box, centre + half_box]),
        width=int(crop_px[0]),
        height=int(crop_px[1]),
    )


def pixels_to_normalised(width: int, height: int) -> NDArray[np.float64]:
    """(3, 3) from pixel coordinates to [-1, 1]^2, both counted from the outer edges of the border pixels."""
    return np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])
