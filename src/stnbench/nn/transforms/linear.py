"""Affine families of few parameters that enter the matrix as they are."""

import torch
from jaxtyping import Float
from torch import Tensor

from stnbench.nn.transforms.affine import AffineTransformation, matrix_of_rows


class Attention(AffineTransformation):
    """One scale and a translation (Jaderberg et al. 2015, equation 2): [[scale, 0, tx], [0, scale, ty]].

    The translation is in units of the input, whatever the scale: (tx, ty) is the centre of what is read. In the family
    ``scale_translation`` of 2015 it is in units of the output, and scaled.
    """

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The scale, then the centre."""
        return ("scale", "tx", "ty")

    def identity_parameters(self) -> tuple[float, ...]:
        """Scale 1, translation 0."""
        return (1.0, 0.0, 0.0)

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """The matrix, with the scale twice."""
        scale, tx, ty = self.checked(parameters).unbind(1)
        zero = torch.zeros_like(scale)
        return matrix_of_rows((scale, zero, tx), (zero, scale, ty))


class Crop(AffineTransformation):
    """A scale for each axis and a translation: [[scale_x, 0, tx], [0, scale_y, ty]], any upright box.

    The translation is in units of the input: (tx, ty) is the centre of the box and the scales are its half sides.
    """

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The half sides of the box, then its centre."""
        return ("scale_x", "scale_y", "tx", "ty")

    def identity_parameters(self) -> tuple[float, ...]:
        """Scales 1, translation 0: the whole image."""
        return (1.0, 1.0, 0.0, 0.0)

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """The matrix, with the scales on its diagonal."""
        scale_x, scale_y, tx, ty = self.checked(parameters).unbind(1)
        zero = torch.zeros_like(tx)
        return matrix_of_rows((scale_x, zero, tx), (zero, scale_y, ty))


class Shear(AffineTransformation):
    """A shear along each axis: [[1, shear_x, 0], [shear_y, 1, 0]].

    Convention: ``x_in = x + shear_x y``. The determinant is ``1 - shear_x shear_y``; both together are no product of
    two shears, and with opposite signs they turn and enlarge what is read.
    """

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The shear along x, then the one along y."""
        return ("shear_x", "shear_y")

    def identity_parameters(self) -> tuple[float, ...]:
        """No shear."""
        return (0.0, 0.0)

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """The matrix, with the shears off its diagonal."""
        shear_x, shear_y = self.checked(parameters).unbind(1)
        zero, one = torch.zeros_like(shear_x), torch.ones_like(shear_x)
        return matrix_of_rows((one, shear_x, zero), (shear_y, one, zero))
