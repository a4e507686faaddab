"""The matrix exponential: closed forms, determinant and inverse."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stnbench.nn.transforms.affine import LieAffine, matrix_exponential

VELOCITIES = st.lists(st.floats(-1.5, 1.5), min_size=6, max_size=6)


def test_a_turning_velocity_turns() -> None:
    """The velocity (-w y, w x) turns by w, further than its first order says."""
    turn = 2.5
    theta = LieAffine().theta_out_to_in(torch.tensor([[0.0, -turn, 0.0, turn, 0.0, 0.0]], dtype=torch.float64))
    cosine, sine = math.cos(turn), math.sin(turn)
    expected = torch.tensor([[[cosine, -sine, 0.0], [sine, cosine, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(theta, expected, rtol=0, atol=1e-12)


def test_a_growing_velocity_grows_and_moves() -> None:
    """Scales are exponentials, and a translation along a growing axis is (e^a - 1) / a times as far."""
    theta = LieAffine().theta_out_to_in(torch.tensor([[0.5, 0.0, 0.2, 0.0, -1.0, 0.3]], dtype=torch.float64))
    x, y = math.exp(0.5), math.exp(-1)
    expected = torch.tensor([[[x, 0.0, 0.2 * (x - 1) / 0.5], [0.0, y, 0.3 * (1 - y)]]], dtype=torch.float64)
    torch.testing.assert_close(theta, expected, rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(velocity=VELOCITIES)
def test_the_determinant_is_the_exponential_of_the_trace(velocity: list[float]) -> None:
    """No parameters mirror or flatten the image."""
    theta = LieAffine().theta_out_to_in(torch.tensor([velocity], dtype=torch.float64))
    trace = torch.tensor([velocity[0] + velocity[4]], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.det(theta[:, :, :2]), trace.exp(), rtol=1e-9, atol=0)


@settings(max_examples=30, deadline=None)
@given(velocity=VELOCITIES)
def test_the_opposite_velocity_leads_back(velocity: list[float]) -> None:
    """The inverse is in the family: its parameters are the opposite ones."""
    parameters = torch.tensor([velocity], dtype=torch.float64)
    points = torch.tensor([[[0.0, 0.0], [1.0, -0.5], [-0.3, 0.7]]], dtype=torch.float64)
    back = LieAffine().map_points(-parameters, LieAffine().map_points(parameters, points))
    torch.testing.assert_close(back, points, rtol=0, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(velocity=st.lists(st.floats(-9, 9), min_size=6, max_size=6))
def test_the_exponential_is_torch_s(velocity: list[float]) -> None:
    """Scaling and squaring agrees with ``torch.linalg.matrix_exp``, also far from the identity."""
    matrix = torch.tensor([*velocity, 0.0, 0.0, 0.0], dtype=torch.float64).reshape(1, 3, 3)
    expected = torch.linalg.matrix_exp(matrix)

    torch.testing.assert_close(matrix_exponential(matrix), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
