"""The one training of ``make test-fast``: torch is imported by the process that runs it alone."""

import dataclasses
from typing import Any

import pytest

from stnbench.spec.trial import TrainingSpec, TrialSpec

pytestmark = [pytest.mark.slow, pytest.mark.inner]


def test_the_loss_falls_on_a_task_that_can_be_learnt(make_run: Any, toy_spec: TrialSpec) -> None:
    """Six epochs of ten steps learn the four quadrants."""
    from stnbench.training.loop import Hooks, Progress, train

    spec = dataclasses.replace(toy_spec, training=TrainingSpec(epochs=6, batch_size=10))
    hooks = Hooks(save=lambda progress: None, report=lambda record: None, should_stop=lambda: False)
    outcome = train(make_run(spec), hooks, Progress())
    first, *_, last = (record.train_loss for record in outcome.progress.records)
    assert last < first / 2
    assert outcome.validation is not None
    assert outcome.validation.accuracy > 0.9
