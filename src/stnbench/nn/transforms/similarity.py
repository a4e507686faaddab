"""Rotation, scale and translation, and every combination of them."""

from jaxtyping import Float
from torch import Tensor

from stnbench.nn.transforms.affine import AffineTransformation, matrix_of_rows


class Similarity(AffineTransformation):
    """Those of rotation (1 parameter), scale (1) and translation (2) that are asked for, in this order.

    The matrix is M = R S T: ``input = R(angle) scale (output + t)``, so that the translation comes first, in units of
    the output, and is scaled and rotated with it (qassemoquab/stnbhwd, AffineTransformMatrixGenerator).

    Convention: (x, y), y down, R = [[cos, -sin], [sin, cos]], so that a positive angle turns what is read clockwise
    on the screen, and what is shown anticlockwise. stnbhwd builds the same matrix in (y, x) order: its angle is ours
    with the other sign, and its first translation moves y.
    """

    def __init__(self, *, rotation: bool = False, scale: bool = False, translation: bool = False) -> None:
        self._rotation = rotation
        self._scale = scale
        self._translation = translation

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Those of angle (radians), scale, tx and ty that the family has."""
        return ("angle",) * self._rotation + ("scale",) * self._scale + ("tx", "ty") * self._translation

    def identity_parameters(self) -> tuple[float, ...]:
        """Angle 0, scale 1, translation 0."""
        return (0.0,) * self._rotation + (1.0,) * self._scale + (0.0, 0.0) * self._translation

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """The matrix of R S T."""
        parameters = self.checked(parameters)
        zero, one = parameters.new_zeros(parameters.shape[0]), parameters.new_ones(parameters.shape[0])
        numbers = iter(parameters.unbind(1))
        angle = next(numbers) if self._rotation else zero
        scale = next(numbers) if self._scale else one
        tx, ty = (next(numbers), next(numbers)) if self._translation else (zero, zero)
        a, c = scale * angle.cos(), scale * angle.sin()
        return matrix_of_rows((a, -c, a * tx - c * ty), (c, a, c * tx + a * ty))
