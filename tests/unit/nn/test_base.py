"""First-order approximations of any map."""

import math

import pytest
import torch
from torch import Tensor

from stnbench.nn.transforms import first_order


def bent(points: Tensor) -> Tensor:
    """A map with the value (0.2, 1) and the slopes (1, 3) and (0, e) at the centre, for two images."""
    x, y = points.unbind(-1)
    mapped = torch.stack([0.2 + x.sin() + 3 * y + x * y - y**4, (math.e * y).exp() + x**2 + x**3 * y], dim=-1)
    return mapped.expand(2, -1, 2)


def test_the_matrix_has_value_and_slope_of_the_centre() -> None:
    """Curved terms leave it alone, to 1e-10."""
    theta = first_order(bent, like=torch.zeros(1, dtype=torch.float64))
    expected = torch.tensor([[[1.0, 3.0, 0.2], [0.0, math.e, 1.0]]], dtype=torch.float64).expand(2, 2, 3)
    torch.testing.assert_close(theta, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_result_has_the_type_asked_for(dtype: torch.dtype, expected: torch.dtype) -> None:
    """At least float32, whatever the map was worked out in."""
    assert first_order(bent, like=torch.zeros(1, dtype=dtype)).dtype == expected


def test_the_identity_is_exact() -> None:
    """A map that does nothing gives the unit matrix bit by bit in float32."""
    theta = first_order(lambda points: points.expand(3, -1, 2), like=torch.zeros(1))
    assert torch.equal(theta, torch.eye(2, 3).expand(3, 2, 3))


def test_gradients_pass_through() -> None:
    """The slope of a map by a factor grows with the factor."""
    factor = torch.tensor(2.0, requires_grad=True)
    first_order(lambda points: factor * points, like=factor)[0, 0, 0].backward()
    assert factor.grad is not None
    assert factor.grad.item() == pytest.approx(1)
