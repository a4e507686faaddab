"""The registry of families: one line each."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from stnbench.spec.transformer import Family
from stnbench.stn.affine import Affine
from stnbench.stn.base import Transformation
from stnbench.stn.similarity import Similarity

_FAMILIES: Final[Mapping[Family, Callable[[], Transformation]]] = {
    "affine": Affine,
    "rotation": partial(Similarity, rotation=True),
    "scale": partial(Similarity, scale=True),
    "translation": partial(Similarity, translation=True),
    "rotation_scale": partial(Similarity, rotation=True, scale=True),
    "rotation_translation": partial(Similarity, rotation=True, translation=True),
    "scale_translation": partial(Similarity, scale=True, translation=True),
    "rotation_scale_translation": partial(Similarity, rotation=True, scale=True, translation=True),
}


def build_transformation(family: Family) -> Transformation:
    """The transformation of a family."""
    return _FAMILIES[family]()
