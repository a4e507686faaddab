"""A trial leaves the store as a folder, and is scored from there as from the store."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Workplace

import stnbench
from stnbench.cli.main import main
from stnbench.core.errors import ExportError, StnbenchError, UnknownNameError

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def say(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """Run a command in this process; the JSON object that it prints."""
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def place(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A folder in which a sweep was run, and in which this process works."""
    done = workplace.run("sweep", "tiny", "--no-mlflow", timeout_s=200)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(workplace.folder)
    monkeypatch.setenv("STNBENCH_RUNS", str(workplace.runs))
    monkeypatch.setenv("STNBENCH_DATA", str(workplace.data))
    return workplace


def test_an_export_scores_as_its_trial(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    """Alone, in an ensemble, by name; what is no export or no complete trial is refused in a line."""
    first = say(capsys, "export", "tiny:affine#1", "--no-onnx")
    say(capsys, "export", "tiny:affine#2", "--no-onnx", "--out", "pretrained/second")
    folder = place.folder / "exports" / first["trial"]
    assert first["folder"] == str(Path("exports", first["trial"]))
    assert {*first["files"]} == {path.name for path in folder.iterdir()}

    for split in ("validation", "test"):
        of_trial = say(capsys, "evaluate", "tiny:affine#1", "--split", split)
        of_export = say(capsys, "evaluate", first["folder"], "--split", split)
        assert {**of_trial, "label": ""} == {**of_export, "label": ""}
        assert of_trial["accuracy"] == first[split]["accuracy"]

    check_card((folder / "README.md").read_text(), first)
    one, other = stnbench.load_trial("tiny:affine#1"), stnbench.load_trial(folder)
    images = torch.randint(0, 256, (3, *one.image_shape), dtype=torch.uint8)
    assert torch.equal(one(images), other(images))
    assert {*one.predict(images).names} <= {*one.class_names}
    check_ensemble(first, capsys)

    with pytest.raises(UnknownNameError, match="did you mean second"):
        main(["evaluate", "pretrained:secnd"])
    with pytest.raises(ExportError, match="is no export"):
        main(["evaluate", "./sweeps"])
    (folder / "trial.json").write_text("{}")
    with pytest.raises(ExportError, match="SHA-256 differs"):
        stnbench.load_trial(first["folder"])
    shutil.rmtree(place.runs / "trials" / first["trial"])
    with pytest.raises(StnbenchError):
        stnbench.export("tiny:affine#1", with_onnx=False)


def test_a_sweep_runs_from_python(place: Workplace) -> None:
    """What is complete is planned as such and not run again; results carry metrics, likelihood agreeing with loss."""
    assert stnbench.load_sweep("tiny").seeds == (1, 2)
    plan = stnbench.plan("tiny")
    assert plan.complete == plan.trials == 6
    summary = stnbench.run_sweep("tiny", engine="inline")
    assert (summary.trials, summary.complete, summary.launched) == (6, 6, 0)

    trials = stnbench.read_results("tiny").trials

    assert {"validation_metric:ece", "test_metric:nll", "validation_metric:worst_class_accuracy"} <= {*trials.columns}
    assert trials["test_metric:nll"].to_list() == pytest.approx(trials["test_loss"].to_list(), rel=0.01)


def check_card(card: str, said: "dict[str, dict[str, float]]") -> None:
    """It says accuracy with n and interval on both splits, over seeds as well, data, licence, recipe, commit."""
    for split in ("validation", "test"):
        score = said[split]
        shown = f"{100 * score['accuracy']:.2f} [{100 * score['low']:.2f}, {100 * score['high']:.2f}]"
        assert f"| {split} | {shown} | 1,290 images, " in card
    for text in ("2 seeds (1, 2)", "digest of what was read: train half `", "Licence: MIT", "`stnbench sweep tiny"):
        assert text in card
    assert "Commit `" in card
    assert "kind: lecun" in card


def check_ensemble(first: "dict[str, str]", capsys: pytest.CaptureFixture[str]) -> None:
    """Of exports and trials alike, it is the one that the report makes of the trials."""
    of_exports = say(capsys, "evaluate", first["folder"], "pretrained:second", "--split", "test")
    of_trials = say(capsys, "evaluate", "tiny:affine#1", "tiny:affine#2", "--split", "test")
    assert of_exports["accuracy"] == of_trials["accuracy"]
    assert [member["trial"] for member in of_exports["ensemble"]] == [m["trial"] for m in of_trials["ensemble"]]
    assert main(["report", "tiny", "--ensemble", "configuration:affine", "--split", "test", "--format", "json"]) == 0
    assert f'"correct": {of_exports["correct"]}' in capsys.readouterr().out
