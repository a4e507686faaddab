"""``dataset.root``: two trees of one data set, with and without a test half, for train, sweep and evaluate."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Workplace

pytestmark = pytest.mark.slow

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
