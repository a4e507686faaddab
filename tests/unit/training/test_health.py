"""Health, gathered batch by batch, is what one look at all images gives."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stnbench.spec.result import TransformerHealth
from stnbench.training.health import HealthMeter

IDENTITY = np.array([1, 0, 0, 0, 1, 0])


def health(theta: np.ndarray, outside: np.ndarray, sizes: list[int]) -> TransformerHealth:
    """The health of matrices (n, 6) taken in as batches of these sizes."""
    meter = HealthMeter(2)
    for chunk, share in zip(torch.tensor(theta).split(sizes), torch.tensor(outside).split(sizes), strict=True):
        matrices = chunk.unflatten(1, (2, 3))
        meter.add(matrices, share)
    return meter.result()


@given(
    theta=hnp.arrays(np.float32, st.tuples(st.integers(2, 12), st.just(6)), elements=st.floats(-4, 4, width=32)),
    data=st.data(),
)
def test_batches_do_not_matter(theta: np.ndarray, data: st.DataObject) -> None:
    """Any cut into batches gives numpy's numbers over all images."""
    cut = data.draw(st.integers(1, len(theta) - 1))
    outside = np.linspace(0, 1, len(theta), dtype=np.float32)
    found = health(theta, outside, [cut, len(theta) - cut])
    exact = theta.astype(np.float64)
    determinants = exact[:, 0] * exact[:, 4] - exact[:, 1] * exact[:, 3]
    assert found.place == 2
    assert found.theta_mean == pytest.approx(exact.mean(axis=0), abs=1e-9)
    assert found.theta_std == pytest.approx(exact.std(axis=0), abs=1e-9)
    assert found.outside_share == pytest.approx(0.5)
    assert found.identity_distance == pytest.approx(np.sqrt(((exact - IDENTITY) ** 2).mean()), abs=1e-9)
    assert found.determinant_mean == pytest.approx(determinants.mean(), abs=1e-9)


def test_the_identity_is_at_distance_zero() -> None:
    """A transformer that does nothing has no spread, reads nothing outside, and keeps areas."""
    found = health(np.tile(IDENTITY, (5, 1)).astype(np.float32), np.zeros(5, np.float32), [3, 2])
    assert found == TransformerHealth(
        place=2,
        theta_mean=(1, 0, 0, 0, 1, 0),
        theta_std=(0,) * 6,
        outside_share=0,
        identity_distance=0,
        determinant_mean=1,
    )


def test_a_zoom_reads_a_quarter_of_the_area() -> None:
    """Scale 0.5 in x and y: determinant 0.25, distance sqrt(2 * 0.25 / 6)."""
    found = health(np.array([[0.5, 0, 0, 0, 0.5, 0]], np.float32), np.zeros(1, np.float32), [1])
    assert found.determinant_mean == 0.25
    assert found.identity_distance == pytest.approx(np.sqrt(0.5 / 6))


def test_a_small_spread_about_a_large_mean_is_kept() -> None:
    """A spread of one float32 step about 1000 survives merging, where sums of squares in float32 would lose it."""
    theta = np.full((400, 6), 1000, np.float32)
    theta[::2] += np.float32(2**-14)
    found = health(theta, np.zeros(400, np.float32), [100] * 4)
    assert found.theta_std == pytest.approx([2**-15] * 6, rel=1e-6)
