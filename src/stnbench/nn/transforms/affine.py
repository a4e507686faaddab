"""Affine transformations: maps of the plane that a 2 x 3 matrix describes."""

import math
from abc import abstractmethod
from functools import cache
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from stnbench.core.errors import ShapeError
from stnbench.nn.layers import at_least_float32, full_precision
from stnbench.nn.transforms import Size, Transformation


class AffineTransformation(Transformation):
    """Base class of families whose members are affine: a subclass makes the matrix from its parameters."""

    @abstractmethod
    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """Return the matrix [[a, b, tx], [c, d, ty]] of every image from output to input coordinates; it is exact.

        Raises:
            ShapeError: where the number of parameters is not the family's.
        """

    def map_points(
        self, parameters: Float[Tensor, "batch parameters"], points: Float[Tensor, "#batch points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """Return the input points ``theta (x, y, 1)`` at which the output's points (x, y) are read."""
        return map_affine(self.theta_out_to_in(parameters), points)


class Affine(AffineTransformation):
    """Any affine map; its parameters are the six numbers of the matrix, row by row (Jaderberg et al. 2015, eq. 1).

    Convention: ``x_in = a x + b y + tx``, ``y_in = c x + d y + ty``, with (x, y) in the output.
    """

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of the six numbers, row by row."""
        return ("a", "b", "tx", "c", "d", "ty")

    def identity_parameters(self) -> tuple[float, ...]:
        """Return the unit matrix without translation."""
        return (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """Return the parameters as a matrix."""
        return self.checked(parameters).reshape(parameters.shape[0], 2, 3)


def map_affine(
    theta: Float[Tensor, "batch 2 3"], points: Float[Tensor, "#batch points 2"]
) -> Float[Tensor, "batch points 2"]:
    """Return the points under the matrix of every image.

    Written as products and sums rather than a matrix product, which autocast and TF32 would round to 8 or 11 bits: up
    to a tenth of a pixel. The identity gives the points back bit by bit, and ``torch.vmap`` can batch it, which it
    cannot do with ``torch.nn.functional.affine_grid``.

    Args:
        theta: the matrices, from the coordinates of the points to those of the result.
        points: (x, y), shared by all images where their batch is 1, or different for each image.
    """
    a_c, b_d, offset = theta[:, None].unbind(-1)
    return a_c * points[..., :1] + (b_d * points[..., 1:] + offset)


def invert_affine(theta: Float[Tensor, "batch 2 3"]) -> Float[Tensor, "batch 2 3"]:
    """Return the inverse maps: from input to output for theta, which maps output to input.

    A matrix of determinant zero has no inverse, and gives numbers that are not finite.
    """
    (a, b, tx), (c, d, ty) = (row.unbind(-1) for row in theta.unbind(1))
    determinant = a * d - b * c
    adjugate = matrix_of_rows((d, -b, b * ty - d * tx), (-c, a, c * tx - a * ty))
    return adjugate / determinant[:, None, None]


def matrix_of_rows(*rows: tuple[Float[Tensor, " batch"], ...]) -> Float[Tensor, "batch rows columns"]:
    """Return a matrix for every image, from its entries (batch,) row by row."""
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


# Controls: transformations that learn nothing, as a baseline for those that do.


class FixedZoom(AffineTransformation):
    """Zoom every image by the same factor about its centre, as a control without parameters.

    Convention: ``x_in = zoom x``, ``y_in = zoom y``, with (x, y) in the output. There is no identity: the empty
    parameters, the only ones, give the zoom.

    Args:
        zoom: the share of each side that is read; below 1 the image is enlarged.
    """

    def __init__(self, zoom: float) -> None:
        self._zoom = zoom

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return no names."""
        return ()

    def identity_parameters(self) -> tuple[float, ...]:
        """Return the empty parameters, which do not stand for the identity here."""
        return ()

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """Return the matrix of the zoom for every row of the empty parameters (batch, 0)."""
        parameters = self.checked(parameters)
        zoom = parameters.new_full((parameters.shape[0],), self._zoom)
        zero = torch.zeros_like(zoom)
        return matrix_of_rows((zoom, zero, zero), (zero, zoom, zero))


def box_parameters(
    boxes: Float[Tensor, "batch corners"], size: Size, *, align_corners: bool
) -> Float[Tensor, "batch parameters"]:
    """Return the parameters of the family ``crop`` that fill the output with a box of each image.

    The outer edges of the output's border pixels are read at the edges of the box, and its pixels' centres at even
    distances between, so that the same places are read whatever ``align_corners`` is. Where -1 and 1 are the centres of
    border pixels, a coordinate is smaller by the factor (side - 1) / side than where they are outer edges, in both
    input and output (they have the same size): the scales stay, and the centre of the box is divided by the factor.

    Args:
        boxes: x1, y1, x2, y2 of each image (left, top, right, bottom), with -1 and 1 at the outer edges of the image's
            border pixels; (-1, -1, 1, 1) is the whole image, and gives the identity.
        size: height and width in pixels, of the images and of the output.
        align_corners: whether the parameters are for coordinates whose -1 and 1 are the centres of border pixels.

    Returns:
        scale_x, scale_y, tx and ty of each image, (batch, 4), at least float32.

    Raises:
        ShapeError: where a box does not have four numbers.
    """
    if boxes.shape[1:] != (4,):
        raise ShapeError("the boxes of the images", boxes.shape, "(batch, 4): x1, y1, x2, y2")
    x1, y1, x2, y2 = at_least_float32(boxes).unbind(1)
    # Along a single pixel all coordinates mean the same place.
    height, width = (side / max(side - 1, 1) if align_corners else 1.0 for side in size)
    return torch.stack([(x2 - x1) / 2, (y2 - y1) / 2, (x1 + x2) / 2 * width, (y1 + y2) / 2 * height], dim=1)


# Affine families of few parameters, which are entries of the matrix.


class Attention(AffineTransformation):
    """One scale and a translation (Jaderberg et al. 2015, equation 2): [[scale, 0, tx], [0, scale, ty]].

    The translation is in units of the input, whatever the scale: (tx, ty) is the centre of the region that is read. In
    the family ``scale_translation`` of 2015 it is in units of the output, and scaled.
    """

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of the scale and of the centre's coordinates."""
        return ("scale", "tx", "ty")

    def identity_parameters(self) -> tuple[float, ...]:
        """Return scale 1 and translation 0."""
        return (1.0, 0.0, 0.0)

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """Return the matrix, with the scale twice on its diagonal."""
        scale, tx, ty = self.checked(parameters).unbind(1)
        zero = torch.zeros_like(scale)
        return matrix_of_rows((scale, zero, tx), (zero, scale, ty))


class Crop(AffineTransformation):
    """A scale for each axis and a translation: [[scale_x, 0, tx], [0, scale_y, ty]], any upright box.

    The translation is in units of the input: (tx, ty) is the centre of the box, and the scales are its half sides.
    """

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of the half sides of the box, then of its centre's coordinates."""
        return ("scale_x", "scale_y", "tx", "ty")

    def identity_parameters(self) -> tuple[float, ...]:
        """Return scales 1 and translation 0: the whole image."""
        return (1.0, 1.0, 0.0, 0.0)

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """Return the matrix, with the scales on its diagonal."""
        scale_x, scale_y, tx, ty = self.checked(parameters).unbind(1)
        zero = torch.zeros_like(tx)
        return matrix_of_rows((scale_x, zero, tx), (zero, scale_y, ty))


class Shear(AffineTransformation):
    """A shear along each axis: [[1, shear_x, 0], [shear_y, 1, 0]].

    Convention: ``x_in = x + shear_x y``, with (x, y) in the output. The determinant is ``1 - shear_x shear_y``; both
    shears together are not a product of two shears, and with opposite signs they rotate and enlarge the region that is
    read.
    """

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of the shear along x and of that along y."""
        return ("shear_x", "shear_y")

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """Return the matrix, with the shears off its diagonal."""
        shear_x, shear_y = self.checked(parameters).unbind(1)
        zero, one = torch.zeros_like(shear_x), torch.ones_like(shear_x)
        return matrix_of_rows((one, shear_x, zero), (shear_y, one, zero))


# Rotation, scale and translation, and every combination of them.


_SHORTEST: Final = 1e-6
"""Lower bound of the larger coordinate of a vector: shorter vectors have no direction that could be relied on."""


class Similarity(AffineTransformation):
    """Any of rotation (1 parameter, or 2 as a vector), scale (1) and translation (2), in this order.

    The matrix is M = R S T: ``input = R(angle) scale (output + t)``, so that the translation comes first, in units of
    the output, and is scaled and rotated with it (qassemoquab/stnbhwd, AffineTransformMatrixGenerator).

    Convention: (x, y), y down, R = [[cos, -sin], [sin, cos]], so that a positive angle rotates the region that is read
    clockwise on the screen, and the image shown anticlockwise. stnbhwd builds the same matrix in (y, x) order: its
    angle has the opposite sign, and its first translation moves y.

    Args:
        rotation: whether there is a rotation.
        scale: whether there is a scale.
        translation: whether there is a translation.
        as_vector: emit the rotation as a vector of two numbers, see ``unit_vector``, instead of an angle.
    """

    def __init__(
        self, *, rotation: bool = False, scale: bool = False, translation: bool = False, as_vector: bool = False
    ) -> None:
        self._rotation = rotation
        self._scale = scale
        self._translation = translation
        self._as_vector = as_vector

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of the family's parameters: angle (radians) or (cosine, sine), scale, tx and ty.

        Cosine and sine are determined up to a common factor.
        """
        rotation = ("cosine", "sine") if self._as_vector else ("angle",)
        return rotation * self._rotation + ("scale",) * self._scale + ("tx", "ty") * self._translation

    def identity_parameters(self) -> tuple[float, ...]:
        """Return angle 0 (or the vector (1, 0)), scale 1 and translation 0, as far as the family has them."""
        rotation = (1.0, 0.0) if self._as_vector else (0.0,)
        return rotation * self._rotation + (1.0,) * self._scale + (0.0, 0.0) * self._translation

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """Return the matrix of R S T."""
        parameters = self.checked(parameters)
        zero, one = parameters.new_zeros(parameters.shape[0]), parameters.new_ones(parameters.shape[0])
        numbers = iter(parameters.unbind(1))
        if self._rotation and self._as_vector:
            cosine, sine = unit_vector(next(numbers), next(numbers))
        else:
            angle = next(numbers) if self._rotation else zero
            cosine, sine = angle.cos(), angle.sin()
        scale = next(numbers) if self._scale else one
        tx, ty = (next(numbers), next(numbers)) if self._translation else (zero, zero)
        a, c = scale * cosine, scale * sine
        return matrix_of_rows((a, -c, a * tx - c * ty), (c, a, c * tx + a * ty))


def unit_vector(x: Float[Tensor, " batch"], y: Float[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
    """Return the cosine and the sine of the angle of every vector (x, y).

    A rotation as a vector has no jump at half a turn, where an angle would have to jump by a whole one (Zhou et al.
    2019, arXiv 1812.07035; Kaba et al. 2023, arXiv 2211.06489, normalise in the same way). A vector shorter than 1e-6
    counts as (1, 0) and has no gradient, so that every matrix is a rotation. Lengths beyond the root of the largest
    number do not overflow: the vector is divided by its larger number first, which changes neither result nor gradient.
    """
    larger = torch.maximum(x.abs(), y.abs()).detach()
    is_short = larger < _SHORTEST
    larger = torch.where(is_short, torch.ones_like(larger), larger)
    x, y = torch.where(is_short, torch.ones_like(x), x / larger), torch.where(is_short, torch.zeros_like(y), y / larger)
    length = (x.square() + y.square()).sqrt()
    return x / length, y / length


# Affine maps as matrix exponentials.


_SQUARINGS: Final = 6
_TERMS: Final = 12
"""Terms of the exponential's series; the norm of its argument is below 0.5 for velocities up to 32."""


class LieAffine(AffineTransformation):
    """Affine map given by its matrix logarithm: the first two rows of exp([[a, b, tx], [c, d, ty], [0, 0, 0]]).

    Each point moves for one unit of time with the velocity ``(a x + b y + tx, c x + d y + ty)``, from output to input.
    The map is always invertible, with the negated parameters as its inverse. Its determinant is exp(a + d), so it never
    mirrors or flattens the image (the "affine diffeomorphic" family of Skafte Detlefsen et al., CVPR 2018).
    """

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of the six numbers of the velocity, row by row."""
        return ("log_a", "log_b", "log_tx", "log_c", "log_d", "log_ty")

    def theta_out_to_in(self, parameters: Float[Tensor, "batch parameters"]) -> Float[Tensor, "batch 2 3"]:
        """Return the exponential, without its constant last row."""
        parameters = self.checked(parameters)
        velocity = functional.pad(parameters.double().reshape(-1, 2, 3), (0, 0, 0, 1))
        with full_precision(parameters.device.type):  # it is made of matrix products
            return matrix_exponential(velocity)[:, :2].to(parameters.dtype)


def matrix_exponential(matrices: Float[Tensor, "batch side side"]) -> Float[Tensor, "batch side side"]:
    """Return the exponential of every matrix, by scaling and squaring.

    exp(A) = exp(A / 2^s)^(2^s), with the inner exponential by its Taylor series. In float64 the relative error is below
    1e-12 for norms up to 30, beyond which a transformation is lost anyway. It is always the same products: unlike
    ``torch.linalg.matrix_exp`` it waits for no device, has a counterpart in ONNX and can be batched by
    ``torch.func.vmap``.
    """
    scaled = matrices * 2.0**-_SQUARINGS
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    result = identity.expand_as(matrices)
    for power in range(_TERMS, 0, -1):  # Horner
        result = identity + scaled @ result / power
    for _ in range(_SQUARINGS):
        result = result @ result
    return result


# Rotations of a finite group, one of which brings every image to its canonical orientation.


class CanonicalRotation(AffineTransformation):
    """One of ``n`` rotations about the centre, the one that a localisation network scores highest (the group C_n).

    The localisation network sees every image n times, rotated by k / n of a turn, and gives each copy one score; the
    parameters are the scores, and the output is the copy with the highest score, the first one of equals. Rotating an
    image by a member of the group permutes its copies and changes nothing else: the output is the same, whatever the
    weights are (Kaba et al. 2023, arXiv 2211.06489; Mondal et al. 2023, arXiv 2310.19019). It is exact for quarter
    turns of square images, and true up to interpolation for others. So that no copy is recognised by its empty corners,
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

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return ``score_k`` for every rotation."""
        return tuple(f"score_{k}" for k in range(self._rotations))

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
        """Return the weighted cross-entropy of the scores with the identity, or None where its weight is 0."""
        if not self._prior_weight:
            return None
        scores = self.checked(parameters)
        return self._prior_weight * (scores.logsumexp(dim=1) - scores[:, 0]).mean()


@cache
def _turns(count: int) -> tuple[tuple[float, float], ...]:
    """Return cosine and sine of every rotation; those of quarter turns are whole numbers."""
    angles = [2 * math.pi * k / count for k in range(count)]
    return tuple((round(math.cos(angle), 15) + 0.0, round(math.sin(angle), 15) + 0.0) for angle in angles)
