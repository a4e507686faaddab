"""The model of a trial: network, localisation networks and transformers."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator

from stnbench.core.errors import SpecError
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


def require(condition: bool, key: str, value: object, remedy: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise SpecError naming the key and its value unless the condition holds."""
    if not condition:
        raise SpecError(f"{key} is {value!r}", remedy=remedy)


def require_sizes(key: str, sizes: tuple[int, ...]) -> None:
    """Raise SpecError unless every size is at least 1."""
    require(all(size >= 1 for size in sizes), key, list(sizes), "every size is a whole number of at least 1")


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
    sampler: Literal["bilinear"] = "bilinear"
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


@dataclass(frozen=True, kw_only=True, slots=True)
class LecunSpec(Strict):
    """``lecun c1,c2,h`` (Sermanet & LeCun 2011, as in the code of 2015).

    Two stages of conv 5x5 (padding 2), ReLU, max-pool 2 and contrastive norm, one hidden layer. ``multi_scale`` also
    feeds a pooled copy of the second stage's input to the hidden layer.
    """

    kind: Literal["lecun"] = "lecun"
    sizes: tuple[int, int, int] = (108, 200, 100)
    multi_scale: bool = False
    contrastive_norm: bool = True

    stages: ClassVar[int] = 2

    def __post_init__(self) -> None:
        """Check the values."""
        require_sizes("sizes", self.sizes)


@dataclass(frozen=True, kw_only=True, slots=True)
class IdsiaSpec(Strict):
    """``idsia c1,c2,c3,h`` (Ciresan et al. 2012, as in the code of 2015).

    Three stages of conv 7x7, 4x4 and 4x4, all padding 2, each with ReLU, max-pool 2 and contrastive norm, one hidden
    layer.
    """

    kind: Literal["idsia"] = "idsia"
    sizes: tuple[int, int, int, int] = (150, 200, 300, 350)
    contrastive_norm: bool = True

    stages: ClassVar[int] = 3

    def __post_init__(self) -> None:
        """Check the values."""
        require_sizes("sizes", self.sizes)


NetworkSpec = Annotated[LecunSpec | IdsiaSpec, Discriminator("kind")]
