"""``stnbench.compare``: what it decides, what it refuses, and what it cannot be made to say."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import stnbench
from stnbench.analysis.moderated import SCALES, BlockModel, Runs
from stnbench.analysis.simultaneous import (
    critical_value,
    exceedance,
    many_to_one_table,
    mean_reach,
    pairs_table,
    seeds_to_decide,
    single_table,
)
from stnbench.cli import compare as command
from stnbench.core.errors import SpecError

SIZES = {
    "13,13,13 affine": (3469, 3592),
    "13,13,13 scale_translation": (3462, 3593),
    "13,13,6 affine": (3443, 3599),
    "13,13,6 scale_translation": (3432, 3596),
    "13,25,13 affine": (3462, 3599),
    "13,25,13 scale_translation": (3464, 3582),
    "19,19,13 affine": (3494, 3597),
    "19,19,13 scale_translation": (3498, 3603),
    "3,3,3 affine": (3441, 3587),
    "3,3,3 scale_translation": (3465, 3578),
    "4,8,4 affine": (3467, 3583),
    "4,8,4 scale_translation": (3442, 3574),
    "6,13,6 affine": (3484, 3584),
    "6,13,6 scale_translation": (3475, 3591),
    "8,8,8 affine": (3453, 3562),
    "8,8,8 scale_translation": (3493, 3588),
    "no transformer": (3422, 3493),
}
"""Images right of 3,870 with two seeds: localisation networks of several sizes before one network, and none."""


def frame_of(correct: Mapping[str, tuple[float | None, ...]], images: int = 1000) -> pd.DataFrame:
    """A frame of results; None where a seed is missing, NaN where its run failed."""
    rows = [
        (name, seed, right, images)
        for name, own in correct.items()
        for seed, right in enumerate(own, 1)
        if right is not None
    ]
    return pd.DataFrame(rows, columns=["configuration", "seed", "correct", "images"])


def sizes() -> pd.DataFrame:
    """The results of the sweep."""
    return frame_of(SIZES, images=3870)


def test_two_seeds_of_seventeen_configurations_decide() -> None:
    """14 of 16 transformers are told from the network without one, with intervals at most 2.8 points wide."""
    found = stnbench.compare(sizes(), baseline="no transformer")
    gains = found[found["configuration"] != "no transformer"]
    assert (gains["gain_p_adjusted"] <= 0.05).sum() >= 14
    assert ((gains["gain_low"] > 0) == (gains["gain_p_adjusted"] <= 0.05)).all()
    assert (gains["gain_high"] - gains["gain_low"]).max() <= 0.028


def test_nothing_is_lower_that_tukeys_test_would_not_call_so() -> None:
    """Of two seeds of 17 configurations, `lower` is a part of what Tukey's test with pooled error says."""
    table = sizes().pivot_table(index="configuration", columns="seed", values="correct") / 3870
    left = table.sub(table.mean(axis=1), axis=0) - table.mean() + table.to_numpy().mean()
    error = float(np.sqrt((left.to_numpy() ** 2).sum() / 16 / 2))
    distance = (table.mean(axis=1).max() - table.mean(axis=1)) / error
    tukey = set(table.index[stats.studentized_range.sf(distance, 17, 16) <= 0.05])
    found = stnbench.compare(sizes())
    assert set(found[found["verdict"] == "lower"]["configuration"]) <= tukey


def test_a_baseline_that_is_beaten_has_a_rank_that_says_so() -> None:
    """Pairs that are decided against the baseline count for ranks."""
    found = stnbench.compare(sizes(), baseline="no transformer").set_index("configuration")
    told = int((found["gain_low"] > 0).sum())
    assert found.loc["no transformer", "rank_low"] == 1 + told
    assert (found[found["gain_low"] > 0]["rank_high"] == 16).all()


@pytest.mark.parametrize("baseline", ["no transformer", "19,19,13 scale_translation", "8,8,8 affine"])
def test_naming_a_baseline_changes_no_verdict(baseline: str) -> None:
    """Verdicts are those of all pairs, whichever configuration is the baseline, so that their error rate is one."""
    columns = ["configuration", "verdict", "delta_low", "delta_high", "delta_p_adjusted", "seeds_needed"]
    with_baseline, without = stnbench.compare(sizes(), baseline=baseline), stnbench.compare(sizes())
    pd.testing.assert_frame_equal(with_baseline[columns], without[columns])


def test_columns_are_those_that_are_promised() -> None:
    """One row a configuration, the best first, and the gain's columns with a baseline alone."""
    columns = "configuration n mean low high rank_low rank_high verdict delta_mean delta_low delta_high"
    expected = [*columns.split(), "delta_p_adjusted", "seeds_needed"]
    gains = ["gain_mean", "gain_low", "gain_high", "gain_p_adjusted"]
    found = stnbench.compare(sizes())
    assert list(found.columns) == expected
    assert list(stnbench.compare(sizes(), baseline="no transformer").columns) == [*expected, *gains]
    assert found["mean"].is_monotonic_decreasing
    assert found["verdict"].tolist()[0] == "best"
    assert found.loc[0, "mean"] == pytest.approx((3498 + 3603) / 2 / 3870)


def test_a_configuration_far_behind_is_lower() -> None:
    """31 points behind with three seeds is lower, at the last rank; the two ahead share ranks 1 and 2."""
    found = stnbench.compare(frame_of({"a": (980, 985, 981), "b": (979, 986, 980), "c": (668, 690, 660)}))
    assert found["verdict"].tolist()[2] == "lower"
    assert found[["rank_low", "rank_high"]].to_numpy().tolist() == [[1, 2], [1, 2], [3, 3]]


def test_hard_seed_that_is_missing_crowns_nobody() -> None:
    """A configuration that is behind on all common seeds is not ahead because its hard seeds are missing."""
    hard = {f"c{place}": (900 + place, 902 + place, 800 + place, 801 + place) for place in range(5)}
    found = stnbench.compare(frame_of(hard | {"worst": (880, 881, None, None)}))
    worst = found[found["configuration"] == "worst"].iloc[0]
    assert found.loc[0, "configuration"] == "c4"
    assert found["configuration"].tolist()[-1] == "worst"
    assert worst["mean"] < 0.85
    assert any("Provisional" in note for note in found.attrs["notes"])


@pytest.mark.parametrize("wrong", [float("nan"), 23])
def test_failed_runs_are_no_part_of_the_mean_and_are_told_first(wrong: float) -> None:
    """A best configuration of which a run diverged or fell to chance is said to have one, before all else."""
    found = stnbench.compare(frame_of({"a": (960, 962, wrong), "b": (900, 903, 899), "c": (880, 881, 883)}))
    assert found.loc[0, "configuration"] == "a"
    assert found.loc[0, "n"] == 2
    assert found.loc[0, "mean"] == pytest.approx(0.961, abs=0.003)
    assert found.attrs["notes"][0].startswith("a has the highest mean, and 1 of its 3 runs failed")


def test_one_seed_decides_nothing_and_says_so() -> None:
    """One seed has intervals over images, and the verdict undecided."""
    found = stnbench.compare(frame_of({"a": (960,), "b": (900,), "c": (955,)}), baseline="b")
    assert found["verdict"].tolist() == ["best", "undecided", "undecided"]
    assert found["low"].notna().all()
    assert "One seed" in found.attrs["notes"][0]


def test_equal_scores_are_equivalent_where_images_are_many() -> None:
    """Equal counts of 1,000 images are equivalent; of 20 images, of which one weighs 5 points, they decide nothing."""
    many = stnbench.compare(frame_of(dict.fromkeys("abcd", (950, 950, 950))))
    few = stnbench.compare(frame_of(dict.fromkeys("abcd", (19, 19, 19)), images=20))
    assert many["verdict"].tolist() == ["best", *["equivalent"] * 3]
    assert few["verdict"].tolist() == ["best", *["undecided"] * 3]


def test_perfect_accuracy_has_finite_intervals() -> None:
    """Where every image is right, intervals are finite and hold 1."""
    found = stnbench.compare(frame_of({"a": (1000, 1000), "b": (1000, 1000), "c": (997, 998)}), baseline="c")
    assert np.isfinite(found[["low", "high"]].to_numpy()).all()
    assert found.loc[0, "high"] == 1.0


def test_rows_may_come_in_any_order_with_any_index_and_names() -> None:
    """Seeds named by text, rows shuffled and an index of its own change nothing."""
    plain = sizes()
    named = plain.assign(seed=plain["seed"].map({1: "one", 2: "two"})).sample(frac=1, random_state=3)
    named.index = pd.Index(range(500, 500 + len(named)))
    pd.testing.assert_frame_equal(stnbench.compare(plain), stnbench.compare(named), atol=1e-9)


def test_tasks_are_compared_by_themselves() -> None:
    """With a column task there is a best one in each."""
    both = pd.concat([sizes().assign(task="x"), sizes().assign(task="y")])
    found = stnbench.compare(both)
    assert (found["verdict"] == "best").groupby(found["task"]).sum().tolist() == [1, 1]


def test_tracks_are_summed() -> None:
    """The rows of a run's tracks make the same leaderboard as their sums."""
    whole = sizes()
    half = whole.assign(correct=whole["correct"] // 2, images=whole["images"] // 2, track="a")
    rest = whole.assign(correct=whole["correct"] - half["correct"], images=whole["images"] // 2, track="b")
    pd.testing.assert_frame_equal(stnbench.compare(pd.concat([half, rest])), stnbench.compare(whole))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="seed"), "no column seed"),
        (lambda frame: pd.concat([frame, frame.iloc[:1]]), "occurs twice"),
        (lambda frame: frame.assign(correct=5000), "5000 of 3870"),
        (lambda frame: frame.assign(correct=-1), "-1 of 3870"),
        (lambda frame: frame.assign(images=0, correct=0), "images"),
        (lambda frame: frame.assign(images=float("nan")), "no number of images"),
        (lambda frame: frame.assign(images=frame["images"] + 0.5), "images"),
        (lambda frame: pd.concat([frame.assign(track="a")] * 2), "has a track twice"),
        (lambda frame: frame.iloc[:0], "no rows"),
        (lambda frame: frame.assign(configuration=None), "missing values"),
        (lambda frame: frame.assign(correct="many"), "many"),
        (lambda frame: frame.assign(correct=frame["correct"] / frame["images"]), "holds shares, such as 0"),
        (lambda frame: pd.concat([frame, frame[["seed"]]], axis=1), "the column seed twice"),
        (
            lambda frame: pd.concat(
                [frame.assign(track="a"), frame.assign(track="b", correct=frame["correct"].where(frame["seed"] > 1))]
            ),
            "track 'b': no number of correct images",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(change: object, message: str) -> None:
    """The error names what is wrong."""
    with pytest.raises(SpecError, match=message):
        stnbench.compare(change(sizes()))  # type: ignore[operator]


@pytest.mark.parametrize("margin", [-0.1, 1, float("nan"), "0.5"])
def test_a_margin_that_is_no_share_is_refused(margin: Any) -> None:
    """Half a point is 0.005, and a margin of 1 makes everything equivalent."""
    with pytest.raises(SpecError, match="the margin is"):
        stnbench.compare(sizes(), margin=margin)


def test_unknown_baseline_is_refused() -> None:
    """It names those that there are."""
    with pytest.raises(SpecError, match="'none' is no configuration"):
        stnbench.compare(sizes(), baseline="none")


def test_command_prints_table_and_json(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    """``stnbench compare results.csv`` prints a row a configuration, and with --json one object of shares."""
    path = f"{tmp_path}/results.csv"
    sizes().to_csv(path, index=False)
    assert command.main([path, "--baseline", "no transformer"]) == 0
    assert "19,19,13 scale_translation" in capsys.readouterr().out.splitlines()[1]
    assert command.main([path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["verdict"] == "best"
    with pytest.raises(SpecError, match="cannot be read"):
        command.main([f"{tmp_path}/other.csv"])


@pytest.mark.slow
def test_comparing_needs_no_torch() -> None:
    """``import stnbench`` imports neither torch nor pandas, and ``compare`` not torch."""
    code = (
        "import sys, stnbench; assert 'pandas' not in sys.modules and 'numpy' not in sys.modules;"
        "assert callable(stnbench.compare); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(("count", "freedom"), [(3, 2), (17, 16), (60, 5)])
def test_limits_of_all_pairs_are_tukeys(count: int, freedom: int) -> None:
    """The limit over the root of 2 agrees with SciPy's studentised range to 0.1 %."""
    limit = critical_value(freedom, pairs_table(count), 0.05) * np.sqrt(2)
    assert limit == pytest.approx(stats.studentized_range.ppf(0.95, count, freedom), rel=1e-3)


def test_limits_against_one_are_dunnetts() -> None:
    """Two-sided limits of Dunnett (1964), table of 95 %: 2.57 for one and 3.03 for two with 5 degrees of freedom."""
    assert critical_value(5, single_table(), 0.05) == pytest.approx(2.571, abs=2e-3)
    assert critical_value(5, many_to_one_table(np.ones(2), 1.0), 0.05) == pytest.approx(3.03, abs=5e-3)
    assert critical_value(20, many_to_one_table(np.ones(9), 1.0), 0.05) == pytest.approx(2.95, abs=1e-2)


@pytest.mark.parametrize(("count", "freedom"), [(3, 3.0), (17, 4.5), (60, 5.0)])
def test_limits_of_all_pairs_of_t_distributed_means(count: int, freedom: float) -> None:
    """Where each mean has a t distribution of its own, 5 % of ranges exceed the limit, by simulation."""
    drawn = np.random.default_rng(count).standard_t(freedom, (20_000, count))
    limit = critical_value(1e6, pairs_table(count, freedom), 0.05)
    assert (np.ptp(drawn, axis=1) / np.sqrt(2) > limit).mean() == pytest.approx(0.05, abs=0.006)


def test_limits_against_one_of_t_distributed_means() -> None:
    """Likewise for many to one, with variances and degrees of freedom that differ and are few for the base."""
    variances, freedoms = np.array([1.0, 0.5, 4.0, 1.0, 2.0]), np.array([3.0, 5.0, 8.0, 3.0, 50.0, 2.5])
    random = np.random.default_rng(1)
    drawn = np.stack([random.standard_t(freedom, 20_000) for freedom in freedoms])
    drawn *= np.sqrt(np.append(variances, 3.0))[:, None]
    largest = (np.abs(drawn[:-1] - drawn[-1]) / np.sqrt(variances + 3.0)[:, None]).max(axis=0)
    limit = critical_value(1e6, many_to_one_table(variances, 3.0, freedoms), 0.05)
    assert (largest > limit).mean() == pytest.approx(0.05, abs=0.006)


def test_tables_of_normal_means_are_those_of_very_many_degrees_of_freedom() -> None:
    """A t distribution of 100,000 degrees of freedom has the limits of a normal one, in either family."""
    many = np.full(6, 1e5)
    assert np.allclose(pairs_table(9), pairs_table(9, 1e5), atol=1e-4)
    variances = np.linspace(0.5, 2.0, 5)
    assert np.allclose(many_to_one_table(variances, 1.0), many_to_one_table(variances, 1.0, many), atol=1e-4)


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.name)
def test_scales_have_inverses_and_slopes(scale: Any) -> None:
    """A value leads back to its share, and the slope is the derivative."""
    shares = np.linspace(0.05, 0.999, 40)
    values = scale.of(shares)
    np.testing.assert_allclose(scale.share_of(values), shares, atol=1e-12)
    step = (scale.share_of(values + 1e-6) - scale.share_of(values - 1e-6)) / 2e-6
    np.testing.assert_allclose(scale.slope(values), step, rtol=1e-5)


def test_seeds_to_decide_falls_with_the_effect() -> None:
    """A larger difference takes fewer seeds; none at all within a margin takes as many as equivalence does."""
    needed = [seeds_to_decide(effect, 0.01, configurations=5, prior_freedom=8) for effect in (0.2, 0.5, 2.0)]
    assert needed == sorted(needed, reverse=True, key=lambda seeds: seeds or 0)
    assert seeds_to_decide(0.0, 1.0, configurations=5, prior_freedom=8) is not None
    assert seeds_to_decide(0.0, 0.0, configurations=5, prior_freedom=8) is None


@pytest.mark.parametrize(("effect", "configurations"), [(0.4, 2), (1.0, 5), (1.5, 17), (2.5, 23)])
def test_seeds_to_decide_are_the_first_with_the_power(effect: float, configurations: int) -> None:
    """With so many seeds the chance of the noncentral t is 80 %, with one less it is not: no seed is lost or missing.

    Each side has a variance of its own with ``freedom`` degrees of freedom, their difference that of both.
    """
    found = seeds_to_decide(effect, 0.0, configurations=configurations, prior_freedom=8)
    assert found is not None
    chances = []
    for seeds in (found - 1, found):
        freedom = 8 + (seeds - 1) * (configurations - 1) / configurations
        limit = critical_value(1e6, pairs_table(configurations, freedom), 0.05)
        chances.append(stats.nct.sf(limit, 2 * freedom, effect * np.sqrt(seeds)))
    assert chances[0] < 0.8 <= chances[1]


@pytest.mark.parametrize(("seeds", "least", "most"), [(2, 0.917, 0.981), (3, 0.937, 0.975), (10, 0.945, 0.971)])
@pytest.mark.parametrize("own_freedom", [3.0, 8.0, 1e6])
def test_single_intervals_hold_the_mean(seeds: int, least: float, most: float, own_freedom: float) -> None:
    """By quadrature over both estimated variances, whatever part of the variance is that of seeds."""
    chances = (np.arange(200) + 0.5) / 200
    few, many = seeds - 1, max(own_freedom, seeds - 1)
    shared = stats.chi2.ppf(chances, few) / few
    own = stats.chi2.ppf(chances[::4], many) / many
    for ratio in (0.0, 0.1, 0.5, 1.0, 3.0, 10.0, 100.0):
        limits = [mean_reach(ratio * drawn, few, own, np.full(len(own), many)) for drawn in shared]
        held = float(np.mean(1 - 2 * stats.norm.sf(np.array(limits) / np.sqrt(1 + ratio))))
        assert least <= held <= most, ratio


def test_many_p_values_at_once_are_those_of_few() -> None:
    """More than 50,000 are interpolated: a hundred of them, spread over the table, each within 3 %."""
    table = many_to_one_table(np.ones(3), 1.0)
    statistics, inverse = np.geomspace(0.1, 30, 60_000), np.tile(np.linspace(0, 1, 600), 100)
    chosen = slice(None, None, 601)
    exact = exceedance(statistics[chosen], inverse[chosen], table)
    assert exceedance(statistics, inverse, table)[chosen] == pytest.approx(exact, rel=0.03, abs=1e-12)


@pytest.mark.parametrize(("steepness", "least", "most"), [(0.0, 0.6, 1.7), (1.0, 40.0, 4000.0)])
def test_a_single_run_has_the_variance_of_runs_of_its_accuracy(steepness: float, least: float, most: float) -> None:
    """Where better configurations scatter less, one without repeats does so as well; where none does, it does not."""
    centres = np.append(np.repeat(np.linspace(0, 3, 24), 6), [0.0, 3.0])
    noise = 0.05 * np.exp(-steepness * centres) * np.random.default_rng(5).standard_normal(len(centres))
    images = np.full(len(centres), 1e6)
    places = np.append(np.repeat(np.arange(24), 6), [24, 25])
    seeds = np.append(np.tile(np.arange(6), 24), [0, 0])
    runs = Runs(places, seeds, np.round(images / (1 + np.exp(-centres - noise))), images)
    variances = BlockModel(runs).moderated().expected
    assert least < variances[24] / variances[25] < most
