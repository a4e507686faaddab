"""A stored network scores as it did when it was trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stnbench.core.errors import CheckpointError, DataMissingError, FolderError, ShapeError, SpecError
from stnbench.core.files import AttemptLayout
from stnbench.data.corruptions import corruption_errors
from stnbench.spec.data import GtsrbSpec, Split
from stnbench.spec.metrics import metric
from stnbench.spec.result import SplitScore, TrialResult
from stnbench.spec.trial import TrialSpec
from stnbench.trials import score as data
from stnbench.trials.export import StoredNetwork
from stnbench.trials.files import read_probabilities, write_spec
from stnbench.trials.run import run_trial
from stnbench.trials.score import Classifier, rescore_trial

pytestmark = pytest.mark.slow


@pytest.fixture
def result(tmp_path: Path, toy_dataset: Any, toy_spec: TrialSpec) -> TrialResult:
    """A finished trial in ``tmp_path``."""
    finished = run_trial(
        toy_spec,
        token="t",
        folder=tmp_path,
        data_root=tmp_path,
        device="cpu",
        threads=1,
        report=lambda record: None,
        should_stop=lambda: False,
    )
    assert finished is not None
    return finished


def score(folder: Path, split: Split, **more: Any) -> SplitScore:
    """The score of the attempt in the folder."""
    return rescore_trial(folder, split, data_root=folder, device="cpu", threads=1, **more).score


def test_a_stored_network_repeats_its_scores(result: TrialResult, tmp_path: Path) -> None:
    """Validation and test, image by image, with the data opened anew."""
    data.open_training_data.cache_clear()
    assert score(tmp_path, "validation") == result.validation
    assert score(tmp_path, "test") == result.test


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_stored_network_repeats_its_probabilities(result: TrialResult, tmp_path: Path, split: Split) -> None:
    """As they lie in its folder since the end of its training."""
    found = rescore_trial(tmp_path, split, data_root=tmp_path, device="cpu", threads=1)
    np.testing.assert_array_equal(found.probabilities, read_probabilities(tmp_path, split, images=20))


def test_a_stored_network_is_shown_its_images_corrupted(result: TrialResult, tmp_path: Path) -> None:
    """As they are, it errs as it was scored; the mean corruption error is that of its own errors on corrupted ones."""
    shown = Classifier.of(StoredNetwork.of_attempt(tmp_path), "validation", data_root=tmp_path, device="cpu", threads=1)
    clean = shown.classify(shown.images).argmax(axis=1)
    errors = corruption_errors(shown.classify, shown.images, shown.labels)
    found = shown.measure({"mean_corruption_error": metric("mean_corruption_error")}, pytest.fail)

    assert shown.scored == result.validation.scored
    assert tuple(clean.tolist()) == result.validation.predictions
    assert found == {"mean_corruption_error": np.mean([*errors.values()])}
    with pytest.raises(ShapeError, match="19 images"):
        shown.classify(shown.images[1:])


def test_the_images_trained_on_can_be_scored(result: TrialResult, tmp_path: Path) -> None:
    """All 60 of them."""
    found = score(tmp_path, "train")
    assert (found.split, found.images) == ("train", 60)


def test_another_data_set_can_be_scored(result: TrialResult, tmp_path: Path, toy_dataset: Any) -> None:
    """Its test half needs nothing of its training half, nor of the trial's own data."""
    data.open_training_data.cache_clear()
    toy_dataset.opened.clear()
    data.open_test_images.cache_clear()
    assert score(tmp_path, "test", dataset=GtsrbSpec(image_size=16)) == result.test
    assert toy_dataset.opened == ["test"]


def test_images_of_another_size_are_refused(result: TrialResult, tmp_path: Path) -> None:
    """The network was made for its own."""
    with pytest.raises(SpecError, match="the images of gtsrb are 48 pixels wide: the network was trained on 16"):
        score(tmp_path, "test", dataset=GtsrbSpec(image_size=48))


def test_a_missing_test_half_is_an_error_here(result: TrialResult, tmp_path: Path, toy_dataset: Any) -> None:
    """Who asks for a test score by name is told why there is none."""
    toy_dataset.has_test = False
    data.open_test_images.cache_clear()
    with pytest.raises(DataMissingError):
        score(tmp_path, "test")


def test_a_folder_without_a_network_is_told(tmp_path: Path, toy_spec: TrialSpec, toy_dataset: Any) -> None:
    """Without a specification, and without a checkpoint."""
    with pytest.raises(FolderError, match=r"spec\.json"):
        score(tmp_path, "test")
    write_spec(tmp_path, toy_spec)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        score(tmp_path, "test")


def test_a_network_of_another_trial_is_refused(result: TrialResult, tmp_path: Path, toy_spec: TrialSpec) -> None:
    """A specification that was edited is no longer the trial's."""
    write_spec(tmp_path, toy_spec.with_seed(8))
    assert AttemptLayout(tmp_path).checkpoint.exists()
    with pytest.raises(CheckpointError, match="is of the trial"):
        score(tmp_path, "test")
