"""Pixels are where the warp says."""

import numpy as np
import pytest
from numpy.typing import NDArray

from stnbench.data.distort import (
    Projective,
    Warp,
    draw_warp,
    fold,
    make_picture,
    pixel_centres,
    regular_lattice,
    render,
)
from stnbench.spec.data import DistortionSpec

SIDE = 96

DISTORTIONS = {
    "RTS": DistortionSpec(rotation_deg=45, scale_min=0.7, scale_max=1.2, canvas=1.5, placement="random"),
    "P": DistortionSpec(scale_min=0.75, corner_noise=0.1),
    "E": DistortionSpec(scale_min=0.75, point_noise=1.5 / 28),
}


def dotted(x: float, y: float, side: int = SIDE) -> NDArray[np.uint8]:
    """A black image, (1, side, side), with one soft dot at a normalised place."""
    away = ((pixel_centres(side) - [x, y]) ** 2).sum(axis=1).reshape(side, side)
    return np.asarray(np.rint(255 * np.exp(-away / (2 * (1.6 / side) ** 2)))[None], np.uint8)


def seen_at(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The centre of mass of an image (1, size, size), normalised."""
    weights = image.astype(np.float64).ravel()
    return np.asarray((pixel_centres(image.shape[-1]) * weights[:, None]).sum(axis=0) / weights.sum())


def some_warp(name: str, seed: int) -> Warp:
    """A warp of a distortion."""
    return draw_warp(DISTORTIONS[name], np.random.default_rng(seed))


@pytest.mark.parametrize("name", DISTORTIONS)
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("row", [5, 6, 9, 10])
def test_a_dot_is_seen_where_the_warp_takes_it(name: str, size: int, row: int) -> None:
    """A lattice point's dot is within half a pixel of the lattice's place in the output, whatever the output's size."""
    for seed in range(5):
        warp = some_warp(name, seed)
        image = render(make_picture(dotted(*regular_lattice()[row]), None), warp, size)
        np.testing.assert_allclose(seen_at(image) * size / 2, warp.lattice[row] * size / 2, atol=0.5)


def test_the_identity_changes_no_pixel() -> None:
    """A spline goes through its points, with black beyond the edges and with mirrored bands."""
    image = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE), np.uint8)
    for box in (None, np.array([-0.8, -0.8, 0.8, 0.8])):
        np.testing.assert_array_equal(render(make_picture(image, box), Projective(np.eye(3)), SIDE), image)


def test_a_white_image_is_white_inside_and_black_outside() -> None:
    """At half the size the middle half is white; beyond a pixel of its edge all is black."""
    white = np.full((1, 28, 28), 255, np.uint8)
    image = render(make_picture(white, None), Projective(np.diag([0.5, 0.5, 1])), 56)[0]
    assert (image[16:40, 16:40] >= 250).all()
    outside = image.copy()
    outside[12:44, 12:44] = 0
    assert outside.max() <= 3


def test_shrinking_averages() -> None:
    """A fine chequerboard at a quarter of its size is grey, and not a pattern that is not there."""
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[None]
    image = render(make_picture(board, np.array([-0.5, -0.5, 0.5, 0.5])), Projective(np.eye(3)), 16)[0]
    assert np.abs(image.astype(int) - 127).max() <= 8


def test_folding_keeps_what_is_inside_and_never_shows_the_box_again() -> None:
    """Points beyond the edges land in the band between box and edge on their side, continuously at the edge."""
    box = np.array([-0.8, -0.6, 0.7, 0.9])
    inside = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    np.testing.assert_array_equal(fold(inside, box), inside)
    left = fold(np.stack([np.linspace(-5, -1, 400), np.zeros(400)], axis=1), box)[:, 0]
    assert left.min() >= -1
    assert left.max() <= -0.8 + 1e-9
    assert np.abs(np.diff(left)).max() < 0.02
    below = fold(np.stack([np.zeros(400), np.linspace(1, 5, 400)], axis=1), box)[:, 1]
    assert below.min() >= 0.9 - 1e-9
    assert below[0] == 1


def test_a_photograph_goes_on_beyond_its_edges_without_another_sign() -> None:
    """A bright sign on a grey ground, shrunk to a corner, is seen once; the rest of the frame is ground."""
    photograph = np.full((3, SIDE, SIDE), 60, np.uint8)
    photograph[:, 16:80, 16:80] = 250
    shrunk = Projective(np.array([[0.5, 0, -0.5], [0, 0.5, -0.5], [0, 0, 1]]))
    image = render(make_picture(photograph, np.array([-2 / 3, -2 / 3, 2 / 3, 2 / 3])), shrunk, SIDE)[0]
    assert image[:48, :48].max() >= 240
    assert image[48:].max() <= 75
    assert image[:, 48:].max() <= 75
    assert image.min() >= 45
