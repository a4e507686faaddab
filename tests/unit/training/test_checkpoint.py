"""A checkpoint comes back as it was, and whatever is not one is refused."""

import dataclasses
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stnbench.core.errors import CheckpointError
from stnbench.data.preprocessing import GlobalStatistics
from stnbench.spec.trial import TrialSpec
from stnbench.training import loop
from stnbench.training.loop import (
    PERIOD_S,
    Checkpoint,
    CheckpointKeeper,
    Hooks,
    Progress,
    read_checkpoint,
    train,
    write_checkpoint,
)
from stnbench.training.step import TrainingRun

pytestmark = pytest.mark.slow

MakeRun = Callable[[TrialSpec], TrainingRun]


@pytest.fixture
def trained(make_run: MakeRun, toy_spec: TrialSpec) -> tuple[TrainingRun, Checkpoint]:
    """A run after its three epochs, and its checkpoint."""
    run = make_run(toy_spec)
    quiet = Hooks(save=lambda progress: None, report=lambda record: None, should_stop=lambda: False)
    checkpoint = Checkpoint(
        trial_id=toy_spec.trial_id,
        classes=4,
        statistics=GlobalStatistics(mean=0.1, std=1 / 3),
        progress=train(run, quiet, Progress()).progress,
        network=run.model.network.state_dict(),
        optimizer=run.optimizer.state_dict(),
    )
    return run, checkpoint


@pytest.fixture
def written(tmp_path: Path, trained: tuple[TrainingRun, Checkpoint]) -> Path:
    """The checkpoint as a file."""
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, trained[1])
    return path


def test_a_checkpoint_comes_back_as_it_was(
    written: Path, trained: tuple[TrainingRun, Checkpoint], make_run: MakeRun, toy_spec: TrialSpec
) -> None:
    """Records, statistics, weights and momentum, bit for bit, in another network."""
    run, before = trained
    after = read_checkpoint(written, trial_id=toy_spec.trial_id)
    assert (after.progress, after.statistics, after.classes) == (before.progress, before.statistics, before.classes)
    other = make_run(toy_spec.with_seed(9))
    after.restore(other.model.network, other.optimizer, None)
    for name, weight in run.model.network.state_dict().items():
        assert torch.equal(weight, other.model.network.state_dict()[name]), name
    momenta = [run.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]]
    assert momenta[0].keys() == momenta[1].keys() != set()
    assert all(
        torch.equal(momenta[0][key]["momentum_buffer"], momenta[1][key]["momentum_buffer"]) for key in momenta[0]
    )


def test_progress_counts_epochs_and_steps(trained: tuple[TrainingRun, Checkpoint]) -> None:
    """Three epochs of ten steps; a new run has none."""
    progress = trained[1].progress
    assert (progress.epochs, progress.step) == (3, 30)
    assert (Progress().epochs, Progress().step) == (0, 0)


def test_a_checkpoint_of_another_trial_is_refused(written: Path, toy_spec: TrialSpec) -> None:
    """The message names both trials."""
    other = toy_spec.with_seed(99).trial_id
    with pytest.raises(CheckpointError, match=f"is of the trial {toy_spec.trial_id}, not of {other}"):
        read_checkpoint(written, trial_id=other)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    """Not a bare FileNotFoundError."""
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*gone\.pt"):
        read_checkpoint(tmp_path / "gone.pt", trial_id="x")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_checkpoint_is_refused(share: float, written: Path, toy_spec: TrialSpec) -> None:
    """Nothing, the beginning, half, and all but the end of the file."""
    data = written.read_bytes()
    written.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match="remove the file to train from the start"):
        read_checkpoint(written, trial_id=toy_spec.trial_id)


def test_a_flipped_bit_in_a_weight_is_refused(
    written: Path, trained: tuple[TrainingRun, Checkpoint], toy_spec: TrialSpec
) -> None:
    """A weight that changed on the disk is noticed, not trained on."""
    data = bytearray(written.read_bytes())
    weight = trained[1].network["head.logits.weight"].numpy().tobytes()
    place = bytes(data).index(weight)
    data[place + len(weight) // 2] ^= 1
    written.write_bytes(data)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(written, trial_id=toy_spec.trial_id)


class Trap:
    """An object whose unpickling would run code."""

    def __reduce__(self) -> tuple[object, ...]:
        """Make a file when unpickled."""
        return (Path.touch, (Path("trap-was-executed"),))


def test_nothing_in_a_checkpoint_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_spec: TrialSpec
) -> None:
    """A file that would run code when unpickled is refused, and nothing ran."""
    monkeypatch.chdir(tmp_path)
    torch.save({"trial_id": Trap()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(tmp_path / "evil.pt", trial_id=toy_spec.trial_id)
    assert not (tmp_path / "trap-was-executed").exists()


@pytest.mark.parametrize("content", [[1, 2], {"format": 1}, {"network": {}}])
def test_a_file_of_something_else_is_refused(content: object, tmp_path: Path) -> None:
    """Tensors of another program are no checkpoint."""
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no checkpoint of this version"):
        read_checkpoint(tmp_path / "other.pt", trial_id="x")


def test_another_format_is_refused(written: Path, toy_spec: TrialSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of an older version is told apart from a broken one."""
    monkeypatch.setattr(loop, "_FORMAT", 3)
    with pytest.raises(CheckpointError, match="no checkpoint of this version"):
        read_checkpoint(written, trial_id=toy_spec.trial_id)


def test_weights_that_do_not_fit_are_refused(
    trained: tuple[TrainingRun, Checkpoint], make_run: MakeRun, toy_spec: TrialSpec
) -> None:
    """The network of a baseline has no place for a localisation network's weights."""
    run = make_run(toy_spec.baseline())
    with pytest.raises(CheckpointError, match="does not fit its network"):
        trained[1].restore(run.model.network, run.optimizer, None)


def test_a_failed_write_leaves_the_old_checkpoint(
    written: Path, trained: tuple[TrainingRun, Checkpoint], toy_spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk during writing: what was there can still be read."""

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(written, dataclasses.replace(trained[1], progress=Progress()))
    assert read_checkpoint(written, trial_id=toy_spec.trial_id).progress.epochs == 3
    assert list(written.parent.iterdir()) == [written]


@pytest.mark.parametrize(
    ("epoch_s", "write_s", "written"),
    [(10.0, 0.4, 8), (0.5, 0.4, 1), (8.0, 0.5, 4), (12.0, 2.0, 3), (40.0, 39.0, 8)],
    ids=["cheap", "dear", "every second epoch", "every third epoch", "as long as an epoch"],
)
def test_checkpoints_are_written_where_they_are_cheap_or_due(
    trained: tuple[TrainingRun, Checkpoint], epoch_s: float, write_s: float, written: int
) -> None:
    """Of eight epochs each where writing takes at most a twentieth of the time since, else one in half a minute."""
    now_s, seen = [0.0], []

    def write(checkpoint: Checkpoint) -> None:
        now_s[0] += write_s
        seen.append(now_s[0])

    keeper = CheckpointKeeper(write, clock=lambda: now_s[0])
    for _ in range(8):
        now_s[0] += epoch_s
        keeper.keep(trained[1])
    assert len(seen) == written
    gaps = [after - before for before, after in itertools.pairwise(seen)]
    assert all(gap <= PERIOD_S + epoch_s + write_s for gap in gaps)


def test_what_is_held_is_the_epoch_s_state_and_not_what_training_makes_of_it(
    trained: tuple[TrainingRun, Checkpoint],
) -> None:
    """Written when the run stops: weights and momentum as they were, though the network has changed since."""
    run, checkpoint = trained
    now_s, seen = [0.0], []

    def write(given: Checkpoint) -> None:
        now_s[0] += 1.0
        seen.append(given)

    keeper = CheckpointKeeper(write, clock=lambda: now_s[0])
    keeper.keep(checkpoint)
    keeper.keep(checkpoint)
    assert len(seen) == 1
    expected = {name: weight.clone() for name, weight in checkpoint.network.items()}
    momenta = [state["momentum_buffer"].clone() for state in run.optimizer.state.values()]
    with torch.no_grad():
        for parameter in run.model.network.parameters():
            parameter.add_(1.0)
        for state in run.optimizer.state.values():
            state["momentum_buffer"].zero_()
    keeper.flush()
    keeper.flush()
    assert len(seen) == 2
    for name, weight in expected.items():
        assert torch.equal(seen[1].network[name], weight), name
    for kept, momentum in zip(seen[1].optimizer["state"].values(), momenta, strict=True):
        assert torch.equal(kept["momentum_buffer"], momentum)
    keeper.keep(checkpoint, at_once=True)
    assert len(seen) == 3


def test_what_is_no_regular_file_is_refused_without_being_read(tmp_path: Path) -> None:
    """A pipe never answers, and a device never ends; a folder, a link to itself and a large file of zeros are none."""
    path = tmp_path / "checkpoint.pt"

    def make(kind: str) -> None:
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "folder":
                path.mkdir()
            case "zeros":
                path.touch()
                os.truncate(path, 1 << 36)
            case _:
                path.symlink_to(kind)

    for kind in ("pipe", "/dev/zero", str(path), "folder", "zeros"):
        make(kind)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt cannot be read"):
            read_checkpoint(path, trial_id="x")
        path.rmdir() if kind == "folder" else path.unlink()
