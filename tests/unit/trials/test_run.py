"""One trial from its specification to its files."""

import dataclasses
import errno
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stnbench.core.errors import DataCorruptError, DivergedError, EngineError, FolderError, SpecError
from stnbench.core.files import AttemptLayout
from stnbench.models.scored_network import measure_cost
from stnbench.spec.optimizer import SgdSpec, TtaSpec
from stnbench.spec.result import EpochRecord, TrialResult
from stnbench.spec.trial import TrainingSpec, TrialSpec
from stnbench.training.energy import JOULES_PER_KWH, EnergyCounter, EnergyMeter
from stnbench.trials import score as data
from stnbench.trials.files import load_result, load_spec, read_probabilities
from stnbench.trials.run import run_trial, time_trial

pytestmark = pytest.mark.slow

Run = Callable[..., TrialResult | None]


@pytest.fixture
def run(tmp_path: Path, toy_dataset: Any) -> Run:
    """Run a trial in the folder named, on one CPU thread."""

    def run_in(spec: TrialSpec, folder: str = "first", **replaced: Any) -> TrialResult | None:
        settings: dict[str, Any] = {
            "token": f"token of {folder}",
            "data_root": tmp_path / "data",
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


class OneKwh(EnergyCounter):
    """A counter of a kilowatt hour between any two calls."""

    part = "one"

    def advance_j(self) -> float:
        """Return a kilowatt hour."""
        return JOULES_PER_KWH


def metered() -> EnergyMeter:
    """A meter of an attempt that uses a kilowatt hour an epoch, and one for what follows them."""
    return EnergyMeter([(OneKwh(), lambda: 1)], period_s=0)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights in the checkpoint of an attempt."""
    content = torch.load(AttemptLayout(folder).checkpoint, weights_only=True)
    found: dict[str, torch.Tensor] = content["network"]
    return found


def without_times(records: tuple[EpochRecord, ...]) -> list[EpochRecord]:
    """The records as they would be if nothing took time."""
    return [dataclasses.replace(record, train_duration_s=0, evaluate_duration_s=0) for record in records]


def test_a_trial_leaves_its_specification_checkpoint_and_result(run: Run, toy_spec: TrialSpec, tmp_path: Path) -> None:
    """These, the snapshots, the probabilities and nothing else; the result on the disk is the one returned."""
    reported: list[EpochRecord] = []
    result = run(toy_spec, report=reported.append)
    folder = tmp_path / "first"
    left = {path.name for path in folder.iterdir()}
    probabilities = {"probabilities_validation.npy", "probabilities_test.npy"}
    assert left == {"spec.json", "checkpoint.pt", "snapshots.npy", "result.json", *probabilities}
    assert load_spec(folder) == toy_spec
    assert load_result(folder / "result.json") == result
    assert result is not None
    assert (result.trial_id, result.token) == (toy_spec.trial_id, "token of first")
    assert list(result.epochs) == reported
    assert [record.step for record in reported] == [6, 12, 18]
    assert result.train_duration_s == pytest.approx(sum(record.train_duration_s for record in reported))
    assert result.peak_memory_mib > 20
    assert result.environment.dataset_digest == "train toy1, test toy2"


def test_the_scores_are_of_the_last_network(run: Run, toy_spec: TrialSpec) -> None:
    """Validation has one track a class, test all its images; the toy task is learnt."""
    result = run(dataclasses.replace(toy_spec, training=TrainingSpec(epochs=6, batch_size=10)))
    assert result is not None
    assert result.test is not None
    assert (result.validation.images, result.test.images) == (20, 20)
    assert result.validation.accuracy == result.epochs[-1].validation_accuracy
    assert len(result.test.predictions) == 20
    held_out, tested = result.validation.scored, result.test.scored
    assert held_out is not None
    assert tested is not None
    right = [said == label for said, label in zip(result.validation.predictions, held_out.labels, strict=True)]
    assert sum(right) == result.validation.correct
    assert len(held_out.tracks) == len(held_out.rows) == 20
    assert len(set(held_out.tracks)) == 4
    assert (len(tested.labels), tested.tracks, tested.rows) == (20, (), ())
    assert result.test.accuracy > 0.9
    assert result.cost == measure_cost(toy_spec, classes=4)


def test_the_test_half_is_opened_after_the_last_report(run: Run, toy_spec: TrialSpec, toy_dataset: Any) -> None:
    """Test scores are sealed: while anything is reported, the test images have not even been read."""
    seen: list[list[str]] = []
    run(toy_spec, report=lambda record: seen.append(list(toy_dataset.opened)))
    assert seen == [["train"]] * 3
    assert toy_dataset.opened == ["train", "test"]


def test_the_probabilities_on_the_disk_are_those_of_the_score(run: Run, toy_spec: TrialSpec, tmp_path: Path) -> None:
    """Of every split, one row an image in the order of the predictions, of which none has a smaller probability."""
    result = run(toy_spec)
    assert result is not None
    for score in (result.validation, result.test):
        assert score is not None
        found = read_probabilities(tmp_path / "first", score.split, images=score.images)
        assert found.shape == (20, 4)
        assert (found[np.arange(20), score.predictions] == found.max(axis=1)).all()


def test_probabilities_are_there_before_the_result(
    run: Run, toy_spec: TrialSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk leaves an attempt without a result, never a result without its probabilities."""

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("stnbench.trials.files.write_atomic", full)
    with pytest.raises(OSError, match="no space left"):
        run(toy_spec)
    assert not AttemptLayout(tmp_path / "first").result.exists()


def test_without_a_test_half_there_is_no_test_score(
    run: Run, toy_spec: TrialSpec, toy_dataset: Any, tmp_path: Path
) -> None:
    """A machine with the training images alone completes the trial."""
    toy_dataset.has_test = False
    result = run(toy_spec)
    assert result is not None
    assert result.test is None
    assert result.environment.dataset_digest == "train toy1"
    assert not AttemptLayout(tmp_path / "first").probabilities("test").exists()


def test_a_warm_worker_opens_its_data_once(run: Run, toy_spec: TrialSpec, toy_dataset: Any) -> None:
    """Two trials of one process on the same data; another seed needs no other data."""
    run(toy_spec)
    run(toy_spec.with_seed(8), "second")
    assert toy_dataset.opened == ["train", "test"]
    assert data.open_training_data.cache_info().maxsize == 2


def test_what_a_warm_worker_did_before_changes_nothing(run: Run, toy_spec: TrialSpec) -> None:
    """The same trial, first in a process and after another trial, has the same scores."""
    first = run(toy_spec)
    run(toy_spec.baseline().with_seed(3), "between")
    again = run(toy_spec, "again")
    assert first is not None
    assert again is not None
    assert without_times(first.epochs) == without_times(again.epochs)
    assert (first.validation, first.test) == (again.validation, again.test)


def test_a_stopped_trial_leaves_a_checkpoint_and_no_result(run: Run, toy_spec: TrialSpec, tmp_path: Path) -> None:
    """Stopped in the second epoch: the first is on the disk."""
    assert run(toy_spec, should_stop=stop_after(8)) is None
    assert {path.name for path in (tmp_path / "first").iterdir()} == {"spec.json", "checkpoint.pt", "snapshots.npy"}


@pytest.mark.parametrize("in_another_folder", [True, False])
@pytest.mark.parametrize("steps", [6, 8, 15])
def test_a_trial_that_goes_on_equals_one_without_a_break(
    in_another_folder: bool, steps: int, run: Run, toy_spec: TrialSpec, tmp_path: Path
) -> None:
    """Bit for bit on one CPU thread: weights, records but for times, and scores; its energy is that of all epochs."""
    whole = run(toy_spec, "whole", energy=metered())
    run(toy_spec, "broken", should_stop=stop_after(steps), energy=metered())
    continued = "other" if in_another_folder else "broken"
    asked: list[int] = []

    def ask() -> bool:
        asked.append(1)
        return False

    going_on = run(toy_spec, continued, resume_from=[tmp_path / "broken"], should_stop=ask, energy=metered())
    assert len(asked) == 18 - steps // 6 * 6
    assert whole is not None
    assert going_on is not None
    assert without_times(going_on.epochs) == without_times(whole.epochs)
    assert (going_on.validation, going_on.test) == (whole.validation, whole.test)
    assert [record.metrics["energy_kwh"] for record in going_on.epochs] == [1.0, 1.0, 1.0]
    assert going_on.validation.metrics["energy_kwh"] == 4.0
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / continued)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_trial_killed_before_its_result_was_written_is_not_trained_again(
    run: Run, toy_spec: TrialSpec, tmp_path: Path
) -> None:
    """The checkpoint of the last epoch is enough, in the same folder or another one, which gets its own copy."""
    whole = run(toy_spec)
    AttemptLayout(tmp_path / "first").result.unlink()
    for folder in ("first", "second"):
        again = run(toy_spec, folder, resume_from=[tmp_path / "first"], should_stop=lambda: pytest.fail("a step"))
        assert whole is not None
        assert again is not None
        assert dataclasses.replace(again, token=whole.token, peak_memory_mib=0) == dataclasses.replace(
            whole, peak_memory_mib=0
        )
        assert AttemptLayout(tmp_path / folder).checkpoint.exists()


def test_a_trial_with_views_goes_on_from_the_weights_of_the_one_without(
    run: Run, toy_spec: TrialSpec, tmp_path: Path
) -> None:
    """Not a step is taken, the weights are the same, and the score is that of the views."""
    run(toy_spec)
    viewed = dataclasses.replace(toy_spec, tta=TtaSpec(zooms=(0.5, 1.0)))
    again = run(viewed, "viewed", resume_from=[tmp_path / "first"], should_stop=lambda: pytest.fail("a step"))
    trained = run(viewed, "trained")
    assert again is not None
    assert trained is not None
    assert again.trial_id == viewed.trial_id != toy_spec.trial_id
    assert (again.validation, again.test) == (trained.validation, trained.test)
    expected, found = weights(tmp_path / "first"), weights(tmp_path / "viewed")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def spoil(checkpoint: Path, how: str) -> None:
    """Make a checkpoint what power cuts, quotas, other versions and mistakes leave."""
    data = checkpoint.read_bytes()
    changed = {"older": {"format": 1}, "of another trial": {"trial_id": "0123"}, "of other images": {"images": "toy3"}}
    match how:
        case "empty":
            checkpoint.write_bytes(b"")
        case "cut":
            checkpoint.write_bytes(data[: len(data) // 2])
        case "flipped":
            checkpoint.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
        case "of another network":
            content = torch.load(checkpoint, weights_only=True)
            name = next(iter(content["network"]))
            content["network"][name] = content["network"][name][:1]
            torch.save(content, checkpoint)
        case "removed":
            checkpoint.unlink()
        case "a folder":
            checkpoint.unlink()
            checkpoint.mkdir()
        case _:
            torch.save(torch.load(checkpoint, weights_only=True) | changed[how], checkpoint)


ANOTHER = ["of another network", "of another trial", "of other images"]
SPOILT = ["empty", "cut", "flipped", "older", *ANOTHER, "a folder", "removed"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first of these tests leaves a whole attempt and two broken off, for the others."""
    return tmp_path_factory.mktemp("kept")


@pytest.mark.parametrize("how", SPOILT)
def test_a_checkpoint_that_cannot_be_used_is_left_out(
    how: str, kept: Path, run: Run, toy_spec: TrialSpec, tmp_path: Path
) -> None:
    """The attempt goes on from an earlier attempt's, or from the start, warns, and ends with the same result."""
    for made in kept.iterdir():
        shutil.copytree(made, tmp_path / made.name)
    if not (tmp_path / "second").exists():
        run(toy_spec, "whole")
        run(toy_spec, "first", should_stop=stop_after(8))
        run(toy_spec, "second", should_stop=stop_after(9), resume_from=[tmp_path / "first"])
        for name in ("whole", "first", "second"):
            shutil.copytree(tmp_path / name, kept / name)
    whole = load_result(tmp_path / "whole" / "result.json")
    spoil(AttemptLayout(tmp_path / "second").checkpoint, how)
    for folder, earlier, steps in (("third", ["second", "first"], 12), ("fourth", ["second"], 18)):
        warnings: list[str] = []
        asked: list[int] = []
        again = run(
            toy_spec,
            folder,
            resume_from=[tmp_path / name for name in earlier],
            should_stop=lambda asked=asked: bool(asked.append(1)),
            warn=warnings.append,
        )
        assert again is not None
        assert len(asked) == steps
        assert (again.validation, again.test) == (whole.validation, whole.test)
        (warning,) = warnings
        assert "second" in warning
        assert "left out" in warning
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "fourth")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_checkpoint_that_is_removed_while_its_attempt_uses_it_is_told(
    run: Run, toy_spec: TrialSpec, tmp_path: Path
) -> None:
    """It is written again after the next epoch; after the last one the result holds without it."""
    path, warnings = AttemptLayout(tmp_path / "first").checkpoint, list[str]()
    is_there: list[bool] = []

    def remove(record: EpochRecord) -> None:
        is_there.append(path.exists())
        path.unlink()

    result = run(toy_spec, "first", report=remove, warn=warnings.append)
    assert result is not None
    assert is_there == [True, True, True]
    assert [str(path) in warning for warning in warnings] == [True, True, True]
    assert ["written again" in warning for warning in warnings] == [True, True, False]
    assert "cannot be evaluated or exported" in warnings[-1]


def test_a_checkpoint_of_before_images_were_recorded_is_gone_on_from(
    run: Run, toy_spec: TrialSpec, tmp_path: Path
) -> None:
    """The version before wrote none of their digest: nothing that it trained is trained again."""
    run(toy_spec, "first", should_stop=stop_after(8))
    path = AttemptLayout(tmp_path / "first").checkpoint
    content = torch.load(path, weights_only=True)
    del content["images"]
    torch.save(content, path)
    warnings: list[str] = []
    asked: list[int] = []
    run(
        toy_spec,
        "second",
        resume_from=[path.parent],
        should_stop=lambda: bool(asked.append(1)),  # type: ignore[func-returns-value]
        warn=warnings.append,
    )
    assert (len(asked), warnings) == (12, [])


@pytest.mark.parametrize(("half", "looks", "epochs"), [("train", 0, 0), ("train", 1, 1), ("test", 0, 3)])
def test_images_written_to_while_a_trial_runs_leave_nothing_of_it(
    run: Run, toy_spec: TrialSpec, toy_dataset: Any, tmp_path: Path, half: str, looks: int, epochs: int
) -> None:
    """No result, and no checkpoint of an epoch that saw them: the next attempt equals one of a trial left in peace."""
    whole = run(toy_spec, "whole")
    data.open_training_data.cache_clear()
    data.open_test_images.cache_clear()
    calls = iter(range(looks))

    def check() -> None:
        if next(calls, None) is None:
            raise DataCorruptError("images.npy has changed")

    real = getattr(toy_dataset, half)
    setattr(toy_dataset, half, lambda: dataclasses.replace(real(), check=check))
    with pytest.raises(DataCorruptError, match=r"images\.npy has changed"):
        run(toy_spec, "first")
    folder = tmp_path / "first"
    assert not (folder / "result.json").exists()
    written = AttemptLayout(folder).checkpoint
    assert len(torch.load(written, weights_only=True)["records"] if written.exists() else ()) <= epochs
    setattr(toy_dataset, half, real)
    again = run(toy_spec, "second", resume_from=[folder])
    assert whole is not None
    assert again is not None
    assert (again.validation, again.test) == (whole.validation, whole.test)


def test_a_folder_without_a_checkpoint_means_a_new_start(run: Run, toy_spec: TrialSpec, tmp_path: Path) -> None:
    """The attempt before may have died in its first epoch."""
    (tmp_path / "empty").mkdir()
    result = run(toy_spec, resume_from=[tmp_path / "empty"])
    assert result is not None
    assert len(result.epochs) == 3


def test_a_trial_that_diverges_says_so_and_leaves_no_result(run: Run, toy_spec: TrialSpec, tmp_path: Path) -> None:
    """A learning rate that throws the weights out of float32."""
    spec = dataclasses.replace(toy_spec, optimizer=SgdSpec(learning_rate=1e30))
    with pytest.raises(DivergedError, match="lower the learning rate"):
        run(spec)
    assert not AttemptLayout(tmp_path / "first").result.exists()


def test_more_images_than_there_are_cannot_be_trained_on(run: Run, toy_spec: TrialSpec) -> None:
    """60 of the 80 images are left to train on."""
    with pytest.raises(SpecError, match="61 training images are asked for, and there are 60"):
        run(dataclasses.replace(toy_spec, training=TrainingSpec(batch_size=10, train_images=61)))


def test_fewer_images_make_shorter_epochs(run: Run, toy_spec: TrialSpec) -> None:
    """25 images are two batches of ten."""
    result = run(dataclasses.replace(toy_spec, training=TrainingSpec(epochs=2, batch_size=10, train_images=25)))
    assert result is not None
    assert [record.step for record in result.epochs] == [2, 4]


def test_a_folder_that_cannot_be_made_is_named(run: Run, toy_spec: TrialSpec, tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "first").write_text("in the way")
    with pytest.raises(FolderError, match="STNBENCH_RUNS"):
        run(toy_spec)


def test_an_unknown_device_is_refused_before_anything_is_written(run: Run, toy_spec: TrialSpec, tmp_path: Path) -> None:
    """The folder is not even made."""
    with pytest.raises(SpecError, match="the device is 'gpu'"):
        run(toy_spec, device="gpu")
    assert not (tmp_path / "first").exists()


def test_what_the_machine_cannot_do_fails_before_training(
    run: Run, toy_spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA graphs on a CPU are an error, and a name that is no option as well; neither is left out in silence."""
    monkeypatch.setenv("STNBENCH_COMPUTE", "cuda_graphs")
    with pytest.raises(EngineError, match="take cuda_graphs out of STNBENCH_COMPUTE"):
        run(toy_spec)
    monkeypatch.setenv("STNBENCH_COMPUTE", "fast")
    with pytest.raises(SpecError, match="unknown option 'fast' in STNBENCH_COMPUTE"):
        run(toy_spec)


def test_the_time_of_a_trial_is_that_of_its_steps_and_scorings(toy_spec: TrialSpec) -> None:
    """With a clock that ticks a second a reading, a step takes one, and so do 250 scored images.

    320 images, 7 batches of 10 and those 250, are preprocessed in a second, and each once.
    """
    clock = itertools.count()
    expected_s = time_trial(
        toy_spec,
        device="cpu",
        threads=1,
        train_images=100,
        validation_images=500,
        clock_s=lambda: float(next(clock)),
    )
    assert expected_s == pytest.approx(3 * (10 * 1 + 500 / 250) + (100 + 500) / 320)
