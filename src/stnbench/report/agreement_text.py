"""An agreement with published results as sentences and tables of texts, the same in every format."""

from collections.abc import Iterator

from stnbench.analysis.correlation import RankCorrelation
from stnbench.analysis.inference import Estimate
from stnbench.report import text
from stnbench.report.agreement import Agreement, AgreementRow, Claim
from stnbench.report.table import Column

HEADING = "Against 2015"

_DECIMALS = 2


def agreement_sentences(agreement: Agreement) -> Iterator[str]:
    """What is compared, how far the rankings agree, and what the intervals leave out."""
    cells, seeds = len(agreement.rows), len(agreement.seeds)
    yield (
        f"{_counted(cells, 'cell')} of this sweep {'has' if cells == 1 else 'have'} an accuracy in "
        f"{agreement.published}: ours are means over {_counted(seeds, 'seed')} on the {agreement.split} split, those "
        f"of 2015 one run each at full size on the {agreement.published_images:,} {agreement.published_split} images."
    )
    for correlation in (agreement.tau, agreement.rho):
        if correlation is not None:
            yield _correlation(correlation)
    if agreement.tau is not None and agreement.tau.low is not None:
        yield (
            "The intervals are for the mean accuracies that infinitely many of our seeds would give, of these cells; "
            "how much a published run would change with its seed is not in them. Noise draws a rank correlation "
            "towards 0, so the value may lie low in its interval."
        )
    if agreement.left_out:
        yield f"{_counted(agreement.left_out, 'cell')} with a published accuracy left out, for want of a seed."


def claim_sentences(agreement: Agreement) -> Iterator[str]:
    """How claims are judged, and which could not be."""
    if agreement.claims:
        yield (
            "Each claim is tested at 5 % by itself, on our cells; undecided means that our seeds say neither. What the "
            "published accuracies of the same cells say has no interval: one run each."
        )
    if agreement.untested:
        yield f"Not tested, for want of cells: {'; '.join(agreement.untested)}."


def agreement_columns(agreement: Agreement) -> list[Column]:
    """The cells with both accuracies and both ranks, one row each."""

    def column(heading: str, cells: Iterator[str], importance: int, *, is_number: bool = True) -> Column:
        return Column(heading=heading, cells=tuple(cells), is_number=is_number, importance=importance)

    rows = agreement.rows
    return [
        column("cell", (text.clean(row.label) for row in rows), 9, is_number=False),
        column("rank in 2015", (_rank(row.published_rank) for row in rows), 9),
        column("rank here", (_rank(row.our_rank) for row in rows), 9),
        column("2015, test % [95 %] W", (text.score(row.published, _DECIMALS) for row in rows), 7),
        column(f"here, {agreement.split} % [95 %]", map(_ours, rows), 8),
        column("n", (str(row.ours.n) for row in rows), 6),
    ]


def claim_columns(agreement: Agreement) -> list[Column]:
    """The claims that were tested, one row each."""

    def column(heading: str, cells: Iterator[str], importance: int, *, is_number: bool = False) -> Column:
        return Column(heading=heading, cells=tuple(cells), is_number=is_number, importance=importance)

    claims = agreement.claims
    return [
        column("claim of 2015", (claim.name for claim in claims), 9),
        column("verdict", (claim.verdict.value for claim in claims), 9),
        column("effect (points) [95 %]", (_effect(claim.effect) for claim in claims), 8, is_number=True),
        column("in 2015", (_published_effect(claim) for claim in claims), 7, is_number=True),
        column("n", (_compared(claim) for claim in claims), 6),
        column("method", (f"effect {claim.unit}: {claim.method}; {claim.detail}" for claim in claims), 5),
    ]


def _correlation(found: RankCorrelation) -> str:
    interval = "" if found.low is None or found.high is None else f" [{found.low:.2f}, {found.high:.2f}] at 95 %"
    return (
        f"{found.measure} {found.value:.2f}{interval} ({found.method}; {_counted(found.cells, 'cell')}, "
        f"{_counted(found.seeds, 'seed')}); p = {found.p_value:.2g} for no agreement, by permutation of cells."
    )


def _ours(row: AgreementRow) -> str:
    return f"{text.score(row.ours, _DECIMALS)} {text.method(row.ours)}"


def _effect(effect: Estimate) -> str:
    return text.points(effect, _DECIMALS)


def _published_effect(claim: Claim) -> str:
    if claim.published_effect is None:
        return text.MISSING
    only = Estimate(n=1, mean=claim.published_effect, low=None, high=None, method="")
    return text.points(only, _DECIMALS)


def _compared(claim: Claim) -> str:
    return f"{claim.comparisons} from {claim.cells} cells, {_counted(claim.effect.n, 'seed')}"


def _rank(rank: float) -> str:
    return f"{rank:g}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
