"""Committees from a store and the folders of its trials: who is in them, what they score, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from made_up_committees import IMAGES, TEST, VALIDATION, Committees
from made_up_results import Filler, transformed
from narrowed import known

from stnbench.cli.report import main
from stnbench.core.errors import FolderError, SpecError, UnknownNameError
from stnbench.core.files import AttemptLayout, RunsLayout
from stnbench.report import output, render
from stnbench.report.ensemble import Ensemble, read_ensemble
from stnbench.report.ensemble_sections import ensemble_json, ensemble_sections, title
from stnbench.report.render.text import to_terminal as terminal
from stnbench.spec.data import AllSplitSpec, TrackSplitSpec
from stnbench.spec.result import Failure, FailureKind
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.trials.score import Rescored

CORRECT = (40, 44, 48, 46, 42, 45)
"""Of 60 validation images; configurations 10 and 20 with three seeds each, seed by seed."""

Read = Callable[..., Ensemble]


def to_markdown(ensemble: Ensemble) -> str:
    """In Markdown."""
    return output.render_sections(title(ensemble), "", ensemble_sections(ensemble), "md")


def to_terminal(ensemble: Ensemble) -> str:
    """As plain lines."""
    return terminal(title(ensemble), "", ensemble_sections(ensemble))


def to_json(ensemble: Ensemble) -> str:
    """As JSON."""
    return render.to_json(ensemble_json(ensemble))


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """The sweep ``sizes`` with six complete trials and one that failed."""

    specs: list[TrialSpec]
    committees: Committees
    filler: Filler


@pytest.fixture
def made(store: Store, runs: Path) -> Made:
    """Two configs with three seeds, all right on more test images the fewer validation images they have right."""
    specs = [transformed(size, seed=seed) for size in (10, 20) for seed in (1, 2, 3)]
    failed = transformed(30)
    committees = Committees(store, runs)
    filler = committees.plan([*specs, failed])
    for spec, correct in zip(specs, CORRECT, strict=True):
        committees.complete(filler, spec, correct, test=95 - correct)
    filler.fail(failed, Failure(kind=FailureKind.DIVERGED, message="the loss is nan", traceback=""))
    return Made(specs=specs, committees=committees, filler=filler)


@pytest.fixture
def read(store: Store, runs: Path) -> Read:
    """The committee of the sweep ``sizes`` that a text chooses."""

    def read_one(text: str, **options: object) -> Ensemble:
        return read_ensemble(store, RunsLayout(runs), "sizes", text, **options)  # type: ignore[arg-type]

    return read_one


def ids(committee: Ensemble) -> list[str]:
    """The members, in order."""
    return [member.trial_id for member in committee.members]


def test_top_is_chosen_by_validation_whatever_it_is_scored_on(made: Made, read: Read) -> None:
    """The best of validation are the worst of test, and the members all the same; each output says what that means."""
    best = [made.specs[place].trial_id for place in (2, 3, 5)]
    validation, test = read("top:3"), read("top:3", split="test")
    assert ids(validation) == ids(test) == best
    assert [round(member.score.mean * IMAGES) for member in test.members] == [47, 49, 50]
    assert [round(known(member.validation).mean * IMAGES) for member in test.members] == [48, 46, 45]
    assert "Warning" in validation.notes[0]
    assert "too high by selection" in validation.notes[0]
    assert "the test split had no part in the choice" in test.notes[0]
    assert "3 of 6 complete trials" in test.notes[0]


def test_the_best_on_images_that_were_trained_on_are_no_choice(store: Store, runs: Path, read: Read) -> None:
    """Trials that hold nothing out are chosen by name."""
    specs = [replace(transformed(10, seed=seed), split=AllSplitSpec()) for seed in (1, 2, 3)]
    committees = Committees(store, runs)
    filler = committees.plan(specs)
    for spec in specs:
        committees.complete(filler, spec, 44, test=50)
    with pytest.raises(SpecError, match="split=all trains on its images"):
        read("top:2", split="test")
    with pytest.raises(SpecError, match="an alarm, and no score"):
        read("all")
    scored = read("all", split="test")
    assert [member.validation for member in scored.members] == [None] * 3
    assert "validation %" not in to_markdown(scored)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_probabilities_are_averaged(made: Made, read: Read, split: str) -> None:
    """The accuracy is that of the mean of what lies in the folders, on the split that was asked for."""
    committee = read("all", split=split)
    labels = (VALIDATION if split == "validation" else TEST).labels
    mean = np.mean([made.committees.probabilities[spec.trial_id, split] for spec in made.specs], axis=0, dtype=float)
    assert committee.score.correct == int((mean.argmax(axis=1) == labels).sum())
    assert (committee.split, committee.score.images) == (split, IMAGES)
    assert ids(committee) == [spec.trial_id for spec in made.specs]
    assert committee.score.accuracy.mean > max(member.score.mean for member in committee.members)
    assert any("1 of 7 trials of the sweep are not complete" in note for note in committee.notes)


def test_tracks_of_validation_images_are_taken_into_account(made: Made, read: Read) -> None:
    """Where they are known; those of test images are not, and that is said."""
    validation, test = read("all"), read("all", split="test")
    assert (validation.score.over_best.test.tracks, test.score.over_best.test.tracks) == (12, IMAGES)
    unknown = "Tracks of the test images are not known"
    assert (unknown in to_markdown(validation), unknown in to_markdown(test)) == (False, True)


@pytest.mark.parametrize("of", ["label", "identity"])
def test_a_configuration_is_a_committee_of_its_seeds(made: Made, read: Read, of: str) -> None:
    """Named by its label, or by the beginning of its identity."""
    config = {"label": "20,20,20", "identity": made.specs[3].config_id[:8]}[of]
    committee = read(f"cell:{config}")
    assert ids(committee) == [spec.trial_id for spec in made.specs[3:]]
    assert {member.label for member in committee.members} == {"20,20,20"}


def test_trials_can_be_named(made: Made, read: Read) -> None:
    """In the order in which they are, each once, by the beginning of its identity."""
    named = [made.specs[place].trial_id for place in (4, 0)]
    assert ids(read(f"{named[0][:9]}, {named[1]},{named[0]}")) == named


def test_trials_of_another_sweep_can_be_named(made: Made, read: Read, store: Store, runs: Path) -> None:
    """Any complete trials that were scored on the same images."""
    elsewhere = transformed(70)
    committees = Committees(store, runs, name="other")
    committees.complete(committees.plan([elsewhere]), elsewhere, 50)
    committee = read(f"{made.specs[0].trial_id},{elsewhere.trial_id}")
    assert ids(committee) == [made.specs[0].trial_id, elsewhere.trial_id]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("top", "write top:K, all, configuration:LABEL"),
        ("top:", "write top:K"),
        ("worst:3", "write top:K"),
        ("top:-1", "write top:K"),
        ("cell:", "write top:K"),
        ("", "write top:K"),
        ("top:7", "6 trials of the sweep are complete"),
        ("top:1", "it takes two complete trials"),
        ("top:0", "has 0 members"),
        ("cell:30,30,30", "has 0 members"),
    ],
)
def test_what_is_no_committee_is_refused(made: Made, read: Read, text: str, said: str) -> None:
    """With the forms there are, or with how many trials there are."""
    with pytest.raises(SpecError, match=said):
        read(text)


def test_unknown_names_are_told(made: Made, read: Read, store: Store) -> None:
    """A configuration, a trial and a sweep that do not exist."""
    with pytest.raises(UnknownNameError, match="unknown configuration '20,20,21' in the sweep: did you mean 20,20,20"):
        read("cell:20,20,21")
    with pytest.raises(UnknownNameError, match="unknown trial '0123'"):
        read("0123,4567")
    with pytest.raises(UnknownNameError, match="did you mean sizes"):
        read_ensemble(store, RunsLayout(Path()), "size", "all")


def test_several_configurations_are_no_configuration(made: Made, read: Read) -> None:
    """Where the beginning is that of more than one."""
    common = next(letter for letter in "0123456789abcdef" if made.specs[0].config_id.startswith(letter))
    baselines = [transformed(size) for size in range(40, 400) if transformed(size).config_id.startswith(common)][:1]
    made.committees.plan([*made.specs, *baselines])
    with pytest.raises(SpecError, match="several configurations are meant"):
        read(f"cell:{common}")


def test_a_trial_that_is_not_complete_is_no_member(made: Made, read: Read) -> None:
    """Its state is told."""
    with pytest.raises(SpecError, match="is failed: only complete trials"):
        read(f"{made.specs[0].trial_id},{transformed(30).trial_id}")


def test_members_of_other_data_or_another_split_are_refused(made: Made, read: Read) -> None:
    """Their validation images are others, and so are the labels; also where they are scored on test images."""
    by_split = replace(transformed(50), split=TrackSplitSpec(tracks_per_class=7))
    by_data = transformed(60)
    filler = made.committees.plan([*made.specs, by_split, by_data])
    made.committees.complete(filler, by_split, 40, test=40)
    made.committees.complete(filler, by_data, 40, test=40, digest="train other, test ef01")
    for spec, said in ((by_split, "by another split"), (by_data, "of different data")):
        for split in ("validation", "test"):
            with pytest.raises(SpecError, match=f"{spec.trial_id}.*{said}"):
                read(f"{made.specs[0].trial_id},{spec.trial_id}", split=split)


def test_a_machine_without_test_images_does_not_make_other_data(made: Made, read: Read) -> None:
    """The validation images are the same; on test images there is no score, and that is said."""
    without = transformed(50)
    filler = made.committees.plan([*made.specs, without])
    made.committees.complete(filler, without, 40, digest="train abcd")
    text = f"{made.specs[0].trial_id},{without.trial_id}"
    assert len(read(text).members) == 2
    with pytest.raises(SpecError, match=f"{without.trial_id} .* not scored on the test split"):
        read(text, split="test")


def test_images_that_differ_all_the_same_are_refused(made: Made, read: Read) -> None:
    """The same data and split by name, and other labels: nothing is averaged."""
    odd = transformed(50)
    filler = made.committees.plan([*made.specs, odd])
    made.committees.complete(filler, odd, 40, validation=replace(VALIDATION, rows=tuple(range(IMAGES))))
    with pytest.raises(SpecError, match="scored on different images"):
        read(f"{made.specs[0].trial_id},{odd.trial_id}")


def layout_of(runs: Path, spec: TrialSpec) -> AttemptLayout:
    """The files of a trial's first attempt."""
    return AttemptLayout(RunsLayout(runs).attempt(spec.trial_id, 1))


def test_a_trial_that_kept_nothing_is_named_with_the_remedy(made: Made, read: Read, runs: Path) -> None:
    """With a checkpoint it can be computed; without one it cannot."""
    layout = layout_of(runs, made.specs[4])
    layout.probabilities("validation").unlink()
    named = rf"trial {made.specs[4].trial_id} \(20,20,20, seed 2\) kept no probabilities on the validation split"
    with pytest.raises(SpecError, match=f"{named}: its checkpoint is gone"):
        read("all")
    layout.checkpoint.write_bytes(b"weights")
    with pytest.raises(SpecError, match=f"{named}: add --recompute"):
        read("all")
    assert len(read("top:3").members) == 3


def test_probabilities_of_other_predictions_are_refused(made: Made, read: Read, runs: Path) -> None:
    """A file that was put there by hand, of the right shape; and one that is cut off."""
    first, second = (layout_of(runs, spec).probabilities("validation") for spec in made.specs[:2])
    first.write_bytes(second.read_bytes())
    with pytest.raises(SpecError, match=f"are not those of the predictions of trial {made.specs[0].trial_id}"):
        read("all")
    first.write_bytes(second.read_bytes()[:-9])
    with pytest.raises(FolderError, match=r"probabilities_validation\.npy"):
        read("all")


@pytest.mark.parametrize("is_old", [True, False])
def test_what_was_not_kept_can_be_computed(
    is_old: bool, made: Made, read: Read, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of an older trial whose images the store does not know; nothing is written, and the difference is told."""
    odd = transformed(50)
    filler = made.committees.plan([*made.specs, odd])
    made.committees.complete(filler, odd, 40, validation=None if is_old else VALIDATION, is_kept=False)
    layout = layout_of(runs, odd)
    layout.checkpoint.write_bytes(b"weights")
    shares = made.committees.probabilities[odd.trial_id, "validation"]
    again = np.roll(shares[:1], 1, axis=1)  # as if another device saw the first image differently

    def rescore(folder: Path, split: str, **settings: object) -> Rescored:
        assert (folder, split) == (layout.folder, "validation")
        found = np.concatenate([again, shares[1:]])
        said = tuple(found.argmax(axis=1).tolist())
        score = made.committees._score(odd, "validation", VALIDATION, 40, is_kept=False)
        return Rescored(score=replace(score, predictions=said), probabilities=found)

    monkeypatch.setattr("stnbench.trials.score.rescore_trial", rescore)
    committee = read(f"{made.specs[0].trial_id},{odd.trial_id}", recompute=True)
    (note,) = [note for note in committee.notes if "computed anew" in note]
    assert note.startswith("The probabilities of 1 of 2 members")
    assert "1 of their 60 predictions differ" in note
    assert not layout.probabilities("validation").exists()
    assert "--recompute" in committee.command


def test_what_cannot_be_computed_is_told(made: Made, read: Read, runs: Path) -> None:
    """The member, and why: here there is no specification in its folder."""
    layout_of(runs, made.specs[1]).probabilities("validation").unlink()
    with pytest.raises(SpecError, match=rf"trial {made.specs[1].trial_id} .* computed anew .*spec\.json"):
        read("all", recompute=True)


def test_every_format_has_the_same_numbers(made: Made, read: Read) -> None:
    """The accuracy with its interval, n and split; the members; the gains with their test; diversity; the warning."""
    committee = read("top:3")
    plain, markdown, terminal = json.loads(to_json(committee)), to_markdown(committee), to_terminal(committee)
    assert (plain["split"], plain["images"], plain["ensemble"]) == ("validation", IMAGES, "top:3")
    assert [member["trial_id"] for member in plain["members"]] == ids(committee)
    assert plain["low"] < plain["mean"] < plain["high"]
    assert plain["mean"] == pytest.approx(plain["correct"] / IMAGES, abs=1e-6)
    assert plain["gain_over_best_member"]["mcnemar"]["images"] == IMAGES
    assert set(plain["diversity"]) == {"disagreement", "double_fault"}
    for text in (markdown, terminal):
        assert f"{100 * committee.score.accuracy.mean:.1f}" in text
        assert f"{100 * committee.score.diversity.disagreement:.2f} %" in text
        assert "Kuncheva and Whitaker 2003" in text
        assert "Warning: the ensemble is scored on the same images" in text
        assert "Accuracy on the validation split, 60 images." in text
        assert all(trial_id in text for trial_id in ids(committee))
    assert to_markdown(read("top:3")) == markdown


def test_a_document_has_its_command(made: Made, read: Read) -> None:
    """As it can be typed, and the command of the sweep."""
    lines = to_markdown(read("configuration:20,20,20", split="test")).splitlines()
    assert lines[0] == "# sizes: an ensemble of 3 (configuration:20,20,20)"
    assert "- Command: `stnbench report sizes --ensemble configuration:20,20,20 --split test`" in lines
    assert any(line.startswith("- Sweep: `stnbench ") for line in lines)


def test_the_command_prints_and_writes(
    made: Made, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a format the table and reports/sizes/ensemble.md, with one that format alone."""
    monkeypatch.setenv("STNBENCH_RUNS", str(runs))
    monkeypatch.chdir(tmp_path)
    assert main(["sizes", "--ensemble", "all", "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["members"]) == 6
    assert not (tmp_path / "reports").exists()
    assert main(["sizes", "--ensemble", "all", "--split", "test"]) == 0
    printed = capsys.readouterr().out
    assert "sizes: an ensemble of 6 (all)" in printed
    assert printed.endswith("wrote reports/sizes/ensemble.md\n")
    written = (tmp_path / "reports" / "sizes" / "ensemble.md").read_text()
    assert "Accuracy on the test split, 60 images." in written
    assert main(["sizes", "--committee", "all", "--format", "md"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "warning: --committee is deprecated, write --ensemble\n"
    assert captured.out.startswith("# sizes: an ensemble of 6")
    assert main(["sizes", "--ensemble", "all", "--format", "md"]) == 0
    assert capsys.readouterr().out.startswith("# sizes: an ensemble of 6")
    assert main(["sizes", "--ensemble", "all", "--format", "html"]) == 0
    assert "an ensemble of 6" in capsys.readouterr().out.partition("<h1>")[2].partition("</h1>")[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ensemble", "all"], "name one sweep"),
        (["sizes", "other", "--ensemble", "all"], "name one sweep"),
        (["sizes", "--recompute"], "add --ensemble"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused(
    made: Made, runs: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    """With what to type instead."""
    monkeypatch.setenv("STNBENCH_RUNS", str(runs))
    with pytest.raises(SpecError, match=said):
        main(arguments)
