"""Evaluation of a network: scores, health, and accuracy with transformers replaced."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from stnbench.core.process import advancing
from stnbench.data.augmentation import each_view
from stnbench.data.homographies import ViewMove, prepare_views
from stnbench.data.resident import DeviceImages
from stnbench.diagnostics.health import Looks, TransformerWatch, UnitWatch
from stnbench.models.classifiers import Explained
from stnbench.models.scored_network import Key, Model, learning_transformers, localization_networks
from stnbench.nn.layers import StudentNoise
from stnbench.nn.spatial_transformer import SpatialTransformer
from stnbench.spec.data import Split
from stnbench.spec.result import SplitScore, TransformerHealth, judge
from stnbench.training.device import CapturedCall

# One pass over images without training: loss, predictions and the health of the transformers.


_BATCH: Final = 250
"""Images in a batch; fixed, so that a score never depends on a setting."""

WARM_UP_PASSES: Final = 2
"""Passes of a shape that run kernel by kernel before one is captured; a shape that comes less often never is."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Output of a network at rest for a batch.

    Attributes:
        explained: the output for the images as they are, with that of the transformers.
        logits: (batch, classes), over all views and draws of a posterior.
        on: the hidden units of localisation networks that were on for any image, as ``UnitWatch`` yields them.
    """

    explained: Explained
    logits: Tensor
    on: Mapping[Key, Tensor]


@dataclass(slots=True, eq=False)
class ScoringConstants:
    """Numbers that every batch needs on its device; they are uploaded with the first, so that others upload none."""

    moves: tuple[ViewMove | None, ...] = ()
    draws: dict[tuple[int, int], Tensor] = field(default_factory=dict)


class ForwardPass:
    """Passes of a network at rest over batches of images, kernel by kernel.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._units = UnitWatch(model)
        self._constants = ScoringConstants()

    def score(self, images: DeviceImages, rows: Tensor) -> Scored:
        """Return the output for the images at rows (batch,) of a set; it holds until the next batch is scored."""
        prepared = None if images.prepared is None else images.prepared.rows(rows)
        return self._score(images.images[rows], images.boxes[rows], prepared)

    def _score(self, images: Tensor, boxes: Tensor, prepared: Tensor | None) -> Scored:
        """Return the output for images, boxes and, where they are kept, preprocessed images."""
        return _pass_over(self.model, self._units, self._constants, images, boxes, prepared)


def _pass_over(  # a function and not a method: the graph of one would keep the pass that keeps the graph
    model: Model,
    units: UnitWatch,
    constants: ScoringConstants,
    images: Tensor,
    boxes: Tensor,
    prepared: Tensor | None,
) -> Scored:
    with units.watching() as on:
        explained = model.explain(images, boxes) if prepared is None else model.explain_prepared(prepared, boxes)
        logits = over_views(model, images, boxes, explained.logits, constants)
    return Scored(explained, logits, on)


class CapturedPass(ForwardPass):
    """The same passes as replays of CUDA graphs, one for each shape of a batch.

    A shape is captured after ``WARM_UP_PASSES`` passes: whole batches in the first epoch, and the rest of a split,
    which fills no batch, where it is scored again. It is not padded, so that kernels, and the last bits, are those of
    the pass without a graph. The images are copied to where the graph reads them, and may be of any set.

    Args:
        model: the model, on a GPU.
        device: the GPU.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        super().__init__(model)
        self._stream = torch.cuda.Stream(device)
        self._recordings: dict[object, tuple[tuple[Tensor, ...], CapturedCall[Scored]]] = {}

    @override
    def _score(self, images: Tensor, boxes: Tensor, prepared: Tensor | None) -> Scored:
        given = (images, boxes) if prepared is None else (images, boxes, prepared)
        shape = tuple((tensor.shape, tensor.dtype) for tensor in given)
        if shape not in self._recordings:
            self._recordings[shape] = self._record(tuple(map(torch.empty_like, given)))
        inputs, call = self._recordings[shape]
        for own, new in zip(inputs, given, strict=True):
            own.copy_(new)
        return call()

    def _record(self, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], CapturedCall[Scored]]:
        """Return the place in memory of the inputs of a shape, and the pass that reads them there."""
        images, boxes, *prepared = inputs
        own = (self.model, self._units, self._constants)
        take = functools.partial(_pass_over, *own, images, boxes, prepared[0] if prepared else None)
        return inputs, CapturedCall(take, self._stream, warm_up=WARM_UP_PASSES)


def build_pass(model: Model, device: torch.device) -> ForwardPass:
    """Return the passes of a model over images on a device: CUDA graphs where its options request them."""
    return CapturedPass(model, device) if model.compute.cuda_graphs else ForwardPass(model)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Result of one pass over n images.

    Attributes:
        loss: the mean cross-entropy.
        correct: the number of images classified correctly.
        predictions: the predicted classes, in the order of the indices.
        probabilities: float16 (n, classes), in the same order; over several views, the mean of all.
        health: the health of each transformer, without verdicts, for the images as they are.
        mean_parameters: the mean parameters of each transformer over the images as they are, for each iteration.
    """

    loss: float
    correct: int
    predictions: tuple[int, ...]
    probabilities: NDArray[np.float16] = field(compare=False)
    health: tuple[TransformerHealth, ...]
    mean_parameters: Mapping[Key, Looks]

    @property
    def accuracy(self) -> float:
        """Return the share of images classified correctly, in [0, 1]."""
        return self.correct / len(self.predictions)

    def score(self, split: Split) -> SplitScore:
        """Return the result as the score of a split."""
        images = len(self.predictions)
        return SplitScore(
            split=split, images=images, correct=self.correct, loss=self.loss, predictions=self.predictions
        )


def evaluate(model: Model, images: DeviceImages, indices: Tensor, *, forward: ForwardPass | None = None) -> Evaluation:
    """Evaluate the model on some images; the network keeps its mode.

    Args:
        model: the model.
        images: the images, on the device of the model.
        indices: int64 (n,), the rows of at least one image.
        forward: the model's passes over images, where they are used for several evaluations.
    """
    forward = forward or build_pass(model, images.labels.device)
    watch, units = TransformerWatch(), UnitWatch(model)
    predictions, probabilities, losses = [], [], []
    with _at_rest(model):
        for batch in advancing(torch.split(indices, _BATCH), "scoring"):
            scored = forward.score(images, batch)
            watch.add(scored.explained.transformers, None if images.poses is None else images.poses[batch])
            units.add(scored.on)
            losses.append(functional.cross_entropy(scored.logits, images.labels[batch], reduction="sum").double())
            predictions.append(scored.logits.argmax(dim=1))
            probabilities.append(scored.logits.softmax(dim=1).half())
    predicted = torch.cat(predictions)
    return Evaluation(
        loss=float(torch.stack(losses).sum()) / len(indices),
        correct=int((predicted == images.labels[indices]).sum()),
        predictions=tuple(predicted.tolist()),
        probabilities=torch.cat(probabilities).cpu().numpy(),
        health=units.completed(watch.results()),
        mean_parameters=watch.mean_parameters(),
    )


def accuracy(model: Model, images: DeviceImages, indices: Tensor) -> float:
    """Return the share in [0, 1] of the images at the indices (n,), at least one, that are classified correctly.

    It runs kernel by kernel, since constants may stand in for localisation networks (``emitting``).
    """
    forward, hits = ForwardPass(model), []
    with _at_rest(model):
        for batch in advancing(torch.split(indices, _BATCH), "scoring"):
            logits = forward.score(images, batch).logits
            hits.append((logits.argmax(dim=1) == images.labels[batch]).sum())
    return int(torch.stack(hits).sum()) / len(indices)


def class_probabilities(model: Model, images: DeviceImages) -> NDArray[np.float64]:
    """Return the class probabilities (n, classes) of all images, as ``evaluate`` does, without health."""
    forward = build_pass(model, images.labels.device)
    with _at_rest(model):
        logits = [forward.score(images, rows).logits.cpu() for rows in torch.split(images.all_rows(), _BATCH)]
    return torch.cat(logits).double().softmax(dim=1).numpy()


def over_views(
    model: Model, images: Tensor, boxes: Tensor, logits: Tensor, constants: ScoringConstants | None = None
) -> Tensor:
    """Return the logarithms (batch, classes) of the mean probabilities over a model's views and draws of its posterior.

    Without views and a posterior, it returns ``logits``, those of the images as they are. Draws are the same for every
    image, so that a score does not depend on which images are scored together.

    Args:
        model: the model.
        images: (batch, channels, height, width), the images as they are.
        boxes: (batch, 4), the boxes of the signs.
        logits: (batch, classes), the logits of the images as they are.
        constants: tensors that stay on the device from batch to batch.
    """
    constants = constants or ScoringConstants()
    noises = [layer for layer in model.network.modules() if isinstance(layer, StudentNoise)]
    if model.tta is None and not noises:
        return logits
    samples = max(_samples(model.network) if noises else [1])
    if model.tta is not None and not constants.moves:
        constants.moves = prepare_views(model.tta, images.device)
    looks = [(images, boxes)] if model.tta is None else each_view(constants.moves, images, boxes)
    views = []
    try:
        for moved, moved_boxes in looks:
            for sample in range(samples):
                for noise in noises:
                    noise.fix(sample, constants.draws)
                views.append(model.explain(moved, moved_boxes).logits.log_softmax(dim=1))
    finally:
        for noise in noises:
            noise.fix(None)
    return torch.stack(views).logsumexp(dim=0) - math.log(len(views))


def _samples(network: nn.Module) -> list[int]:
    """Return the number of draws of each transformer with a posterior."""
    found = [layer.spec for layer in network.modules() if isinstance(layer, SpatialTransformer)]
    return [spec.posterior_samples for spec in found if spec.posterior is not None]


@contextmanager
def _at_rest(model: Model) -> Iterator[None]:
    """Set the network to evaluation without gradients within the context, and restore its mode afterwards."""
    was_training = model.network.training
    model.network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.network.train(was_training)


# Benefit of the transformers: the accuracy with their parameters replaced by constants.


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplacedAccuracy:
    """Accuracies in [0, 1] with the parameters of one transformer, or of all of them, replaced by constants.

    Attributes:
        identity: with the parameters of the identity.
        mean: with the mean parameters; None where no image has finite parameters.
        all_identity: with all transformers replaced by the identity.
        all_mean: with all transformers replaced by their means; None where one has none.
    """

    identity: float
    mean: float | None
    all_identity: float
    all_mean: float | None


def replaced_accuracies(
    model: Model, images: DeviceImages, rows: Tensor, evaluation: Evaluation
) -> dict[Key, ReplacedAccuracy]:
    """Return the accuracies of a network whose localisation networks emit constants: the identity, and their means.

    The constants pass through the transformer as its parameters do: composed over iterations, and under its scale
    guard, if it has one. It takes two passes over the images, with k > 1 transformers 2 k + 2.

    Args:
        model: the network with its preprocessing.
        images: the images.
        rows: int64 (m,), the indices of the images to score.
        evaluation: the evaluation of the same network on the same images.
    """
    identity, mean = _identities(model), evaluation.mean_parameters
    by_identity = _accuracies(model, images, rows, identity)
    by_mean = _accuracies(model, images, rows, {key: mean[key] for key in identity if key in mean})
    all_mean = by_mean.get(None) if len(by_mean) == len(by_identity) else None
    return {
        key: ReplacedAccuracy(
            identity=by_identity[key],
            mean=by_mean.get(key),
            all_identity=by_identity[None],
            all_mean=all_mean,
        )
        for key in identity
    }


@contextmanager
def emitting(model: Model, looks: Mapping[Key, Looks]) -> Iterator[None]:
    """Replace the outputs of localisation networks by constants within the context.

    Args:
        model: the network with its preprocessing.
        looks: for each transformer to replace, one vector of parameters for each of its iterations.
    """
    networks = localization_networks(model.network)
    with ExitStack() as stack:
        for key, constants in looks.items():
            stack.callback(networks[key].register_forward_hook(_replace_by(constants)).remove)
        yield


def _replace_by(constants: Looks) -> Callable[[object, object, Tensor], Tensor]:
    """Return a hook of a localisation network; each pass over a batch begins with the first iteration's constant."""
    looks = itertools.cycle(constants)

    def replace(_module: object, _arguments: object, emitted: Tensor) -> Tensor:
        return emitted.new_tensor(next(looks)).expand_as(emitted)

    return replace


def _identities(model: Model) -> dict[Key, Looks]:
    """Return the parameters of the identity, for every iteration of every transformer that learns."""
    return {
        key: (transformer.transformation.identity_parameters(),) * transformer.spec.iterations
        for key, transformer in learning_transformers(model.network).items()
    }


def _accuracies(
    model: Model, images: DeviceImages, rows: Tensor, looks: Mapping[Key, Looks]
) -> dict[Key | None, float]:
    """Return the accuracy with each transformer replaced and, under None, with all of them replaced."""
    found: dict[Key | None, float] = {}
    if not looks:
        return found
    with emitting(model, looks):
        found[None] = accuracy(model, images, rows)
    for key in looks:
        if len(looks) == 1:
            found[key] = found[None]
            continue
        with emitting(model, {key: looks[key]}):
            found[key] = accuracy(model, images, rows)
    return found


# The health of a network's transformers after an epoch, with the verdict on each.


def diagnose(
    model: Model,
    images: DeviceImages,
    rows: Tensor,
    evaluation: Evaluation,
    gradient_ratios: Mapping[Key, float | None],
    *,
    is_last: bool,
) -> tuple[TransformerHealth, ...]:
    """Return the health in the evaluation, completed and judged; controls, which learn nothing, are not judged.

    Args:
        model: the network with its preprocessing.
        images: the images.
        rows: int64 (m,), the indices of the images that were evaluated.
        evaluation: the evaluation of the network on them.
        gradient_ratios: the ratios of gradients in the epoch's training, by transformer.
        is_last: whether this is the last epoch: theta is replaced then, which takes at least two more passes.
    """
    learners = learning_transformers(model.network)
    if not learners:
        return evaluation.health
    replaced = replaced_accuracies(model, images, rows, evaluation) if is_last else {}
    chance = float(images.labels[rows].bincount().max()) / len(rows)
    healths = []
    for health in evaluation.health:
        key = (health.place, health.branch)
        if key in learners:
            known = dataclasses.replace(health, gradient_ratio=gradient_ratios.get(key))
            known = _with_accuracies(known, replaced.get(key))
            verdict = judge(known, accuracy=evaluation.accuracy, chance=chance, images=len(rows))
            healths.append(dataclasses.replace(known, verdict=verdict))
        else:
            healths.append(health)
    return tuple(healths)


def _with_accuracies(health: TransformerHealth, replaced: ReplacedAccuracy | None) -> TransformerHealth:
    if replaced is None:
        return health
    return dataclasses.replace(
        health,
        accuracy_identity=replaced.identity,
        accuracy_mean=replaced.mean,
        accuracy_all_identity=replaced.all_identity,
        accuracy_all_mean=replaced.all_mean,
    )
