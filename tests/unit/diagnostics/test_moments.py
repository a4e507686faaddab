"""Moments, gathered batch by batch, are what one look at all rows gives."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stnbench.diagnostics.pose import RunningMoments


@given(
    rows=hnp.arrays(np.float64, st.tuples(st.integers(2, 12), st.just(3)), elements=st.floats(-1e3, 1e3)),
    data=st.data(),
)
def test_batches_do_not_matter(rows: np.ndarray, data: st.DataObject) -> None:
    """Any cut into batches gives numpy's mean and variance of all rows."""
    cut = data.draw(st.integers(0, len(rows)))
    moments = RunningMoments(3)
    for batch in torch.tensor(rows).split([cut, len(rows) - cut]):
        moments.add(batch)
    assert moments.count == len(rows)
    assert moments.mean.tolist() == pytest.approx(rows.mean(axis=0), abs=1e-9)
    assert moments.variance.tolist() == pytest.approx(rows.var(axis=0), rel=1e-9, abs=1e-9)


def test_a_small_spread_about_a_large_mean_is_kept() -> None:
    """A spread of 2^-14 about 10^6 survives merging, where sums of squares would lose it."""
    rows = torch.full((400, 1), 1e6, dtype=torch.float64)
    rows[::2] += 2**-14
    moments = RunningMoments(1)
    for batch in rows.split(100):
        moments.add(batch)
    assert moments.variance.sqrt().tolist() == pytest.approx([2**-15], rel=1e-6)


def test_rows_that_are_not_finite_are_left_out() -> None:
    """One bad number takes its row with it, and nothing else; before the first row all is 0."""
    moments = RunningMoments(2)
    moments.add(torch.tensor([[float("nan"), 1.0], [1.0, float("inf")]], dtype=torch.float64))
    assert (moments.count, moments.mean.tolist(), moments.variance.tolist()) == (0, [0, 0], [0, 0])
    moments.add(torch.tensor([[float("nan"), 9.0], [1.0, 2.0], [3.0, 2.0]], dtype=torch.float64))
    assert (moments.count, moments.mean.tolist(), moments.variance.tolist()) == (2, [2, 2], [1, 0])
