"""The theta error: what it sees, and what it rightly does not."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stnbench.diagnostics.pose import apply_homography, pose_spread, sample_points


def poses(count: int = 40, *, shift: float = 0.3, turn: float = 0.5, slant: float = 0.1) -> torch.Tensor:
    """Random homographies from the sign's square to the image, float64 (count, 3, 3)."""
    generator = torch.Generator().manual_seed(3)
    draws = torch.rand(count, 5, generator=generator, dtype=torch.float64) * 2 - 1
    angle, scale = draws[:, 0] * turn, 0.8 * torch.exp(draws[:, 1] * 0.2)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    zero, one = torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.float64)
    rows = [cos, -sin, draws[:, 2] * shift, sin, cos, draws[:, 3] * shift, draws[:, 4] * slant, zero, one]
    return torch.stack(rows, dim=1).reshape(count, 3, 3)


def seen(pose: torch.Tensor, transformer: torch.Tensor) -> torch.Tensor:
    """Where on the sign the output's points lie, for poses and output-to-image homographies (n, 3, 3)."""
    points = sample_points().double()[None].expand(len(pose), -1, -1)
    return apply_homography(torch.linalg.inv(pose), apply_homography(transformer, points))


def test_points_are_a_lattice_in_x_y_order() -> None:
    """The first point is the upper left corner, the second one is to its right."""
    assert sample_points().tolist()[:2] == [[-1, -1], [0, -1]]
    assert len(sample_points()) == 9


def test_a_transformer_that_undoes_every_pose_has_no_error() -> None:
    """T = P: the sign fills the output, always."""
    assert pose_spread(seen(poses(), poses())) == pytest.approx(0, abs=1e-9)


@given(numbers=st.lists(st.floats(-0.8, 0.8), min_size=4, max_size=4))
def test_one_affine_choice_for_all_images_costs_nothing(numbers: list[float]) -> None:
    """T = P C with any fixed shear, zoom and shift C: the sign stands still, though not in the middle."""
    a, b, tx, ty = numbers
    choice = torch.tensor([[1 + a / 2, b, tx], [0, 0.7, ty], [0, 0, 1]], dtype=torch.float64)
    assert pose_spread(seen(poses(slant=0), poses(slant=0) @ choice)) == pytest.approx(0, abs=1e-8)


def test_the_error_is_in_half_sides_of_the_output() -> None:
    """Signs at rest but for a shift of +-0.1 in x, seen through a zoom by two, move by 0.2 in the output."""
    pose = torch.eye(3, dtype=torch.float64).repeat(20, 1, 1)
    pose[:, 0, 2] = torch.tensor([0.1, -0.1] * 10)
    pose = torch.cat([torch.eye(3, dtype=torch.float64).repeat(1, 1, 1), pose])  # the median is at rest
    zoom = torch.diag(torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64)).repeat(len(pose), 1, 1)
    assert pose_spread(seen(pose, zoom)) == pytest.approx(0.2)
    assert pose_spread(seen(pose, torch.eye(3, dtype=torch.float64).repeat(len(pose), 1, 1))) == pytest.approx(0.1)


def test_zooming_into_one_spot_gains_nothing() -> None:
    """A collapsed transformer shows a few pixels of wherever: its error is far above that of the identity."""
    identity = torch.eye(3, dtype=torch.float64).repeat(40, 1, 1)
    collapsed = torch.diag(torch.tensor([0.01, 0.01, 1.0], dtype=torch.float64)).repeat(40, 1, 1)
    before, after = pose_spread(seen(poses(), identity)), pose_spread(seen(poses(), collapsed))
    assert before is not None
    assert after is not None
    assert after > 10 * before


def test_a_transformer_that_shows_a_point_has_no_error_to_speak_of() -> None:
    """Where all of the output is one point of the sign, there is no number, rather than a wrong one."""
    point = torch.diag(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)).repeat(40, 1, 1)
    assert pose_spread(seen(poses(), point)) is None


def test_one_pose_at_its_vanishing_line_does_not_matter() -> None:
    """An image whose pose cannot be taken back leaves the median over forty others as it is, to a hundredth."""
    clean = seen(poses(), torch.eye(3, dtype=torch.float64).repeat(40, 1, 1))
    broken = torch.cat([clean, torch.full((1, 9, 2), math.nan, dtype=torch.float64)])
    assert pose_spread(broken) == pytest.approx(pose_spread(clean), rel=1e-9)
