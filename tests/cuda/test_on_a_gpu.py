"""What only a GPU can show: that it computes what a CPU does, repeats itself, waits for nothing and survives faults.

``pytest -m cuda`` runs them; where there is no GPU they are skipped. They need no fixture of other tests, so that a
machine without the development tools can run them: ``pytest --noconftest -o addopts=--import-mode=importlib -m cuda``.
"""

import dataclasses
import sys
import time
from pathlib import Path

import pytest
import step_cases
import torch
from fake_trials import Task, fake_spec

from stnbench.engines import EngineEvent, Epoch, Failed, Finished, Launch, Slot
from stnbench.engines.local import LocalEngine
from stnbench.engines.slots import visible_gpus
from stnbench.spec.optimizer import TtaSpec
from stnbench.spec.result import FailureKind
from stnbench.spec.trial import ComputeOptions, TrialSpec
from stnbench.training.device import DeviceSpec, prepare_device
from stnbench.training.evaluate import CapturedPass, evaluate
from stnbench.training.optim import load_optimizer_state, optimizer_state
from stnbench.training.step import CapturedStep, StaticStep, TrainingRun

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
CASES = step_cases.family_cases() | step_cases.other_cases()
REPEATABLE = [name for name in CASES if name != "three places"]  # the gradient to feature maps is summed in any order
CAPTURABLE = [name for name in CASES if name != "muon"]  # its rate is a number of the host: refused
WORKER = (sys.executable, str(Path(__file__).parents[1] / "support" / "cuda_worker.py"))

EQUAL = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2}
"""How far the losses of five steps may be from the CPU's."""


@pytest.fixture(autouse=True)
def prepared_device() -> None:
    """This process is set up as a worker is."""
    prepare_device(DeviceSpec.parse("cuda:0", threads=2))


def take(run: TrainingRun, kind: type[StaticStep], epochs: int = 1) -> torch.Tensor:
    """The losses of a run's first epochs of five steps."""
    step, losses = kind(run), []
    run.model.network.train()
    for epoch in range(epochs):
        step.begin_epoch(epoch, epoch * run.steps)
        for _ in range(run.steps):
            step.take()
        losses.append(step.losses.clone())
    step.close()
    return torch.cat(losses).cpu()


def weights(run: TrainingRun) -> list[torch.Tensor]:
    """All that the network has learnt."""
    return [tensor.detach().cpu() for tensor in run.model.network.state_dict().values()]


@pytest.mark.parametrize("name", CASES)
def test_a_gpu_computes_what_a_cpu_does(name: str) -> None:
    """The losses of five steps agree to 1e-4 in float32, and by the precision's own rounding otherwise."""
    spec = CASES[name]
    prepare_device(DeviceSpec.parse("cuda:0", threads=2), spec.training.precision)
    here, there = (take(step_cases.make_run(spec, device), StaticStep) for device in (CPU, GPU))
    torch.testing.assert_close(there, here, rtol=0, atol=EQUAL[spec.training.precision])


@pytest.mark.parametrize("name", REPEATABLE)
def test_a_gpu_repeats_itself(name: str) -> None:
    """The same run twice has the same losses and weights, bit for bit."""
    runs = [step_cases.make_run(CASES[name], GPU) for _ in range(2)]
    losses = [take(run, StaticStep, epochs=2) for run in runs]
    assert torch.equal(*losses)
    assert all(torch.equal(one, other) for one, other in zip(weights(runs[0]), weights(runs[1]), strict=True))


@pytest.mark.parametrize("name", [name for name in CAPTURABLE if name in REPEATABLE])
def test_a_replayed_step_is_the_step(name: str) -> None:
    """Losses and weights after 25 steps, 22 of them replays, are those of the loop, bit for bit."""
    runs = [step_cases.make_run(CASES[name], GPU) for _ in range(2)]
    losses = [take(run, kind, epochs=5) for run, kind in zip(runs, (StaticStep, CapturedStep), strict=True)]
    assert torch.equal(*losses)
    assert all(torch.equal(one, other) for one, other in zip(weights(runs[0]), weights(runs[1]), strict=True))


@pytest.mark.parametrize(
    ("name", "kind"), [(name, StaticStep) for name in CASES] + [(name, CapturedStep) for name in CAPTURABLE]
)
def test_a_step_waits_for_nothing(name: str, kind: type[StaticStep]) -> None:
    """CUDA itself says so: a step that made the host wait would raise."""
    run = step_cases.make_run(CASES[name], GPU)
    step = kind(run)
    run.model.network.train()
    for epoch in range(2):
        step.begin_epoch(epoch, epoch * run.steps)
        for index in range(run.steps):
            is_watched = epoch > 0 or index > 0  # in the first step libraries make what they need
            is_capture = kind is CapturedStep and epoch == 0
            torch.cuda.set_sync_debug_mode("error" if is_watched and not is_capture else "default")
            try:
                step.take()
            finally:
                torch.cuda.set_sync_debug_mode("default")


def test_a_capture_is_of_a_run_with_parts_of_batches_too() -> None:
    """Micro-batches are kernels of the same graph."""
    runs = [step_cases.make_run(CASES["momentum"], GPU, micro_batches=2) for _ in range(2)]
    losses = [take(run, kind, epochs=5) for run, kind in zip(runs, (StaticStep, CapturedStep), strict=True)]
    assert torch.equal(*losses)


VIEWS = TtaSpec(zooms=(1.0, 1.2))
PASSES = [*((name, None) for name in REPEATABLE), *((name, VIEWS) for name in ("affine", "tps", "cnn", "bfloat16"))]


@pytest.mark.parametrize(("name", "tta"), PASSES)
def test_a_replayed_pass_is_the_pass(name: str, tta: TtaSpec | None) -> None:
    """Evaluations by graph, of whole batches and of a rest, before and after weights change, bit for bit."""
    run = step_cases.make_run(dataclasses.replace(CASES[name], tta=tta), GPU, images=600)
    captured = CapturedPass(run.model, GPU)
    for rows in (run.train, run.train[:590], run.train.flip(0), run.train):
        with torch.no_grad():
            for weight in run.model.network.parameters():
                weight.add_(0.001)
        expected = evaluate(run.model, run.images, rows)
        found = evaluate(run.model, run.images, rows, forward=captured)
        assert found == expected
        assert (found.probabilities == expected.probabilities).all()


@pytest.mark.parametrize("options", [{"fused_kernels": True}, {"padded_channels": True}], ids=str)
@pytest.mark.parametrize("name", ["affine", "three places", "cnn", "bfloat16", "augmented"])
def test_chosen_kernels_take_the_same_steps(name: str, options: dict[str, bool]) -> None:
    """Losses of five steps agree with those of torch's layers to the precision's rounding, as graphs as well."""
    spec = CASES[name]
    compute = ComputeOptions(channels_last=True, **options)
    prepare_device(DeviceSpec.parse("cuda:0", threads=2), spec.training.precision)
    plain = take(step_cases.make_run(spec, GPU), StaticStep)
    for kind in (StaticStep, CapturedStep):
        found = take(step_cases.make_run(spec, GPU, compute=compute), kind)
        torch.testing.assert_close(found, plain, rtol=0, atol=EQUAL[spec.training.precision])


def endings(engine: LocalEngine, count: int) -> dict[str, EngineEvent]:
    """The endings of so many attempts."""
    found: dict[str, EngineEvent] = {}
    deadline = time.monotonic() + 120
    while len(found) < count and time.monotonic() < deadline:
        found |= {event.token: event for event in engine.poll(0.2) if not isinstance(event, Epoch)}
    return found


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_a_training_goes_on_from_a_checkpoint_of_a_cpu(name: str) -> None:
    """Weights and momentum lie there with channels last, and here as the network does."""
    here, there = (step_cases.make_run(CASES[name], device) for device in (CPU, GPU))
    here.model.network.to(memory_format=torch.channels_last)
    take(here, StaticStep)
    there.model.network.load_state_dict(here.model.network.state_dict())
    load_optimizer_state(there.optimizer, optimizer_state(here.optimizer))
    assert torch.isfinite(take(there, CapturedStep)).all()


@pytest.mark.parametrize(
    ("task", "kind"),
    [(Task.SPOIL_DEVICE, FailureKind.DEVICE), (Task.OUT_OF_MEMORY, FailureKind.OUT_OF_MEMORY)],
)
def test_a_slot_survives_a_fault_of_its_gpu(task: Task, kind: FailureKind, tmp_path: Path) -> None:
    """An illegal access, or too little memory, costs its attempt and its worker; the slot's next attempt is whole."""
    slot = Slot(name="gpu", device=visible_gpus()[0], threads=1)
    engine = LocalEngine([slot], tmp_path / "logs", command=WORKER)
    try:
        for token, what in (("a", task), ("b", Task.FINISH)):
            folder = tmp_path / token
            folder.mkdir()
            engine.submit(slot, Launch(spec=fake_spec(what), token=token, folder=str(folder), data_root=str(tmp_path)))
            ending = endings(engine, 1)[token]
            if token == "a":
                assert isinstance(ending, Failed)
                assert ending.failure.kind is kind, ending.failure.message
            else:
                assert ending == Finished(token="b")
    finally:
        engine.close()


def test_options_that_ask_for_graphs_give_a_captured_step() -> None:
    """As ``STNBENCH_COMPUTE=cuda_graphs`` does, with channels last as well."""
    compute = ComputeOptions(cuda_graphs=True, channels_last=True)
    spec: TrialSpec = CASES["bfloat16"]
    run = step_cases.make_run(spec, GPU, compute=compute)
    assert torch.isfinite(take(run, CapturedStep, epochs=3)).all()
