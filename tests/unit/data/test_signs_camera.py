"""Light, blur, noise and compression do what they are named for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stnbench.data.signs.canvas import Camera, Light
from stnbench.data.signs.scene import compress, expose, motion_kernel, photograph, smear

motions = st.floats(-9, 9)


def light(**changes: float) -> Light:
    """White light of unit gain from the left to the right, with changes."""
    base = {"gradient_stops": 0.0, "shadow_stops": 0.0, "shadow_at": 0.0, "haze": 0.0}
    return Light(gains=(1.0, 1.0, 1.0), direction=(1.0, 0.0), **(base | changes))


@given(motions, motions)
def test_a_smear_keeps_the_brightness_and_the_centre(motion_x: float, motion_y: float) -> None:
    """The weights add up to 1, their mean offset is zero, and they reach no farther than half the length."""
    taps = motion_kernel(motion_x, motion_y)
    offsets, weights = np.array(list(taps)), np.array(list(taps.values()))
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights @ offsets, [0, 0], atol=1e-9)
    assert (np.abs(offsets).max(axis=0) <= np.array([abs(motion_x), abs(motion_y)]) / 2 + 1).all()


def test_a_smear_spreads_along_its_direction_only() -> None:
    """A point becomes a horizontal line of its whole brightness."""
    scene = np.zeros((9, 15, 3), np.float32)
    scene[4, 7] = 255
    smeared = smear(scene, 5.0, 0.0)
    assert smeared.sum() == pytest.approx(scene.sum(), rel=1e-5)
    assert np.count_nonzero(smeared.sum(axis=(1, 2))) == 1
    assert np.count_nonzero(smeared[4, :, 0]) >= 4


def test_exposure_doubles_with_a_stop_across_the_image() -> None:
    """A gradient of two stops makes the right edge about four times as bright as the left."""
    exposed = expose(np.full((4, 100, 3), 40, np.float32), light(gradient_stops=2.0))
    assert exposed[0, -1, 0] / exposed[0, 0, 0] == pytest.approx(4, rel=0.03)


def test_a_shadow_darkens_what_lies_beyond_its_edge() -> None:
    """One stop of shadow halves the right side and leaves the left."""
    exposed = expose(np.full((4, 200, 3), 100, np.float32), light(shadow_stops=1.0))
    assert exposed[0, 0, 0] == pytest.approx(100, rel=0.01)
    assert exposed[0, -1, 0] == pytest.approx(50, rel=0.01)


def test_haze_takes_contrast() -> None:
    """Half the contrast goes at a haze of a half."""
    scene = np.array([[[0, 0, 0], [200, 200, 200]]], np.float32)
    hazy = expose(scene, light(haze=0.5))
    assert hazy[0, 1, 0] - hazy[0, 0, 0] == pytest.approx(100)


def test_noise_has_the_deviation_asked_for_and_shrinks_with_the_frame() -> None:
    """On grey, the deviation of brightness is that of three independent channels, times the shrinkage."""
    scene = np.full((120, 120, 3), 128, np.float32)
    camera = Camera(defocus_px=0.5, motion_px=(0.0, 0.0), noise=0.04, jpeg_quality=95)
    full, half = (
        np.asarray(photograph(scene, camera, shrunk, np.random.default_rng(3)).convert("L"), np.float64).std()
        for shrunk in (1.0, 0.5)
    )
    assert full == pytest.approx(0.04 * 255 * np.linalg.norm([0.299, 0.587, 0.114]), rel=0.1)
    assert half == pytest.approx(full / 2, rel=0.1)


def test_stronger_compression_costs_more_detail() -> None:
    """The error after JPEG grows as the quality falls."""
    grain = np.random.default_rng(1).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    image = Image.fromarray(grain)
    errors = [np.abs(np.asarray(compress(image, quality), np.int64) - grain).mean() for quality in (20, 60, 92)]
    assert errors[0] > errors[1] > errors[2]
