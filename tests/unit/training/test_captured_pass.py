"""A network is scored the same way batch by batch, by passes as they come or by one recording of a pass."""

import dataclasses
import functools
import gc
import math
from collections.abc import Iterator
from typing import Any, cast

import jaxtyping
import numpy as np
import pytest
import step_cases
import torch
from captured_calls import stand_in_for_cuda
from logged_operators import HIDDEN_WAITS, OperatorLog
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from typing_extensions import override

from stnbench.data.augmentation import each_view
from stnbench.data.homographies import prepare_views
from stnbench.data.resident import PreparedImages
from stnbench.nn.layers import StudentNoise
from stnbench.spec.data import PreprocessSpec
from stnbench.spec.network import ModernSpec
from stnbench.spec.optimizer import TtaSpec
from stnbench.spec.transformer import DenseLocnetSpec
from stnbench.spec.trial import ComputeOptions, TrialSpec
from stnbench.training import evaluate as module
from stnbench.training.evaluate import WARM_UP_PASSES, CapturedPass, ForwardPass, Scored, build_pass, evaluate
from stnbench.training.step import TrainingRun

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
placed, trial = step_cases.placed, step_cases.trial
VIEWS = TtaSpec(zooms=(1.0, 1.2))
UNSURE: dict[str, Any] = {"posterior": "student_t", "posterior_samples": 2}
CASES: dict[str, TrialSpec] = {
    "affine": trial(placed()),
    "no transformer": trial(),
    "thin plate": trial(placed("tps")),
    "boxes": trial(placed("roi")),
    "two places": trial(*(placed(place=place, locnet=DenseLocnetSpec(sizes=(4,))) for place in (1, 2))),
    "branches": trial(placed(branches=2, iterations=2)),
    "batch norm": trial(placed(output_size=16), network=ModernSpec(sizes=(4, 5, 6, 7))),
    "contrast": trial(placed(), preprocess=PreprocessSpec(contrast="clahe")),
    "bfloat16": trial(placed(), precision="bfloat16"),
    "views": trial(placed(), tta=VIEWS),
    "posterior": trial(placed(**UNSURE)),
    "views of a posterior": trial(placed(**UNSURE), tta=VIEWS),
}
every_case = pytest.mark.parametrize("spec", CASES.values(), ids=CASES)
THOROUGH = {"thin plate", "boxes", "two places", "batch norm", "bfloat16", "views", "posterior"}
"""Whose recordings are tried in test-thorough: the others hold each part that differs between passes once."""

recorded_cases = pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, marks=pytest.mark.thorough if name in THOROUGH else (), id=name)
        for name, spec in CASES.items()
    ],
)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Batches of 7, so that 16 images are two whole ones and a rest; shapes are not checked while a pass is traced."""
    monkeypatch.setattr(module, "_BATCH", 7)
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def textbook(run: TrainingRun, rows: Tensor) -> tuple[float, list[int], Any]:
    """Loss, predictions and probabilities of a loop over batches that knows nothing of passes."""
    model, losses, predictions, probabilities = run.model, [], [], []
    noises = [layer for layer in model.network.modules() if isinstance(layer, StudentNoise)]
    model.network.eval()
    with torch.inference_mode():
        for batch in torch.split(rows, 7):
            images, boxes = run.images.images[batch], run.images.boxes[batch]
            looks = [(images, boxes)]
            if model.tta is not None:
                looks = list(each_view(prepare_views(model.tta, CPU), images, boxes))
            logs = []
            for look in looks:
                for sample in range(2 if noises else 1):
                    for noise in noises:
                        noise.fix(sample)
                    logs.append(model.explain(*look).logits.log_softmax(dim=1))
            for noise in noises:
                noise.fix(None)
            logits = torch.stack(logs).logsumexp(dim=0) - math.log(len(logs))
            if model.tta is None and not noises:
                logits = model.explain(images, boxes).logits
            losses.append(functional.cross_entropy(logits, run.images.labels[batch], reduction="sum").double())
            predictions += logits.argmax(dim=1).tolist()
            probabilities.append(logits.softmax(dim=1).half())
    return float(torch.stack(losses).sum()) / len(rows), predictions, torch.cat(probabilities).numpy()


@pytest.mark.slow
@every_case
def test_an_evaluation_is_the_textbook_s(spec: TrialSpec) -> None:
    """Loss, predictions and probabilities, bit for bit, with views and draws of a posterior."""
    run = step_cases.make_run(spec, CPU)
    loss, predictions, probabilities = textbook(run, run.train)
    found = evaluate(run.model, run.images, run.train)
    assert found.loss == loss
    assert list(found.predictions) == predictions
    np.testing.assert_array_equal(found.probabilities, probabilities)


def tensors(scored: Scored) -> list[Tensor]:
    """All that an evaluation reads of a pass, in a fixed order."""
    found = [scored.logits, scored.explained.logits, *scored.on.values()]
    for record in scored.explained.transformers:
        found += [record.done.images, record.done.grid, *record.done.parameters]
    return found


class RecordedPass(CapturedPass):
    """A captured pass whose graph is what make_fx records: operators on the same tensors, numbers of the host fixed."""

    def __init__(self, model: Any) -> None:
        ForwardPass.__init__(self, model)
        self._recordings = {}
        self.captured = 0

    @override
    def _record(self, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Any]:
        images, boxes, *prepared = inputs
        take = functools.partial(ForwardPass._score, self, images, boxes, prepared[0] if prepared else None)
        learnt = [*self.model.network.parameters(), *self.model.network.buffers()]
        left = WARM_UP_PASSES
        recorded: list[Any] = []

        def call() -> Scored:
            nonlocal left
            if left:
                left -= 1
                return take()
            if not recorded:
                self.captured += 1
                recorded.extend([make_fx(lambda *_: tensors(take()))(*inputs, *learnt), take()])
            traced, scored = recorded
            for own, new in zip(tensors(scored), traced(*inputs, *learnt), strict=True):
                own.copy_(new)
            return cast("Scored", scored)

        return inputs, call


@pytest.mark.slow
@recorded_cases
def test_one_recording_of_a_pass_is_every_pass(spec: TrialSpec) -> None:
    """Whole batches and rests, of other images, with weights that have changed since: the evaluation is the same.

    That includes predictions, probabilities, health, hidden units and mean parameters, bit for bit: nothing that
    differs from batch to batch is a number of the host.
    """
    run = step_cases.make_run(spec, CPU)
    recorded = RecordedPass(run.model)
    for rows in (run.train[:16], run.train.flip(0)[:16], run.train[10:26]):
        for weight in run.model.network.parameters():
            weight.data.add_(0.01)
        expected = evaluate(run.model, run.images, rows)
        found = evaluate(run.model, run.images, rows, forward=recorded)
        assert found == expected
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert recorded.captured == 2  # whole batches, and those of two images


def test_kept_images_have_a_recording_of_their_own() -> None:
    """Preprocessed images, where they are kept, are what the recording reads; those of other sets need not be kept."""
    run = step_cases.make_run(CASES["affine"], CPU)
    kept = dataclasses.replace(run.images, prepared=PreparedImages(run.images.images, run.model.preprocess))
    recorded = RecordedPass(run.model)
    for images in (kept, run.images):
        expected = evaluate(run.model, images, run.train)
        assert evaluate(run.model, images, run.train, forward=recorded) == expected
    assert recorded.captured == 2


@pytest.mark.parametrize("name", ["affine", "thin plate", "boxes", "views", "views of a posterior"])
@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch knows no CUDA; that of the lock does")
@pytest.mark.usefixtures("fake_weights")
def test_a_pass_on_a_gpu_uploads_nothing_after_the_first(name: str) -> None:
    """A graph could capture no upload: homographies of views and draws of a posterior stay on the device."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        run = step_cases.make_run(CASES[name], GPU)
        run.model.network.eval()
        forward = ForwardPass(run.model)
        rows = torch.arange(7, device=GPU)
        forward.score(run.images, rows)
        with OperatorLog() as log:
            forward.score(run.images, rows)
    assert log.uploads == []
    assert log.downloads == []
    assert log.names & HIDDEN_WAITS == set()


def test_each_shape_is_captured_once_it_has_come_often_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole batches in the first evaluation, the rest in the third; where nobody asks for graphs there are none."""
    cuda = stand_in_for_cuda(monkeypatch)
    run = step_cases.make_run(CASES["affine"], CPU, compute=ComputeOptions(cuda_graphs=True))
    forward = build_pass(run.model, CPU)
    assert isinstance(forward, CapturedPass)
    whole = len(run.train) // 7
    for _ in range(WARM_UP_PASSES):
        evaluate(run.model, run.images, run.train, forward=forward)
    assert cuda.done == ["capture", *["replay"] * (WARM_UP_PASSES * whole - WARM_UP_PASSES)]
    evaluate(run.model, run.images, run.train, forward=forward)
    assert cuda.done.count("capture") == 2
    gc.disable()  # a search for garbage would come too late: the next half is scored with the memory of these graphs
    try:
        assert cuda.graphs == 2
        del forward
        assert cuda.graphs == 0
    finally:
        gc.enable()
    assert type(build_pass(step_cases.make_run(CASES["affine"], CPU).model, CPU)) is ForwardPass
