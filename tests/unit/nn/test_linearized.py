"""Linearised multi-sampling: values of bilinear, gradients of a plane."""

import pytest
import torch
from torch import Tensor

from stnbench.nn.sampling import sample
from stnbench.nn.transforms import pixel_centres
from stnbench.nn.transforms.affine import map_affine
from stnbench.spec.transformer import Sampler

both_corners = pytest.mark.parametrize("align_corners", [True, False])


def grid_of(theta: list[list[float]], size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """The grid of a matrix, float64, with a gradient."""
    matrix = torch.tensor([theta], dtype=torch.float64)
    points = pixel_centres(size, align_corners=align_corners, like=matrix)[None]
    return map_affine(matrix, points).reshape(1, *size, 2).requires_grad_()


def slopes(images: Tensor, grid: Tensor, sampler: Sampler, *, align_corners: bool) -> Tensor:
    """The gradient of the sum of what is read to every sampling point."""
    read = sample(images, grid, sampler=sampler, padding="border", align_corners=align_corners)
    return torch.autograd.grad(read.sum(), grid)[0]


def noisy_ramp(side: int) -> Tensor:
    """A ramp along x under columns that are lighter and darker by turns."""
    x = torch.arange(side, dtype=torch.float64)
    return (4 * x / side + 0.25 * (-1) ** x).expand(1, 1, side, side)


@both_corners
def test_values_and_gradients_to_the_images_are_those_of_bilinear(*, align_corners: bool) -> None:
    """Bit by bit, where gradients are wanted and where they are not."""
    images = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    grid = grid_of([[1.7, 0.3, 0.1], [-0.2, 0.6, 0.3]], (7, 5), align_corners=align_corners)
    read = {}
    for sampler in ("bilinear", "linearized"):
        values = sample(images, grid, sampler=sampler, padding="zeros", align_corners=align_corners)
        read[sampler] = (values, torch.autograd.grad(values.square().sum(), images)[0])
    for bilinear, linearized in zip(*read.values(), strict=True):
        assert torch.equal(bilinear, linearized)
    unwatched = sample(images, grid.detach(), sampler="linearized", padding="zeros", align_corners=align_corners)
    assert torch.equal(unwatched, read["bilinear"][0])


@both_corners
@pytest.mark.parametrize("theta", [[[0.3, 0.0, 0.0], [0.0, 0.2, 0.1]], [[0.5, -0.3, 0.0], [0.4, 0.1, 0.0]]])
def test_the_plane_of_a_plane_is_itself(theta: list[list[float]], *, align_corners: bool) -> None:
    """On an image of constant slope the gradient is this slope, as bilinear's is: turned, squeezed or sheared."""
    x, y = torch.meshgrid(torch.arange(20.0), torch.arange(16.0), indexing="xy")
    images = torch.stack([3 * x - 2 * y, x + y])[None].double()
    grid = grid_of(theta, (6, 5), align_corners=align_corners)
    both = [slopes(images, grid, sampler, align_corners=align_corners) for sampler in ("linearized", "bilinear")]
    torch.testing.assert_close(*both, rtol=0, atol=1e-9)
    less = 1 if align_corners else 0
    expected = torch.tensor([4 * (20 - less) / 2, -1 * (16 - less) / 2], dtype=torch.float64)
    torch.testing.assert_close(both[0], expected.expand_as(both[0]), rtol=0, atol=1e-9)


def test_a_flat_place_feels_an_edge_nearby() -> None:
    """A pixel and a half from an edge bilinear has no gradient; the plane has one, and it points across the edge."""
    images = (torch.arange(16.0) >= 8).double().expand(1, 1, 16, 16)
    grid = torch.tensor([[[[(6.5 + 0.5) / 8 - 1, 0.0]]]], dtype=torch.float64).requires_grad_()
    assert slopes(images, grid, "bilinear", align_corners=False).tolist() == [[[[0.0, 0.0]]]]
    along_x, along_y = slopes(images, grid, "linearized", align_corners=False).flatten().tolist()
    assert along_x > 0.1
    assert along_y == pytest.approx(0, abs=1e-9)


def test_it_descends_where_bilinear_is_misled() -> None:
    """A noisy ramp at an eighth of its size must move to the right: the plane always says so, bilinear not always.

    The loss is the mean squared distance from the ramp 0.2 further on; nine starts lie 0.2 to 0.4 short of it.
    """
    images = noisy_ramp(64)
    grid = grid_of([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]], (8, 8), align_corners=True).detach()

    def read(shift: Tensor, sampler: Sampler) -> Tensor:
        moved = grid + torch.stack([shift, torch.zeros_like(shift)])
        return sample(images, moved, sampler=sampler, padding="border", align_corners=True)

    goal = read(torch.tensor(0.2, dtype=torch.float64), "bilinear")
    says_right = {}
    for sampler in ("bilinear", "linearized"):
        starts = torch.linspace(-0.2, 0, 9, dtype=torch.float64).unbind()
        shifts = [start.requires_grad_() for start in starts]
        losses = [(read(shift, sampler) - goal).square().mean() for shift in shifts]
        pulls = [torch.autograd.grad(loss, shift)[0] for loss, shift in zip(losses, shifts, strict=True)]
        says_right[sampler] = sum(pull.item() < 0 for pull in pulls)
    assert says_right["linearized"] == 9
    assert says_right["bilinear"] < 8


def test_one_pixel_pulls_nowhere() -> None:
    """An image of one column has no slope along x where -1 and 1 both mean its centre, and nothing is infinite."""
    images = torch.rand(1, 1, 6, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    grid = grid_of([[1.0, 0.0, 0.0], [0.0, 0.8, 0.1]], (4, 3), align_corners=True)
    pull = slopes(images, grid, "linearized", align_corners=True)
    assert torch.equal(pull[..., 0], torch.zeros_like(pull[..., 0]))
    assert pull.isfinite().all()
