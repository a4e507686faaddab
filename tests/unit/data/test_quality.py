"""What is said of a half: its repeated images and its boxes."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stnbench.data import ImageSet, quality
from stnbench.data.quality import (
    DETAIL_BITS,
    STRUCTURE_BITS,
    PerceptualHashes,
    Repeats,
    box_facts,
    equal_pairs,
    find_repeats,
    near_pairs,
    perceptual_hashes,
    pixel_keys,
    repeats_of,
)


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


def test_equal_images_of_two_halves_are_paired() -> None:
    """Every pair is listed, by the row of the second half; what is in one half alone is not."""
    assert equal_pairs([b"a", b"a", b"b"], [b"a", b"c", b"b", b"b"]) == [(0, 0), (1, 0), (2, 2), (2, 3)]
    assert equal_pairs([], [b"a"]) == equal_pairs([b"a"], []) == []


def scenes(count: int, seed: int, side: int = 48) -> NDArray[np.uint8]:
    """Images as smooth as photographs: random blots of several sizes, uint8 (count, 3, side, side)."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        layers = [
            np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((side, side), 3), float)
            for n in (3, 7, 15)
        ]
        made.append((0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]).astype(np.uint8))
    return np.stack(made).transpose(0, 3, 1, 2)


def resaved(image: NDArray[np.uint8], kind: str) -> NDArray[np.uint8]:
    """An image as another program may have written it."""
    picture = Image.fromarray(image.transpose(1, 2, 0))
    match kind:
        case "resized":
            picture = picture.resize((71, 67), 3).resize((48, 48), 3)
        case "darker":
            picture = Image.eval(picture, lambda level: level * 6 // 10)
        case "noisy":
            noise = np.random.default_rng(5).normal(0, 3, (48, 48, 3))
            return np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8).transpose(2, 0, 1)
        case _:
            raise ValueError(kind)
    return np.asarray(picture).transpose(2, 0, 1)


@pytest.mark.parametrize("kind", ["resized", "darker", "noisy"])
def test_copies_are_near_and_other_images_are_not(kind: str) -> None:
    """Each changed copy pairs with its original alone."""
    originals = scenes(60, seed=0)
    copies = np.stack([resaved(image, kind) for image in originals])
    found = near_pairs(perceptual_hashes(originals), perceptual_hashes(copies))
    assert found.rows.tolist() == [[row, row] for row in range(60)]
    assert repeats_of(copies, originals[:20], "near").tolist() == [True] * 20 + [False] * 40
    assert not repeats_of(copies, originals, "equal").any()


def test_equal_images_are_near_and_equal() -> None:
    """Both kinds find an image itself, of one channel and of fewer pixels than there are cells as well."""
    for images in (scenes(5, seed=1), scenes(5, seed=2)[:, :1], scenes(5, seed=3, side=11)):
        for kind in ("equal", "near"):
            assert repeats_of(images[3:], images, kind).all()
        assert near_pairs(perceptual_hashes(images)).rows.tolist() == []


def test_near_pairs_are_those_within_both_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against every pair counted one by one, whatever the size of the blocks; at the limit and one bit beyond."""
    monkeypatch.setattr(quality, "_BLOCK", 3)
    rng = np.random.default_rng(4)
    base = PerceptualHashes(structure=rng.random((1, 255)) < 0.5, detail=rng.random((1, 256)) < 0.5)
    structure, detail = np.repeat(base.structure, 8, axis=0), np.repeat(base.detail, 8, axis=0)
    for row in range(1, 8):
        structure[row, rng.permutation(255)[: STRUCTURE_BITS - 12 + 4 * row]] ^= True
        detail[row, rng.permutation(256)[: DETAIL_BITS + 12 - 4 * row]] ^= True
    hashes = PerceptualHashes(structure=structure, detail=detail)
    expected = [
        [i, j]
        for i in range(8)
        for j in range(i + 1, 8)
        if (structure[i] != structure[j]).sum() <= STRUCTURE_BITS and (detail[i] != detail[j]).sum() <= DETAIL_BITS
    ]
    found = near_pairs(hashes)
    assert found.rows.tolist() == expected == [[0, 3]]
    assert found.bits.tolist() == [[STRUCTURE_BITS, DETAIL_BITS]]
    crossed = near_pairs(hashes, hashes).rows.tolist()
    assert sorted(crossed) == sorted([*expected, *([j, i] for i, j in expected), *([i, i] for i in range(8))])
    assert len(near_pairs(hashes.rows(np.array([], np.int64)), hashes)) == 0


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
