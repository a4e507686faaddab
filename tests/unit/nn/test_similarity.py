"""Rotation, scale and translation: order, direction and units."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stnbench.nn.sampling import sample
from stnbench.nn.transforms.affine import Similarity

SUBSETS = list(itertools.product([False, True], repeat=3))


def stnbhwd_matrix(angle: Tensor, scale: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """M = R S T of qassemoquab/stnbhwd for one image, (y, x, 1) to (y, x, 1), from its documented closed form."""
    rotation, scaling, translation = (torch.eye(3, dtype=angle.dtype) for _ in range(3))
    rotation[0, 0] = rotation[1, 1] = angle.cos()
    rotation[0, 1], rotation[1, 0] = -angle.sin(), angle.sin()
    scaling[0, 0] = scaling[1, 1] = scale
    translation[0, 2], translation[1, 2] = first, second
    return rotation @ scaling @ translation


@pytest.mark.parametrize(("rotation", "scale", "translation"), SUBSETS[1:])
def test_matrix_is_that_of_stnbhwd_in_the_other_order(*, rotation: bool, scale: bool, translation: bool) -> None:
    """With its angle negated and its translations exchanged, stnbhwd's (y, x) matrix is ours in (x, y)."""
    family = Similarity(rotation=rotation, scale=scale, translation=translation)
    whole = torch.tensor([0.4, 1.3, 0.2, -0.5], dtype=torch.float64)
    chosen = torch.tensor([rotation, scale, translation, translation])
    angle, factor, tx, ty = torch.where(chosen, whole, torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    exchange = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    expected = (exchange @ stnbhwd_matrix(-angle, factor, ty, tx) @ exchange)[:2]
    torch.testing.assert_close(family.theta_out_to_in(whole[chosen][None])[0], expected, rtol=0, atol=1e-14)


def test_parameters_come_in_the_order_rotation_scale_translation() -> None:
    """The full family has four parameters, in the order of 2015."""
    family = Similarity(rotation=True, scale=True, translation=True)
    assert family.parameter_names == ("angle", "scale", "tx", "ty")
    assert family.identity_parameters() == (0.0, 1.0, 0.0, 0.0)


def test_no_part_at_all_is_the_identity_without_parameters() -> None:
    """A family of zero parameters keeps the contract, as fixed controls will need."""
    family = Similarity()
    theta = family.theta_out_to_in(torch.zeros(2, 0))
    assert torch.equal(theta, torch.eye(3)[None, :2].expand(2, 2, 3))


def test_translation_is_in_units_of_the_output() -> None:
    """The translation is scaled with the output point: input = scale (output + t)."""
    family = Similarity(scale=True, translation=True)
    read = family.map_points(torch.tensor([[0.5, 0.2, 0.6]]), torch.tensor([[[0.4, 0.0]]]))
    torch.testing.assert_close(read, torch.tensor([[[0.3, 0.3]]]))


def test_positive_angle_reads_clockwise() -> None:
    """A quarter turn reads the output's right edge at the input's lower edge, and shows the image turned back."""
    family = Similarity(rotation=True)
    quarter = torch.tensor([[math.pi / 2]])
    read = family.map_points(quarter, torch.tensor([[[1.0, 0.0]]]))
    torch.testing.assert_close(read, torch.tensor([[[0.0, 1.0]]]), rtol=0, atol=1e-6)
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    grid = family.grid(quarter, (3, 3), align_corners=True)
    turned = sample(image, grid, sampler="bilinear", padding="border", align_corners=True)
    torch.testing.assert_close(turned, image.rot90(1, dims=(2, 3)), rtol=0, atol=1e-5)


def test_scale_below_one_zooms_in() -> None:
    """Scale 1/2 reads the middle half of the image."""
    read = Similarity(scale=True).map_points(torch.tensor([[0.5]]), torch.tensor([[[1.0, -1.0]]]))
    assert read.tolist() == [[[0.5, -0.5]]]


NUMBERS = st.floats(-1e30, 1e30, allow_subnormal=False)


@settings(max_examples=60, deadline=None)
@given(x=NUMBERS, y=NUMBERS)
def test_every_vector_is_a_rotation(x: float, y: float) -> None:
    """R R^T is the unit matrix and det R is 1, for vectors of any length, zero included, in float32 as well."""
    family = Similarity(rotation=True, as_vector=True)
    for dtype, atol in ((torch.float32, 1e-6), (torch.float64, 1e-15)):
        matrix = family.theta_out_to_in(torch.tensor([[x, y]], dtype=dtype))[0, :, :2]
        torch.testing.assert_close(matrix @ matrix.mT, torch.eye(2, dtype=dtype), rtol=0, atol=atol)
        torch.testing.assert_close(torch.linalg.det(matrix), torch.ones((), dtype=dtype), rtol=0, atol=atol)


@settings(max_examples=40, deadline=None)
@given(angle=st.floats(-10, 10, allow_subnormal=False), length=st.floats(1e-5, 1e5))
def test_a_vector_turns_by_its_angle_whatever_its_length(angle: float, length: float) -> None:
    """The family of vectors and that of angles give the same matrix, scale and translation included."""
    rest = [1.3, 0.2, -0.5]
    vector = torch.tensor([[length * math.cos(angle), length * math.sin(angle), *rest]], dtype=torch.float64)
    found = Similarity(rotation=True, scale=True, translation=True, as_vector=True).theta_out_to_in(vector)
    turned = torch.tensor([[angle, *rest]], dtype=torch.float64)
    expected = Similarity(rotation=True, scale=True, translation=True).theta_out_to_in(turned)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_vector_passes_half_a_turn_without_a_jump() -> None:
    """Vectors on both sides of the negative x axis, which are near each other, give matrices near each other."""
    family = Similarity(rotation=True, as_vector=True)
    above, below = (family.theta_out_to_in(torch.tensor([[-1.0, sine]])) for sine in (1e-3, -1e-3))
    torch.testing.assert_close(above, below, rtol=0, atol=2.1e-3)


@pytest.mark.parametrize("vector", [(0.0, 0.0), (1e-30, -1e-30), (3e25, 4e25)])
def test_gradients_of_degenerate_vectors_are_finite(vector: tuple[float, float]) -> None:
    """Neither a vector without direction nor one of enormous length makes a training step NaN."""
    parameters = torch.tensor([vector], requires_grad=True)
    theta = Similarity(rotation=True, as_vector=True).theta_out_to_in(parameters)
    theta.square().sum().backward()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()
