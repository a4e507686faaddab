"""A distribution over the parameters of any family, in place of one value each."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from stnbench.nn.transforms.base import Transformation

START: Final = -4.0
"""Initial number behind a spread: softplus of it is 0.018, so that a new layer draws close to the identity."""

_LOWEST: Final = -20.0
"""Lower bound of the numbers behind spreads: the spread is 2e-9 there, and its logarithm finite."""

_PRIOR: Final = 1.0
"""Spread with a divergence of 0."""


class StudentT(Transformation):
    """Student's t over the parameters of a family (Schwobel et al., UAI 2022, arXiv 2004.03637).

    The localisation network emits the mean mu and a number r for each parameter; ``theta = mu + sqrt(beta) t``, with
    ``beta = softplus(r)`` and t drawn from Student's t with 2 degrees of freedom: the marginal of a normal distribution
    whose precision is Gamma(1, beta)-distributed. The training loss gains ``weight`` times the divergence of these
    Gamma distributions, ``ln(beta / beta_p) + beta_p / beta - 1`` with ``beta_p = 1``, summed over parameters.

    As a family its map is that of the mean, which health, pictures and exports show; the layer draws. With 2 degrees of
    freedom draws have no variance, and a few of a hundred are extreme.

    Args:
        family: the family whose parameters are drawn.
        weight: the weight of the divergence in the loss.
    """

    def __init__(self, family: Transformation, *, weight: float) -> None:
        self.family = family
        self._weight = weight
        self._own = len(family.parameter_names)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of the family's parameters, then ``spread_NAME`` for each."""
        names = self.family.parameter_names
        return (*names, *(f"spread_{name}" for name in names))

    def identity_parameters(self) -> tuple[float, ...]:
        """Return the identity as mean, with a small spread."""
        return (*self.family.identity_parameters(), *(START,) * self._own)

    def prepare(self, device: torch.device) -> None:
        """Move the family's constants to the device."""
        self.family.prepare(device)

    def map_points(
        self, parameters: Float[Tensor, "batch parameters"], points: Float[Tensor, "#batch points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """Return the input points at which the output's points are read under the mean."""
        return self.family.map_points(self.checked(parameters)[:, : self._own], points)

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """Return the matrix of the mean, from output to input coordinates."""
        return self.family.theta_out_to_in(self.checked(parameters)[:, : self._own])

    def split(self, parameters: Float[Tensor, "batch parameters"]) -> tuple[Tensor, Tensor]:
        """Return the means and the scales sqrt(beta) of the family's parameters, one row for each image."""
        parameters = self.checked(parameters)
        return parameters[:, : self._own], self._spread(parameters).sqrt()

    def moved(self, parameters: Float[Tensor, "batch parameters"], drawn: Tensor) -> Tensor:
        """Return the parameters with their means replaced by drawn values (batch, parameters of the family)."""
        return torch.cat([drawn, self.checked(parameters)[:, self._own :]], dim=1)

    def penalty(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, ""] | None:
        """Return the weighted divergence from the prior plus the family's penalty; None where there is neither."""
        of_family = self.family.penalty(self.checked(parameters)[:, : self._own])
        if not self._weight:
            return of_family
        spread = self._spread(self.checked(parameters))
        divergence = (spread / _PRIOR).log() + _PRIOR / spread - 1
        own = self._weight * divergence.sum(dim=1).mean()
        return own if of_family is None else own + of_family

    def _spread(self, parameters: Tensor) -> Tensor:
        return functional.softplus(parameters[:, self._own :].clamp(min=_LOWEST))
