"""Affine matrices: rows, inverse, and agreement with kornia."""

import torch
from kornia.geometry.transform import homography_warp

from stnbench.nn.sampling import sample
from stnbench.nn.transforms.affine import Affine, invert_affine, map_affine


def test_parameters_are_the_matrix_row_by_row() -> None:
    """x_in = a x + b y + tx and y_in = c x + d y + ty."""
    a, b, tx, c, d, ty = parameters = [1.5, 0.25, 0.5, -0.5, 2.0, -1.0]
    x, y = 0.5, -0.25
    read = Affine().map_points(torch.tensor([parameters]), torch.tensor([[[x, y]]]))
    assert read.tolist() == [[[a * x + b * y + tx, c * x + d * y + ty]]]


def test_inverse_of_a_known_matrix() -> None:
    """A zoom of one half with a shift is undone by a zoom of two with twice the opposite shift."""
    theta = torch.tensor([[[0.5, 0.0, 0.25], [0.0, 0.5, -0.125]]])
    assert invert_affine(theta).tolist() == [[[2.0, 0.0, -0.5], [0.0, 2.0, 0.25]]]


def test_a_flat_matrix_has_no_finite_inverse() -> None:
    """Determinant zero gives numbers that are not finite, never a silent wrong matrix."""
    assert not invert_affine(torch.zeros(1, 2, 3)).isfinite().any()


def test_each_image_has_its_own_matrix() -> None:
    """Batches of matrices do not mix."""
    theta = torch.stack([torch.eye(2, 3), 2 * torch.eye(2, 3)])
    points = torch.tensor([[0.25, -0.5], [1.0, 0.0]])
    assert torch.equal(map_affine(theta, points[None]), torch.stack([points, 2 * points]))


def test_iterated_maps_multiply_their_matrices() -> None:
    """Reading with A what B asks for is reading with the matrix A B."""
    a, b = torch.randn(2, 4, 2, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    points = torch.tensor([[[0.25, -0.5], [1.0, 0.0]]], dtype=torch.float64)
    last = torch.tensor([[[0.0, 0.0, 1.0]]], dtype=torch.float64).expand(4, 1, 3)
    product = (torch.cat([a, last], dim=1) @ torch.cat([b, last], dim=1))[:, :2]
    torch.testing.assert_close(map_affine(a, map_affine(b, points)), map_affine(product, points))


def test_warped_images_are_those_of_kornia() -> None:
    """The function homography_warp of kornia with the same matrix and align_corners gives the same images, to 1e-5."""
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(4, 2, 11, 8, generator=generator)
    theta = torch.eye(2, 3) + 0.3 * torch.randn(4, 2, 3, generator=generator)
    homography = torch.cat([theta, torch.tensor([0.0, 0.0, 1.0]).expand(4, 1, 3)], dim=1)
    expected = homography_warp(images, homography, (11, 8), align_corners=True, padding_mode="zeros")
    grid = Affine().grid(theta.reshape(4, 6), (11, 8), align_corners=True)
    actual = sample(images, grid, sampler="bilinear", padding="zeros", align_corners=True)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
