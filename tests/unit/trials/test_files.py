"""Results survive the disk, and what is no result is refused with a name."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import FolderError, SpecError
from stnbench.spec.codec import from_json, to_json
from stnbench.spec.result import Cost, Environment, EpochRecord, SplitScore, TransformerHealth, TrialResult
from stnbench.spec.trial import TrialSpec
from stnbench.trials.files import load_result, load_spec, write_result, write_spec

HEALTH = TransformerHealth(
    place=1,
    theta_mean=(1.0, 0.0, 0.1, 0.0, 1.0, 1 / 3),
    theta_std=(0.0,) * 6,
    outside_share=0.25,
    identity_distance=1e-300,
    determinant_mean=-1.0,
)
EPOCH = EpochRecord(
    epoch=1,
    step=400,
    train_loss=3.7,
    validation_loss=3.5,
    validation_accuracy=0.1,
    learning_rate=0.01,
    train_duration_s=1.5,
    evaluate_duration_s=0.5,
    health=(HEALTH,),
)
RESULT = TrialResult(
    trial_id="0123456789abcdef",
    token="7",
    epochs=(EPOCH,),
    validation=SplitScore(split="validation", images=3, correct=2, loss=0.1, predictions=(0, 42, 7)),
    test=None,
    cost=Cost(parameters=1, flops=2, activation_bytes=3),
    environment=Environment(
        commit="unknown",
        dirty=False,
        python="3.11.7",
        platform="p",
        host="h\u00f6st",
        device="cpu",
        threads=2,
        versions=(("torch", "2.6.0"),),
        dataset_digest="d",
    ),
    train_duration_s=1.5,
    peak_memory_mib=100.5,
)


@given(loss=st.floats(0, allow_nan=False, allow_infinity=False), token=st.text(max_size=20))
def test_a_result_is_the_same_after_its_text(loss: float, token: str) -> None:
    """Any finite loss and any token, to the last bit."""
    epoch = dataclasses.replace(EPOCH, train_loss=loss)
    result = dataclasses.replace(RESULT, token=token, epochs=(epoch, epoch), test=RESULT.validation)
    assert from_json(TrialResult, to_json(result), where="here") == result


def test_a_result_comes_back_from_the_disk(tmp_path: Path) -> None:
    """Equal, and alone in its folder."""
    write_result(tmp_path, RESULT)
    assert load_result(tmp_path / "result.json") == RESULT
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_specification_comes_back_from_the_disk(tmp_path: Path) -> None:
    """With its identity."""
    spec = TrialSpec(seed=5)
    write_spec(tmp_path, spec)
    assert load_spec(tmp_path) == spec
    assert load_spec(tmp_path).trial_id == spec.trial_id


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_cut_result_is_refused(share: float, tmp_path: Path) -> None:
    """The message names the file."""
    write_result(tmp_path, RESULT)
    path = tmp_path / "result.json"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SpecError, match=r"result\.json"):
        load_result(path)


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"trial_id": 3}', "\x00\x01"])
def test_a_foreign_file_is_refused(text: str, tmp_path: Path) -> None:
    """JSON of something else, and no JSON at all."""
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(SpecError, match=r"result\.json"):
        load_result(path)


def test_a_result_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    """It was written by another version."""
    path = tmp_path / "result.json"
    path.write_text(to_json(RESULT).replace('"token"', '"tokem"'))
    with pytest.raises(SpecError):
        load_result(path)


def test_a_result_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Not a bare FileNotFoundError."""
    with pytest.raises(FolderError, match=r"result\.json cannot be read"):
        load_result(tmp_path / "result.json")


def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    """JSON has no NaN; the file would be unreadable."""
    with pytest.raises(SpecError):
        write_result(tmp_path, dataclasses.replace(RESULT, train_duration_s=float("nan")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("module", ["stnbench.trials.files", "stnbench.trials.failures"])
def test_the_orchestrator_reads_results_without_torch(module: str) -> None:
    """Importing torch takes seconds and hundreds of megabytes, which no light command shall pay."""
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
