"""Homographies for augmentation: closed forms against what they should do to points."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stnbench.data import homographies

CORNERS = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)


def one(value: float) -> torch.Tensor:
    """A batch of one number."""
    return torch.tensor([value], dtype=torch.float64)


@settings(deadline=None)
@given(offsets=arrays(np.float64, (2, 4, 2), elements=st.floats(-0.49, 0.49)))
def test_corners_go_where_they_should(offsets: np.ndarray) -> None:
    """The homography moves each corner by its offset, its inverse moves it back, and nothing comes near the horizon."""
    moved = torch.from_numpy(offsets)
    matrix = homographies.moving_corners(moved.reshape(2, 8))
    torch.testing.assert_close(homographies.map_points(matrix, CORNERS[None]), CORNERS + moved)
    back = homographies.map_points(torch.linalg.inv(matrix), CORNERS + moved)
    torch.testing.assert_close(back, CORNERS.expand(2, 4, 2), rtol=1e-7, atol=1e-7)


def test_directions_are_those_of_their_words() -> None:
    """A quarter turn takes right to down (y is down), shear leans the top to the left, translation and scale add up."""
    right, top = torch.tensor([[[1.0, 0]]]).double(), torch.tensor([[[0.0, -1]]]).double()
    turned = homographies.map_points(homographies.rotation(one(math.pi / 2)), right)
    torch.testing.assert_close(turned[0, 0], torch.tensor([0.0, 1]).double(), rtol=0, atol=1e-12)
    leaned = homographies.map_points(homographies.shearing(homographies.radians(one(45))), top)
    torch.testing.assert_close(leaned[0, 0], torch.tensor([-1.0, -1]).double())
    both = homographies.translation(one(0.5), one(-0.25)) @ homographies.scaling(one(2), one(3))
    torch.testing.assert_close(homographies.map_points(both, right)[0, 0], torch.tensor([2.5, -0.25]).double())


def test_boxes_move_with_their_content_and_end_at_the_image() -> None:
    """A translated box is translated and cut; one turned by 45 degrees has the bounding box of its corners."""
    boxes = torch.tensor([[-0.5, -0.5, 0.5, 0.5]]).double()
    moved = homographies.map_boxes(homographies.translation(one(0.7), one(0.1)), boxes)
    torch.testing.assert_close(moved, torch.tensor([[0.2, -0.4, 1, 0.6]]).double())
    turned = homographies.map_boxes(homographies.rotation(one(math.pi / 4)), boxes)
    torch.testing.assert_close(turned, torch.tensor([[-1, -1, 1, 1]]).double() * math.sqrt(0.5))


def test_points_beyond_the_horizon_are_far_outside() -> None:
    """Where the third coordinate is zero or negative, the result is finite, outside, and on the side where it was."""
    tilted = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [1, 0, 1]]])
    far = homographies.map_points(tilted, torch.tensor([[[-1.0, 0], [-1.5, 0.5]]]))
    assert torch.isfinite(far).all()
    assert (far[0, :, 0] < -10).all()


@pytest.mark.parametrize("count", [1, 3])
def test_one_set_of_points_serves_a_batch(count: int) -> None:
    """Points without a batch are mapped by every matrix."""
    matrices = homographies.translation(torch.arange(count).double(), torch.zeros(count).double())
    mapped = homographies.map_points(matrices, CORNERS[None])
    torch.testing.assert_close(mapped[:, 0, 0], torch.arange(count).double() - 1)
