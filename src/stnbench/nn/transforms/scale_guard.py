"""A guard on the scale of a transformation of any family."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_SMALLEST_SPREAD = 1e-6
"""Sampling points closer together than this have no scale that could be corrected."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScaleGuard:
    """Draws every image's sampling points apart or together about their mean.

    The scale of an image is the root mean square distance of its sampling points from their mean over that of the
    output's points: 1 for a movement, 2 where twice as wide a region is read, for affine maps a mean of the singular
    values. Where it leaves its bounds, all points are drawn towards their mean or away from it until it is on the
    bound; the rest of the transformation, and its gradient, stays.

    Attributes:
        centre: (batch, 1, 2), the mean of the sampling points.
        factor: (batch, 1, 1), how far they are drawn apart; 1 where the scale is within its bounds.
    """

    centre: Tensor
    factor: Tensor

    @classmethod
    def fit(
        cls,
        points: Float[Tensor, "batch points 2"],
        output_points: Float[Tensor, "1 points 2"],
        *,
        low: float | None,
        high: float | None,
    ) -> "ScaleGuard":
        """The guard for sampling points, with bounds on their scale; None is no bound."""
        centre = points.mean(dim=1, keepdim=True)
        scale = (_spread(points) / _spread(output_points)).clamp(min=_SMALLEST_SPREAD)
        return cls(centre=centre, factor=torch.clamp(scale, min=low, max=high) / scale)

    def on_cpu(self) -> "ScaleGuard":
        """The same guard, detached, in the memory of the CPU."""
        return ScaleGuard(centre=self.centre.detach().cpu(), factor=self.factor.detach().cpu())

    def apply(self, points: Float[Tensor, "batch points 2"]) -> Float[Tensor, "batch points 2"]:
        """Sampling points under the guard; bitwise the same where the factor is 1."""
        moved = self.centre + self.factor * (points - self.centre)
        return torch.where(self.factor == 1, points, moved)


def _spread(points: Tensor) -> Tensor:
    """The root mean square distance from the mean, (batch, 1, 1)."""
    variance = points.var(dim=1, correction=0, keepdim=True).sum(dim=-1, keepdim=True)
    return variance.clamp(min=_SMALLEST_SPREAD**2).sqrt()
