"""The claims of 2015, tested on made-up accuracies."""

from dataclasses import dataclass, replace
from typing import Literal

import pytest

from stnbench.analysis.comparison import fit_and_compare
from stnbench.analysis.fitted import ScoredRun
from stnbench.report.claims import (
    CLAIMS,
    IMAGES_MATTER,
    LARGER_IS_BETTER,
    NETWORK_MATTERS,
    RESTRICTION_HELPS,
    TRANSFORMER_HELPS,
    Judge,
    MatchedConfiguration,
)
from stnbench.report.findings import Claim, ClaimVerdict
from stnbench.spec.sweep import PublishedResult

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

IMAGES = 100_000
WOBBLE = (0.0, 0.001, -0.001)
"""What seeds add; different configurations have it in another order."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A made-up configuration with its accuracies by seed, and those of the same network without transformers."""

    result: PublishedResult
    scores: dict[int, float]
    parameters: int | None = None
    baseline: dict[int, float] | None = None


def scores(mean: float, *, turn: int = 0) -> dict[int, float]:
    """Accuracies with three seeds about a mean."""
    return {seed: mean + WOBBLE[(seed + turn) % 3] for seed in (1, 2, 3)}


Family = Literal["affine", "scale_translation"]


def transformed(size: int, ours: float, theirs: float, *, family: Family = "affine", turn: int = 0) -> Made:
    """A config with a localisation network size,size,size and as many parameters; its baseline has 97 % in 2015."""
    result = replace(PLAIN, locnet1=(size, size, size), transformer=family, accuracy=theirs)
    return Made(result=result, scores=scores(ours, turn=turn), parameters=1000 + size, baseline=scores(0.8))


def judged(*configs: Made, seeds: tuple[int, ...] = (1, 2, 3)) -> dict[str, Claim]:
    """The claims that were tested, by name, in their order."""
    names = [f"cell {place}" for place in range(len(configs))]
    has_baseline = any(config.baseline for config in configs)
    rows = {name: config.scores for name, config in zip(names, configs, strict=True)}
    rows |= {"baseline": scores(0.8)} if has_baseline else {}
    runs = [
        ScoredRun(configuration=name, seed=seed, correct=share * IMAGES, images=IMAGES)
        for name, row in rows.items()
        for seed, share in row.items()
        if seed in seeds
    ]
    baselines = {name: "baseline" for name, config in zip(names, configs, strict=True) if config.baseline}
    comparison, fitted = fit_and_compare(runs, baselines=baselines)
    assert fitted is not None
    scored = [
        MatchedConfiguration(
            configuration=name,
            result=config.result,
            baseline=baselines.get(name),
            parameters=config.parameters,
            baseline_parameters=1000 if config.baseline else None,
            baseline_published=0.97 if config.baseline else None,
        )
        for name, config in zip(names, configs, strict=True)
    ]
    return {claim.name: claim for claim in Judge(comparison, fitted).claims(scored)}


def test_nothing_is_claimed_of_nothing() -> None:
    """A single plain configuration tests no claim."""
    assert judged(Made(result=PLAIN, scores=scores(0.9))) == {}


def test_claims_come_in_one_order() -> None:
    """That of ``CLAIMS``, whatever that of the configurations."""
    configs = [
        transformed(size, 0.9, 0.98, family=family) for family in ("scale_translation", "affine") for size in (20, 40)
    ]
    configs.append(replace(configs[0], result=replace(configs[0].result, local_norm=False)))
    configs.append(replace(configs[0], result=replace(configs[0].result, contrastive_norm=False)))

    assert tuple(judged(*configs)) == CLAIMS


def test_the_slope_is_per_doubling_of_the_localisation_network() -> None:
    """Two points more for each doubling from 20 to 80; half a point in 2015."""
    claim = judged(*(transformed(20 * 2**n, 0.8 + 0.02 * n, 0.97 + 0.005 * n) for n in range(3)))[LARGER_IS_BETTER]

    assert claim.effect.mean == pytest.approx(0.02)
    assert claim.published_effect == pytest.approx(0.005)
    assert (claim.verdict, claim.comparisons, claim.configs) == (ClaimVerdict.HOLDS, 1, 3)


def test_a_slope_is_told_either_way() -> None:
    """Two points a doubling are found where configs vary by a tenth of one, and the claim fails where they are lost."""
    rising = judged(*(transformed(20 * 2**n, 0.8 + 0.02 * n, 0.97, turn=n) for n in range(3)))[LARGER_IS_BETTER]
    falling = judged(*(transformed(20 * 2**n, 0.8 - 0.02 * n, 0.97, turn=n) for n in range(3)))[LARGER_IS_BETTER]

    assert (rising.verdict, falling.verdict) == (ClaimVerdict.HOLDS, ClaimVerdict.DOES_NOT_HOLD)
    assert "excluded" not in rising.detail


def test_what_is_undecided_has_a_bound() -> None:
    """Configs that differ by less than seeds do: every claim that is undecided says which effects are excluded."""
    families: tuple[Family, ...] = ("scale_translation", "affine")
    configs = [
        transformed(size, 0.8 + 0.0001 * turn, 0.98, family=family, turn=turn)
        for turn, family in enumerate(families)
        for size in (20, 40)
    ]
    found = judged(*configs)

    assert {claim.verdict for claim in found.values()} == {ClaimVerdict.UNDECIDED}
    assert all("excluded" in claim.detail for claim in found.values())
    effect = found[LARGER_IS_BETTER].effect
    assert effect.low is not None
    assert effect.high is not None
    assert effect.low < 0 < effect.high
    assert f"above {100 * effect.high:+.2f} pp is excluded" in found[LARGER_IS_BETTER].detail


def test_one_seed_judges_nothing() -> None:
    """Effects of one seed have no interval, every claim is undecided, and nothing is excluded."""
    configs = [transformed(20 * 2**n, 0.8 + 0.02 * n, 0.97) for n in range(3)]
    found = judged(*configs, seeds=(1,))

    assert {claim.verdict for claim in found.values()} == {ClaimVerdict.UNDECIDED}
    assert all(claim.effect.low is None and "excluded" not in claim.detail for claim in found.values())


def test_a_configuration_that_collapsed_is_in_no_claim() -> None:
    """One of three seeds at chance is no part of its configuration's mean: the slope is that of the others."""
    configs = [transformed(20 * 2**n, 0.8 + 0.02 * n, 0.97, turn=n) for n in range(3)]
    configs[1].scores[2] = 0.02
    claim = judged(*configs)[LARGER_IS_BETTER]

    assert claim.effect.mean == pytest.approx(0.02, abs=0.002)


def test_series_have_means_of_their_own() -> None:
    """A family that is better by ten points all along does not bend the slope of the other."""
    configs = [transformed(20 * 2**n, 0.6 + 0.02 * n, 0.97, turn=n) for n in range(3)]
    configs += [transformed(40 * 2**n, 0.9 + 0.02 * n, 0.97, family="scale_translation", turn=n) for n in range(2)]
    claim = judged(*configs)[LARGER_IS_BETTER]

    assert claim.effect.mean == pytest.approx(0.02, abs=0.002)
    assert (claim.comparisons, claim.configs) == (2, 5)


def test_restriction_is_judged_on_small_localisation_networks() -> None:
    """Pairs of both families with at most 100 hidden units; a large pair that says the opposite does not count."""
    configs = [
        transformed(20, 0.80, 0.97),
        transformed(20, 0.82, 0.98, family="scale_translation", turn=1),
        transformed(250, 0.90, 0.97),
        transformed(250, 0.50, 0.98, family="scale_translation", turn=1),
        transformed(60, 0.70, 0.98),
    ]
    claim = judged(*configs)[RESTRICTION_HELPS]

    assert (claim.verdict, claim.comparisons, claim.configs) == (ClaimVerdict.HOLDS, 1, 2)
    assert claim.effect.mean == pytest.approx(0.02)
    assert claim.published_effect == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("gains", "verdict", "detail"),
    [
        ((0.1, 0.1), ClaimVerdict.HOLDS, "2 of 2 configurations gain, 2 of them significantly; 0 lose significantly"),
        (
            (0.1, 0.0005),
            ClaimVerdict.UNDECIDED,
            "2 of 2 configurations gain, 1 of them significantly; 0 lose significantly",
        ),
        (
            (0.1, -0.1),
            ClaimVerdict.DOES_NOT_HOLD,
            "1 of 2 configurations gain, 1 of them significantly; 1 lose significantly",
        ),
    ],
)
def test_always_means_every_configuration(gains: tuple[float, float], verdict: ClaimVerdict, detail: str) -> None:
    """All must gain, simultaneously; one that loses is enough for the claim not to hold."""
    configs = [transformed(20 + 20 * n, 0.8 + gain, 0.98, turn=1 + n) for n, gain in enumerate(gains)]
    claim = judged(*configs)[TRANSFORMER_HELPS]

    assert claim.verdict is verdict
    assert claim.detail.startswith(detail)
    assert claim.detail.endswith("; in 2015 2 of 2")
    assert ("is excluded for all" in claim.detail) is (verdict is ClaimVerdict.UNDECIDED)
    assert claim.effect.mean == pytest.approx(sum(gains) / 2)
    assert claim.published_effect == pytest.approx(0.01)


def test_a_normalisation_is_judged_with_all_else_equal() -> None:
    """Images and network are two claims, each from pairs that differ in it alone."""
    results = [
        replace(PLAIN, local_norm=images, contrastive_norm=network, accuracy=0.9 + 0.01 * images + 0.05 * network)
        for images in (False, True)
        for network in (False, True)
    ]
    configs = [
        Made(result=result, scores=scores(result.accuracy - 0.1, turn=turn)) for turn, result in enumerate(results)
    ]
    found = judged(*configs)

    assert found[IMAGES_MATTER].effect.mean == pytest.approx(0.01)
    assert found[NETWORK_MATTERS].effect.mean == pytest.approx(0.05)
    assert found[NETWORK_MATTERS].verdict is ClaimVerdict.HOLDS
    assert found[NETWORK_MATTERS].published_effect == pytest.approx(0.05)
    assert (found[IMAGES_MATTER].comparisons, found[IMAGES_MATTER].detail) == (2, "above 0 in 2 of 2 pairs")
