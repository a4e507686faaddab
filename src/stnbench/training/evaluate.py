"""One pass over images without training: loss, predictions and the health of the transformers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from stnbench.spec.data import Split
from stnbench.spec.result import SplitScore, TransformerHealth
from stnbench.training.data import DeviceImages
from stnbench.training.health import Looks, TransformerWatch
from stnbench.training.learners import Key
from stnbench.training.model import Model

_BATCH: Final = 250
"""Images at once; fixed, so that a score never depends on a setting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What one pass found; ``predictions`` are in the order of the indices, ``loss`` is the mean cross-entropy.

    ``health`` is without verdicts, and ``mean_parameters`` are those of each transformer over the images, look by look.
    """

    loss: float
    correct: int
    predictions: tuple[int, ...]
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
    watch = TransformerWatch()
    predictions, losses = [], []
    with _at_rest(model):
        for batch in torch.split(indices, _BATCH):
            explained = model.explain(images.images[batch], images.boxes[batch])
            losses.append(functional.cross_entropy(explained.logits, images.labels[batch], reduction="sum").double())
            predictions.append(explained.logits.argmax(dim=1))
            watch.add(explained.transformers, None if images.poses is None else images.poses[batch])
    predicted = torch.cat(predictions)
    return Evaluation(
        loss=float(torch.stack(losses).sum()) / len(indices),
        correct=int((predicted == images.labels[indices]).sum()),
        predictions=tuple(predicted.tolist()),
        health=watch.results(),
        mean_parameters=watch.mean_parameters(),
    )


def accuracy(model: Model, images: DeviceImages, indices: Tensor) -> float:
    """The share in [0, 1] of the images at the indices (n,), at least one, that are classified correctly."""
    with _at_rest(model):
        hits = [
            (
                model.explain(images.images[batch], images.boxes[batch]).logits.argmax(dim=1) == images.labels[batch]
            ).sum()
            for batch in torch.split(indices, _BATCH)
        ]
    return int(torch.stack(hits).sum()) / len(indices)


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
