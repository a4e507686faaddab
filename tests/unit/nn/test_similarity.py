"""Rotation, scale and translation: order, direction and units."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from stnbench.nn.sampling.registry import sample
from stnbench.nn.transforms.similarity import Similarity

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
