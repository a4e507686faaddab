"""Poses and boxes are where the pixels are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stnbench.data.homographies import apply_homography
from stnbench.data.signs.canvas import Placement, View, place, view_homography
from stnbench.data.signs.scene import PANEL_REACH, Panel

SQUARE = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
MARKERS = ((0.0, 0.0), (-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8), (0.3, -0.5))

views = st.builds(
    View,
    size_px=st.floats(15, 300),
    roll_deg=st.floats(-30, 30),
    yaw_deg=st.floats(-40, 40),
    pitch_deg=st.floats(-30, 30),
    distance=st.floats(3, 10),
    fill=st.floats(0.4, 0.9),
    aspect=st.floats(0.85, 1.15),
    offset_x=st.floats(-1, 1),
    offset_y=st.floats(-1, 1),
)


@given(views)
def test_the_box_is_that_of_the_outline_and_inside_the_image(view: View) -> None:
    """The outline through the pose spans the roi exactly; the roi is in the image, and the pose ends in 1."""
    placement = place(view, SQUARE, min_border_px=3)
    seen = apply_homography(placement.pose, SQUARE)
    np.testing.assert_allclose(placement.roi, [*seen.min(axis=0), *seen.max(axis=0)], atol=1e-9)
    assert np.abs(placement.roi).max() <= 1 + 1e-9
    assert placement.pose[2, 2] == 1


@given(views)
def test_the_box_has_the_size_and_the_border_asked_for(view: View) -> None:
    """The longer side of the box is the view's size in camera pixels, and borders are left on both axes."""
    placement = place(view, SQUARE, min_border_px=3)
    crop = np.array([placement.width, placement.height])
    sides = (placement.roi[2:] - placement.roi[:2]) * crop / 2
    assert sides.max() == pytest.approx(view.size_px)
    assert (crop - sides >= 6 - 1e-6).all()


def test_offsets_push_the_box_to_the_edges() -> None:
    """An offset of -1 in x and 1 in y touches the left and the lower edge."""
    view = View(size_px=60, roll_deg=0, yaw_deg=0, pitch_deg=0, distance=5, fill=0.5, aspect=1, offset_x=-1, offset_y=1)
    np.testing.assert_allclose(place(view, SQUARE, min_border_px=3).roi, [-1, 0, 0, 1], atol=1e-12)


def test_roll_turns_clockwise_and_near_sides_look_larger() -> None:
    """A roll of 90 degrees takes right to bottom; a positive yaw brings the right side nearer."""
    base = {"size_px": 9, "distance": 4, "fill": 0.5, "aspect": 1, "offset_x": 0, "offset_y": 0, "pitch_deg": 0}
    turned = view_homography(View(**base, roll_deg=90, yaw_deg=0))
    np.testing.assert_allclose(apply_homography(turned, np.array([[1.0, 0.0]])), [[0, 1]], atol=1e-12)
    seen = apply_homography(view_homography(View(**base, roll_deg=0, yaw_deg=30)), SQUARE)
    assert seen[2, 1] - seen[1, 1] > seen[3, 1] - seen[0, 1]


def marked_panel(marker: tuple[float, float]) -> Panel:
    """A black square with one white dot, drawn texel by texel."""
    centres = ((np.arange(640) + 0.5) / 320 - 1) * PANEL_REACH
    x, y = np.meshgrid(centres, centres)
    dot = (x - marker[0]) ** 2 + (y - marker[1]) ** 2 < 0.1**2
    alpha = (np.abs(x) < 1) & (np.abs(y) < 1)
    pixels = np.stack([dot, dot, dot, alpha | dot], axis=-1).astype(np.uint8) * 255
    return Panel(Image.fromarray(pixels), SQUARE)


def place_example(size_px: float) -> Placement:
    """A strongly turned, tilted and shifted view."""
    view = View(
        size_px=size_px,
        roll_deg=17,
        yaw_deg=-24,
        pitch_deg=13,
        distance=6,
        fill=0.6,
        aspect=1.1,
        offset_x=0.6,
        offset_y=-0.4,
    )
    return place(view, SQUARE, min_border_px=5)


@pytest.mark.parametrize("size_px", [40.0, 90.0, 240.0])
@pytest.mark.parametrize("marker", MARKERS)
def test_a_dot_on_the_sign_lands_where_the_pose_says(marker: tuple[float, float], size_px: float) -> None:
    """The centre of mass of a rendered dot is within 0.35 pixels of the pose's point, at every level of detail."""
    placement = place_example(size_px)
    seen = marked_panel(marker).seen(placement.pose, placement.width, placement.height)[..., 0].astype(np.float64)
    rows, columns = np.indices(seen.shape) + 0.5
    found = np.array([(columns * seen).sum(), (rows * seen).sum()]) / seen.sum()
    expected = apply_homography(placement.pose, np.array([marker]))[0]
    crop = np.array([placement.width, placement.height])
    np.testing.assert_allclose(found, (expected + 1) / 2 * crop, atol=0.35)


def test_the_panel_is_opaque_just_inside_the_roi() -> None:
    """The square's alpha spans the roi within a pixel, and the background stays clear."""
    placement = place_example(120)
    alpha = marked_panel((0, 0)).seen(placement.pose, placement.width, placement.height)[..., 3]
    rows, columns = np.nonzero(alpha > 127)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    crop = np.array([placement.width, placement.height] * 2)
    np.testing.assert_allclose(found, (placement.roi + 1) / 2 * crop, atol=1.5)
