"""Attention, crop and shear: entries of the matrix, and units."""

import pytest
import torch

from stnbench.nn.transforms.affine import AffineTransformation, Attention, Crop, Shear, Similarity


@pytest.mark.parametrize(
    ("family", "parameters", "expected"),
    [
        (Attention(), [0.5, 0.25, -0.75], [[0.5, 0.0, 0.25], [0.0, 0.5, -0.75]]),
        (Crop(), [0.5, 2.0, 0.25, -0.75], [[0.5, 0.0, 0.25], [0.0, 2.0, -0.75]]),
        (Shear(), [0.25, -0.5], [[1.0, 0.25, 0.0], [-0.5, 1.0, 0.0]]),
    ],
)
def test_parameters_are_entries_of_the_matrix(
    family: AffineTransformation, parameters: list[float], expected: list[list[float]]
) -> None:
    """Each parameter stands where the definition has it, and nothing else is there."""
    assert family.theta_out_to_in(torch.tensor([parameters])).tolist() == [expected]


def test_attention_moves_in_units_of_the_input() -> None:
    """The centre of what is read is (tx, ty); with the family of 2015 it is scale times as far."""
    parameters, centre = torch.tensor([[0.5, 0.25, -0.75]]), torch.zeros(1, 1, 2)
    assert Attention().map_points(parameters, centre).tolist() == [[[0.25, -0.75]]]
    of_2015 = Similarity(scale=True, translation=True)
    assert of_2015.map_points(parameters, centre).tolist() == [[[0.125, -0.375]]]


def test_a_crop_reads_its_box() -> None:
    """The output's corners are read at the box's: centre less and plus its half sides."""
    corners = torch.tensor([[[-1.0, -1.0], [1.0, 1.0]]])
    read = Crop().map_points(torch.tensor([[0.5, 0.25, 0.25, -0.5]]), corners)
    assert read.tolist() == [[[-0.25, -0.75], [0.75, -0.25]]]


def test_a_shear_along_x_keeps_rows() -> None:
    """Points move along x in proportion to y, and not along y."""
    read = Shear().map_points(torch.tensor([[0.5, 0.0]]), torch.tensor([[[0.25, 1.0], [0.25, -1.0]]]))
    assert read.tolist() == [[[0.75, 1.0], [-0.25, -1.0]]]
