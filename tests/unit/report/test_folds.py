"""What a sweep with an axis of folds says over all of them: from a real store, and in words."""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
from made_up_results import IMAGES, NOW, Filler, planned, result, transformed

from stnbench.analysis.verdicts import FOLDS_METHOD, Verdict, folds_accuracy
from stnbench.report.findings import FoldsFinding
from stnbench.report.output import read_leaderboard
from stnbench.report.render.text import to_terminal
from stnbench.report.sections import board_sections
from stnbench.spec.data import FoldSplitSpec
from stnbench.spec.sweep import Axis, Choice, Override, Point, SweepSpec
from stnbench.store.store import Store
from stnbench.store.tables import PlannedTrial

ERRORS = {10: {0: (12, 16), 1: (30, 34), 2: (21, 19)}, 20: {0: (10, 14), 1: (27, 33), 2: (18, 16)}}
"""Of the networks of two seeds, by size and fold."""


def axis(name: str, *values: int) -> Axis:
    """An axis of whole numbers."""
    choices = (Choice(label=f"{name}={value}", overrides=(Override(key=name, value=value),)) for value in values)
    return Axis(name=name, choices=tuple(choices))


SWEEP = SweepSpec(
    name="sizes", question="Which?", axes=(axis("size", 10, 20), axis("split.fold", 0, 1, 2)), within="split.fold"
)


def trial(size: int, fold: int, seed: int) -> PlannedTrial:
    """The trial of a size that holds a fold out."""
    spec = replace(transformed(size, seed=seed), split=FoldSplitSpec(folds=3, fold=fold))
    point = Point(labels=(("size", f"size={size}"), ("split.fold", f"split.fold={fold}")))
    return PlannedTrial(spec=spec, point=point, label=f"size={size} \u00b7 split.fold={fold}")


def fill(store: Store, sweep: SweepSpec, *, but: tuple[tuple[int, int, int], ...] = ()) -> None:
    """Every trial of the sweep, complete but for some (size, fold, seed)."""
    keys = list(product(ERRORS, range(3), (1, 2)))
    store.save_sweep(sweep, [trial(*key) for key in keys], NOW)
    for size, fold, seed in keys:
        if (size, fold, seed) not in but:
            spec = trial(size, fold, seed).spec
            token = Filler(store, name=sweep.name).start(spec)
            right = IMAGES - ERRORS[size][fold][seed - 1]
            store.complete_attempt(token, result(spec, token, right, test=right), NOW)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with the whole sweep, made once; tests only read it."""
    with Store.open(tmp_path_factory.mktemp("whole") / "stnbench.db", writable=True) as store:
        fill(store, SWEEP)
        yield store


def found(store: Store, split: str = "validation") -> tuple[FoldsFinding, ...]:
    """The findings over folds."""
    board = read_leaderboard(store, "sizes", split="test" if split == "test" else "validation")
    assert board.findings is not None
    return board.findings.folds


def test_recipes_are_configurations_that_differ_in_their_fold_alone(whole: Store) -> None:
    """Errors are summed over folds, a mean over seeds in each; the better recipe comes first."""
    best, other = found(whole)
    assert [recipe.label for recipe in (best, other)] == ["size=20", "size=10"]
    for recipe, errors in ((best, (12, 30, 17)), (other, (14, 32, 20))):
        assert (recipe.group, recipe.folds, recipe.scored_folds, recipe.networks) == ("", 3, 3, 6)
        assert (recipe.errors, recipe.images) == pytest.approx((sum(errors), 3 * IMAGES))
        assert recipe.accuracy == folds_accuracy(errors, [IMAGES] * 3)


def test_recipes_are_compared_by_fold(whole: Store) -> None:
    """2, 2 and 3 errors more are 0.117 points, paired by fold, with the method said."""
    best, other = found(whole)
    assert (best.standing, best.difference, best.corrected_p) == (Verdict.BEST, None, None)
    assert other.difference is not None
    assert other.difference.mean == pytest.approx(-7 / 3 / IMAGES)
    assert (other.difference.n, other.difference.method) == (3, FOLDS_METHOD)
    assert other.corrected_p == pytest.approx(other.difference.p_value)
    assert other.standing is Verdict.LOWER


def test_folds_without_a_score_are_counted_and_left_out(store: Store) -> None:
    """A fold that no seed has finished is missing from the images as well; one fold alone says nothing."""
    fill(store, SWEEP, but=((10, 0, 1), (10, 0, 2), (10, 1, 2), (20, 0, 1), (20, 0, 2), (20, 1, 1), (20, 1, 2)))
    (recipe,) = found(store)
    assert (recipe.label, recipe.scored_folds, recipe.folds, recipe.networks) == ("size=10", 2, 3, 3)
    assert (recipe.errors, recipe.images) == pytest.approx((30 + 20, 2 * IMAGES))


def test_the_test_split_is_not_summed(whole: Store) -> None:
    """All folds are scored on the same test images: nothing is said over them."""
    assert found(whole, "test") == ()


def test_other_axes_are_groups_where_the_sweep_compares_within_them(store: Store) -> None:
    """Each size is a task of its own then, and the best of it."""
    fill(store, replace(SWEEP, within="size"))
    assert [(recipe.group, recipe.standing) for recipe in found(store)] == [
        ("size=10", Verdict.BEST),
        ("size=20", Verdict.BEST),
    ]


def test_a_sweep_of_folds_alone_goes_by_its_name(store: Store) -> None:
    """What is left of the label is nothing, so the recipe is called as the sweep is."""
    sweep = SweepSpec(name="sizes", question="How good?", axes=(axis("split.fold", 0, 1, 2),))
    trials = [
        replace(
            trial(10, fold, 1), point=Point(labels=(("split.fold", f"split.fold={fold}"),)), label=f"split.fold={fold}"
        )
        for fold in range(3)
    ]
    store.save_sweep(sweep, trials, NOW)
    for item in trials:
        Filler(store).complete(item.spec, IMAGES - 10)
    (recipe,) = found(store)
    assert recipe.label == "sizes"
    assert recipe.errors == pytest.approx(30)


def test_sweeps_without_such_an_axis_say_nothing(store: Store) -> None:
    """There are no folds to sum over."""
    Filler(store).save([planned(transformed(10))]).complete(transformed(10), 1900)
    assert found(store) == ()


def test_the_words_say_what_is_in_the_interval(whole: Store) -> None:
    """The first part of the findings is a row a recipe, and tells the method and its limit."""
    section = next(part for part in board_sections(read_leaderboard(whole, "sizes")) if part.key == "folds")
    (table,) = section.tables
    configs = {column.heading: [column.show(item) for item in table.items] for column in table.people_columns()}
    assert configs["configuration"] == ["size=20", "size=10"]
    assert configs["errors"] == ["59", "66"]
    assert configs["folds"] == ["3 of 3", "3 of 3"]
    assert configs["validation % [95 %]"][0].startswith("99.02 [")
    assert any("Bengio and Grandvalet" in line for line in section.notes)


def test_a_terminal_shows_them_below_the_leaderboard(whole: Store) -> None:
    """The best recipe in a sentence with its interval's method, and a row for each."""
    board = read_leaderboard(whole, "sizes")
    lines = to_terminal(board.sweep, board.question, board_sections(board)).splitlines()
    (best,) = [line for line in lines if line.startswith("Over 3 of 3 folds")]
    assert best.startswith("Over 3 of 3 folds, size=20: 99.02 [")
    assert best.endswith("] % of 6,000 images (t over folds), 59 errors.")
    assert any("66  -0.12 [" in line for line in lines)


def test_one_recipe_over_its_folds_is_no_comparison(store: Store) -> None:
    """Its folds are no configurations to rank: the answer is its accuracy over all of them, and no seed is missing."""
    images = {0: IMAGES, 1: IMAGES - 100, 2: IMAGES}
    sweep = SweepSpec(name="alone", question="How good?", seeds=(1,), axes=SWEEP.axes[1:], within="split.fold")
    planned_trials = [
        replace(one, point=Point(labels=one.point.labels[1:]), label=one.point.labels[1][1])
        for one in (trial(10, fold, 1) for fold in range(3))
    ]
    store.save_sweep(sweep, planned_trials, NOW)
    for fold, one in enumerate(planned_trials):
        token = Filler(store, name=sweep.name).start(one.spec)
        right = images[fold] - ERRORS[10][fold][0]
        store.complete_attempt(token, result(one.spec, token, right, images=images[fold]), NOW)

    board = read_leaderboard(store, "alone")
    (answer, *_) = board_sections(board)
    assert board.tasks is None
    assert not [note for note in board.notes if "numbers of images" in note]
    (line,) = answer.text
    assert re.match(r"Over 3 of 3 folds, alone: 9\d\.\d+ \[.*\] % of [\d,]+ images \(.*\), 63 errors\.$", line), line
