"""Affine maps as matrix exponentials."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from stnbench.nn.precision import full_precision
from stnbench.nn.transforms.affine import AffineTransformation


class LieAffine(AffineTransformation):
    """The exponential of an affine velocity: the first two rows of exp([[a, b, tx], [c, d, ty], [0, 0, 0]]).

    Every point flows for a unit of time with the velocity ``(a x + b y + tx, c x + d y + ty)``. The map can always be
    inverted, by the opposite parameters; its determinant is exp(a + d), so that no parameters mirror or flatten the
    image (the "affine diffeomorphic" family of Skafte Detlefsen et al., CVPR 2018).
    """

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The six numbers of the velocity, row by row."""
        return ("log_a", "log_b", "log_tx", "log_c", "log_d", "log_ty")

    def identity_parameters(self) -> tuple[float, ...]:
        """No velocity."""
        return (0.0,) * 6

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """The exponential, without its constant last row."""
        parameters = self.checked(parameters)
        velocity = functional.pad(parameters.reshape(len(parameters), 2, 3), (0, 0, 0, 1))
        with full_precision(parameters.device.type):  # it is made of matrix products
            exponential: Tensor = torch.linalg.matrix_exp(velocity)
        return exponential[:, :2]
