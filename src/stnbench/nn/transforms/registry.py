"""Functions from the specification of a transformer to its transformation, one for each built-in family."""

from stnbench.nn.transforms import StudentT, Transformation
from stnbench.nn.transforms.affine import (
    Affine,
    Attention,
    CanonicalRotation,
    Crop,
    FixedZoom,
    LieAffine,
    Shear,
    Similarity,
)
from stnbench.nn.transforms.nonlinear import Corners, Diffeomorphic, Projective, Saliency, ThinPlateSpline
from stnbench.spec.transformer import (
    TRANSFORMERS,
    CanonicalRotationSpec,
    DiffeomorphicSpec,
    SaliencySpec,
    TransformerSpec,
)


def build_transformation(spec: TransformerSpec) -> Transformation:
    """Return the transformation of a specification.

    Raises:
        UnknownNameError: for a family that is not registered.
    """
    built: Transformation = TRANSFORMERS.implementation(spec.family)(spec)
    return built if spec.posterior is None else StudentT(built, weight=spec.posterior_weight)


def similarity(spec: TransformerSpec) -> Transformation:
    """Return the rotation, scale and translation that the family's name joins; ``vector`` refers to the rotation."""
    parts = spec.family.split("_")
    return Similarity(
        rotation="rotation" in parts,
        scale="scale" in parts,
        translation="translation" in parts,
        as_vector="vector" in parts,
    )


def affine(_spec: TransformerSpec) -> Transformation:
    """Return any affine map."""
    return Affine()


def attention(_spec: TransformerSpec) -> Transformation:
    """Return one scale and a translation."""
    return Attention()


def crop(_spec: TransformerSpec) -> Transformation:
    """Return an upright box."""
    return Crop()


def shear(_spec: TransformerSpec) -> Transformation:
    """Return a shear along each axis."""
    return Shear()


def lie_affine(_spec: TransformerSpec) -> Transformation:
    """Return the exponential of an affine velocity."""
    return LieAffine()


def projective(_spec: TransformerSpec) -> Transformation:
    """Return the unit matrix plus eight parameters."""
    return Projective()


def corners(_spec: TransformerSpec) -> Transformation:
    """Return the homography of four corners."""
    return Corners()


def tps(spec: TransformerSpec) -> Transformation:
    """Return a thin plate spline."""
    return ThinPlateSpline(spec.control_points)


def fixed_zoom(spec: TransformerSpec) -> Transformation:
    """Return a constant zoom."""
    return FixedZoom(spec.zoom)


def diffeomorphic(spec: DiffeomorphicSpec) -> Transformation:
    """Return the flow of a spline of velocities."""
    return Diffeomorphic(spec.control_points, spec.steps)


def saliency(spec: SaliencySpec) -> Transformation:
    """Return sampling that is denser at salient places."""
    return Saliency(spec.saliency_points, separable=spec.separable)


def canonical_rotation(spec: CanonicalRotationSpec) -> Transformation:
    """Return the choice among finitely many rotations."""
    return CanonicalRotation(spec.rotations, prior_weight=spec.prior_weight)
