"""The 43 faces are whole, distinct, and lie within their outlines."""

import itertools

import numpy as np
import pytest

from stnbench.data.gtsrb.archive import GTSRB_CLASSES
from stnbench.data.signs.canvas import arc, rounded_polygon
from stnbench.data.signs.faces import FACE_SIZE, face
from stnbench.spec.data import CLASSES

pytestmark = pytest.mark.slow


def test_every_class_has_one_name() -> None:
    """There are 43 names, all different."""
    assert len(GTSRB_CLASSES) == len(set(GTSRB_CLASSES)) == CLASSES


def test_faces_differ_even_when_small() -> None:
    """Shrunk to 16 pixels, no two faces are closer than a root mean square of 5 of 255."""
    step = FACE_SIZE // 16
    small = [
        face(label).pixels.reshape(16, step, 16, step, 4).mean(axis=(1, 3), dtype=np.float64)
        for label in range(CLASSES)
    ]
    distances = [np.sqrt(np.mean((a - b) ** 2)) for a, b in itertools.combinations(small, 2)]
    assert min(distances) > 5


@pytest.mark.parametrize(("left", "right"), [(19, 20), (33, 34), (36, 37), (38, 39)])
def test_mirrored_signs_are_mirror_images(left: int, right: int) -> None:
    """Left and right of a pair are each other's mirror image, up to the rounding of edges."""
    mirrored = face(right).pixels[:, ::-1].astype(np.int64)
    assert np.abs(mirrored - face(left).pixels).mean() < 1.5


@pytest.mark.parametrize("label", [0, 12, 13, 14, 18, 35])
def test_a_face_fills_its_outline_and_nothing_else(label: int) -> None:
    """The opaque pixels span the box of the outline, which touches the sign's square left and right."""
    sign = face(label)
    rows, columns = np.nonzero(sign.pixels[..., 3] > 127)
    low, high = sign.outline.min(axis=0), sign.outline.max(axis=0)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * 2 / FACE_SIZE - 1
    np.testing.assert_allclose(found, [*low, *high], atol=2.5 / FACE_SIZE)
    assert (low[0], high[0]) == pytest.approx((-1, 1), abs=1e-3)


def test_rounding_keeps_a_polygon_inside_its_corners() -> None:
    """A rounded square lies within the square, touches its sides, and leaves its corners by radius (sqrt 2 - 1)."""
    outline = np.array(rounded_polygon([(-1, -1), (1, -1), (1, 1), (-1, 1)], 0.3))
    assert np.abs(outline).max() == pytest.approx(1)
    corner_distance = np.linalg.norm(outline - [1, 1], axis=1).min()
    assert corner_distance == pytest.approx(0.3 * (np.sqrt(2) - 1), abs=0.01)


def test_an_arc_turns_clockwise_with_y_down() -> None:
    """From 0 to 90 degrees an arc goes from the right to the bottom."""
    points = arc((0, 0), (2, 1), 0, 90)
    assert points[0] == pytest.approx((2, 0))
    assert points[-1] == pytest.approx((0, 1))
