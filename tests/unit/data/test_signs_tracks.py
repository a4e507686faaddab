"""Tracks are deterministic, smooth, growing, and told truly."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stnbench.data.homographies import apply_homography
from stnbench.data.signs import canvas
from stnbench.data.signs.canvas import draw_frames
from stnbench.data.signs.faces import FACE_SIZE, face
from stnbench.data.signs.scene import draw_track, frame_dtype
from stnbench.spec.data import FRAMES_PER_TRACK, Framing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def track() -> NDArray[np.void]:
    """One track of the stop sign."""
    return draw_track(1, "train", 14, 0, 48)


def test_the_same_arguments_draw_the_same_track(track: NDArray[np.void]) -> None:
    """Drawing again gives the same bytes."""
    assert draw_track(1, "train", 14, 0, 48).tobytes() == track.tobytes()


@pytest.mark.parametrize("changed", [(2, "train", 14, 0), (1, "test", 14, 0), (1, "train", 14, 1), (1, "train", 17, 0)])
def test_any_other_argument_draws_another_track(track: NDArray[np.void], changed: tuple[int, str, int, int]) -> None:
    """Seed, half, class and track each change poses and pixels."""
    other = draw_track(*changed, 48)
    assert not np.allclose(other["pose"], track["pose"])
    assert not np.array_equal(other["image"], track["image"])


def test_a_track_has_thirty_frames_of_the_types_agreed(track: NDArray[np.void]) -> None:
    """Records hold uint8 images (3, 48, 48), float32 boxes and poses, and whole sizes."""
    assert track.shape == (FRAMES_PER_TRACK,)
    assert track.dtype == frame_dtype(48)
    assert track["image"].shape == (FRAMES_PER_TRACK, 3, 48, 48)
    assert (track["pose"][:, 2, 2] == 1).all()


def test_poses_do_not_depend_on_the_image_size(track: NDArray[np.void]) -> None:
    """The same track at 32 pixels has the same poses, boxes and original sizes."""
    small = draw_track(1, "train", 14, 0, 32)
    for name in ("pose", "roi", "original_size"):
        np.testing.assert_array_equal(small[name], track[name])


@pytest.mark.parametrize("seed", range(8))
def test_the_sign_grows_within_its_limits(seed: int) -> None:
    """Sizes rise from frame to frame, never below 15 and never above 250 pixels."""
    sizes = np.array([frame.view.size_px for frame in draw_frames(np.random.default_rng(seed))])
    assert (np.diff(sizes) > 0).all()
    assert sizes[0] >= canvas.MIN_SIZE_PX - 1e-9
    assert sizes[-1] <= canvas.LAST_SIZE_PX[1]
    assert sizes[-1] / sizes[0] <= canvas.GROWTH[1] + 1e-9


@pytest.mark.parametrize("framing", ["tight", "loose"])
@pytest.mark.parametrize("seed", range(8))
def test_poses_and_light_move_smoothly(seed: int, framing: Framing) -> None:
    """No pose number jumps by more than a fifth of its range between frames, and all stay within it."""
    frames = draw_frames(np.random.default_rng(seed), framing)
    ranges = {
        "roll_deg": canvas.ROLL_DEG,
        "fill": canvas.FILL[framing],
        "offset_x": canvas.OFFSET[framing],
    }
    for name, (low, high) in ranges.items():
        path = np.array([getattr(frame.view, name) for frame in frames])
        assert np.abs(np.diff(path)).max() <= (high - low) / 5
        assert (low <= path).all()
        assert (path <= high).all()
    gains = np.array([frame.light.gains[1] for frame in frames])
    assert np.abs(np.diff(np.log2(gains))).max() < 0.3


@pytest.mark.parametrize("seed", range(4))
def test_framing_changes_the_crop_alone(seed: int) -> None:
    """The same sign, light and camera: only the share of the image that the sign takes, and its place, differ."""
    tight, loose = (draw_frames(np.random.default_rng(seed), framing) for framing in ("tight", "loose"))
    for one, other in zip(tight, loose, strict=True):
        changed = {"fill": one.view.fill, "offset_x": one.view.offset_x, "offset_y": one.view.offset_y}
        assert replace(other, view=replace(other.view, **changed)) == one


def test_loose_frames_have_more_pose_to_undo() -> None:
    """Signs are smaller and stand off the centre by several times as much, and lie in the image all the same."""
    tight, loose = (
        np.concatenate([draw_track(1, "train", label, 0, 16, framing)["roi"] for label in (1, 14, 38)])
        for framing in ("tight", "loose")
    )
    middles = [np.abs((rois[:, :2] + rois[:, 2:]) / 2).mean() for rois in (tight, loose)]
    sides = [(rois[:, 2:] - rois[:, :2]).mean() for rois in (tight, loose)]
    assert middles[1] > 3 * middles[0]
    assert sides[1] < 0.8 * sides[0]
    assert np.abs(loose).max() <= 1 + 1e-6


def test_boxes_lie_in_the_image_and_match_the_poses(track: NDArray[np.void]) -> None:
    """The outline through each stored pose spans the stored box, within float32."""
    for record in track:
        seen = apply_homography(record["pose"].astype(np.float64), face(14).outline)
        np.testing.assert_allclose(record["roi"], [*seen.min(axis=0), *seen.max(axis=0)], atol=1e-5)
        assert np.abs(record["roi"]).max() <= 1


def test_undoing_the_pose_shows_the_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """With plain light and a good camera, the image read back through its pose correlates with the face head on."""
    plain = {"FADING": (0, 0), "DIRT": (0, 0), "COVER_SHARE": 0, "NIGHT_SHARE": 0, "DAY_STOPS": (0, 0)}
    calm = {"SHADOW_SHARE": 0, "HAZE": (0, 0), "MOTION_PX": (0, 0), "NOISE": (0, 0), "LAST_SIZE_PX": (150, 250)}
    for name, value in (plain | calm | {"GRADIENT_STOPS": (0, 0), "OFFSET": {"tight": (-1, 1)}}).items():
        monkeypatch.setattr(canvas, name, value)
    record = draw_track(5, "test", 36, 0, 96)[-1]
    ticks = (np.arange(24) + 0.5) / 12 - 1
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2) * 0.7
    seen = _read(record["image"].transpose(1, 2, 0), apply_homography(record["pose"].astype(np.float64), grid))
    head_on = _read(np.asarray(Image.fromarray(face(36).pixels[..., :3]).reduce(FACE_SIZE // 64)), grid)
    shifted = _read(
        np.asarray(Image.fromarray(face(36).pixels[..., :3]).reduce(FACE_SIZE // 64)), grid + np.array([0.15, 0])
    )
    assert np.corrcoef(seen, head_on)[0, 1] > 0.9
    assert np.corrcoef(seen, head_on)[0, 1] > np.corrcoef(seen, shifted)[0, 1] + 0.1


def _read(image: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The red channel at normalised points, of the nearest pixel."""
    side = image.shape[0]
    columns, rows = np.clip(((points + 1) / 2 * side).astype(np.int64), 0, side - 1).T
    return np.asarray(image[rows, columns, 0], np.float64)
