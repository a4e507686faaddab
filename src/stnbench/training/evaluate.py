"""One pass over images without training: loss, predictions and the health of the transformers."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from stnbench.core.activity import advancing
from stnbench.data.augmentation.views import each_view
from stnbench.data.resident import DeviceImages
from stnbench.diagnostics.health import Looks, TransformerWatch
from stnbench.diagnostics.units import UnitWatch
from stnbench.models.learners import Key
from stnbench.models.scored_network import Model
from stnbench.nn.layers import StudentNoise
from stnbench.nn.spatial_transformer import SpatialTransformer
from stnbench.spec.data import Split
from stnbench.spec.result import SplitScore, TransformerHealth

_BATCH: Final = 250
"""Images at once; fixed, so that a score never depends on a setting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What one pass found; ``predictions`` are in the order of the indices, ``loss`` is the mean cross-entropy.

    ``probabilities`` are float16 (n, classes), likewise in order; over several views, they are the mean of all.
    ``health`` is without verdicts, and ``mean_parameters`` are those of each transformer over the images, look by look;
    both are of the images as they are.
    """

    loss: float
    correct: int
    predictions: tuple[int, ...]
    probabilities: NDArray[np.float16] = field(compare=False)
    health: tuple[TransformerHealth, ...]
    mean_parameters: Mapping[Key, Looks]

    @property
    def accuracy(self) -> float:
        """Share of images classified correctly, in [0, 1]."""
        return self.correct / len(self.predictions)

    def score(self, split: Split) -> SplitScore:
        """The same as the score of a split."""
        images = len(self.predictions)
        return SplitScore(
            split=split, images=images, correct=self.correct, loss=self.loss, predictions=self.predictions
        )


def evaluate(model: Model, images: DeviceImages, indices: Tensor) -> Evaluation:
    """Score the images at the indices (n,), at least one; the network is left in the mode it was in."""
    watch, units = TransformerWatch(), UnitWatch(model)
    predictions, probabilities, losses = [], [], []
    with _at_rest(model), units.watching():
        for batch in advancing(torch.split(indices, _BATCH), "scoring"):
            explained = model.explain_rows(images, batch)
            watch.add(explained.transformers, None if images.poses is None else images.poses[batch])
            logits = over_views(model, images.images[batch], images.boxes[batch], explained.logits)
            losses.append(functional.cross_entropy(logits, images.labels[batch], reduction="sum").double())
            predictions.append(logits.argmax(dim=1))
            probabilities.append(logits.softmax(dim=1).half())
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
    """The share in [0, 1] of the images at the indices (n,), at least one, that are classified correctly."""
    hits = []
    with _at_rest(model):
        for batch in advancing(torch.split(indices, _BATCH), "scoring"):
            explained = model.explain_rows(images, batch)
            logits = over_views(model, images.images[batch], images.boxes[batch], explained.logits)
            hits.append((logits.argmax(dim=1) == images.labels[batch]).sum())
    return int(torch.stack(hits).sum()) / len(indices)


def over_views(model: Model, images: Tensor, boxes: Tensor, logits: Tensor) -> Tensor:
    """Return the logarithms (batch, classes) of the mean probabilities over a model's views and draws of its posterior.

    Where it has neither, ``logits``, those of the images as they are, come back. Draws are the same for every image,
    so that a score does not depend on which images are scored together.
    """
    noises = [layer for layer in model.network.modules() if isinstance(layer, StudentNoise)]
    if model.views is None and not noises:
        return logits
    samples = max(_samples(model.network) if noises else [1])
    looks = [(images, boxes)] if model.views is None else each_view(model.views, images, boxes)
    views = []
    try:
        for moved, moved_boxes in looks:
            for sample in range(samples):
                for noise in noises:
                    noise.fix(sample)
                views.append(model.explain(moved, moved_boxes).logits.log_softmax(dim=1))
    finally:
        for noise in noises:
            noise.fix(None)
    return torch.stack(views).logsumexp(dim=0) - math.log(len(views))


def _samples(network: nn.Module) -> list[int]:
    """Return how many draws each transformer with a posterior asks for."""
    found = [layer.spec for layer in network.modules() if isinstance(layer, SpatialTransformer)]
    return [spec.posterior_samples for spec in found if spec.posterior is not None]


@contextmanager
def _at_rest(model: Model) -> Iterator[None]:
    """In evaluation and without gradients; the network is in the mode that it was in afterwards."""
    was_training = model.network.training
    model.network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.network.train(was_training)
