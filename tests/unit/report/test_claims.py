"""The claims of 2015, tested on made-up accuracies."""

from dataclasses import replace

import pytest

from stnbench.report.agreement import Claim, ClaimVerdict
from stnbench.report.claims import (
    CLAIMS,
    IMAGES_MATTER,
    LARGER_IS_BETTER,
    NETWORK_MATTERS,
    RESTRICTION_HELPS,
    TRANSFORMER_HELPS,
    ScoredCell,
    judge_claims,
)
from stnbench.spec.published import PublishedResult

PLAIN = PublishedResult(
    table="baseline",
    network="lecun",
    cnn=(108, 200, 100),
    locnet1=None,
    locnet2=None,
    locnet3=None,
    transformer="none",
    multi_scale=False,
    local_norm=True,
    contrastive_norm=True,
    momentum=0.0,
    train_images=20_000,
    epochs=10,
    split="test",
    accuracy=0.97,
)

WOBBLE = (0.0, 0.001, -0.001)
"""What seeds add; different cells have it in another order."""


def scores(mean: float, *, turn: int = 0) -> dict[int, float]:
    """Accuracies with three seeds about a mean."""
    return {seed: mean + WOBBLE[(seed + turn) % 3] for seed in (1, 2, 3)}


def transformed(
    size: int, ours: float, theirs: float, *, family: str = "affine", twin: float = 0.8, turn: int = 0
) -> ScoredCell:
    """A cell with a localisation network size,size,size, whose parameters grow with it; its twin has 97 % in 2015."""
    result = replace(PLAIN, locnet1=(size, size, size), transformer=family, accuracy=theirs)
    return ScoredCell(
        result=result,
        scores=scores(ours, turn=turn),
        parameters=1000 + size,
        twin=scores(twin),
        twin_parameters=1000,
        twin_published=0.97,
    )


def judged(*cells: ScoredCell) -> dict[str, Claim]:
    """The claims that were tested, by name."""
    return {claim.name: claim for claim in judge_claims(cells)}


def test_nothing_is_claimed_of_nothing() -> None:
    """A single plain cell tests no claim."""
    assert judged(ScoredCell(result=PLAIN, scores=scores(0.9))) == {}


def test_claims_come_in_one_order() -> None:
    """That of ``CLAIMS``, whatever that of the cells."""
    cells = [
        transformed(size, 0.9, 0.98, family=family) for family in ("scale_translation", "affine") for size in (20, 40)
    ]
    cells.append(replace(cells[0], result=replace(cells[0].result, local_norm=False)))
    cells.append(replace(cells[0], result=replace(cells[0].result, contrastive_norm=False)))

    assert tuple(claim.name for claim in judge_claims(cells)) == CLAIMS


def test_the_slope_is_per_doubling_of_the_localisation_network() -> None:
    """Two points more for each doubling from 20 to 80; half a point in 2015."""
    claim = judged(*(transformed(20 * 2**n, 0.8 + 0.02 * n, 0.97 + 0.005 * n) for n in range(3)))[LARGER_IS_BETTER]

    assert claim.effect.mean == pytest.approx(0.02)
    assert claim.published_effect == pytest.approx(0.005)
    assert (claim.verdict, claim.comparisons, claim.cells) == (ClaimVerdict.UNDECIDED, 1, 3)
    assert "3 series" in claim.detail


def test_equal_differences_of_few_seeds_prove_nothing() -> None:
    """All cells wobble alike above, so three seeds have one slope; with noise of its own it is told."""
    alike = judged(*(transformed(20 * 2**n, 0.8 + 0.02 * n, 0.97) for n in range(3)))[LARGER_IS_BETTER]
    noisy = judged(*(transformed(20 * 2**n, 0.8 + 0.02 * n, 0.97, turn=n) for n in range(3)))[LARGER_IS_BETTER]
    falling = judged(*(transformed(20 * 2**n, 0.8 - 0.02 * n, 0.97, turn=n) for n in range(3)))[LARGER_IS_BETTER]

    assert alike.effect.spread == 0
    assert (alike.verdict, noisy.verdict) == (ClaimVerdict.UNDECIDED, ClaimVerdict.HOLDS)
    assert falling.verdict is ClaimVerdict.DOES_NOT_HOLD


def test_series_have_means_of_their_own() -> None:
    """A family that is better by ten points all along does not bend the slope of the other."""
    cells = [transformed(20 * 2**n, 0.6 + 0.02 * n, 0.97, turn=n) for n in range(3)]
    cells += [transformed(40 * 2**n, 0.9 + 0.02 * n, 0.97, family="scale_translation", turn=n) for n in range(2)]
    claim = judged(*cells)[LARGER_IS_BETTER]

    assert claim.effect.mean == pytest.approx(0.02, abs=0.002)
    assert (claim.comparisons, claim.cells) == (2, 5)


def test_restriction_is_judged_on_small_localisation_networks() -> None:
    """Pairs of both families with at most 100 hidden units; a large pair that says the opposite does not count."""
    cells = [
        transformed(20, 0.80, 0.97),
        transformed(20, 0.82, 0.98, family="scale_translation", turn=1),
        transformed(250, 0.90, 0.97),
        transformed(250, 0.50, 0.98, family="scale_translation", turn=1),
        transformed(60, 0.70, 0.98),
    ]
    claim = judged(*cells)[RESTRICTION_HELPS]

    assert (claim.verdict, claim.comparisons, claim.cells) == (ClaimVerdict.HOLDS, 1, 2)
    assert claim.effect.mean == pytest.approx(0.02)
    assert claim.published_effect == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("gains", "verdict", "detail"),
    [
        ((0.1, 0.1), ClaimVerdict.HOLDS, "2 of 2 cells gain, 2 of them significantly, 0 lose significantly"),
        ((0.1, 0.0005), ClaimVerdict.UNDECIDED, "2 of 2 cells gain, 1 of them significantly, 0 lose significantly"),
        ((0.1, -0.1), ClaimVerdict.DOES_NOT_HOLD, "1 of 2 cells gain, 1 of them significantly, 1 lose significantly"),
    ],
)
def test_always_means_every_cell(gains: tuple[float, float], verdict: ClaimVerdict, detail: str) -> None:
    """All must gain by Holm's correction; one that loses is enough for the claim not to hold."""
    cells = [transformed(20 + 20 * n, 0.8 + gain, 0.98, turn=1 + n) for n, gain in enumerate(gains)]
    claim = judged(*cells)[TRANSFORMER_HELPS]

    assert (claim.verdict, claim.detail) == (verdict, f"{detail}; in 2015 2 of 2")
    assert claim.effect.mean == pytest.approx(sum(gains) / 2)
    assert claim.published_effect == pytest.approx(0.01)


def test_a_normalisation_is_judged_with_all_else_equal() -> None:
    """Images and network are two claims, each from pairs that differ in it alone."""
    results = [
        replace(PLAIN, local_norm=images, contrastive_norm=network, accuracy=0.9 + 0.01 * images + 0.05 * network)
        for images in (False, True)
        for network in (False, True)
    ]
    cells = [
        ScoredCell(result=result, scores=scores(result.accuracy - 0.1, turn=turn))
        for turn, result in enumerate(results)
    ]
    found = judged(*cells)

    assert found[IMAGES_MATTER].effect.mean == pytest.approx(0.01)
    assert found[NETWORK_MATTERS].effect.mean == pytest.approx(0.05)
    assert found[NETWORK_MATTERS].verdict is ClaimVerdict.HOLDS
    assert found[NETWORK_MATTERS].published_effect == pytest.approx(0.05)
    assert (found[IMAGES_MATTER].comparisons, found[IMAGES_MATTER].detail) == (2, "above 0 in 2 of 2 pairs")
