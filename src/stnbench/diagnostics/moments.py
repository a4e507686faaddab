"""Mean and variance of rows of numbers that come batch by batch."""

import torch
from jaxtyping import Float
from torch import Tensor


class RunningMoments:
    """Mean and variance over all rows so far, no row kept; rows that are not finite are left out.

    They are merged as in Chan, Golub & LeVeque 1979, so that a small spread about a large mean is kept.

    Args:
        width: numbers in a row.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        """Rows taken in."""
        self.mean = torch.zeros(width, dtype=torch.float64)
        """Of every column; 0 before the first row."""
        self._squares = torch.zeros(width, dtype=torch.float64)

    @property
    def variance(self) -> Float[Tensor, " width"]:
        """Of every column, over the number of rows, not one less; 0 before the first row."""
        return self._squares / max(self.count, 1)

    def add(self, rows: Float[Tensor, "batch width"]) -> None:
        """Take in a batch of float64 on the CPU."""
        rows = rows[rows.isfinite().all(dim=1)]
        if len(rows) == 0:
            return
        total = self.count + len(rows)
        mean = rows.mean(dim=0)
        delta = mean - self.mean
        self._squares += (rows - mean).square().sum(dim=0) + delta.square() * (self.count * len(rows) / total)
        self.mean = self.mean + delta * (len(rows) / total)
        self.count = total
