"""Records that compare a sweep's configurations with published results. Free of pandas, as ``board`` is.

Accuracies are shares in [0, 1], and so are effects, which are differences of accuracies.
"""

from dataclasses import dataclass
from enum import StrEnum

from stnbench.analysis.inference import Estimate, RankCorrelation
from stnbench.spec.data import Split
from stnbench.spec.sweep import PublishedSplit


class ClaimVerdict(StrEnum):
    """The verdict of our data on a claim, at the 5 % level; undecided where the data support neither answer."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A claim of 2015, tested with our configurations.

    Attributes:
        name: the claim as a sentence.
        verdict: the answer of our data.
        effect: the quantity that the claim says is above 0, paired by seed, in accuracy ``unit``.
        unit: of the effect.
        comparisons: the number of pairs, gains or series of configurations that the effect is the mean of.
        cells: the number of configurations in these.
        method: how the claim was tested.
        detail: further facts for the reader.
        published_effect: the same effect from the published accuracies, one run each; None where not all of those it
            needs are published.
    """

    name: str
    verdict: ClaimVerdict
    effect: Estimate
    unit: str
    comparisons: int
    cells: int
    method: str
    detail: str
    published_effect: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AgreementRow:
    """A configuration with our accuracy, the published one, and the ranks of both.

    ``published`` is one run, with Wilson's interval over its images. Ranks are among the configurations of the table, 1
    for the best; equal accuracies share the mean of their ranks.
    """

    cell_id: str
    label: str
    ours: Estimate
    published: Estimate
    our_rank: float
    published_rank: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """The agreement of a sweep with published results.

    Attributes:
        published: the name of the published table.
        published_split: the split of the published accuracies.
        published_images: the number of images in that split.
        split: the split of our accuracies.
        seeds: the seeds that all of the configurations have.
        rows: the configurations with both accuracies, the best published ones first.
        tau: Kendall's rank correlation; None with fewer than three such configurations.
        rho: Spearman's rank correlation; None with fewer than three such configurations.
        claims: the claims that were tested.
        untested: the names of the claims for which the sweep has no configurations.
        left_out: the number of configurations with a published accuracy that lack one of these seeds.
    """

    published: str
    published_split: PublishedSplit
    published_images: int
    split: Split
    seeds: tuple[int, ...]
    rows: tuple[AgreementRow, ...]
    tau: RankCorrelation | None
    rho: RankCorrelation | None
    claims: tuple[Claim, ...]
    untested: tuple[str, ...]
    left_out: int
