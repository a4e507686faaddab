"""Corrupted images: the same for every network, worse with severity, and errors that a known classifier makes."""

from pathlib import Path

import numpy as np
import pytest

from stnbench.core.errors import UnknownNameError
from stnbench.data import corruptions
from stnbench.data.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    corrupt,
    corruption_errors,
    keeping_corruptions,
    unnormalised_error,
)

COUNT, SIDE = 6, 32


def images(channels: int = 3) -> np.ndarray:
    """Smooth pictures with an edge, neither black nor white."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    picture = 60 + 80 * x + 40 * np.sin(9 * y) + 40 * (x > y)
    return np.stack([np.stack([np.roll(picture, 5 * n, 0)] * channels) for n in range(COUNT)]).astype(np.uint8)


def change(channels: int, kind: str, severity: int) -> float:
    """The mean change of a level."""
    clean = images(channels)
    made = corrupt(clean, kind, severity)
    assert made.shape == clean.shape
    assert made.dtype == np.uint8
    return float(np.abs(made.astype(float) - clean).mean())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_strongest_corruption_changes_images_more_than_the_weakest(kind: str, channels: int) -> None:
    """Grey and colour; the elastic one bends more and moves less, as published."""
    weak, strong = change(channels, kind, 1), change(channels, kind, SEVERITIES)
    assert weak > 0
    assert strong > (0.3 if kind == "elastic_transform" else 1.0) * weak


def test_contrast_and_brightness_are_those_of_the_paper() -> None:
    """Three quarters of the contrast around the mean; 0.15 of the range more of the brightest colour, hue kept."""
    clean = images()
    mean = clean.mean(axis=(2, 3), keepdims=True)
    assert np.abs(corrupt(clean, "contrast", 1) - (mean + 0.75 * (clean - mean))).max() <= 0.51
    colour = np.tile(np.array([100, 50, 0], np.uint8).reshape(1, 3, 1, 1), (1, 1, 8, 8))
    assert corrupt(colour, "brightness", 3)[0, :, 0, 0].tolist() == [138, 69, 0]


def test_noise_has_its_published_spread() -> None:
    """Normal noise of 0.1 of the range, and 7 percent of levels black or white."""
    grey = np.full((20, 3, SIDE, SIDE), 128, np.uint8)
    assert corrupt(grey, "gaussian_noise", 5).std() / 255 == pytest.approx(0.1, rel=0.02)
    assert (corrupt(grey, "impulse_noise", 5) != 128).mean() == pytest.approx(0.07, rel=0.05)


def test_every_network_sees_the_same_images() -> None:
    """An image is corrupted as its place in the split says, whatever follows it; two kinds draw other numbers."""
    clean = images()
    np.testing.assert_array_equal(corrupt(clean, "motion_blur", 3), corrupt(clean, "motion_blur", 3))
    assert (corrupt(clean, "shot_noise", 5)[0] != corrupt(clean, "gaussian_noise", 5)[0]).any()


def test_the_errors_of_a_known_classifier() -> None:
    """One that asks whether an image's mean is above 128 errs where brightness raises it, and there alone."""
    clean = np.full((4, 3, 16, 16), 110, np.uint8)
    clean[2:] = 200

    def classify(shown: np.ndarray) -> np.ndarray:
        bright = shown.mean(axis=(1, 2, 3)) > 128
        return np.stack([~bright, bright], axis=1).astype(float)

    errors = corruption_errors(classify, clean, np.array([0, 0, 1, 1]), ("brightness", "contrast"))
    assert errors == {"brightness": (0.0, 0.5, 0.5, 0.5, 0.5), "contrast": (0.0,) * 5}
    always_first = unnormalised_error(lambda shown: np.tile([0.9, 0.1], (len(shown), 1)), clean, np.array([0, 0, 0, 1]))
    assert always_first == 0.25


def test_an_unknown_corruption_is_refused() -> None:
    """With the nearest name; so is a severity that is none."""
    with pytest.raises(UnknownNameError, match="did you mean contrast"):
        corrupt(images(), "contrst", 1)
    with pytest.raises(ValueError, match="severity 6"):
        corrupt(images(), "contrast", 6)


def test_images_that_were_kept_are_those_that_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second network reads bit for bit what the first one saw; other images, or none kept, are drawn."""
    clean = images()
    drawn = {kind: corrupt(clean, kind, 3) for kind in CORRUPTIONS}
    with keeping_corruptions(tmp_path):
        first = {kind: corrupt(clean, kind, 3) for kind in CORRUPTIONS}
        monkeypatch.setattr(corruptions, "_draw", lambda *_: pytest.fail("drawn again"))
        second = {kind: corrupt(clean, kind, 3) for kind in CORRUPTIONS}
        for other, kind, severity in ((clean[::-1], "fog", 3), (clean, "fog", 4), (images(1), "fog", 3)):
            with pytest.raises(pytest.fail.Exception, match="drawn again"):
                corrupt(other, kind, severity)
    for kind, expected in drawn.items():
        np.testing.assert_array_equal(first[kind], expected)
        np.testing.assert_array_equal(second[kind], expected)
    assert {path.name for path in tmp_path.rglob("*-3")} == {f"{kind}-3" for kind in CORRUPTIONS}
    assert not list(tmp_path.rglob("*.tmp"))
    with pytest.raises(pytest.fail.Exception, match="drawn again"):
        corrupt(clean, "fog", 3)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_file_of_kept_images_is_made_again(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its digest tells, a line says so, and the images are the right ones."""
    clean = images()
    with keeping_corruptions(tmp_path):
        expected = corrupt(clean, "fog", 1)
        (path,) = tmp_path.rglob("fog-1")
        good = path.read_bytes()
        path.write_bytes(good[:-1] if damage == "cut" else good[:-1] + bytes([good[-1] ^ 1]))
        np.testing.assert_array_equal(corrupt(clean, "fog", 1), expected)
        assert path.read_bytes() == good
    assert "is damaged" in caplog.text


def test_a_full_disk_or_little_room_costs_no_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are drawn for every network as without a cache, and nothing is left in the folder."""
    clean = images()
    expected = corrupt(clean, "fog", 1)

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(corruptions, "write_atomic", full)
    with keeping_corruptions(tmp_path):
        np.testing.assert_array_equal(corrupt(clean, "fog", 1), expected)
    assert "No space left" in caplog.text
    monkeypatch.setattr(corruptions, "_FREE_SHARE", 0.0)
    monkeypatch.setattr(corruptions, "write_atomic", lambda *_: pytest.fail("written"))
    with keeping_corruptions(tmp_path):
        np.testing.assert_array_equal(corrupt(clean, "fog", 1), expected)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
