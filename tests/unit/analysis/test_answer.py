"""Answers of made-up sweeps, of which it is known what they must say."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from stnbench.analysis.answer import Group, Placed, build_answer, size_of
from stnbench.analysis.comparison import fit_and_compare
from stnbench.analysis.fitted import ScoredRun
from stnbench.analysis.ranks import nemenyi, summarise_tasks
from stnbench.analysis.verdicts import Answer, Comparison, Topic


def sweep(
    *,
    gain: float = 0.0,
    per_doubling: float = 0.0,
    restriction: float = 0.0,
    seeds: int = 4,
    noise: float = 0.002,
    failed: bool = False,
    seed: int = 0,
) -> Group:
    """Sizes of 10 to 80 with two families, and the network without a transformer."""
    rng = np.random.default_rng(seed)
    effects = {"none": 0.0}
    placed = [Placed(configuration="none", label="no transformer", axes={}, has_axes=False)]
    for power, size in enumerate((10, 20, 40, 80)):
        for family in ("affine", "scale"):
            name = f"{size} {family}"
            effects[name] = gain + per_doubling * power + restriction * (family == "scale")
            axes = {"size": f"sizes={size}", "family": family}
            placed.append(Placed(configuration=name, label=name, axes=axes, baseline="none"))
    block = rng.normal(0, 0.01, seeds)
    runs = []
    for name, effect in effects.items():
        for place in range(seeds):
            right = round(10000 * (0.9 + effect + block[place] + rng.normal(0, noise)))
            lost = failed and name == "80 scale" and place == 0
            runs.append(ScoredRun(configuration=name, seed=place, correct=None if lost else right, images=10000))
    baselines = {item.configuration: "none" for item in placed if item.baseline}
    comparison, fitted = fit_and_compare(runs, baselines=baselines)
    return Group(name="", comparison=comparison, fitted=fitted, placed=placed)


def about(answer: Answer, topic: Topic, axis: str = "") -> str:
    """The sentence about a topic."""
    (text,) = [item.text for item in answer.sentences if item.topic is topic and item.axis == axis]
    return text


def test_a_transformer_that_helps_is_said_to() -> None:
    """Two points of gain are found, with the number that gain one by one."""
    answer = build_answer([sweep(gain=0.02)])
    assert answer.lines[0].startswith("A spatial transformer helps: +")
    assert "8 of 8" in answer.lines[0]
    assert 2 <= len(answer.sentences) <= 5


def test_a_transformer_that_hurts_is_said_to() -> None:
    """Two points of loss are a decided answer as well."""
    assert build_answer([sweep(gain=-0.02)]).lines[0].startswith("A spatial transformer hurts: -")


def test_a_loss_is_said_without_a_second_sign() -> None:
    """'Lowers accuracy by' a positive number; a level of several words stands in quotation marks."""
    answer = build_answer([sweep(gain=0.02, per_doubling=-0.01, seed=5)])
    (sentence,) = [item for item in answer.sentences if item.topic is Topic.TREND]
    assert re.match(r"size: a doubling lowers accuracy by 1\.\d\d pp \[0\.\d\d, 1\.\d\d\], over 4 sizes", sentence.text)
    group = sweep(restriction=0.01)
    renamed = [replace(item, axes={**item.axes, "family": f"with {item.axes.get('family')}"}) for item in group.placed]
    assert "'with scale' is better than 'with affine' by 0." in about(
        build_answer([replace(group, placed=renamed)]), Topic.AXIS, "family"
    )


def test_runs_without_a_score_are_not_taken_for_one_seed() -> None:
    """Nor are configurations that share no seed; two of them have one other."""
    nothing = [ScoredRun(configuration=name, seed=1, correct=None, images=10) for name in "ab"]
    apart = [ScoredRun(configuration=name, seed=place, correct=9, images=10) for place, name in enumerate("ab")]
    said = []
    for runs in (nothing, apart):
        comparison, fitted = fit_and_compare(runs)
        said.append(build_answer([Group(name="", comparison=comparison, fitted=fitted)]).lines)
    assert "no run has a score" in said[0][0].lower()
    assert "no configuration has two seeds" in said[1][0]
    assert "the other one is undecided" in said[1][-1]


def test_no_effect_has_a_bound() -> None:
    """Where nothing differs, every sentence says how large a difference could have been missed, and it holds 0."""
    answer = build_answer([sweep(seed=5)])
    assert "No effect of a spatial transformer was seen" in about(answer, Topic.TRANSFORMER)
    assert "a doubling changes accuracy by at most" in about(answer, Topic.TREND, "size")
    assert "is excluded" in about(answer, Topic.AXIS, "family")
    assert not any(item.is_decided for item in answer.sentences if item.axis)


def test_a_trend_is_found_with_its_size() -> None:
    """One point a doubling is found, and its interval holds it."""
    answer = build_answer([sweep(gain=0.02, per_doubling=0.01, seed=5)])
    (sentence,) = [item for item in answer.sentences if item.topic is Topic.TREND]
    ((_, effect),) = sentence.effects
    assert sentence.text.startswith("size: a doubling raises accuracy by ")
    assert effect.low is not None
    assert effect.high is not None
    assert effect.low < 0.01 < effect.high


def test_levels_that_differ_are_named_in_order() -> None:
    """A family that is a point ahead is said to be."""
    answer = build_answer([sweep(restriction=0.01)])
    assert about(answer, Topic.AXIS, "family").startswith("family: scale is better than affine by ")


def test_a_best_one_with_a_failed_run_is_the_first_sentence() -> None:
    """Nobody reads of the best before they read that one of its runs failed."""
    answer = build_answer([sweep(per_doubling=0.01, restriction=0.01, failed=True)])
    assert answer.sentences[0].topic is Topic.CAUTION
    assert "1 of its 4 runs diverged or collapsed" in answer.lines[0]


def test_one_seed_is_asked_for_a_second() -> None:
    """One seed answers nothing and says what it takes."""
    answer = build_answer([sweep(gain=0.02, seeds=1)])
    assert "a second one is needed" in answer.lines[0]
    assert not any(item.is_decided for item in answer.sentences)


@pytest.mark.thorough
@pytest.mark.slow
def test_bounds_hold_as_often_as_they_say() -> None:
    """Of 200 sweeps without any effect, at most 8 % (5 and two standard errors) claim one of size or transformer."""
    size = transformer = 0
    for seed in range(200):
        answer = build_answer([sweep(seed=seed, seeds=3)])
        size += any(item.topic is Topic.TREND and item.is_decided for item in answer.sentences)
        transformer += not about(answer, Topic.TRANSFORMER).startswith(("No effect", "On average"))
    assert size / 200 <= 0.08
    assert transformer / 200 <= 0.08


@pytest.mark.parametrize(
    ("label", "size"), [("20,20,20", 20.0), ("kernel_size=5", 5.0), ("0.01", 0.01), ("affine", None), ("2,8", 4.0)]
)
def test_sizes_are_read_from_labels(label: str, size: float | None) -> None:
    """Numbers, keys with numbers, and lists by their geometric mean; names have no size."""
    assert size_of(label) == (None if size is None else pytest.approx(size))


def test_critical_difference_is_demsars() -> None:
    """For 4 configurations on 14 data sets it is 1.25 (Demsar 2006, section 3.2.2: q = 2.569)."""
    assert nemenyi(4, 14) == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), rel=1e-3)


def tasks(count: int, *, lost: bool = False) -> tuple[dict[str, Comparison], dict[str, dict[str, str]]]:
    """Three configurations over tasks, each a point ahead of the next one; one may have failed on the first task."""
    comparisons, names = {}, {}
    for place in range(count):
        runs = [
            ScoredRun(
                configuration=name,
                seed=seed,
                correct=None if lost and place == 0 and name == "a" else 9000 + 200 * rank + 7 * seed + 3 * rank * seed,
                images=10000,
            )
            for rank, name in enumerate("cba")
            for seed in range(3)
        ]
        comparisons[f"t{place}"] = fit_and_compare(runs, all_pairs=True)[0]
        names[f"t{place}"] = {name: name for name in "abc"}
    return comparisons, names


def test_ranks_over_six_tasks() -> None:
    """The one that is always ahead has mean rank 1, wins all pairs, and Friedman's p is SciPy's."""
    found = summarise_tasks(*tasks(6))
    assert found is not None
    assert [(row.configuration, row.mean_rank, row.wins, row.losses) for row in found.ranks] == [
        ("a", 1.0, 12, 0),
        ("b", 2.0, 6, 6),
        ("c", 3.0, 0, 12),
    ]
    scores = [[3.0] * 6, [2.0] * 6, [1.0] * 6]
    assert found.friedman_p == pytest.approx(stats.friedmanchisquare(*scores).pvalue)
    assert found.critical_difference == pytest.approx(nemenyi(3, 6))


def test_few_tasks_have_no_critical_difference_and_say_why() -> None:
    """Four tasks are ranked, and the note says that five are needed."""
    found = summarise_tasks(*tasks(4))
    assert found is not None
    assert found.critical_difference is None
    assert "5 or more are needed" in found.note


def test_a_failure_on_a_task_is_the_worst_rank_and_counted() -> None:
    """What has no mean on one task ranks last there."""
    found = summarise_tasks(*tasks(6, lost=True))
    assert found is not None
    (row,) = [row for row in found.ranks if row.configuration == "a"]
    assert row.imputed == 1
    assert row.mean_rank == pytest.approx(8 / 6)
