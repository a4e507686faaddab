"""One pass over images without training: loss, predictions and the health of the transformers."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from stnbench.spec.data import Split
from stnbench.spec.result import SplitScore, TransformerHealth
from stnbench.training.data import DeviceImages
from stnbench.training.health import TransformerWatch
from stnbench.training.model import Model

_BATCH: Final = 250
"""Images at once; fixed, so that a score never depends on a setting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What one pass found; ``predictions`` are in the order of the indices, ``loss`` is the mean cross-entropy."""

    loss: float
    correct: int
    predictions: tuple[int, ...]
    health: tuple[TransformerHealth, ...]

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
    was_training = model.network.training
    model.network.eval()
    watch = TransformerWatch()
    predictions, losses = [], []
    with torch.inference_mode():
        for batch in torch.split(indices, _BATCH):
            explained = model.explain(images.images[batch], images.boxes[batch])
            losses.append(functional.cross_entropy(explained.logits, images.labels[batch], reduction="sum").double())
            predictions.append(explained.logits.argmax(dim=1))
            watch.add(explained.transformers, None if images.poses is None else images.poses[batch])
    model.network.train(was_training)
    predicted = torch.cat(predictions)
    return Evaluation(
        loss=float(torch.stack(losses).sum()) / len(indices),
        correct=int((predicted == images.labels[indices]).sum()),
        predictions=tuple(predicted.tolist()),
        health=watch.results(),
    )
