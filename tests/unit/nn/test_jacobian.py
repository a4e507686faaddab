"""How densely grids read, in pixels."""

import pytest
import torch

from stnbench.nn.sampling import pixel_jacobian
from stnbench.nn.transforms.affine import Affine


@pytest.mark.parametrize("align_corners", [True, False])
def test_an_affine_grid_has_its_matrix_everywhere(*, align_corners: bool) -> None:
    """On square images of one size, a step in the output is the matrix's step in the input, borders included."""
    theta = torch.tensor([[1.5, 0.25, 0.1, -0.5, 2.0, 0.2]], dtype=torch.float64)
    grid = Affine().grid(theta, (6, 6), align_corners=align_corners)
    jacobian = pixel_jacobian(grid, (6, 6), align_corners=align_corners)
    expected = torch.tensor([[1.5, 0.25], [-0.5, 2.0]], dtype=torch.float64).expand(1, 6, 6, 2, 2)
    torch.testing.assert_close(jacobian, expected, rtol=0, atol=1e-12)


def test_pixels_are_those_of_the_input() -> None:
    """The identity grid of half as many columns steps two columns at a time, and one row."""
    grid = Affine().grid(torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]]), (4, 5), align_corners=False)
    jacobian = pixel_jacobian(grid, (4, 10), align_corners=False)
    torch.testing.assert_close(jacobian[0, 2, 3], torch.tensor([[2.0, 0.0], [0.0, 1.0]]))


def test_one_pixel_has_no_neighbours() -> None:
    """Along a side of one pixel nothing changes."""
    grid = Affine().grid(torch.tensor([[1.0, 0.5, 0.0, 0.5, 1.0, 0.0]]), (1, 3), align_corners=False)
    jacobian = pixel_jacobian(grid, (8, 3), align_corners=False)
    assert torch.equal(jacobian[..., 1], torch.zeros(1, 1, 3, 2))
    torch.testing.assert_close(jacobian[0, 0, 1, :, 0], torch.tensor([1.0, 0.5 * 8 / 3]))
