"""Flows of velocity fields: agreement with scipy, the affine flows among them, and no folds."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.interpolate import BSpline
from torch import Tensor

from stnbench.core.errors import SpecError
from stnbench.nn.transforms.affine import LieAffine
from stnbench.nn.transforms.nonlinear import Diffeomorphic, cubic_b_spline
from stnbench.spec.transformer import DiffeomorphicSpec

SEEDS = st.integers(0, 2**30)


def velocities(side: int, seed: int, *, reach: float) -> Tensor:
    """Random control velocities of one image, float64."""
    generator = torch.Generator().manual_seed(seed)
    return reach * (2 * torch.rand(1, 2 * side**2, generator=generator, dtype=torch.float64) - 1)


def points(count: int = 25, *, reach: float = 1.0) -> Tensor:
    """Points up to the borders, or farther."""
    return reach * (2 * torch.rand(1, count, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64) - 1)


def controls(side: int) -> Tensor:
    """Where the control points of a spline lie, (side squared, 2)."""
    axis = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) * 2 / (side - 3)
    return torch.cartesian_prod(axis, axis).flip(1)


def test_the_spline_is_that_of_scipy() -> None:
    """The basis is the uniform cubic B-spline, and 0 where scipy's ends."""
    at = np.linspace(-3, 3, 61)
    expected = np.nan_to_num(BSpline.basis_element(np.arange(-2.0, 3.0), extrapolate=False)(at))
    np.testing.assert_allclose(cubic_b_spline(torch.from_numpy(at)).numpy(), expected, rtol=0, atol=1e-14)


@settings(max_examples=4, deadline=None)
@given(seed=SEEDS, side=st.sampled_from([4, 5, 7]))
def test_flows_are_those_of_scipy(seed: int, side: int) -> None:
    """An adaptive integrator of eighth order over the same field ends at the same places, to 1e-4."""
    parameters, spacing = velocities(side, seed, reach=0.5), 2 / (side - 3)
    control, lattice = parameters.reshape(-1, 2).numpy(), controls(side).numpy()
    start = points(6)[0].numpy()
    basis = BSpline.basis_element(np.arange(-2.0, 3.0), extrapolate=False)

    def field(_time: float, at: np.ndarray) -> np.ndarray:
        away = (at.reshape(-1, 1, 2) - lattice) / spacing
        return np.asarray(np.nan_to_num(basis(away)).prod(axis=-1) @ control).ravel()

    expected = solve_ivp(field, (0, 1), start.ravel(), method="DOP853", rtol=1e-9, atol=1e-9).y[:, -1].reshape(-1, 2)
    found = Diffeomorphic(side, steps=4).map_points(parameters, torch.from_numpy(start)[None])[0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("side", [4, 5, 9])
def test_affine_velocities_give_the_maps_of_lie_affine(side: int) -> None:
    """Control velocities sampled from an affine field are that field inside the image, and flow as its exponential."""
    velocity = torch.tensor([[0.2, -0.5, 0.05], [0.4, -0.1, -0.1]], dtype=torch.float64)
    at = controls(side)
    parameters = (at @ velocity[:, :2].mT + velocity[:, 2]).reshape(1, -1)
    inner = points(reach=0.5)
    expected = LieAffine().map_points(velocity.reshape(1, 6), inner)
    torch.testing.assert_close(Diffeomorphic(side, steps=8).map_points(parameters, inner), expected, rtol=0, atol=1e-6)


def test_the_error_falls_with_the_fourth_power_of_the_step() -> None:
    """Twice as many steps bring the flow sixteen times as near to the true one."""
    parameters = velocities(4, 3, reach=1.0)
    exact = Diffeomorphic(4, steps=64).map_points(parameters, points())
    errors = [
        float((Diffeomorphic(4, steps=steps).map_points(parameters, points()) - exact).abs().max()) for steps in (2, 4)
    ]
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.3)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, reach=st.floats(0, 1))
def test_what_is_read_never_folds(seed: int, reach: float) -> None:
    """Neighbours keep their sides: every cell of a dense grid has a positive area, in float32."""
    grid = Diffeomorphic(4, steps=4).grid(velocities(4, seed, reach=reach).float(), (40, 40), align_corners=True)[0]
    right, down = grid[:-1, 1:] - grid[:-1, :-1], grid[1:, :-1] - grid[:-1, :-1]
    assert (right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0] > 0).all()


def test_far_points_stay_where_they_are() -> None:
    """The field ends: what flows beyond it keeps its place, however large the velocities are."""
    far = torch.tensor([[[9.0, 0.0], [-40.0, 70.0]]], dtype=torch.float64)
    assert torch.equal(Diffeomorphic(4, steps=4).map_points(velocities(4, 1, reach=50), far), far)


@pytest.mark.parametrize("keys", [{"control_points": 3}, {"steps": 0}, {"steps": 65}])
def test_a_field_that_cannot_be_is_refused(keys: dict[str, Any]) -> None:
    """A cubic spline needs four control points a side, and an integration a step."""
    with pytest.raises(SpecError, match=next(iter(keys))):
        DiffeomorphicSpec(**keys)
