"""A sweep's cells beside what was published of the same configurations. No pandas here, as in ``board``.

Accuracies are shares in [0, 1], and so are effects, which are differences of accuracies.
"""

from dataclasses import dataclass
from enum import StrEnum

from stnbench.analysis.inference import Estimate, RankCorrelation
from stnbench.spec.data import Split
from stnbench.spec.sweep import PublishedSplit


class ClaimVerdict(StrEnum):
    """What our data say of a claim, at 5 %; undecided where they say neither."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A claim of 2015, tested with our cells.

    ``effect`` is what the claim says is above 0, paired by seed, in accuracy ``unit``. ``comparisons`` is of how many
    pairs, gains or series of cells it is the mean, ``cells`` how many cells these have. ``method`` says how it was
    tested, ``detail`` what else there is to know. ``published_effect`` is the same of the published accuracies, one run
    each; None where not all of those it needs are published.
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
    """One cell: our accuracy, the published one (one run, with Wilson's interval over its images), and their ranks.

    Ranks are among the cells of the table, 1 for the best; equal accuracies share the mean of theirs.
    """

    cell_id: str
    label: str
    ours: Estimate
    published: Estimate
    our_rank: float
    published_rank: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """What a sweep says of published results: the cells that have both, the best published ones first.

    ``tau`` and ``rho`` are None where there are fewer than three such cells. ``seeds`` are those that all of them have;
    ``left_out`` is how many cells have a published accuracy and not all of these seeds. ``untested`` names the claims
    for which the sweep has no cells.
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
