"""Spatial transformers as a trial describes them: the transformation, its localisation network, and the place."""

from dataclasses import dataclass, field
from typing import Literal

from stnbench.spec.check import require, require_sizes
from stnbench.spec.codec import Strict

Family = Literal[
    "affine",
    "rotation",
    "scale",
    "translation",
    "rotation_scale",
    "rotation_translation",
    "scale_translation",
    "rotation_scale_translation",
]
"""Families of transformations; ``stn/transforms.py`` defines each."""

Padding = Literal["zeros", "border", "reflection"]
"""What lies outside the image: zeros, the nearest border pixel, or a reflection."""

Sampler = Literal["bilinear"]
"""How an image is read between its pixels; ``stn/sampler.py`` defines each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LocnetSpec(Strict):
    """The localisation network ``a-b-c`` of 2015.

    Max-pool 2, conv 5x5 to ``a`` channels, ReLU, max-pool 2, conv 5x5 to ``b``, ReLU, max-pool 2, linear to ``c``,
    ReLU, linear to the parameters of the transformation (zero weights, identity bias).
    """

    kind: Literal["conv"] = "conv"
    sizes: tuple[int, int, int] = (200, 300, 200)

    def __post_init__(self) -> None:
        """Check the values."""
        require_sizes("sizes", self.sizes)


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerSpec(Strict):
    """What a transformer may do to an image, and how it reads the image."""

    family: Family = "affine"
    sampler: Sampler = "bilinear"
    padding: Padding = "zeros"
    align_corners: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedTransformerSpec(Strict):
    """A spatial transformer (transformer and localisation network) before the ``place``-th convolution stage.

    Place 1 is the input image.
    """

    place: int
    transformer: TransformerSpec = field(default_factory=TransformerSpec)
    locnet: LocnetSpec = field(default_factory=LocnetSpec)

    def __post_init__(self) -> None:
        """Check the values."""
        require(self.place >= 1, "place", self.place, "places count from 1, the input image")
