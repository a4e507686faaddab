"""What is said of a half: its repeated images and its boxes."""

import numpy as np
import pytest

from stnbench.data.base import ImageSet
from stnbench.data.quality import Repeats, box_facts, count_shared, find_repeats, pixel_keys


def image_set(roi: list[list[float]]) -> ImageSet:
    """A half with these boxes."""
    n = len(roi)
    whole = np.zeros(n, np.int64)
    return ImageSet(
        images=np.zeros((n, 3, 8, 8), np.uint8),
        labels=whole,
        tracks=whole,
        frames=whole,
        roi=np.array(roi, np.float32),
        original_size=np.ones((n, 2), np.int64),
        pose=None,
        digest="",
    )


def test_equal_pixels_have_equal_keys() -> None:
    """One pixel of difference is another key, in memory of any layout."""
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 5), np.uint8)
    images[2] = images[0]
    images[3] = images[0]
    images[3, 2, 4, 4] ^= 1
    keys = pixel_keys(images)
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3
    assert pixel_keys(np.asfortranarray(images)) == keys


def test_repeats_are_counted_by_what_they_cross() -> None:
    """Groups within a track, across tracks, across classes and across a split."""
    keys = [b"a", b"a", b"b", b"b", b"b", b"c", b"c", b"d"]
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    tracks = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    held_out = np.array([3, 4, 7])
    found = find_repeats(keys, labels, tracks, held_out)
    assert found == Repeats(groups=3, images=7, across_classes=1, across_tracks=2, across_split=1)


def test_without_repeats_all_is_zero() -> None:
    """Nothing is counted where every image is its own."""
    arrays = np.arange(2)
    found = find_repeats([b"a", b"b"], arrays, arrays, np.array([], np.int64))
    assert found == Repeats(groups=0, images=0, across_classes=0, across_tracks=0, across_split=0)


def test_shared_images_are_counted_on_the_test_side() -> None:
    """Each test image counts once, however often it is trained on."""
    assert count_shared([b"a", b"a", b"b"], [b"a", b"c", b"b", b"b"]) == 3


@pytest.mark.parametrize(
    "box", [[-1.1, 0, 1, 1], [0, 0, 1, 1.1], [0.5, 0, 0.5, 1], [0, 0.5, 1, 0.2], [0, 0, float("nan"), 1]]
)
def test_wrong_boxes_are_counted(box: list[float]) -> None:
    """Outside, empty, turned round, or no number."""
    assert box_facts(image_set([[-1, -1, 1, 1], box])).wrong == 1


def test_boxes_are_described() -> None:
    """Width as a share of the image, and the spread of the centre."""
    facts = box_facts(image_set([[-0.5, -0.5, 0.5, 0.5], [-0.3, -0.5, 0.7, 0.5]]))
    assert facts.wrong == 0
    assert facts.width_share == pytest.approx((0.5, 0.5, 0.5))
    assert facts.centre_sd == pytest.approx((0.1, 0.0), abs=1e-7)
