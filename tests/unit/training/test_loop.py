"""The loop learns, drops nothing silently, stops when asked, and goes on bit for bit."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from narrowed import known, module_of
from torch import Tensor

from stnbench.core.errors import DivergedError, SpecError
from stnbench.models.classifiers import Explained
from stnbench.models.scored_network import Model
from stnbench.spec.metrics import measure
from stnbench.spec.network import LecunSpec
from stnbench.spec.optimizer import AugmentSpec, OneCycleScheduleSpec, SgdSpec
from stnbench.spec.result import EpochRecord
from stnbench.spec.transformer import TransformerSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec
from stnbench.training import loop
from stnbench.training.evaluate import evaluate
from stnbench.training.loop import Hooks, Progress, TrainingOutcome, train
from stnbench.training.step import TrainingRun

pytestmark = pytest.mark.slow

MakeRun = Callable[[TrialSpec], TrainingRun]


def hooks(**replaced: Any) -> Hooks:
    """Hooks that do nothing, apart from those given."""
    quiet = Hooks(save=lambda progress: None, report=lambda record: None, should_stop=lambda: False)
    return dataclasses.replace(quiet, **replaced)


def stop_after(steps: int) -> Callable[[], bool]:
    """Let so many steps pass."""
    answers = iter([False] * steps)
    return lambda: next(answers, True)


def poison_before_step(run: TrainingRun, step: int, value: float = float("nan")) -> Callable[[], bool]:
    """Put a value into a bias of the logits before the ``step``-th step, and never stop."""
    counter = iter(range(1, 10**6))

    def should_stop() -> bool:
        if next(counter) == step:
            with torch.no_grad():
                run.model.network.head.logits.bias[0] = value
        return False

    return should_stop


def losses(outcome: TrainingOutcome) -> list[float]:
    """The training loss of every epoch."""
    return [record.train_loss for record in outcome.progress.records]


def test_snapshots_are_asked_for_from_before_training_on(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Ten in the first epoch, eight in each of two others, the last before saving; later runs ask for the rest."""
    seen: list[str] = []
    told: list[float] = []

    def snapshot(step: int, loss: float) -> None:
        seen.append(str(step))
        told.append(loss)

    watching = hooks(snapshot=snapshot, save=lambda progress: seen.append(f"saved {progress.epochs}"))
    outcome = train(make_run(toy_spec), watching, Progress())
    later = [1, 2, 3, 5, 6, 7, 8, 10]
    second, third = ([str(epoch * 10 + step) for step in later] for epoch in (1, 2))
    expected = [*map(str, range(10)), "10", "saved 1", *second, "saved 2", *third, "saved 3"]
    assert seen == expected
    assert math.isnan(told[0])
    assert np.isfinite(told[1:]).all()
    assert told[10] == pytest.approx(losses(outcome)[0])
    seen.clear()
    first = Progress(records=outcome.progress.records[:1])
    train(make_run(toy_spec), watching, first)
    assert seen == expected[12:]


def test_a_long_training_is_shown_after_every_epoch_alone(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """From the second on, where there are many of them."""
    seen: list[int] = []
    spec = dataclasses.replace(toy_spec, training=TrainingSpec(epochs=25, batch_size=50))
    train(make_run(spec), hooks(snapshot=lambda step, _loss: seen.append(step)), Progress())
    assert seen[-24:] == [2 * epoch for epoch in range(2, 26)]


def test_every_epoch_is_saved_and_then_reported(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Three epochs of ten steps, each with its validation score, saved before anyone hears of it."""
    seen: list[tuple[str, int]] = []
    ticks = iter(range(100))
    watching = hooks(
        save=lambda progress: seen.append(("saved", progress.epochs)),
        report=lambda record: seen.append(("reported", record.epoch)),
        clock=lambda: next(ticks),
    )
    outcome = train(make_run(toy_spec), watching, Progress())
    assert seen == [(what, epoch) for epoch in (1, 2, 3) for what in ("saved", "reported")]
    records = outcome.progress.records
    assert [(record.epoch, record.step) for record in records] == [(1, 10), (2, 20), (3, 30)]
    assert [record.train_duration_s for record in records] == [1, 1, 1]
    assert [record.evaluate_duration_s for record in records] == [1, 1, 1]
    assert outcome.validation is not None
    assert records[-1].validation_accuracy == outcome.validation.accuracy
    assert records[-1].validation_loss == outcome.validation.loss
    assert [health.theta_mean for health in records[-1].health] == [
        health.theta_mean for health in outcome.validation.health
    ]
    assert len(records[-1].health) == 1


def test_every_epoch_has_the_metrics_of_its_validation_images(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Those of the last one are those of the evaluation that the training ends with."""
    run = make_run(toy_spec)
    outcome = train(run, hooks(), Progress())
    records = outcome.progress.records
    assert outcome.validation is not None
    labels = run.images.labels[run.validation].numpy()
    expected = measure(outcome.validation.probabilities, labels, warn=pytest.fail)

    assert [record.metrics.keys() for record in records] == [{"ece", "nll", "worst_class_accuracy"}] * 3
    assert records[-1].metrics == expected
    assert records[0].metrics != records[1].metrics


def test_the_record_of_an_epoch_has_no_room_for_a_test_score() -> None:
    """Test scores are sealed: no field of what is reported could carry one."""
    assert not [field.name for field in dataclasses.fields(EpochRecord) if "test" in field.name]


def test_two_runs_of_one_trial_are_equal(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """On one CPU thread, bit for bit, and whatever the global generator was at."""
    first = train(make_run(toy_spec), hooks(), Progress())
    torch.manual_seed(12345)
    second = train(make_run(toy_spec), hooks(), Progress())
    assert losses(first) == losses(second)
    assert first.validation == second.validation


def test_a_run_that_goes_on_equals_one_without_a_break(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Weights, momentum and records, after a break at the end of each epoch."""
    spec = dataclasses.replace(toy_spec, schedule=OneCycleScheduleSpec())
    whole = make_run(spec)
    expected = train(whole, hooks(), Progress())
    progress, state = Progress(), None
    for _ in range(spec.training.epochs):
        run = make_run(spec)
        if state is not None:
            run.model.network.load_state_dict(state[0])
            run.optimizer.load_state_dict(state[1])
        progress = train(run, hooks(should_stop=stop_after(run.steps)), progress).progress
        state = (run.model.network.state_dict(), run.optimizer.state_dict())
    found = train(run, hooks(), progress)
    assert losses(found) == losses(expected)
    assert found.validation == expected.validation
    for name, weight in whole.model.network.state_dict().items():
        assert torch.equal(weight, known(state)[0][name]), name


def test_a_stop_between_steps_keeps_the_epochs_before(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Stopped in the second epoch: the first stands, no score is made, and no further step is taken."""
    reported: list[EpochRecord] = []
    outcome = train(make_run(toy_spec), hooks(should_stop=stop_after(14), report=reported.append), Progress())
    assert outcome.validation is None
    assert outcome.progress.epochs == len(reported) == 1


def test_a_stop_after_the_last_step_comes_too_late(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """A run that has taken its last step finishes."""
    assert train(make_run(toy_spec), hooks(should_stop=stop_after(30)), Progress()).validation is not None


def test_a_loss_that_is_not_a_number_names_its_step(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Found at the end of the epoch, told as of the step where it happened: the 13th of the run."""
    run = make_run(toy_spec)
    with pytest.raises(DivergedError, match="the loss is nan at step 13: lower the learning rate"):
        train(run, hooks(should_stop=poison_before_step(run, 13)), Progress())


def test_an_infinite_loss_is_found_too(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Infinity is no loss either."""
    run = make_run(toy_spec)
    with pytest.raises(DivergedError, match=r"the loss is (inf|nan) at step 2"):
        train(run, hooks(should_stop=poison_before_step(run, 2, float("-inf"))), Progress())


def test_a_long_epoch_is_not_trained_to_its_end_after_a_nan(
    make_run: MakeRun, toy_spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is looked at every few steps: of ten steps, only the first four are taken."""
    monkeypatch.setattr(loop, "CHECK_EVERY_STEPS", 4)
    run = make_run(toy_spec)
    poison = poison_before_step(run, 2)
    asked: list[int] = []

    def poisoned() -> bool:
        asked.append(1)
        return poison()

    with pytest.raises(DivergedError, match="at step 2"):
        train(run, hooks(should_stop=poisoned), Progress())
    assert len(asked) == 4


def test_a_weight_that_the_last_step_spoilt_is_found(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """The update after the last loss shows in no loss: an enormous rate in one step alone."""
    run = make_run(toy_spec)
    weight = module_of(run.model.network, "head.logits", torch.nn.Linear).weight

    def overflow(*_: object) -> None:
        weight.data.fill_(float("inf"))

    run.optimizer.register_step_post_hook(overflow)
    spec = dataclasses.replace(toy_spec, training=TrainingSpec(epochs=1, batch_size=100))
    with pytest.raises(DivergedError, match=r"the weight head\.logits\.weight is not finite after step 1"):
        train(dataclasses.replace(run, spec=spec), hooks(), Progress())


def test_a_validation_loss_that_is_not_a_number_is_found(
    make_run: MakeRun, toy_spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finite weights may still give an infinite loss."""
    real = evaluate
    monkeypatch.setattr(
        loop, "evaluate", lambda *given, **more: dataclasses.replace(real(*given, **more), loss=float("inf"))
    )
    with pytest.raises(DivergedError, match="the validation loss is inf after step 10"):
        train(make_run(toy_spec), hooks(), Progress())


def test_less_than_one_batch_cannot_be_trained(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Rather than an epoch without a step."""
    spec = dataclasses.replace(toy_spec, training=TrainingSpec(epochs=1, batch_size=101))
    with pytest.raises(SpecError, match="batch_size is 101, and there are 100 training images"):
        train(make_run(spec), hooks(), Progress())


def watch_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """The images of every training step, as they reach the model."""
    seen: list[Tensor] = []
    real = Model.explain

    def explain(model: Model, images: Tensor, boxes: Tensor) -> Explained:
        if model.network.training:
            seen.append(images)
        return real(model, images, boxes)

    monkeypatch.setattr(Model, "explain", explain)
    while True:
        seen.clear()
        yield seen


def test_all_configurations_of_one_seed_see_the_same_batches(
    make_run: MakeRun, toy_spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another network, its baseline without a transformer, another rate: the images of every step are the same."""
    configs = [
        toy_spec,
        toy_spec.baseline(),
        dataclasses.replace(toy_spec, network=LecunSpec(sizes=(2, 3, 4)), optimizer=SgdSpec(learning_rate=0.001)),
    ]
    batches = watch_batches(monkeypatch)
    seen = []
    for config in configs:
        watched = next(batches)
        train(make_run(config), hooks(), Progress())
        seen.append(torch.stack(watched))
    assert len(seen[0]) == 30
    assert all(torch.equal(seen[0], other) for other in seen[1:])
    watched = next(batches)
    train(make_run(toy_spec.with_seed(8)), hooks(), Progress())
    assert not torch.equal(seen[0], torch.stack(watched))


def test_the_schedule_counts_steps_over_all_epochs(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """One cycle over the whole training: high at the end of the first epoch, almost zero at the end of the last."""
    spec = dataclasses.replace(toy_spec, schedule=OneCycleScheduleSpec(warmup_share=0.3))
    rates = [record.learning_rate for record in train(make_run(spec), hooks(), Progress()).progress.records]
    assert rates[0] > rates[1] > rates[2] > 0
    assert rates[2] < 0.01 * spec.optimizer.learning_rate


def test_a_factor_of_zero_freezes_the_localisation_networks(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """The transformer stays the identity while the classifier learns."""
    frozen = dataclasses.replace(toy_spec.optimizer, locnet_learning_rate_factor=0.0)
    outcome = train(make_run(dataclasses.replace(toy_spec, optimizer=frozen)), hooks(), Progress())
    assert [record.health[0].identity_distance for record in outcome.progress.records] == [0, 0, 0]
    moving = train(make_run(toy_spec), hooks(), Progress())
    assert moving.progress.records[-1].health[0].identity_distance > 1e-3


@pytest.mark.parametrize("micro_batches", [2, 3])
def test_micro_batches_take_the_same_steps(make_run: MakeRun, toy_spec: TrialSpec, micro_batches: int) -> None:
    """Batches computed in parts, equal or not, give the losses and weights of whole ones, to 1e-4."""
    whole = make_run(toy_spec)
    parted = dataclasses.replace(make_run(toy_spec), micro_batches=micro_batches)
    expected, found = (train(run, hooks(), Progress()) for run in (whole, parted))
    assert losses(found) == pytest.approx(losses(expected), abs=1e-4)
    for name, weight in whole.model.network.state_dict().items():
        torch.testing.assert_close(parted.model.network.state_dict()[name], weight, rtol=0, atol=1e-4)


def test_augmentation_varies_training_images_alone(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """The run with augmentation trains on other images, the same ones when repeated; validation stays as it is."""
    augmented = dataclasses.replace(toy_spec, augment=AugmentSpec(rotation_deg=10, brightness=0.2))
    plain, first, again = (train(make_run(spec), hooks(), Progress()) for spec in (toy_spec, augmented, augmented))
    assert losses(first) == losses(again)
    assert losses(first) != losses(plain)
    start = evaluate(make_run(augmented).model, make_run(augmented).images, torch.arange(100, 120))
    assert start == evaluate(make_run(toy_spec).model, make_run(toy_spec).images, torch.arange(100, 120))


def test_the_penalty_holds_the_transformer_back(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """With a large identity penalty theta stays nearer to the identity, and the loss told is without it."""
    (placed,) = toy_spec.transformers
    held = dataclasses.replace(placed, transformer=TransformerSpec(identity_penalty=20.0))
    free, tied = (
        train(make_run(spec), hooks(), Progress()).progress.records
        for spec in (toy_spec, dataclasses.replace(toy_spec, transformers=(held,)))
    )
    assert tied[-1].health[0].identity_distance < 0.5 * free[-1].health[0].identity_distance
    assert tied[0].train_loss == pytest.approx(free[0].train_loss, rel=0.2)


def test_a_gradient_is_shortened_to_its_largest_norm(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """The norm over all parameters after every step; without a limit it is longer."""
    norms = {}
    for limit in (None, 0.01):
        run = make_run(dataclasses.replace(toy_spec, training=TrainingSpec(batch_size=10, gradient_clipping=limit)))
        seen: list[float] = []
        run.optimizer.register_step_pre_hook(
            lambda *_, run=run, seen=seen: seen.append(
                float(torch.nn.utils.get_total_norm([p.grad for p in run.model.network.parameters()]))
            )
        )
        train(run, hooks(should_stop=stop_after(5)), Progress())
        norms[limit] = seen
    assert min(norms[None]) > 0.01
    assert norms[0.01] == pytest.approx([0.01] * 5, rel=1e-3)
