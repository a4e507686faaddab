"""Resizing: area averages when shrinking, aligned corners when enlarging, exactly rounded."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stnbench.data.gtsrb.official import normalized_position, resize


def weights(source: int, target: int) -> list[list[Fraction]]:
    """Share of every source pixel in every target pixel, straight from the definitions."""
    if target < source:
        step = Fraction(source, target)
        return [
            [
                max(Fraction(0), min((i + 1) * step, Fraction(j + 1)) - max(i * step, Fraction(j))) / step
                for j in range(source)
            ]
            for i in range(target)
        ]
    if source == 1:
        return [[Fraction(1)]] * target
    positions = [Fraction(i * (source - 1), target - 1) for i in range(target)]
    return [[max(Fraction(0), 1 - abs(position - j)) for j in range(source)] for position in positions]


def exactly(image: np.ndarray, size: int) -> np.ndarray:
    """The definition in fractions, halves rounded up; slow."""
    rows, columns = weights(image.shape[0], size), weights(image.shape[1], size)
    result = np.zeros((image.shape[2], size, size), np.uint8)
    for channel, y, x in np.ndindex(*result.shape):
        value = sum(
            (
                row * column * int(image[i, j, channel])
                for i, row in enumerate(rows[y])
                if row
                for j, column in enumerate(columns[x])
                if column
            ),
            start=Fraction(0),
        )
        result[channel, y, x] = int(value + Fraction(1, 2))
    return result


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 13), st.integers(1, 13), st.integers(2, 9), st.integers(0, 99))
def test_every_pixel_is_the_rounded_exact_value(height: int, width: int, size: int, seed: int) -> None:
    """No pixel differs from the definition in exact fractions, for any mixture of shrinking and enlarging."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    assert resize(image, size).tolist() == exactly(image, size).tolist()


def test_the_same_size_changes_nothing() -> None:
    """An image of the target's size is only brought to channels first."""
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    assert resize(image, 9).tolist() == image.transpose(2, 0, 1).tolist()


@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 255))
def test_one_colour_stays_that_colour(height: int, width: int, value: int) -> None:
    """Weights sum to one at every size."""
    assert (resize(np.full((height, width, 3), value, np.uint8), 48) == value).all()


def test_golden_values() -> None:
    """By hand: 3 to 2 takes a pixel and a half; 2 to 3 takes the corners and their mean; a mean of 0.5 becomes 1."""
    shrunk = resize(np.array([[0, 90, 240]], np.uint8)[..., None].repeat(3, 2).repeat(2, 0), 2)
    assert shrunk[0, 0].tolist() == [30, 190]
    enlarged = resize(np.array([[10, 31]], np.uint8)[..., None].repeat(3, 2).repeat(2, 0), 3)
    assert enlarged[0, 0].tolist() == [10, 21, 31]


def test_large_images_do_not_overflow() -> None:
    """The sums of the brightest image that is reasonable stay exact."""
    assert (resize(np.full((800, 799, 3), 255, np.uint8), 300) == 255).all()


@pytest.mark.parametrize(
    ("source", "expected"), [(96, [-1.0, 0.0, 1.0]), (48, [-1.0, 0.0, 1.0]), (24, [-1.0, 0.0, 1.0])]
)
def test_edges_and_the_middle_stay(source: int, expected: list[float]) -> None:
    """The outer edges and the middle lie where they were, at every size."""
    edges = np.array([0.0, source / 2, source])
    assert normalized_position(edges, np.full(3, source), 48) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("source", [20, 29, 48, 60, 96])
def test_positions_follow_the_pixels(source: int) -> None:
    """A bright stripe lies after resizing where its middle is said to lie, to a twentieth of a pixel."""
    image = np.zeros((source, source, 3), np.uint8)
    image[:, 7:11] = 240
    profile = resize(image, 48)[0, 0].astype(np.float64)
    found = (profile * (np.arange(48) + 0.5)).sum() / profile.sum()
    said = normalized_position(np.array([9.0]), np.array([source]), 48)[0]
    assert found == pytest.approx((said + 1) * 24, abs=0.05)
