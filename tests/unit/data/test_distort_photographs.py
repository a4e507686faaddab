"""Photographs are warped in a known way, on top of the pose that they have."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stnbench.core.errors import DataMissingError
from stnbench.data import Dataset, ImageSet, images_digest
from stnbench.data.build import DistortedPhotographs
from stnbench.data.distort import box_pose, pixel_centres, regular_lattice
from stnbench.data.homographies import apply_homography
from stnbench.spec.data import DistortionSpec

pytestmark = pytest.mark.slow

SIZE, TRACKS, FRAMES = 48, 6, 3
ROI = np.array([-0.7, -0.75, 0.8, 0.7])
TILT = np.array([[0.95, 0.1, 0], [-0.1, 0.95, 0], [0.03, -0.05, 1]])
MARK = 6
"""The row of the lattice of the sign's square where each sign has a bright dot."""

PERTURBED = DistortionSpec(rotation_deg=25, scale_min=0.7, scale_max=1.1, placement="random", corner_noise=0.1)
ELASTIC = DistortionSpec(scale_min=0.75, point_noise=1.5 / 28)


class Marked(Dataset):
    """Black photographs of signs, each with a dot; the test half is not there."""

    def __init__(self, *, has_pose: bool, tracks: int = TRACKS) -> None:
        self.pose = box_pose(ROI) @ TILT if has_pose else box_pose(ROI)
        self.has_pose = has_pose
        self.tracks = tracks

    @property
    def class_names(self) -> Sequence[str]:
        """One class."""
        return ["sign"]

    def train(self) -> ImageSet:
        """So many tracks."""
        n = self.tracks * FRAMES
        at = apply_homography(self.pose, regular_lattice()[MARK : MARK + 1])
        away = ((pixel_centres(SIZE) - at) ** 2).sum(axis=1).reshape(SIZE, SIZE)
        image = np.rint(250 * np.exp(-away / (2 * (2.4 / SIZE) ** 2))).astype(np.uint8)
        images = np.broadcast_to(image, (n, 3, SIZE, SIZE))
        labels = np.zeros(n, np.int64)
        return ImageSet(
            images=images,
            labels=labels,
            tracks=np.arange(self.tracks).repeat(FRAMES),
            frames=np.tile(np.arange(FRAMES), self.tracks),
            roi=np.tile(ROI, (n, 1)).astype(np.float32),
            original_size=np.full((n, 2), 60),
            pose=np.tile(self.pose, (n, 1, 1)).astype(np.float32) if self.has_pose else None,
            digest=images_digest(images, labels),
        )

    def test(self) -> ImageSet:
        """Not there."""
        raise DataMissingError("no test half")


def distorted(folder: Path, distortion: DistortionSpec, *, has_pose: bool = True, tracks: int = TRACKS) -> ImageSet:
    """The training half, warped."""
    base = Marked(has_pose=has_pose, tracks=tracks)
    return DistortedPhotographs(base, name="marked", distortion=distortion, cache=folder).train()


def dots(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Where each image's dot is seen, normalised (n, 2)."""
    weights = images[:, 0].reshape(len(images), -1).astype(np.float64)
    found: NDArray[np.float64] = (weights @ pixel_centres(images.shape[-1])) / weights.sum(axis=1)[:, None]
    return found


@pytest.mark.parametrize("has_pose", [True, False])
@pytest.mark.parametrize("distortion", [PERTURBED, ELASTIC], ids=["perturbed", "elastic"])
def test_what_is_kept_says_where_the_sign_is_seen(
    tmp_path: Path, distortion: DistortionSpec, *, has_pose: bool
) -> None:
    """Pose or control points, over the sign's own pose or its box, are within half a pixel of the dot."""
    half = distorted(tmp_path, distortion, has_pose=has_pose)
    assert half.pose is not None
    if half.control_points is None:
        mark = regular_lattice()[MARK : MARK + 1]
        said = np.array([apply_homography(pose.astype(np.float64), mark)[0] for pose in half.pose])
    else:
        said = half.control_points[:, MARK].astype(np.float64)
        assert half.control_points.shape == (len(half), 16, 2)
    assert (half.control_points is None) == (distortion is PERTURBED)
    np.testing.assert_allclose(dots(half.images) * SIZE / 2, said * SIZE / 2, atol=0.5)
    assert np.ptp(said, axis=0).min() > 0.02


def test_the_pose_carries_the_signs_square_into_the_box(tmp_path: Path) -> None:
    """The square of a sign that fills its box spans the new box, where that is not clipped."""
    half = distorted(tmp_path, PERTURBED, has_pose=False)
    assert half.pose is not None
    for pose, roi in zip(half.pose.astype(np.float64), half.roi, strict=True):
        seen = np.clip(apply_homography(pose, regular_lattice()), -1, 1)
        np.testing.assert_allclose(roi, [*seen.min(axis=0), *seen.max(axis=0)], atol=1e-5)


def test_the_rest_is_that_of_the_set_beneath(tmp_path: Path) -> None:
    """Classes, tracks, frames and sizes are handed on, and the digest is that of the new images."""
    half, base = distorted(tmp_path, PERTURBED), Marked(has_pose=True).train()
    for name in ("labels", "tracks", "frames", "original_size"):
        np.testing.assert_array_equal(getattr(half, name), getattr(base, name))
    assert half.digest == images_digest(half.images, half.labels) != base.digest


def test_more_tracks_leave_those_that_were_there(tmp_path: Path) -> None:
    """An image's warp depends on its track and frame alone."""
    few, more = distorted(tmp_path, PERTURBED, tracks=2), distorted(tmp_path, PERTURBED, tracks=4)
    np.testing.assert_array_equal(more.images[: len(few)], few.images)
    assert len(np.unique(more.images[:, 0].reshape(len(more), -1), axis=0)) == len(more)


def test_same_distortion_same_images_and_another_seed_others(tmp_path: Path) -> None:
    """Two folders hold the same; another seed is other images in a cache of its own."""
    first, again = distorted(tmp_path / "a", PERTURBED), distorted(tmp_path / "b", PERTURBED)
    other = distorted(tmp_path / "a", dataclasses.replace(PERTURBED, seed=2))
    assert first.digest == again.digest != other.digest
    assert len([path for path in (tmp_path / "a").iterdir() if path.suffix != ".lock"]) == 2


def test_a_test_half_that_is_not_there_is_still_missing(tmp_path: Path) -> None:
    """The error of the set beneath arrives, and nothing is written."""
    dataset = DistortedPhotographs(Marked(has_pose=True), name="marked", distortion=PERTURBED, cache=tmp_path / "none")
    with pytest.raises(DataMissingError, match="no test half"):
        dataset.test()
    assert not (tmp_path / "none").exists()
