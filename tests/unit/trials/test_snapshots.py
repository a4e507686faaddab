"""Snapshots show training from before its first step, cost it nothing, and outlive an interruption."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stnbench.core.errors import FolderError
from stnbench.core.files import AttemptLayout
from stnbench.diagnostics.stability import lattice
from stnbench.spec.trial import TrialSpec
from stnbench.trials.files import load_arrays, read_snapshots
from stnbench.trials.run import run_trial
from stnbench.trials.watch import PROBES, probe_rows

pytestmark = pytest.mark.slow

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, toy_dataset: Any) -> Run:
    """Run a trial in the folder named, on one CPU thread."""

    def run_in(spec: TrialSpec, folder: str = "first", **replaced: Any) -> Any:
        settings: dict[str, Any] = {
            "token": "t",
            "data_root": tmp_path,
            "device": "cpu",
            "threads": 1,
            "report": lambda record: None,
            "should_stop": lambda: False,
        }
        return run_trial(spec, folder=tmp_path / folder, **(settings | replaced))

    return run_in


def stop_after(steps: int) -> Callable[[], bool]:
    """Let so many steps pass."""
    answers = iter([False] * steps)
    return lambda: next(answers, True)


def test_snapshots_begin_before_training(run: Run, toy_spec: TrialSpec, tmp_path: Path) -> None:
    """Three epochs of six steps, each with its loss; the first shows the identity."""
    run(toy_spec)
    found = read_snapshots(tmp_path / "first")
    assert found.steps.tolist() == [*range(19)]
    assert np.isnan(found.losses[0])
    assert (found.losses[1:] > 0).all()
    assert found.places.tolist() == [[1, 1]]
    assert found.images.shape == (PROBES, 3, 16, 16)
    assert found.points.shape == (19, 1, PROBES, 81, 2)
    assert found.points[0, 0] == pytest.approx(np.tile(lattice().numpy(), (PROBES, 1, 1)), abs=1e-6)
    assert np.abs(found.points[-1] - found.points[0]).max() > 1e-4


def test_a_run_that_goes_on_keeps_its_snapshots(run: Run, toy_spec: TrialSpec, tmp_path: Path) -> None:
    """Stopped within the second epoch and taken up by another attempt, they are those of a run without the break."""
    run(toy_spec)
    run(toy_spec, "broken", should_stop=stop_after(9))
    assert read_snapshots(tmp_path / "broken").steps.tolist() == [0, 1, 2, 3, 4, 5, 6]
    run(toy_spec, "taken up", resume_from=[tmp_path / "broken"])
    whole, taken_up = (AttemptLayout(tmp_path / name).snapshots.read_bytes() for name in ("first", "taken up"))
    assert whole == taken_up


def test_a_run_that_goes_on_needs_no_snapshots(run: Run, toy_spec: TrialSpec, tmp_path: Path) -> None:
    """A file that was lost or is broken costs the pictures of the epochs before, and nothing else."""
    run(toy_spec, "broken", should_stop=stop_after(9))
    AttemptLayout(tmp_path / "broken").snapshots.write_bytes(b"\x93NUMPY, cut off")
    run(toy_spec, "taken up", resume_from=[tmp_path / "broken"])
    assert read_snapshots(tmp_path / "taken up").steps.tolist() == [*range(7, 19)]


def test_snapshots_of_versions_that_kept_no_loss_are_read(run: Run, toy_spec: TrialSpec, tmp_path: Path) -> None:
    """They are shown, and a run that goes on keeps them beside its own."""
    run(toy_spec, "broken", should_stop=stop_after(9))
    path = AttemptLayout(tmp_path / "broken").snapshots
    images, records = load_arrays(path)
    known = [name for name in records.dtype.names or () if name != "loss"]
    older = np.zeros(len(records), [(name, records.dtype[name]) for name in known])
    for name in known:
        older[name] = records[name]
    with path.open("wb") as file:
        np.save(file, images)
        np.save(file, older)
    assert np.isnan(read_snapshots(tmp_path / "broken").losses).all()
    run(toy_spec, "taken up", resume_from=[tmp_path / "broken"])
    found = read_snapshots(tmp_path / "taken up")
    assert found.steps.tolist() == [*range(19)]
    assert np.isnan(found.losses).tolist() == [True] * 7 + [False] * 12


def test_watching_changes_nothing(run: Run, toy_spec: TrialSpec, tmp_path: Path, monkeypatch: Any) -> None:
    """A run whose snapshots are not taken has the same weights, to the last bit."""
    run(toy_spec)
    monkeypatch.setattr("stnbench.trials.watch.SnapshotRecorder.take", lambda self, step, loss: None)
    run(toy_spec, "unwatched")
    watched, unwatched = (
        torch.load(AttemptLayout(tmp_path / name).checkpoint, weights_only=True)["network"]
        for name in ("first", "unwatched")
    )
    assert all(torch.equal(watched[name], unwatched[name]) for name in watched)
    assert not AttemptLayout(tmp_path / "unwatched").snapshots.exists()


def test_a_network_without_transformer_leaves_none(run: Run, toy_spec: TrialSpec, tmp_path: Path) -> None:
    """There is nothing to show, and who asks is told."""
    run(dataclasses.replace(toy_spec, transformers=()))
    with pytest.raises(FolderError, match="it is missing"):
        read_snapshots(tmp_path / "first")


def test_probes_are_of_several_classes_and_of_the_seed() -> None:
    """Four classes are all among eight images; the same seed watches the same ones, whatever is trained."""
    labels = torch.arange(100) // 25
    rows = probe_rows(labels, torch.arange(0, 100, 2), seed=3)
    assert set(labels[rows].tolist()) == {0, 1, 2, 3}
    assert len(set(rows.tolist())) == PROBES
    assert rows.tolist() == probe_rows(labels, torch.arange(0, 100, 2), seed=3).tolist()
    assert rows.tolist() != probe_rows(labels, torch.arange(0, 100, 2), seed=4).tolist()
    assert len(probe_rows(labels, torch.arange(3), seed=3)) == 3
