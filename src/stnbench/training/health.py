"""What a spatial transformer did to the images of one pass: the running statistics behind ``TransformerHealth``."""

import math
from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.networks.classifiers import TransformerRecord
from stnbench.spec.result import TransformerHealth
from stnbench.training.pose import PoseMeter

_IDENTITY: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class HealthMeter:
    """The health of one spatial transformer, gathered batch by batch with no batch kept.

    Means and variances are merged as in Chan, Golub & LeVeque 1979, so that a small spread about a large mean is kept.
    Convention: theta maps normalised output to input coordinates.

    Args:
        place: the stage that the transformer stands before, from 1.
        branch: which of the place's transformers it is, from 1.
    """

    def __init__(self, place: int, branch: int = 1) -> None:
        self._place = place
        self._branch = branch
        self._images = 0
        self._mean = torch.zeros(6, dtype=torch.float64)
        self._squares = torch.zeros(6, dtype=torch.float64)
        self._outside = 0.0
        self._determinant = 0.0

    def add(self, theta_out_to_in: Float[Tensor, "batch 2 3"], outside_share: Float[Tensor, " batch"]) -> None:
        """Take in one batch, not empty: matrices, and shares of sampling points outside the image."""
        theta = theta_out_to_in.detach().flatten(1).double().cpu()
        self._merge(len(theta), theta.mean(dim=0), theta.var(dim=0, correction=0) * len(theta))
        self._determinant += float((theta[:, 0] * theta[:, 4] - theta[:, 1] * theta[:, 3]).sum())
        self._outside += float(outside_share.double().sum())

    def result(self, pose: PoseMeter | None = None) -> TransformerHealth:
        """The health over all images taken in, at least one; ``pose`` knows the theta error where poses are known."""
        variance = self._squares / self._images
        distance = variance + (self._mean - torch.tensor(_IDENTITY, dtype=torch.float64)) ** 2
        return TransformerHealth(
            place=self._place,
            branch=self._branch,
            theta_mean=tuple(self._mean.tolist()),
            theta_std=tuple(variance.sqrt().tolist()),
            outside_share=self._outside / self._images,
            identity_distance=math.sqrt(float(distance.mean())),
            determinant_mean=self._determinant / self._images,
            theta_error=None if pose is None else pose.error(),
            theta_error_identity=None if pose is None else pose.identity_error(),
        )

    def _merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
        total = self._images + count
        delta = mean - self._mean
        self._mean = self._mean + delta * (count / total)
        self._squares = self._squares + squares + delta**2 * (self._images * count / total)
        self._images = total


class TransformerWatch:
    """Watches all spatial transformers of a network, batch by batch."""

    def __init__(self) -> None:
        self._health: dict[tuple[int, int], HealthMeter] = {}
        self._poses: dict[tuple[int, int], PoseMeter] = {}

    def add(self, records: Sequence[TransformerRecord], poses: Float[Tensor, "batch 3 3"] | None) -> None:
        """Take in what the transformers did to one batch, and the true poses where they are known."""
        for record in records:
            key = (record.place, record.branch)
            health = self._health.setdefault(key, HealthMeter(*key))
            health.add(record.done.theta_out_to_in, record.done.outside_share)
            chain = _chain_to(record, records)
            if poses is not None and chain is not None:
                self._pose_meter(key, chain[0]).add(chain, poses)

    def results(self) -> tuple[TransformerHealth, ...]:
        """The health of each transformer, by ascending place and branch."""
        return tuple(meter.result(self._poses.get(key)) for key, meter in self._health.items())

    def _pose_meter(self, key: tuple[int, int], first: TransformerRecord) -> PoseMeter:
        """The meter of a transformer; ``first`` is the one that reads the image, whose coordinates poses are in."""
        if key not in self._poses:
            height, width = first.done.images.shape[-2:]
            self._poses[key] = PoseMeter((height, width), align_corners=first.done.align_corners)
        return self._poses[key]


def _chain_to(record: TransformerRecord, records: Sequence[TransformerRecord]) -> list[TransformerRecord] | None:
    """The transformers from the image to this one; None where branches before it are joined, so that no map is.

    A transformer of feature maps counts as one of the image under them: stages shift maps by less than their pixel.
    """
    before = [other for other in records if other.place < record.place]
    if any(other.branch > 1 for other in before):
        return None
    return [*before, record]
