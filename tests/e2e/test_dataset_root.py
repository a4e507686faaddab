"""``dataset.root``: two trees of one data set, with and without a test half, for train, sweep and evaluate."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Workplace

import stnbench
from stnbench.cli.main import main
from stnbench.core.errors import DataMissingError, SpecError, UnknownNameError

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

TRIAL = (
    "dataset=gtsrb",
    "dataset.image_size=16",
    "split.tracks_per_class=1",
    "network.sizes=[2,2,4]",
    "training.epochs=1",
    "training.batch_size=4",
    "training.train_images=null",
)


@pytest.fixture
def apart(workplace: Workplace, tmp_path: Path) -> Workplace:
    """A workplace whose data folder is its own, and empty."""
    (tmp_path / "data").mkdir()
    return Workplace(workplace.folder, tmp_path / "data")


def test_a_root_is_read_by_every_command_and_another_one_is_not_taken_for_it(
    apart: Workplace, fake_gtsrb: Any, tmp_path: Path
) -> None:
    """Training scores the test half below the root, evaluate finds it there, and other images are refused."""
    one, other = tmp_path / "one", tmp_path / "other"
    fake_gtsrb.write_train(one)
    fake_gtsrb.write_test(one)
    fake_gtsrb.write_train(other, tracks={0: 2, 7: 3, 42: 3})

    trained = apart.run("train", *TRIAL, f"dataset.root={one}", "--json")
    assert trained.returncode == 0, trained.stderr
    found = json.loads(trained.stdout)
    assert found["test"] is not None
    assert found["durations_s"].keys() == {"data", "train", "evaluate", "other"}
    assert min(found["durations_s"].values()) > 0

    scored = apart.run("evaluate", found["trial"], "--split", "test", f"dataset.root={one}", "--json")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["accuracy"] == found["test"]

    refused = apart.run("train", *TRIAL, f"dataset.root={other}")
    assert refused.returncode == 2
    assert "train images were others" in refused.stderr
    assert "digest" in refused.stderr
    again = apart.run("train", *TRIAL, f"dataset.root={one}", "--json")
    assert json.loads(again.stdout)["validation"] == found["validation"]


def test_a_root_without_a_test_half_is_said(apart: Workplace, fake_gtsrb: Any, tmp_path: Path) -> None:
    """Before training, and by evaluate, which can be given another root."""
    fake_gtsrb.write_train(tmp_path / "one")
    trained = apart.run("train", *TRIAL, f"dataset.root={tmp_path / 'one'}", "--json")
    assert trained.returncode == 0, trained.stderr
    assert "trials will have no test score" in trained.stderr
    found = json.loads(trained.stdout)
    assert found["test"] is None

    missing = apart.run("evaluate", found["trial"], "--split", "test", f"dataset.root={tmp_path / 'one'}")
    assert missing.returncode == 2
    fake_gtsrb.write_test(tmp_path / "one")
    scored = apart.run("evaluate", found["trial"], "--split", "test", f"dataset.root={tmp_path / 'one'}", "--json")
    assert scored.returncode == 0, scored.stderr
    assert apart.run("evaluate", found["trial"], "seed=2").returncode == 2


def test_a_published_network_is_scored_as_soon_as_an_archive_is_there(
    apart: Workplace,
    fake_gtsrb: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Trained without a test half, exported in half precision, then scored on archives in either place.

    With and without the test images that it was trained on, alone and as an ensemble; what loads is what was scored.
    """
    monkeypatch.chdir(apart.folder)
    monkeypatch.setenv("STNBENCH_RUNS", str(apart.runs))
    monkeypatch.setenv("STNBENCH_DATA", str(apart.data))
    tree, source = tmp_path / "tree", tmp_path / "source"
    images = fake_gtsrb.write_train(source)

    def say(*words: str) -> Any:
        assert main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    words = (*TRIAL, "split=all", f"dataset.root={source}", "--engine", "inline")
    trial = say("train", *(word for word in words if not word.startswith("split.")))["trial"]
    for seed in (1, 2):  # one network under two names is an ensemble as well
        where = ("--out", f"pretrained/made-up-{seed}", "--note", "Held out, it reads 1 % [0, 3] (n = 5 folds).")
        done = say("export", trial, "--half", f"dataset.root={source}", "--no-onnx", *where)
    check_half_precision(apart.folder / done["folder"], apart.runs, trial)
    with pytest.raises(SpecError, match="reads no images"):
        main(["export", trial, f"dataset.root={source}"])

    with pytest.raises(DataMissingError):
        main(["evaluate", "pretrained:made-up-1", "--split", "test"])
    test = fake_gtsrb.write_test(tree, count=6)
    for name, original in (("00001", "00007/00001_00001"), ("00004", "00042/00000_00000")):
        shutil.copy(images / f"{original}.ppm", test / f"{name}.ppm")
        table = (images / original).parent / f"GT-{original[:5]}.csv"
        row = next(r for r in table.read_text().splitlines() if r.startswith(original[6:])).partition(";")[2]
        truth = tree / "GTSRB" / "GT-final_test.csv"
        rows = [f"{name}.ppm;{row}" if r.startswith(name) else r for r in truth.read_text().splitlines()]
        truth.write_text("\n".join(rows))
    shutil.copytree(source / "GTSRB", tree / "GTSRB", dirs_exist_ok=True)
    fake_gtsrb.write_archives(tree, tmp_path / "archives")
    evaluation = ("evaluate", "pretrained:made-up-1", "--split", "test", "--without-duplicates", "near")
    below_root = say(*evaluation, f"dataset.root={tmp_path / 'archives'}")
    for archive in (tmp_path / "archives").iterdir():
        shutil.copy(archive, apart.data)
    assert say(*evaluation) == below_root
    assert below_root["images"] == 6
    assert {**below_root["without_duplicates"], "correct": 0, "errors": 0, "accuracy": 0} == {
        "kind": "near", "left_out": 2, "images": 4, "correct": 0, "errors": 0, "accuracy": 0,
    }  # fmt: skip
    ensemble = say("evaluate", "pretrained:made-up-1", "pretrained:made-up-2", *evaluation[2:5], "equal")
    assert ensemble["without_duplicates"]["images"] == 4
    assert ensemble["accuracy"] == ensemble["ensemble"][1]["accuracy"] == below_root["accuracy"]
    assert main([*evaluation[:4], "--without-duplicates", "equal"]) == 0
    assert "test without the 2 images that are equal to one trained on: " in capsys.readouterr().out
    assert main(["evaluate", "pretrained:made-up-1", "--without-duplicates", "near"]) == 0
    assert "one trained on: none is left" in capsys.readouterr().out  # split=all trains on the validation images
    with pytest.raises(SpecError, match="are trained on"):
        main(["evaluate", "pretrained:made-up-1", "--split", "train", "--without-duplicates", "near"])
    with pytest.raises(UnknownNameError, match=r"did you mean .*made-up-1"):
        stnbench.load_pretrained("made-up-l")


def check_half_precision(folder: Path, runs: Path, trial: str) -> None:
    """The file holds float16; what is loaded is the rounded network bit for bit; the card and the record say so."""
    from safetensors.torch import load_file

    stored = load_file(folder / "network.safetensors")
    assert {tensor.dtype for tensor in stored.values()} <= {torch.float16, torch.int64}
    full, half = stnbench.load_trial(trial, runs=runs), stnbench.load_pretrained(folder.name)
    assert {tensor.dtype for tensor in half.network.parameters()} == {torch.float32}
    state = half.network.state_dict()
    assert state.keys() == stored.keys()
    for name, tensor in full.network.state_dict().items():
        assert torch.equal(state[name], tensor.half().to(tensor.dtype))
        assert torch.equal(state[name].half(), stored[name].half())
    card = (folder / "README.md").read_text()
    assert "stored in half precision: of 21 images of the training half" in card
    assert "Held out, it reads 1 % [0, 3] (n = 5 folds)." in card
    assert (folder / "network.safetensors").stat().st_size < 3 * sum(t.numel() for t in stored.values()) + 8192
