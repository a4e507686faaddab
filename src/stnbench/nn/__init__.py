"""Spatial transformers: transformations, samplers, localisation networks, and the layer that combines them.

The package can be used alone, in any PyTorch model: :class:`SpatialTransformer` is the layer, and
:class:`Transformation` is the base class of a family of transformations. The names below are imported lazily, when they
are first used.
"""

from typing import TYPE_CHECKING

from stnbench.core import lazy_names

if TYPE_CHECKING:
    from stnbench.nn.layers import ContrastiveNorm
    from stnbench.nn.sampling import sample
    from stnbench.nn.spatial_transformer import SpatialTransformer, Transformed
    from stnbench.nn.transforms import Transformation
    from stnbench.nn.transforms.affine import AffineTransformation
    from stnbench.nn.transforms.nonlinear import HomographyTransformation

__all__ = [
    "AffineTransformation",
    "ContrastiveNorm",
    "HomographyTransformation",
    "SpatialTransformer",
    "Transformation",
    "Transformed",
    "sample",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AffineTransformation": "stnbench.nn.transforms.affine",
        "ContrastiveNorm": "stnbench.nn.layers",
        "HomographyTransformation": "stnbench.nn.transforms.nonlinear",
        "SpatialTransformer": "stnbench.nn.spatial_transformer",
        "Transformation": "stnbench.nn.transforms",
        "Transformed": "stnbench.nn.spatial_transformer",
        "sample": "stnbench.nn.sampling",
    },
)
