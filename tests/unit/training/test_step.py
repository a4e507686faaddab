"""A step reads nothing from the host, is the textbook's step bit for bit, and one recording of it is every step."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jaxtyping
import pytest
import step_cases
import torch
from captured_calls import stand_in_for_cuda
from logged_operators import HIDDEN_WAITS, OperatorLog
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from stnbench.core.errors import EngineError
from stnbench.core.identity import derive_seed
from stnbench.data.augmentation import draw_augmentations
from stnbench.data.preprocessing import GlobalStatistics
from stnbench.data.resident import epoch_order
from stnbench.models.scored_network import build_model
from stnbench.nn.layers import dropout_layers, seed_dropout
from stnbench.spec.optimizer import AugmentSpec
from stnbench.spec.trial import ComputeOptions, TrialSpec
from stnbench.training import step as module
from stnbench.training.optim import load_optimizer_state, optimizer_state, set_learning_rate
from stnbench.training.step import WARM_UP_STEPS, CapturedStep, StaticStep, TrainingRun, build_step

CPU, META, GPU = torch.device("cpu"), torch.device("meta"), torch.device("cuda:0")
FAMILIES, OTHERS = step_cases.family_cases(), step_cases.other_cases()
CASES = FAMILIES | OTHERS

GRAPHS = {name: spec for name, spec in CASES.items() if name not in {"muon", "rmsprop"}}
"""Whose optimisers read their learning rates from tensors on a CPU; RMSprop does so on a GPU, Muon nowhere."""

every_case = pytest.mark.parametrize("spec", CASES.values(), ids=CASES)


LIKE_ANOTHER = {
    *(FAMILIES.keys() - {"affine"}),
    *(f"sampler {name}" for name in ("bilinear", "bicubic", "nearest", "linearized")),
    *(f"contrast {name}" for name in ("none", "image_adjustment", "histogram_equalisation", "contrast_normalisation")),
    *("global normalisation", "edges", "three places", "output size", "adamw", "dampening", "tf32", "cnn"),
}
"""Cases for test-thorough: what a step does differently is in the others as well."""


def chosen(cases: dict[str, TrialSpec]) -> pytest.MarkDecorator:
    """Parametrize a test of training with these cases; one of a kind stands for the others up to ``make test``."""
    marks = {name: pytest.mark.thorough if name in LIKE_ANOTHER else () for name in cases}
    return pytest.mark.parametrize("spec", [pytest.param(cases[name], marks=marks[name], id=name) for name in cases])


@pytest.fixture(autouse=True)
def unchecked_shapes() -> Iterator[None]:
    """Shapes are not checked while a step is traced."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def textbook_losses(run: TrainingRun, epochs: int) -> list[float]:
    """The same training as a loop without tables, with torch's own numbers for rates, and dropout drawn as it goes."""
    spec, losses, taken = run.spec, [], 0
    size = spec.training.batch_size
    run.model.network.train()
    for epoch in range(epochs):
        order = epoch_order(run.train, seed=spec.seed, epoch=epoch)
        seed_dropout(run.model.network, derive_seed(spec.seed, "dropout", epoch))
        varied = None
        if isinstance(spec.augment, AugmentSpec):
            varied = draw_augmentations(spec.augment, seed=spec.seed, epoch=epoch, count=run.steps * size)
        for index in range(run.steps):
            part = slice(index * size, (index + 1) * size)
            rows = order[part]
            images, boxes = run.images.images[rows], run.images.boxes[rows]
            if varied is not None:
                images, boxes = varied.rows(part).apply(images, boxes)
            set_learning_rate(run.optimizer, run.learning_rate(taken))
            run.optimizer.zero_grad()
            explained = run.model.explain(images, boxes)
            smoothing = spec.training.label_smoothing
            loss = functional.cross_entropy(explained.logits, run.images.labels[rows], label_smoothing=smoothing)
            (loss if explained.penalty is None else loss + explained.penalty).backward()
            if spec.training.gradient_clipping is not None:
                weights = [weight for group in run.optimizer.param_groups for weight in group["params"]]
                nn.utils.clip_grad_norm_(weights, spec.training.gradient_clipping)
            run.optimizer.step()
            taken += 1
            if run.average is not None:
                run.average.update(1 - min(spec.training.weight_average, (1 + taken) / (10 + taken)))
            losses.append(float(loss.detach()))
    return losses


def step_losses(step: StaticStep, epochs: int) -> list[float]:
    """The losses of a static step's training."""
    losses: list[float] = []
    step.run.model.network.train()
    for epoch in range(epochs):
        step.begin_epoch(epoch, epoch * step.run.steps)
        for _ in range(step.run.steps):
            step.take()
        losses += step.losses.tolist()
    step.close()
    return losses


def state_of(run: TrainingRun) -> dict[str, Tensor]:
    """Weights, statistics, momentum and averages, copied."""
    state = {f"network {name}": tensor for name, tensor in run.model.network.state_dict().items()}
    for index, kept in enumerate(run.optimizer.state.values()):
        state |= {f"momentum {index}": value for value in kept.values() if isinstance(value, Tensor)}
    if run.average is not None:
        state |= {f"average {name}": tensor for name, tensor in run.average.state().items()}
    return {name: tensor.detach().clone() for name, tensor in state.items()}


@pytest.mark.slow
@chosen(CASES)
def test_a_static_step_is_the_textbook_s(spec: TrialSpec) -> None:
    """Losses, weights, statistics, momentum and averages after two epochs, bit for bit on one CPU thread."""
    plain, static = step_cases.make_run(spec, CPU), step_cases.make_run(spec, CPU)
    assert step_losses(StaticStep(static), 2) == textbook_losses(plain, 2)
    expected, found = state_of(plain), state_of(static)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


@every_case
@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch knows no CUDA; that of the lock does")
@pytest.mark.usefixtures("fake_weights")
def test_a_forward_pass_on_a_gpu_uploads_nothing_and_waits_for_nothing(spec: TrialSpec) -> None:
    """Every operator of a pass, as CUDA would get it: no tensor comes from the host, and none is read by it.

    Nor is an operator among them that waits inside, or cuDNN's sampler, whose gradient is not repeatable.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        run = step_cases.make_run(spec, GPU)
        step = StaticStep(run)
        step.begin_epoch(0, 0)
        run.model.network.train()
        tables = step._tables
        assert tables is not None
        places = torch.arange(spec.training.batch_size, device=GPU)
        with OperatorLog() as log:
            for layer, kept in zip(dropout_layers(run.model.network), tables.kept, strict=True):
                layer.serve(kept[0])
            rows = tables.rows[places]
            images, boxes = run.images.images[rows], run.images.boxes[rows]
            if tables.augmentations is not None:
                images, boxes = tables.augmentations.rows(places).apply(images, boxes)
            explained = run.model.explain(images, boxes)
            functional.cross_entropy(explained.logits, run.images.labels[rows])
    assert log.uploads == []
    assert log.downloads == []
    assert log.names & HIDDEN_WAITS == set()


NOT_ON_META = {"bfloat16", "muon", "adam", "adamw"}
"""Meta knows neither autocast nor fused optimisers, and Muon reads its rate from the host wherever it runs."""


@chosen({name: spec for name, spec in CASES.items() if name not in NOT_ON_META})
def test_a_whole_step_reads_no_number(spec: TrialSpec) -> None:
    """Forward, backward, update and average on the meta device, which has no numbers: none is asked for."""
    run = step_cases.make_run(spec, META)
    step = StaticStep(run)
    step.begin_epoch(0, 0)
    run.model.network.train()
    with OperatorLog(device="meta") as log:
        step.take()
        step.take()
    assert log.uploads == []
    assert log.downloads == []
    assert log.names & HIDDEN_WAITS == set()


@pytest.mark.slow
@chosen(GRAPHS)
def test_one_recording_of_a_step_is_every_step(spec: TrialSpec) -> None:
    """What make_fx records of the fourth step is replayed for all that follow, into the next epoch.

    The losses and all that training changes are those of a run without recording, bit for bit: nothing that differs
    from step to step is a number of the host. Learning rates are tensors, as on a GPU.
    """
    plain, recorded = (step_cases.make_run(spec, CPU, fused=True) for _ in range(2))
    expected = step_losses(StaticStep(plain), 2)
    step, found, replay = StaticStep(recorded), [], None
    recorded.model.network.train()
    for epoch in range(2):
        step.begin_epoch(epoch, epoch * recorded.steps)
        for _ in range(recorded.steps):
            if replay is None and step._taken < WARM_UP_STEPS:
                step.take()
                continue
            if replay is None:
                replay = record(step)
            else:
                replay()
            step._taken += 1
        found += step.losses.tolist()
    assert found == expected
    before, after = state_of(plain), state_of(recorded)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def record(step: StaticStep) -> Any:
    """Take one step, and return what repeats it: its operators on the same tensors, all numbers of the host fixed."""
    run, tables = step.run, step._tables
    assert tables is not None
    assert step._rates
    tensors = [
        *run.model.network.parameters(),
        *run.model.network.buffers(),
        *(value for state in run.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)),
        *(run.average.state().values() if run.average is not None else ()),
        *tables.tensors(),
        *step._rates,
        step._index,
        step._losses,
    ]

    def advance(*_: Tensor) -> None:
        step._advance()

    traced = make_fx(advance)(*tensors)
    return lambda: traced(*tensors)


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_micro_batches_keep_what_dropout_drops(micro_batches: int) -> None:
    """Parts of a batch take their numbers one after the other, as layers that draw as they go do."""
    spec = OTHERS["dropout"]
    static, drawing = (step_cases.make_run(spec, CPU, micro_batches=micro_batches) for _ in range(2))
    step, other = StaticStep(static), StaticStep(drawing)
    other._layers = []
    for one in (step, other):
        one.run.model.network.train()
        one.begin_epoch(0, 0)
    seed_dropout(drawing.model.network, derive_seed(spec.seed, "dropout", 0))
    tables = other._tables
    assert tables is not None
    other._tables = dataclasses.replace(tables, kept=())
    for _ in range(3):
        step.take()
        other.take()
    assert step.losses.tolist() == other.losses.tolist()


def test_a_state_goes_on_where_learning_rates_are_kept_otherwise() -> None:
    """From an optimiser that reads numbers to one that reads tensors and back; the file has numbers."""
    spec = OTHERS["momentum"]
    one, other = step_cases.make_run(spec, CPU), step_cases.make_run(spec, CPU, fused=True)
    step_losses(StaticStep(one), 1)
    state = optimizer_state(one.optimizer)
    other.model.network.load_state_dict(one.model.network.state_dict())
    load_optimizer_state(other.optimizer, state)
    assert [group["fused"] for group in other.optimizer.param_groups] == [True, True]
    steps = [StaticStep(one), StaticStep(other)]
    for step in steps:
        step.begin_epoch(1, step.run.steps)
        step.take()
    torch.testing.assert_close(steps[0].losses, steps[1].losses)
    rates = [group["lr"] for group in optimizer_state(other.optimizer)["param_groups"]]
    assert [type(rate) for rate in rates] == [float, float]
    assert rates == pytest.approx([one.learning_rate(one.steps)] * 2)


@pytest.mark.parametrize("name", ["momentum", "adam"])
@pytest.mark.parametrize(
    "orders", [(torch.channels_last, torch.contiguous_format), (torch.contiguous_format, torch.channels_last)]
)
def test_a_state_goes_on_where_weights_lie_in_another_order(name: str, orders: tuple[torch.memory_format, ...]) -> None:
    """Fused kernels on a GPU refuse a momentum that does not lie as its weight does; the numbers are the same."""
    one, other = (step_cases.make_run(OTHERS[name], CPU) for _ in range(2))
    for run, order in zip((one, other), orders, strict=True):
        run.model.network.to(memory_format=order)
    step_losses(StaticStep(one), 1)
    load_optimizer_state(other.optimizer, optimizer_state(one.optimizer))
    compared = 0
    for (weight, kept), before in zip(other.optimizer.state.items(), one.optimizer.state.values(), strict=True):
        for key, value in kept.items():
            if key != "step":
                compared += value.dim() == 4
                assert value.stride() == weight.stride()
                assert torch.equal(value, before[key])
    assert compared


def test_a_step_is_captured_once_and_then_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first steps of the training are taken as they are, the next is captured and replayed, the others replayed."""
    cuda = stand_in_for_cuda(monkeypatch)
    updates: list[int] = []
    real = module._update_weights

    def counted(*given: Any) -> Any:
        updates.append(1)
        return real(*given)

    monkeypatch.setattr(module, "_update_weights", counted)
    step = build_step(
        step_cases.make_run(OTHERS["momentum"], CPU, compute=ComputeOptions(cuda_graphs=True), fused=True)
    )
    assert isinstance(step, CapturedStep)
    step_losses(step, 2)
    assert len(updates) == WARM_UP_STEPS + 1
    assert cuda.done == ["capture", *["replay"] * (2 * step.run.steps - WARM_UP_STEPS)]
    assert cuda.graphs == 0  # the test half is scored next, which needs the memory of the graph


def test_without_the_option_a_step_is_taken_as_it_is(toy_spec: TrialSpec) -> None:
    """Kernel by kernel; a model that asks for graphs where there is no GPU cannot be built."""
    assert type(build_step(step_cases.make_run(OTHERS["momentum"], CPU))) is StaticStep
    statistics = GlobalStatistics(mean=0.25, std=0.25)
    with pytest.raises(Exception, match="cuda_graphs are asked for, and the device is cpu"):
        build_model(toy_spec, statistics, classes=4, device=CPU, compute=ComputeOptions(cuda_graphs=True))


def test_a_step_before_its_epoch_is_an_error() -> None:
    """There is nothing to read."""
    with pytest.raises(ValueError, match="before its epoch has begun"):
        StaticStep(step_cases.make_run(OTHERS["momentum"], CPU)).take()


def test_an_optimiser_that_asks_for_its_rate_is_no_graph() -> None:
    """Muon's rate is a number of the host: a graph would repeat the first one, so it is refused by name."""
    asked = step_cases.make_run(OTHERS["muon"], CPU, compute=ComputeOptions(cuda_graphs=True))
    with pytest.raises(EngineError, match="CUDA graphs are asked for, and optimizer=muon reads its rate from the host"):
        build_step(asked)
