"""The registry of families: one line each."""

from collections.abc import Callable, Mapping
from typing import Final

from stnbench.nn.transforms.affine import Affine
from stnbench.nn.transforms.base import Transformation
from stnbench.nn.transforms.controls import FixedZoom
from stnbench.nn.transforms.homography import Corners, Projective
from stnbench.nn.transforms.lie import LieAffine
from stnbench.nn.transforms.linear import Attention, Crop, Shear
from stnbench.nn.transforms.similarity import Similarity
from stnbench.nn.transforms.tps import ThinPlateSpline
from stnbench.spec.transformer import Family, TransformerSpec

_FAMILIES: Final[Mapping[Family, Callable[[TransformerSpec], Transformation]]] = {
    "affine": lambda _: Affine(),
    "rotation": lambda _: Similarity(rotation=True),
    "scale": lambda _: Similarity(scale=True),
    "translation": lambda _: Similarity(translation=True),
    "rotation_scale": lambda _: Similarity(rotation=True, scale=True),
    "rotation_translation": lambda _: Similarity(rotation=True, translation=True),
    "scale_translation": lambda _: Similarity(scale=True, translation=True),
    "rotation_scale_translation": lambda _: Similarity(rotation=True, scale=True, translation=True),
    "attention": lambda _: Attention(),
    "crop": lambda _: Crop(),
    "shear": lambda _: Shear(),
    "lie_affine": lambda _: LieAffine(),
    "projective": lambda _: Projective(),
    "corners": lambda _: Corners(),
    "tps": lambda spec: ThinPlateSpline(spec.control_points),
    "fixed_zoom": lambda spec: FixedZoom(spec.zoom),
    "roi": lambda _: Crop(),  # its parameters come from the annotated box: controls.box_parameters
}


def build_transformation(spec: TransformerSpec) -> Transformation:
    """The transformation that a specification names."""
    return _FAMILIES[spec.family](spec)
