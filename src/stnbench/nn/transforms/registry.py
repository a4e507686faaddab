"""From the specification of a transformer to its transformation: one function for each of our families."""

from stnbench.nn.transforms.affine import Affine, Attention, Crop, FixedZoom, LieAffine, Shear, Similarity
from stnbench.nn.transforms.base import Transformation
from stnbench.nn.transforms.homography import Corners, Projective
from stnbench.nn.transforms.posterior import StudentT
from stnbench.nn.transforms.tps import ThinPlateSpline
from stnbench.spec.transformer import TRANSFORMERS, TransformerSpec


def build_transformation(spec: TransformerSpec) -> Transformation:
    """The transformation that a specification names.

    Raises: UnknownNameError where its family is not here.
    """
    built: Transformation = TRANSFORMERS.implementation(spec.family)(spec)
    return built if spec.posterior is None else StudentT(built, weight=spec.posterior_weight)


def similarity(spec: TransformerSpec) -> Transformation:
    """Those of rotation, scale and translation that the name of the family joins; ``vector`` is of the rotation."""
    parts = spec.family.split("_")
    return Similarity(
        rotation="rotation" in parts,
        scale="scale" in parts,
        translation="translation" in parts,
        as_vector="vector" in parts,
    )


def affine(_spec: TransformerSpec) -> Transformation:
    """Any affine map."""
    return Affine()


def attention(_spec: TransformerSpec) -> Transformation:
    """One scale and a translation."""
    return Attention()


def crop(_spec: TransformerSpec) -> Transformation:
    """An upright box."""
    return Crop()


def shear(_spec: TransformerSpec) -> Transformation:
    """A shear along each axis."""
    return Shear()


def lie_affine(_spec: TransformerSpec) -> Transformation:
    """The exponential of an affine velocity."""
    return LieAffine()


def projective(_spec: TransformerSpec) -> Transformation:
    """The unit matrix plus eight parameters."""
    return Projective()


def corners(_spec: TransformerSpec) -> Transformation:
    """The homography of four corners."""
    return Corners()


def tps(spec: TransformerSpec) -> Transformation:
    """A thin plate spline."""
    return ThinPlateSpline(spec.control_points)


def fixed_zoom(spec: TransformerSpec) -> Transformation:
    """A constant zoom."""
    return FixedZoom(spec.zoom)
