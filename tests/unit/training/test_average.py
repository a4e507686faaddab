"""The moving average of weights: what it is, that it is what counts, and that a run goes on with it."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from stnbench.spec.network import PoojahiraSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec
from stnbench.training.evaluate import evaluate
from stnbench.training.loop import Hooks, Progress, train
from stnbench.training.optim import WeightAverage
from stnbench.training.step import TrainingRun

pytestmark = pytest.mark.slow

MakeRun = Callable[[TrialSpec], TrainingRun]


def averaging(run: TrainingRun, decay: float = 0.9) -> TrainingRun:
    """The run with an average of its weights."""
    return dataclasses.replace(run, average=WeightAverage(run.model.network, decay))


def hooks(should_stop: Callable[[], bool] = lambda: False) -> Hooks:
    """Hooks that do nothing."""
    return Hooks(save=lambda progress: None, report=lambda record: None, should_stop=should_stop)


def test_the_average_follows_the_weights() -> None:
    """With decay 0.5, 0 and then 1, 1 give 0.75 after two steps but for the share 2/11 and 3/12 of the beginning."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = WeightAverage(network, 0.5)
    nn.init.ones_(network.weight)
    average.update(average.share(1))
    assert float(average.state()["weight"]) == pytest.approx(1 - 2 / 11)
    average.update(average.share(2))
    assert float(average.state()["weight"]) == pytest.approx(1 - 2 / 11 * 3 / 12)
    for step in range(100, 104):
        nn.init.zeros_(network.weight)
        average.update(average.share(step))
    assert float(average.state()["weight"]) == pytest.approx((1 - 2 / 11 * 3 / 12) * 0.5**4)


def test_applied_gives_the_weights_back() -> None:
    """Inside, the network has the averages; afterwards, even after an error, its own weights, counters untouched."""
    network = nn.BatchNorm1d(2)
    average = WeightAverage(network, 0.5)
    network(torch.randn(8, 2))
    own = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def look_and_fail() -> None:
        with average.applied():
            state = network.state_dict()
            assert float(state["running_mean"].abs().sum()) == 0
            assert int(state["num_batches_tracked"]) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        look_and_fail()
    assert all(torch.equal(tensor, own[name]) for name, tensor in network.state_dict().items())


def test_the_average_is_what_is_scored(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """The last validation loss is that of the averaged weights, which the network has at the end."""
    plain, run = make_run(toy_spec), averaging(make_run(toy_spec))
    unaveraged = train(plain, hooks(), Progress())
    outcome = train(run, hooks(), Progress())
    assert outcome.validation is not None
    assert unaveraged.validation is not None
    assert outcome.validation.loss != unaveraged.validation.loss
    assert evaluate(run.model, run.images, run.validation).loss == outcome.validation.loss
    losses = [[record.train_loss for record in done.progress.records] for done in (outcome, unaveraged)]
    assert losses[0] == losses[1]


def test_a_run_goes_on_with_its_average(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Two epochs, and the third from copies of weights, optimiser and average, end bit for bit as three epochs do."""
    spec = dataclasses.replace(toy_spec, training=TrainingSpec(epochs=3, batch_size=10))
    whole, first, second = (averaging(make_run(spec)) for _ in range(3))
    saved: list[Progress] = []
    steps = iter([False] * 20)
    stopping = dataclasses.replace(hooks(lambda: next(steps, True)), save=saved.append)
    train(whole, hooks(), Progress())
    weights = {}

    def keep(progress: Progress) -> None:
        saved.append(progress)
        weights.update({name: tensor.clone() for name, tensor in first.model.network.state_dict().items()})

    train(first, dataclasses.replace(stopping, save=keep), Progress())
    assert first.average is not None
    assert second.average is not None
    second.model.network.load_state_dict(weights)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.average.load(first.average.state())
    train(second, hooks(), saved[-1])
    states = [run.model.network.state_dict() for run in (whole, second)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_running_statistics_are_averaged_too(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Averages hold every floating-point entry of the state, batch normalisation's included, and no counter."""
    spec = dataclasses.replace(toy_spec, network=PoojahiraSpec(sizes=(4, 4, 4, 8)), transformers=())
    spec = dataclasses.replace(spec, dataset=dataclasses.replace(spec.dataset, image_size=24))
    run = averaging(make_run(spec))
    assert run.average is not None
    names = run.average.state().keys()
    assert any(name.endswith("running_var") for name in names)
    assert not any(name.endswith("num_batches_tracked") for name in names)


def test_label_smoothing_joins_the_training_loss_alone(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Of the first epoch, the smoothed training loss differs; before training, the validation loss is the same."""
    smooth = dataclasses.replace(toy_spec, training=TrainingSpec(epochs=1, batch_size=10, label_smoothing=0.2))
    plain = dataclasses.replace(toy_spec, training=TrainingSpec(epochs=1, batch_size=10))
    runs = [make_run(spec) for spec in (plain, smooth)]
    before = [evaluate(run.model, run.images, run.validation).loss for run in runs]
    losses = [train(run, hooks(), Progress()).progress.records[0].train_loss for run in runs]
    assert before[0] == before[1]
    assert losses[0] != losses[1]
