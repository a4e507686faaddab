"""Sampling that is denser at salient places."""

import math
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.nn.layers import full_precision
from stnbench.nn.transforms.base import Transformation
from stnbench.spec.transformer import SaliencySpec

KERNEL_WIDTH: Final = 13 / 31
"""Full width at half maximum of the kernel, over the side of the lattice (the code of Recasens et al.: 13 of 31)."""

_FAINTEST: Final = -60.0
"""Lower bound of the logarithm of a saliency over the largest, so that none is rounded to 0."""


class Saliency(Transformation):
    """Sampling points drawn towards salient places (Recasens et al., ECCV 2018, arXiv 1809.03355).

    The parameters are logits of the saliency S at ``side`` x ``side`` places evenly from -1 to 1, row by row. Every
    place draws a sampling point p with the weight ``S k(q - p)``, k a Gaussian whose width at half maximum is 13/31 of
    the lattice, so that the drawn mean is ``m(p) = sum of S k (q - p) / sum of S k``. Beyond the border the saliency of
    the nearest place counts. For p in the output, ``u(p) = p + m(p) - m_uniform(p)`` is read in the input: equal
    logits, whatever their value, are the identity bit by bit.

    ``separable`` has one row of logits for x and one for y, and S is their product (Thavamani et al., CVPR 2023): ``2
    side`` parameters in place of ``side`` squared, and each coordinate moves by itself and keeps its order, so that the
    map folds nowhere.

    Args:
        side: the number of places a side, at least 2.
        separable: whether the saliency is a product of marginals.
    """

    def __init__(self, side: int, *, separable: bool) -> None:
        self._side = side
        self._separable = separable
        places = range(side)
        if separable:
            self._names = tuple(f"s{axis}_{place}" for axis in "xy" for place in places)
        else:
            self._names = tuple(f"s_{row}_{column}" for row in places for column in places)

    @classmethod
    def build(cls, spec: SaliencySpec) -> "Saliency":
        """Return the transformation of a specification."""
        return cls(spec.saliency_points, separable=spec.separable)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return ``s_r_c`` of row r and column c; separable, ``sx_c`` of the columns and then ``sy_r`` of the rows."""
        return self._names

    def identity_parameters(self) -> tuple[float, ...]:
        """Return equal saliency everywhere."""
        return (0.0,) * len(self._names)

    def map_points(
        self, parameters: Float[Tensor, "batch parameters"], points: Float[Tensor, "#batch points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """Return the input points at which the output's points are read: each point moved by the mean that draws it."""
        parameters = self.checked(parameters)
        points = points.to(torch.promote_types(parameters.dtype, points.dtype))
        (weight_x, drawn_x), (weight_y, drawn_y) = (self._kernel(points[..., axis]) for axis in (0, 1))
        rows = 2 if self._separable else self._side
        logits = parameters.to(points.dtype).reshape(parameters.shape[0], rows, self._side)
        with full_precision(parameters.device.type):  # it is made of matrix products
            if self._separable:
                extra, total = _saliency(logits, dims=(-1,))  # one row for each axis
                (extra_x, extra_y), (total_x, total_y) = extra.unbind(1), total.unbind(1)
                moved = (
                    _rows(drawn_x, extra_x) / _rows(weight_x, total_x),
                    _rows(drawn_y, extra_y) / _rows(weight_y, total_y),
                )
            else:
                extra, total = _saliency(logits, dims=(-2, -1))
                by_row = weight_y @ extra
                weights = ((weight_y @ total) * weight_x).sum(dim=-1)
                moved = (
                    (by_row * drawn_x).sum(dim=-1) / weights,
                    ((drawn_y @ extra) * weight_x).sum(dim=-1) / weights,
                )
        return points + torch.stack(moved, dim=-1)

    def _kernel(
        self, coordinates: Float[Tensor, "#batch points"]
    ) -> tuple[Float[Tensor, "#batch points places"], Float[Tensor, "#batch points places"]]:
        """Return the kernel at every place along one axis, and the kernel times the distance beyond the uniform mean.

        The places repeat those at the border, ``side - 1`` of them beyond each end; their terms are added to those of
        the border. The kernel's terms sum to 1, which changes no mean, and is never 0 / 0 however far a point is.
        """
        side = self._side
        places = torch.arange(3 * side - 2, dtype=coordinates.dtype, device=coordinates.device) - (3 * side - 3) / 2
        away = places * (2 / (side - 1)) - coordinates[..., None]
        width = KERNEL_WIDTH * side * 2 / (side - 1)
        weight = (-4 * math.log(2) / width**2 * away.square()).softmax(dim=-1)
        uniform = (weight * away).sum(dim=-1, keepdim=True)
        return self._fold(weight), self._fold(weight * (away - uniform))

    def _fold(self, terms: Tensor) -> Tensor:
        """Return the terms of all places with those beyond the border added to the border's."""
        side = self._side
        first, last = (terms[..., part].sum(dim=-1, keepdim=True) for part in (slice(side), slice(2 * side - 2, None)))
        return torch.cat([first, terms[..., side : 2 * side - 2], last], dim=-1)


def _saliency(logits: Tensor, *, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the excess of saliency over the faintest place, and the saliency; its largest value is 1.

    Only ratios of saliency matter, and the uniform part moves nothing: the movement therefore comes from the excess
    over the faintest, which is exactly 0 where all are equal, and loses no digit where they differ.
    """
    saliency = (logits - logits.amax(dim=dims, keepdim=True).detach()).clamp(min=_FAINTEST).exp()
    return saliency - saliency.amin(dim=dims, keepdim=True).detach(), saliency


def _rows(kernel: Float[Tensor, "#batch points places"], values: Float[Tensor, "batch places"]) -> Tensor:
    """Return the sum over places for every point, (batch, points)."""
    return (kernel * values[:, None]).sum(dim=-1)
