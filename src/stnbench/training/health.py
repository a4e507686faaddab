"""What a spatial transformer did to the images of one pass: the running statistics behind ``TransformerHealth``."""

import math
from typing import Final

import torch
from torch import Tensor

from stnbench.networks.classifiers import TransformerRecord
from stnbench.spec.result import TransformerHealth

_IDENTITY: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class HealthMeter:
    """The health of one spatial transformer, gathered batch by batch with no batch kept.

    Means and variances are merged as in Chan, Golub & LeVeque 1979, so that a small spread about a large mean is kept.
    Convention: theta maps normalised output to input coordinates, as in ``TransformerRecord``.
    """

    def __init__(self, place: int) -> None:
        self._place = place
        self._images = 0
        self._mean = torch.zeros(6, dtype=torch.float64)
        self._squares = torch.zeros(6, dtype=torch.float64)
        self._outside = 0.0
        self._determinant = 0.0

    def add(self, record: TransformerRecord) -> None:
        """Take in one batch, not empty."""
        theta = record.theta_out_to_in.detach().flatten(1).double().cpu()
        self._merge(len(theta), theta.mean(dim=0), theta.var(dim=0, correction=0) * len(theta))
        self._determinant += float((theta[:, 0] * theta[:, 4] - theta[:, 1] * theta[:, 3]).sum())
        self._outside += float(record.outside_share.double().sum())

    def result(self) -> TransformerHealth:
        """The health over all images taken in, at least one."""
        variance = self._squares / self._images
        distance = variance + (self._mean - torch.tensor(_IDENTITY, dtype=torch.float64)) ** 2
        return TransformerHealth(
            place=self._place,
            theta_mean=tuple(self._mean.tolist()),
            theta_std=tuple(variance.sqrt().tolist()),
            outside_share=self._outside / self._images,
            identity_distance=math.sqrt(float(distance.mean())),
            determinant_mean=self._determinant / self._images,
        )

    def _merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
        total = self._images + count
        delta = mean - self._mean
        self._mean = self._mean + delta * (count / total)
        self._squares = self._squares + squares + delta**2 * (self._images * count / total)
        self._images = total
