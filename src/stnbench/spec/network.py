"""Classifiers as a trial describes them, without their spatial transformers."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator

from stnbench.spec.check import require_sizes
from stnbench.spec.codec import Strict


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
