"""A sweep's configurations beside what was published of them."""

from dataclasses import replace

import pandas as pd
import pytest
from made_up_results import Filler, planned, transformed

from stnbench.analysis.frames import read_trials
from stnbench.report.claims import LARGER_IS_BETTER, TRANSFORMER_HELPS, build_agreement
from stnbench.report.findings import Agreement
from stnbench.report.leaderboard import build_leaderboard
from stnbench.report.output import render
from stnbench.report.sections import published_sections
from stnbench.spec.sweep import PublishedConfiguration, PublishedResult, PublishedTable, SweepSpec
from stnbench.store.store import Store

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
SIZES = (10, 20, 30, 40, 50, 60)
OURS = (1700, 1720, 1760, 1740, 1780, 1800)
"""Images right of 2,000, rising but for one pair."""


def published() -> PublishedTable:
    """What was published of six sizes, rising, and of the network without a transformer."""
    configs = [PublishedConfiguration(config_id=transformed(SIZES[0]).baseline().config_id, result=PLAIN)]
    for n, size in enumerate(SIZES):
        result = replace(PLAIN, locnet1=(size, size, size), transformer="affine", accuracy=0.975 + 0.001 * n)
        configs.append(PublishedConfiguration(config_id=transformed(size).config_id, result=result))
    return PublishedTable(name="moodstocks_2015", images=12_630, configs=tuple(configs))


@pytest.fixture
def trials(store: Store) -> pd.DataFrame:
    """Six sizes and their baseline, three seeds each; the last size lacks one seed."""
    specs = [transformed(size, seed=seed) for seed in (1, 2, 3) for size in SIZES]
    baselines = [transformed(SIZES[0], seed=seed).baseline() for seed in (1, 2, 3)]
    filler = Filler(store).save([planned(spec) for spec in (*baselines, *specs)])
    for seed, baseline in enumerate(baselines, 1):
        filler.complete(baseline, 1600 + seed, test=1500)
    for place, spec in enumerate(specs[:-1]):
        filler.complete(spec, OURS[place % 6] + place, test=1500)
    return read_trials("sizes", store=store)


def agreement(trials: pd.DataFrame, table: PublishedTable | None = None) -> Agreement:
    """The agreement, which must be there."""
    found = build_agreement(table or published(), trials)
    assert found is not None
    return found


def test_configurations_stand_beside_what_was_published_of_them(trials: pd.DataFrame) -> None:
    """The best published first, with both ranks; the configuration without the third seed is left out and counted."""
    found = agreement(trials)

    assert [row.label for row in found.rows] == ["50,50,50", "40,40,40", "30,30,30", "20,20,20", "10,10,10", "no ST"]
    assert [row.published_rank for row in found.rows] == [1, 2, 3, 4, 5, 6]
    assert [row.our_rank for row in found.rows] == [1, 3, 2, 4, 5, 6]
    assert (found.seeds, found.left_out) == ((1, 2, 3), 1)
    best = found.rows[0]
    assert best.published.mean == pytest.approx(0.979, abs=1e-4)
    assert best.published.low < 0.979 < best.published.high  # type: ignore[operator]
    assert best.ours.n == 3


def test_the_rankings_are_compared(trials: pd.DataFrame) -> None:
    """One of 15 pairs stands the other way round: tau is 13/15."""
    found = agreement(trials)

    assert found.tau is not None
    assert found.rho is not None
    assert found.tau.value == pytest.approx(13 / 15)
    assert found.tau.p_value == pytest.approx(0.0167, abs=0.001)  # scipy's exact one
    assert found.tau.low is not None
    assert (found.rho.configs, found.rho.seeds) == (6, 3)


def test_claims_for_which_there_are_no_configurations_are_named(trials: pd.DataFrame) -> None:
    """Made-up trials all have as many parameters, so no localisation network has a size; gains are there."""
    found = agreement(trials)

    assert [claim.name for claim in found.claims] == [TRANSFORMER_HELPS]
    assert LARGER_IS_BETTER in found.untested
    assert any(LARGER_IS_BETTER in line for section in published_sections(found) for line in section.text)


def test_there_is_no_agreement_before_a_configuration_has_both(store: Store, trials: pd.DataFrame) -> None:
    """Neither without a match nor without a score."""
    assert build_agreement(replace(published(), configs=()), trials) is None
    unscored = trials.assign(validation_correct=None, validation_images=None)
    assert build_agreement(published(), unscored) is None


def test_one_configuration_has_an_agreement_and_no_ranking(trials: pd.DataFrame) -> None:
    """It is shown, without correlations."""
    found = agreement(trials, replace(published(), configs=published().configs[:1]))

    assert (len(found.rows), found.tau, found.claims) == (1, None, ())
    assert next(published_sections(found)).text[0].startswith("1 configuration of this sweep has")


def test_the_board_and_its_markdown_carry_it(trials: pd.DataFrame) -> None:
    """Every row, correlation and claim, with n, interval, split and method."""
    sweep = SweepSpec(name="sizes", question="How large?", seeds=(1, 2, 3), published=published())
    board = build_leaderboard(sweep, trials)
    assert board.agreement == agreement(trials)
    written = render([board], "md")

    assert "## Comparison with published results" in written
    assert "Kendall tau-b 0.87 [" in written
    assert "6 configurations, 3 seeds" in written
    assert "on the validation split" in written
    assert "12,630 test images" in written
    assert f"| {TRANSFORMER_HELPS} | holds |" in written
    assert "## Comparison with published results" not in render([replace(board, agreement=None)], "md")


def test_every_row_is_in_every_column(trials: pd.DataFrame) -> None:
    """Tables are whole."""
    found = agreement(trials)

    ranks, claims = (section.tables[0] for section in published_sections(found))
    assert [len(ranks.first_items()), len(claims.first_items())] == [len(found.rows), len(found.claims)]
