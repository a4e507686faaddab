"""The guard on the scale of a transformation."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from stnbench.nn.spatial_transformer import ScaleGuard
from stnbench.nn.transforms import pixel_centres
from stnbench.nn.transforms.affine import map_affine

CENTRES = pixel_centres((6, 5), align_corners=True, like=torch.zeros((), dtype=torch.float64))[None]

matrices = st.lists(st.floats(-3, 3), min_size=6, max_size=6).map(
    lambda numbers: torch.tensor(numbers, dtype=torch.float64).reshape(1, 2, 3)
)


def spread(points: torch.Tensor) -> float:
    """The root mean square distance of points (1, n, 2) from their mean."""
    return float((points - points.mean(dim=1, keepdim=True)).square().sum(dim=-1).mean().sqrt())


@given(theta=matrices)
def test_the_guarded_scale_is_within_its_bounds(theta: torch.Tensor) -> None:
    """Whatever the matrix, the points' spread over the output's lies in [0.5, 2], unless they are all in one place."""
    points = map_affine(theta, CENTRES)
    guarded = ScaleGuard.fit(points, CENTRES, low=0.5, high=2.0).apply(points)
    if spread(points) > 1e-5:
        assert 0.5 - 1e-9 <= spread(guarded) / spread(CENTRES) <= 2 + 1e-9
    torch.testing.assert_close(guarded.mean(dim=1), points.mean(dim=1))


@given(theta=matrices)
def test_a_scale_within_its_bounds_is_left_bitwise(theta: torch.Tensor) -> None:
    """Inside the bounds the guard changes nothing at all."""
    points = map_affine(theta, CENTRES)
    scale = spread(points) / spread(CENTRES)
    guard = ScaleGuard.fit(points, CENTRES, low=max(scale * 0.9, 1e-9), high=max(scale * 1.1, 1e-5))
    assert torch.equal(guard.apply(points), points)


def test_the_gradient_at_the_bound_does_not_widen() -> None:
    """Where the scale is held at its bound, more scale changes no point, and a shift still moves all of them."""
    theta = torch.tensor([[[3.0, 0, 0.1], [0, 3.0, 0.2]]], dtype=torch.float64, requires_grad=True)
    points = map_affine(theta, CENTRES)
    guarded = ScaleGuard.fit(points, CENTRES, low=None, high=2.0).apply(points)
    (widening,) = torch.autograd.grad(guarded.square().sum(), theta, retain_graph=True)
    assert abs(float(widening[0, 0, 0] * 3 + widening[0, 1, 1] * 3)) < 1e-9
    (shift,) = torch.autograd.grad(guarded.sum(), theta)
    assert shift[0, :, 2].tolist() == [30, 30]
