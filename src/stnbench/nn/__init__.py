"""Spatial transformers: transformations, sampling, localisation networks, and the module of all three.

Usable alone, in anybody's model: :class:`SpatialTransformer` is the layer, :class:`Transformation` the contract of a
family. The names below are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

from stnbench.core.lazy import lazy_names

if TYPE_CHECKING:
    from stnbench.nn.layers import ContrastiveNorm
    from stnbench.nn.sampling import sample
    from stnbench.nn.spatial_transformer import SpatialTransformer, Transformed
    from stnbench.nn.transforms.affine import AffineTransformation
    from stnbench.nn.transforms.base import Transformation
    from stnbench.nn.transforms.homography import HomographyTransformation

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
        "HomographyTransformation": "stnbench.nn.transforms.homography",
        "SpatialTransformer": "stnbench.nn.spatial_transformer",
        "Transformation": "stnbench.nn.transforms.base",
        "Transformed": "stnbench.nn.spatial_transformer",
        "sample": "stnbench.nn.sampling",
    },
)
