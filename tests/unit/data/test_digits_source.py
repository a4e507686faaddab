"""Digits: halves and pairs that share nothing, known distortions, clutter from elsewhere."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stnbench.data import ImageSet
from stnbench.data.digits import CROP_SIDE, Digits, Glyphs, enlarge, half_rows, load_sklearn_glyphs, plan_half, strew
from stnbench.data.distort import pixel_centres
from stnbench.data.homographies import apply_homography
from stnbench.spec.data import DigitsSpec, DistortionSpec

pytestmark = pytest.mark.slow

RTS = DistortionSpec(rotation_deg=45, scale_min=0.7, scale_max=1.2, canvas=1.5, placement="random")
TRANSLATED = DistortionSpec(canvas=60 / 28, placement="random")
SPEC = DigitsSpec(image_size=28, copies=1)


def opened(spec: DigitsSpec, folder: Path) -> Digits:
    """The set with its caches in the folder."""
    return Digits(spec, source=folder, cache=folder / "cache")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """The undistorted test half."""
    return opened(SPEC, tmp_path_factory.mktemp("plain")).test()


def centres_of_mass(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Normalised (n, 2), of images (n, 1, size, size)."""
    weights = images.reshape(len(images), -1).astype(np.float64)
    found: NDArray[np.float64] = (weights @ pixel_centres(images.shape[-1])) / weights.sum(axis=1)[:, None]
    return found


def test_halves_share_no_digit_and_are_stratified() -> None:
    """Each of the 1,797 digits is in one half; a fifth of each class is in the test half."""
    train, test = load_sklearn_glyphs("train"), load_sklearn_glyphs("test")
    assert sorted([*train.numbers, *test.numbers]) == list(range(1797))
    share = np.bincount(test.labels) / (np.bincount(test.labels) + np.bincount(train.labels))
    np.testing.assert_allclose(share, 0.2, atol=0.003)


def test_a_half_depends_on_the_labels_alone() -> None:
    """Another class changes nothing for the first, and both halves together are all rows."""
    labels = np.zeros(20, np.int64)
    alone = half_rows(labels, "test")
    both = half_rows(np.concatenate([labels, labels + 1]), "test")
    assert len(alone) == 4
    np.testing.assert_array_equal(both[both < 20], alone)


def test_a_glyph_is_made_as_mnists_are() -> None:
    """20x20 pixels of ink in the middle of 28x28, black to white, where the scan has ink."""
    scan = np.zeros((8, 8))
    scan[2:6, 3:5] = 1
    glyph = enlarge(scan)
    assert glyph.dtype == np.uint8
    assert glyph.shape == (28, 28)
    assert (glyph.min(), glyph.max()) == (0, 255)
    assert (glyph[10:18, 12:16] == 255).all()
    assert glyph[:7].max() == glyph[:, :9].max() == 0


def test_undistorted_digits_can_be_told_apart(plain: ImageSet, tmp_path: Path) -> None:
    """The nearest training digit has the same class for more than 95 in 100."""
    train = opened(SPEC, tmp_path).train()
    known, asked = (half.images.reshape(len(half), -1).astype(np.float32) / 255 for half in (train, plain))
    away = (known**2).sum(axis=1) - 2 * asked @ known.T
    assert np.mean(train.labels[away.argmin(axis=1)] == plain.labels) > 0.95


def test_the_pose_takes_the_ink_where_it_is_seen(plain: ImageSet, tmp_path: Path) -> None:
    """An affine map takes a digit's centre of mass along: within half a pixel in every image, at another size too."""
    half = opened(dataclasses.replace(SPEC, image_size=42, distortion=RTS), tmp_path).test()
    assert half.pose is not None
    np.testing.assert_array_equal(half.tracks, plain.tracks)
    said = [
        apply_homography(pose.astype(np.float64), centre[None])[0]
        for pose, centre in zip(half.pose, centres_of_mass(plain.images), strict=True)
    ]
    np.testing.assert_allclose(centres_of_mass(half.images) * 21, np.array(said) * 21, atol=0.5)


def test_copies_are_frames_of_one_track(tmp_path: Path) -> None:
    """Each digit's copies stand together, differ, and share number and class."""
    half = opened(DigitsSpec(image_size=8, copies=3, distortion=RTS), tmp_path).test()
    tracks = half.tracks.reshape(-1, 3)
    assert (tracks == tracks[:, :1]).all()
    assert len(np.unique(half.tracks)) == len(tracks)
    assert (half.frames.reshape(-1, 3) == [0, 1, 2]).all()
    assert (half.labels.reshape(-1, 3) == half.labels[::3, None]).all()
    different = [len({image.tobytes() for image in half.images[row : row + 3]}) for row in range(0, len(half), 3)]
    assert np.mean(different) > 2.9


def test_same_specification_same_images_and_another_seed_others(tmp_path: Path) -> None:
    """Two folders hold the same; seed and half matter."""
    spec = DigitsSpec(image_size=8, copies=1, distortion=RTS)
    first, again = opened(spec, tmp_path / "a").test(), opened(spec, tmp_path / "b").test()
    other = opened(dataclasses.replace(spec, distortion=dataclasses.replace(RTS, seed=2)), tmp_path / "a").test()
    assert first.digest == again.digest != other.digest


def glyphs_of(count: int) -> Glyphs:
    """Made-up digits, ``i % 10``, numbered from 100."""
    images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
    labels = np.arange(count) % 10
    return Glyphs(images=images, labels=labels, numbers=np.arange(100, 100 + count), original_size=(28, 28))


def test_pairs_share_no_digit() -> None:
    """In addition each digit is in one pair at most, so that a track held out shares none with the others."""
    plan = plan_half(DigitsSpec(task="addition", copies=4), "train", glyphs_of(31))
    assert plan.members.shape == (15, 2)
    assert len(np.unique(plan.members)) == 30
    assert plan.count == 60


def test_addition_has_the_sum_of_two_digits_in_two_channels(tmp_path: Path) -> None:
    """19 classes; each channel is one digit, distorted by itself; there is no single pose."""
    dataset = opened(DigitsSpec(image_size=28, copies=2, task="addition", distortion=TRANSLATED), tmp_path)
    half = dataset.test()
    assert list(dataset.class_names) == [str(total) for total in range(19)]
    assert half.images.shape[1] == 2
    assert half.pose is None
    assert half.control_points is None
    digits = load_sklearn_glyphs("test")
    members = plan_half(DigitsSpec(task="addition"), "test", digits).members
    np.testing.assert_array_equal(half.labels, digits.labels[members].sum(axis=1).repeat(2))
    places = [centres_of_mass(half.images[:, channel : channel + 1]) for channel in (0, 1)]
    assert np.abs(places[0] - places[1]).mean() > 0.2


def test_elastic_digits_keep_their_control_points(tmp_path: Path) -> None:
    """Control points are there, and the pose is the affine map nearest to them."""
    spec = DigitsSpec(image_size=8, copies=1, distortion=DistortionSpec(scale_min=0.75, point_noise=1.5 / 28))
    half = opened(spec, tmp_path).test()
    assert half.control_points is not None
    assert half.pose is not None
    assert half.control_points.shape == (len(half), 16, 2)
    np.testing.assert_allclose(half.control_points.mean(axis=1), half.pose[:, :2, 2], atol=1e-5)


def test_clutter_comes_from_other_digits() -> None:
    """With only the digit itself white nothing is added; with only the others white, so many white squares are."""
    distortion = dataclasses.replace(TRANSLATED, clutter=6)
    glyphs = np.zeros((5, 28, 28), np.uint8)
    glyphs[2] = 255
    empty = np.zeros((60, 60), np.uint8)
    assert strew(empty, distortion, glyphs, 2, np.random.default_rng(0)).max() == 0
    cluttered = strew(empty, distortion, 255 - glyphs, 2, np.random.default_rng(0))
    assert set(np.unique(cluttered)) == {0, 255}
    assert 0.5 * 6 * CROP_SIDE**2 < (cluttered > 0).sum() <= 6 * CROP_SIDE**2
    assert empty.max() == 0


def test_clutter_lies_over_the_same_digits(tmp_path: Path) -> None:
    """TC is T with more light: no pixel is darker, pose and box are equal."""
    spec = DigitsSpec(image_size=30, copies=1, distortion=TRANSLATED)
    clear = opened(spec, tmp_path).test()
    cluttered = opened(
        dataclasses.replace(spec, distortion=dataclasses.replace(TRANSLATED, clutter=6)), tmp_path
    ).test()
    assert (cluttered.images >= clear.images).all()
    assert np.mean((cluttered.images > clear.images).any(axis=(1, 2, 3))) > 0.95
    np.testing.assert_array_equal(cluttered.pose, clear.pose)
    np.testing.assert_array_equal(cluttered.roi, clear.roi)
