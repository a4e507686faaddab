"""How a model computes changes its speed: kept images, compiled parts; bfloat16 leaves geometry in float32."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from stnbench.core.errors import EngineError
from stnbench.data.preprocessing import GlobalStatistics
from stnbench.data.resident import PreparedImages
from stnbench.diagnostics.health import GradientMeter
from stnbench.models import scored_network
from stnbench.models.classifiers import Explained
from stnbench.models.scored_network import build_model, compile_network, memory_format
from stnbench.spec.network import LecunSpec
from stnbench.spec.optimizer import AugmentSpec
from stnbench.spec.trial import ComputeOptions, TrialSpec
from stnbench.training import loop
from stnbench.training.device import release_memory
from stnbench.training.loop import Hooks, Progress, TrainingOutcome, train
from stnbench.training.step import TrainingRun, build_step

pytestmark = pytest.mark.slow

MakeRun = Callable[[TrialSpec], TrainingRun]

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


def hooks() -> Hooks:
    """Hooks that do nothing."""
    return Hooks(save=lambda _: None, report=lambda _: None, should_stop=lambda: False)


def quietly(run: TrainingRun) -> TrainingOutcome:
    """Train to the end."""
    return train(run, hooks(), Progress())


def keeping(run: TrainingRun) -> TrainingRun:
    """The same run with a memory of its preprocessed images."""
    prepared = PreparedImages(run.images.images, run.model.preprocess)
    return dataclasses.replace(run, images=dataclasses.replace(run.images, prepared=prepared))


def in_precision(spec: TrialSpec, precision: Any) -> TrialSpec:
    """The same trial in another precision."""
    return dataclasses.replace(spec, training=dataclasses.replace(spec.training, precision=precision))


def explain(run: TrainingRun) -> Explained:
    """What the run's model says of the first twenty images."""
    return run.model.explain(run.images.images[:20], run.images.boxes[:20])


def with_eager_backend(run: TrainingRun, monkeypatch: pytest.MonkeyPatch) -> TrainingRun:
    """Its parts compiled by a backend that runs what was traced as it is."""
    monkeypatch.setattr(scored_network, "BACKEND", "eager")
    compile_network(run.model.network, ComputeOptions(compile=True), CPU)
    return run


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """What a test compiles is forgotten after it; shapes are not checked meanwhile, which cannot be traced."""
    torch._dynamo.reset()
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
    torch._dynamo.reset()


@pytest.mark.parametrize("augment", [None, AugmentSpec(rotation_deg=10)])
def test_kept_images_change_no_bit_of_a_run(
    make_run: MakeRun, toy_spec: TrialSpec, augment: AugmentSpec | None
) -> None:
    """Losses, scores, health and weights are equal; with augmentation only validation images are kept."""
    spec = dataclasses.replace(toy_spec, augment=augment)
    plain, kept = make_run(spec), keeping(make_run(spec))
    expected, found = quietly(plain), quietly(kept)
    for one, other in zip(expected.progress.records, found.progress.records, strict=True):
        first, second = (
            dataclasses.replace(record, train_duration_s=0.0, evaluate_duration_s=0.0) for record in (one, other)
        )
        assert first == second
    for name, weight in plain.model.network.state_dict().items():
        assert torch.equal(weight, kept.model.network.state_dict()[name]), name
    assert kept.images.prepared is not None
    assert kept.images.prepared.count == (120 if augment is None else 20)


def test_micro_batches_and_kept_images_go_together(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """The losses are those of micro-batches without the memory."""
    plain = dataclasses.replace(make_run(toy_spec), micro_batches=3)
    kept = dataclasses.replace(keeping(make_run(toy_spec)), micro_batches=3)
    expected, found = quietly(plain), quietly(kept)
    assert [record.train_loss for record in found.progress.records] == [
        record.train_loss for record in expected.progress.records
    ]


def test_bfloat16_leaves_geometry_in_float32(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Theta, grid, weights and logits are float32; a new transformer is the identity to the last bit."""
    run = make_run(in_precision(toy_spec, "bfloat16"))
    explained = explain(run)
    (record,) = explained.transformers
    assert record.done.grid.dtype == record.done.parameters[0].dtype == explained.logits.dtype == torch.float32
    assert torch.equal(record.done.grid, explain(make_run(toy_spec)).transformers[0].done.grid)
    assert {parameter.dtype for parameter in run.model.network.parameters()} == {torch.float32}


def test_bfloat16_is_used_and_close(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Logits differ from float32's, by bfloat16's rounding only, and a run learns the same task to the same loss."""
    low, full = make_run(in_precision(toy_spec, "bfloat16")), make_run(toy_spec)
    one, other = explain(low).logits, explain(full).logits
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, rtol=0, atol=0.02)
    losses = [quietly(run).progress.records[-1].train_loss for run in (low, full)]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)


def test_bfloat16_gradients_are_float32_and_point_the_same_way(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """The cosine between the gradients of all weights in bfloat16 and in float32 is above 0.98."""

    def gradient(run: TrainingRun) -> Tensor:
        functional.cross_entropy(explain(run).logits, run.images.labels[:20]).backward()
        parts = [parameter.grad for parameter in run.model.network.parameters() if parameter.grad is not None]
        assert {part.dtype for part in parts} == {torch.float32}
        return torch.cat([part.flatten() for part in parts])

    low, full = (gradient(make_run(spec)) for spec in (in_precision(toy_spec, "bfloat16"), toy_spec))
    assert functional.cosine_similarity(low, full, dim=0).item() > 0.98


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks, and hides it
@torch._dynamo.config.patch(recompile_limit=100)  # type: ignore[untyped-decorator]
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_parts_take_the_same_steps(
    make_run: MakeRun, toy_spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and run as they are, stages, head and localisation network give the losses and weights of plain ones."""
    # Here every method is wrapped by one function that checks shapes, and torch counts compilations by function.
    spec = dataclasses.replace(toy_spec, training=dataclasses.replace(toy_spec.training, epochs=1))
    plain, traced = make_run(spec), with_eager_backend(make_run(spec), monkeypatch)
    names = list(plain.model.network.state_dict())
    expected, found = quietly(plain), quietly(traced)
    assert found.progress.records[0].train_loss == pytest.approx(expected.progress.records[0].train_loss, abs=1e-6)
    assert list(traced.model.network.state_dict()) == names
    for name, weight in plain.model.network.state_dict().items():
        torch.testing.assert_close(traced.model.network.state_dict()[name], weight, rtol=0, atol=1e-6)


def test_the_parts_are_compiled_as_asked(
    make_run: MakeRun, toy_spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stages, the head and the localisation network, by inductor; for CUDA graphs of whole steps, none."""
    asked: list[dict[str, Any]] = []

    def compile_part(forward: Any, **options: Any) -> Any:
        asked.append(options)
        return partial(forward)

    monkeypatch.setattr(torch, "compile", compile_part)
    run = make_run(toy_spec)
    expected = explain(run).logits
    compile_network(run.model.network, ComputeOptions(), CPU)
    compile_network(run.model.network, ComputeOptions(cuda_graphs=True), GPU)
    assert asked == []
    compile_network(run.model.network, ComputeOptions(compile=True), CPU)
    assert asked == [{"backend": "inductor"}] * 4
    assert torch.equal(explain(run).logits, expected)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.usefixtures("fresh_compiler")
def test_every_trial_of_a_worker_runs_compiled(
    make_run: MakeRun, toy_spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten networks in one process: each runs as many compiled parts as the first, for memory is given back in between.

    torch counts compilations by code, which all networks share, and beyond its limit it would run them as they are.
    """
    ran: list[int] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        def run(*given: Any) -> Any:
            ran[-1] += 1
            return graph.forward(*given)

        return run

    monkeypatch.setattr(scored_network, "BACKEND", backend)
    for size in range(10):
        ran.append(0)
        spec = dataclasses.replace(toy_spec, network=LecunSpec(sizes=(4 + size, 5, 6 + size)))
        run = make_run(spec)
        compile_network(run.model.network, ComputeOptions(compile=True), CPU)
        for rows in (10, 10, 7):  # a batch, and the rest of the validation images
            batch = torch.arange(rows)
            run.model.explain(run.images.images[batch], run.images.boxes[batch]).logits.sum().backward()
        release_memory("cpu")
    assert ran == [ran[0]] * 10
    assert ran[0] >= 3 * 4


@pytest.mark.usefixtures("fresh_compiler")
def test_a_part_that_cannot_be_compiled_again_is_an_error(
    make_run: MakeRun, toy_spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch is told to raise at its limit of compilations, where it would otherwise run the part as it is."""
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", False)
    with_eager_backend(make_run(toy_spec), monkeypatch)
    assert torch._dynamo.config.fail_on_recompile_limit_hit


def test_cuda_graphs_without_a_gpu_are_an_error(toy_spec: TrialSpec) -> None:
    """Rather than a run without them: the message names the variable."""
    statistics = GlobalStatistics(mean=0.25, std=0.25)
    with pytest.raises(EngineError, match="cuda_graphs are asked for, and the device is cpu: take cuda_graphs out of"):
        build_model(toy_spec, statistics, classes=4, device=CPU, compute=ComputeOptions(cuda_graphs=True))


def test_channels_are_last_on_a_cpu_and_where_asked() -> None:
    """On a GPU they are as torch has them, unless the option is on."""
    last = ComputeOptions(channels_last=True)
    assert memory_format(CPU, ComputeOptions()) == memory_format(CPU, last) == torch.channels_last
    assert memory_format(GPU, ComputeOptions()) == torch.contiguous_format
    assert memory_format(GPU, last) == torch.channels_last


class Asked(TorchDispatchMode):
    """Counts the times that the host asks a tensor for a number, which on a GPU makes it wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch leaves it untyped
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator."""
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


def test_an_epoch_asks_for_as_many_numbers_as_a_shorter_one(
    make_run: MakeRun, toy_spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten steps with augmentation or two: the host waits by the epoch, not by the step; a snapshot waits as well."""
    monkeypatch.setattr(loop, "FIRST_EPOCH_SNAPSHOTS", 1)
    counts = []
    for batch_size in (10, 50):
        training = dataclasses.replace(toy_spec.training, epochs=1, batch_size=batch_size)
        spec = dataclasses.replace(toy_spec, training=training, augment=AugmentSpec(rotation_deg=10, brightness=0.2))
        run = make_run(spec)
        meter, step = GradientMeter(run.model.network), build_step(run)
        with Asked() as asked:
            loop._train_epoch(step, meter, Progress(), hooks())
        counts.append(asked.count)
    assert counts[0] == counts[1]
