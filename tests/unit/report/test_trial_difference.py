"""The difference of two trials: all that differs, nothing that does not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_results import Filler, planned, transformed
from stored_sweeps import runs, sizes, store

from stnbench.cli.trials import main
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.report.trials import Line, Side, difference_sections, read_side
from stnbench.spec.result import Failure, FailureKind, ScoredImages
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store

__all__ = ["runs", "sizes", "store"]


@pytest.fixture(autouse=True)
def in_runs(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands work in the runs folder of the test."""
    monkeypatch.setenv("STNBENCH_RUNS", str(runs))


def lines(store: Store, first: TrialSpec, second: TrialSpec) -> dict[str, dict[str, Line]]:
    """The lines of each section by name."""
    sides = [read_side(store, store.find_trial(spec.trial_id)) for spec in (first, second)]
    return {
        section.key: {line.name: line for table in section.tables for line in table.items}
        for section in difference_sections(sides[0], sides[1])
    }


def test_only_what_differs_of_the_specification_is_shown(store: Store, sizes: list[TrialSpec]) -> None:
    """Two sizes of a localisation network differ in that; two seeds in theirs."""
    _, _, ten, twenty, _, ten_again, *_ = sizes
    assert [*lines(store, ten, twenty)["specification"]] == ["transformers[1].locnet.sizes"]
    [seed] = lines(store, ten, ten_again)["specification"].values()
    assert (seed.name, seed.first, seed.second) == ("seed", 1, 2)


def test_results_and_curves_come_with_their_difference(store: Store, sizes: list[TrialSpec]) -> None:
    """The second less the first, in percentage points where both are shares."""
    found = lines(store, sizes[2], sizes[3])
    accuracy = found["results"]["validation accuracy"]
    assert (accuracy.first, accuracy.second, accuracy.unit) == (0.925, 0.95, "%")
    assert accuracy.difference == pytest.approx(0.025)
    assert found["curves"]["last epoch"].difference == 0
    assert found["environment"] == {}


def test_a_trial_compared_with_itself_has_no_difference(store: Store, sizes: list[TrialSpec]) -> None:
    """Neither in its specification nor in its results."""
    found = lines(store, sizes[2], sizes[2])
    assert found["specification"] == {}
    assert {line.difference for line in found["results"].values()} <= {0, None}


def test_trials_of_the_same_images_are_compared_image_by_image(store: Store, sizes: list[TrialSpec]) -> None:
    """Ten images of class 1: both know five, the first two more, the second one more; other images are not compared."""
    first, second = (
        replace(read_side(store, store.find_trial(spec.trial_id)), images=ScoredImages(labels=(1,) * 10))
        for spec in sizes[2:4]
    )

    def knowing(side: Side, known: set[int]) -> Side:
        assert side.outcome is not None
        predictions = tuple(int(image in known) for image in range(10))
        score = replace(side.outcome.validation, images=10, correct=len(known), predictions=predictions)
        return replace(side, outcome=replace(side.outcome, validation=score))

    sections = difference_sections(knowing(first, {0, 1, 2, 3, 4, 5, 6}), knowing(second, {0, 1, 2, 3, 4, 7}))
    (images,) = (section for section in sections if section.key == "images")
    said = "5 of 10 validation images are right in both, 2 in the first alone, 1 in the second alone."
    assert images.text[0] == said
    assert images.text[1].startswith("p = 1 (")

    others = replace(second, images=ScoredImages(labels=(1,) * 9 + (2,)))
    assert "images" not in {section.key for section in difference_sections(first, others)}


def test_a_trial_without_a_result_is_said_to_have_none(store: Store, sizes: list[TrialSpec]) -> None:
    """Its specification is compared all the same."""
    found = lines(store, sizes[2], sizes[-1])
    assert found["results"]["validation accuracy"].second is None
    assert found["specification"]
    assert found["environment"] == {}


def test_other_code_and_machines_are_shown(store: Store) -> None:
    """What a result was made with explains what nothing else does."""
    specs = [transformed(10, seed=1), transformed(10, seed=2)]
    filler = Filler(store).save([planned(spec) for spec in specs])
    filler.complete(specs[0], 1800, commit="a" * 40)
    filler.complete(specs[1], 1800, commit="b" * 40)
    commit = lines(store, *specs)["environment"]["commit"]
    assert (commit.first, commit.second) == ("a" * 40, "b" * 40)


def test_the_command_prints_tables_json_and_csv(
    store: Store, sizes: list[TrialSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials are named as everywhere."""
    two = ["--diff", "sizes:best", sizes[2].trial_id[:8]]
    assert main(two) == 0
    assert "second \u2212 first" in capsys.readouterr().out
    assert main([*two, "--format", "json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert {section["key"] for section in plain["sections"]} >= {"specification", "results", "curves", "environment"}
    assert main([*two, "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("validation accuracy") >= 1


@pytest.mark.parametrize("words", [[], ["--diff", "a"], ["sizes", "--diff", "best", "best"], ["--diff", "best", "x#1"]])
def test_what_cannot_be_compared_is_refused(store: Store, sizes: list[TrialSpec], words: list[str]) -> None:
    """In a line with a remedy."""
    with pytest.raises((SpecError, UnknownNameError)):
        main(words)


def test_labels_of_failures_steer_no_terminal(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """They are shown escaped."""
    specs = [transformed(10), transformed(20)]
    filler = Filler(store).save([planned(spec, "x\x1b[2J") for spec in specs])
    filler.complete(specs[0], 1800)
    filler.fail(specs[1], Failure(kind=FailureKind.BUG, message="x"))
    assert main(["--diff", *(spec.trial_id for spec in specs)]) == 0
    assert "\x1b" not in capsys.readouterr().out
