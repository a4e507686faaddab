"""Rotations of a finite group, one of which brings every image to its canonical orientation."""

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.nn.transforms.affine import AffineTransformation, matrix_of_rows
from stnbench.spec.transformer import CanonicalRotationSpec


class CanonicalRotation(AffineTransformation):
    """One of ``n`` rotations about the centre, the one that a localisation network scores highest (the group C_n).

    The localisation network sees every image n times, rotated by k / n of a turn, and gives each copy one score; the
    parameters are the scores, and the output is the copy with the highest score, the first one of equals. Rotating an
    image by a member of the group permutes its copies and changes nothing else: the output is the same, whatever the
    weights are (Kaba et al. 2023, arXiv 2211.06489; Mondal et al. 2023, arXiv 2310.19019). It is exact for quarter
    turns of square images, and true up to interpolation for others. So that no copy can be told by its empty corners,
    the network sees the disc that fits into the image.

    The choice has no slope: backwards, the matrix is the mean of all rotations by the softmax of the scores (straight
    through). The prior, ``prior_weight`` times the cross-entropy of the scores with k = 0, favours images as they are.

    Convention: ``R = [[cos, -sin], [sin, cos]]`` of 2 pi k / n, from output to input, as in the family ``rotation``.

    Args:
        rotations: the number of rotations, the identity included.
        prior_weight: the weight in the loss of the cross-entropy with k = 0.
    """

    is_discrete = True

    def __init__(self, rotations: int, *, prior_weight: float) -> None:
        self._rotations = rotations
        self._prior_weight = prior_weight

    @classmethod
    def build(cls, spec: CanonicalRotationSpec) -> "CanonicalRotation":
        """Return the transformation of a specification."""
        return cls(spec.rotations, prior_weight=spec.prior_weight)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return ``score_k`` for every rotation."""
        return tuple(f"score_{k}" for k in range(self._rotations))

    def identity_parameters(self) -> tuple[float, ...]:
        """Return equal scores, of which the first counts."""
        return (0.0,) * self._rotations

    def orbit(self, device: torch.device) -> Float[Tensor, "rotations parameters"]:
        """Return the parameters that choose each rotation: the rows of the unit matrix."""
        return torch.eye(self._rotations, device=device)

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """Return the rotation with the highest score, with the gradient of the mean of all rotations."""
        scores = self.checked(parameters)
        shares = scores.softmax(dim=1)
        first = torch.arange(self._rotations, device=scores.device) == scores.argmax(dim=1, keepdim=True)
        chosen = (first.to(scores.dtype) + (shares - shares.detach())).unbind(1)
        cosine, sine = (
            torch.stack([share * number for share, number in zip(chosen, numbers, strict=True)]).sum(dim=0)
            for numbers in zip(*_turns(self._rotations), strict=True)
        )
        zero = torch.zeros_like(cosine)
        return matrix_of_rows((cosine, -sine, zero), (sine, cosine, zero))

    def penalty(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, ""] | None:
        """Return the weighted cross-entropy of the scores with the identity; None where its weight is 0."""
        if not self._prior_weight:
            return None
        scores = self.checked(parameters)
        return self._prior_weight * (scores.logsumexp(dim=1) - scores[:, 0]).mean()


@cache
def _turns(count: int) -> tuple[tuple[float, float], ...]:
    """Return cosine and sine of every rotation; those of quarter turns are whole numbers."""
    angles = [2 * math.pi * k / count for k in range(count)]
    return tuple((round(math.cos(angle), 15) + 0.0, round(math.sin(angle), 15) + 0.0) for angle in angles)
