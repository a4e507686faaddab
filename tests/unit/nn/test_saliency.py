"""Saliency: the published sums, constants that move nothing, and enlargement of what is salient."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from stnbench.core.errors import SpecError
from stnbench.nn.transforms.nonlinear import KERNEL_WIDTH, Saliency
from stnbench.spec.transformer import SaliencySpec

both = pytest.mark.parametrize("separable", [False, True])


def logits(side: int, *, spread: float = 1.0, separable: bool = False) -> Tensor:
    """Random logits of two images, float64."""
    count = 2 * side if separable else side**2
    return spread * torch.randn(2, count, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def drawn_mean(saliency: Tensor, side: int, at: Tensor) -> Tensor:
    """The mean that draws points, summed over a padded lattice as the paper says: no fold, no separate axes."""
    padded = functional.pad(saliency[:, None], (side - 1,) * 4, mode="replicate").flatten(1)
    axis = (torch.arange(3 * side - 2, dtype=torch.float64) - (3 * side - 3) / 2) * 2 / (side - 1)
    away = torch.cartesian_prod(axis, axis).flip(1) - at[:, None]
    width = KERNEL_WIDTH * side * 2 / (side - 1)
    kernel = (-4 * math.log(2) * away.square().sum(dim=-1) / width**2).exp()
    weights = kernel * padded[:, None]
    return (weights[..., None] * away).sum(dim=2) / weights.sum(dim=2, keepdim=True)


@pytest.mark.parametrize("side", [3, 8, 15])
@both
def test_points_move_as_the_sums_say(side: int, *, separable: bool) -> None:
    """It is u = p + m - m_uniform, with the softmax of the logits; separable, with the product of two of them."""
    given, at = logits(side, separable=separable), torch.rand(40, 2, dtype=torch.float64) * 2 - 1
    if separable:
        columns, rows = given.reshape(2, 2, side).softmax(dim=-1).unbind(1)
        saliency = rows[:, :, None] * columns[:, None]
    else:
        saliency = given.softmax(dim=-1).reshape(2, side, side)
    uniform = drawn_mean(torch.ones(1, side, side, dtype=torch.float64), side, at)
    expected = at + drawn_mean(saliency, side, at) - uniform
    found = Saliency(side, separable=separable).map_points(given, at[None])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(level=st.floats(-1e4, 1e4, width=32), side=st.integers(2, 20), separable=st.booleans())
def test_a_constant_map_is_the_identity_grid(level: float, side: int, separable: bool) -> None:
    """Equal logits of any value give back every point bit by bit, in float32 and in the image and beyond."""
    family = Saliency(side, separable=separable)
    at = 6 * torch.rand(3, 50, 2, generator=torch.Generator().manual_seed(side)) - 3
    parameters = torch.full((3, family.number_of_parameters), level)
    assert torch.equal(family.map_points(parameters, at), at)


@both
def test_what_is_salient_is_enlarged(*, separable: bool) -> None:
    """More than its share of the output reads the neighbourhood of a salient place, and the centre is there."""
    side = 15
    family = Saliency(side, separable=separable)
    parameters = torch.zeros(1, family.number_of_parameters)
    names = family.parameter_names
    for name in ("sx_11", "sy_7") if separable else ("s_7_11",):  # x = 4 / 7, y = 0
        parameters[0, names.index(name)] = 3.0
    grid = family.grid(parameters, (41, 41), align_corners=True)[0]
    salient = torch.tensor([4 / 7, 0.0])
    before = family.grid(torch.zeros_like(parameters), (41, 41), align_corners=True)[0]
    near, near_before = (((points - salient).abs() < 0.25).all(dim=-1).sum() for points in (grid, before))
    assert near > 1.1 * near_before
    torch.testing.assert_close(grid[..., 1], -grid[..., 1].flip(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("spread", [50.0, 1e6])
@both
def test_the_wildest_logits_give_finite_places_and_gradients(spread: float, *, separable: bool) -> None:
    """Saliency of nothing but a point, read from anywhere, in float32."""
    parameters = logits(15, spread=spread, separable=separable).float().requires_grad_()
    at = torch.tensor([[[0.0, 0.0], [1.0, -1.0], [30.0, -1e4]]])
    read = Saliency(15, separable=separable).map_points(parameters, at)
    read.sum().backward()
    assert read.isfinite().all()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()


@pytest.mark.parametrize("points", [1, 65])
def test_a_lattice_that_cannot_be_is_refused(points: int) -> None:
    """One place draws nothing, and thousands of logits are no localisation."""
    with pytest.raises(SpecError, match="saliency_points"):
        SaliencySpec(saliency_points=points)
