"""Results that were published elsewhere, and the cells of a sweep that repeat them."""

from dataclasses import dataclass
from typing import Final, Literal

from stnbench.spec.codec import Strict

PublishedSplit = Literal["test", "validation"]
LocnetSizes = tuple[int, int, int]

SWEEPS_OF_2015: Final = (
    "baseline",
    "locnet_sizes",
    "locnet_large",
    "multiple_st",
    "idsia_st",
    "idsia_multiple_st",
    "normalisation",
    "training_images",
)
"""The shipped sweeps that are the tables of 2015 together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedResult(Strict):
    """One run, as the tables of 2015 describe it (``reports/published/README.md``).

    ``locnet1`` to ``locnet3`` are the sizes of the localisation networks before the first three stages, None for none.
    ``accuracy`` is a share of the images of ``split``, of one run with one seed.
    """

    table: str
    network: Literal["lecun", "idsia"]
    cnn: tuple[int, int, int] | tuple[int, int, int, int]
    locnet1: LocnetSizes | None
    locnet2: LocnetSizes | None
    locnet3: LocnetSizes | None
    transformer: Literal["none", "affine", "scale_translation"]
    multi_scale: bool
    local_norm: bool
    contrastive_norm: bool
    momentum: float
    train_images: int
    epochs: int
    split: PublishedSplit
    accuracy: float

    @property
    def locnets(self) -> tuple[tuple[int, LocnetSizes], ...]:
        """Each place that has a localisation network, with its sizes."""
        placed = ((1, self.locnet1), (2, self.locnet2), (3, self.locnet3))
        return tuple((place, sizes) for place, sizes in placed if sizes is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedCell(Strict):
    """A cell of a sweep, and the published result of the same configuration at full size."""

    cell_id: str
    result: PublishedResult


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTable(Strict):
    """The cells of a sweep that have a published result; ``images`` is how many the accuracies are shares of."""

    name: str
    images: int
    cells: tuple[PublishedCell, ...]
