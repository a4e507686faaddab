"""The data that a run shows are those that it saw, and no more than may be known."""

import dataclasses
import json

from stnbench.spec.data import DistortionSpec, SignsSpec
from stnbench.spec.result import AttemptState, Environment
from stnbench.tracking import AttemptView
from stnbench.tracking.shown import dataset_inputs


def seeing(attempt: AttemptView, digest: str) -> AttemptView:
    """The attempt with data of this digest."""
    assert isinstance(attempt.environment, Environment)
    return dataclasses.replace(
        attempt, environment=dataclasses.replace(attempt.environment, dataset_digest=digest), failure=None
    )


def test_each_half_has_its_digest_and_use(attempt: AttemptView) -> None:
    """Name, digest, how it is made, and what for."""
    train, test = dataset_inputs(seeing(attempt, "train 65a52f, test 722dc7"))
    assert (train.name, train.digest, train.context) == ("signs train", "65a52f", "training")
    assert (test.name, test.digest, test.context) == ("signs test", "722dc7", "testing")
    assert json.loads(train.source)["kind"] == "signs"


def test_distorted_data_say_so(attempt: AttemptView) -> None:
    """They are other data, and have another name."""
    spec = dataclasses.replace(attempt.spec, dataset=SignsSpec(distortion=DistortionSpec(rotation_deg=90.0)))
    [train] = dataset_inputs(seeing(dataclasses.replace(attempt, spec=spec), "train 65a52f"))
    assert train.name == "signs distorted train"


def test_what_is_not_known_is_not_shown(attempt: AttemptView) -> None:
    """Without an environment there is no digest, and the test half waits for the end."""
    assert dataset_inputs(dataclasses.replace(attempt, environment=None)) == []
    running = dataclasses.replace(seeing(attempt, "train a, test b"), state=AttemptState.RUNNING)
    assert [one.context for one in dataset_inputs(running)] == ["training"]
