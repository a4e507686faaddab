"""Trained networks: read from the folder of an attempt, and ready for use in anybody's program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from stnbench.core.errors import CheckpointError, ShapeError, SpecError
from stnbench.core.paths import AttemptLayout
from stnbench.data.build import dataset_info
from stnbench.data.preprocessing.preprocess import GlobalStatistics
from stnbench.models.scored_network import Model, build_model
from stnbench.spec.trial import TrialSpec
from stnbench.training.checkpoint import read_checkpoint
from stnbench.training.evaluate import over_views
from stnbench.trials.files import load_spec

READS_BOXES: Final = "roi"
"""The family that reads the boxes of the signs."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoredNetwork:
    """What a trained network is made of, wherever it was stored.

    Attributes:
        spec: the trial.
        statistics: of the images it was trained on, which preprocessing needs.
        class_names: one readable name a class, in label order.
        weights: by name, those that are scored: averages where the trial has any.
    """

    spec: TrialSpec
    statistics: GlobalStatistics
    class_names: Sequence[str]
    weights: Mapping[str, Tensor]

    @classmethod
    def of_attempt(cls, folder: Path) -> "StoredNetwork":
        """Read the network in the folder of an attempt.

        Raises: FolderError or CheckpointError where there is none.
        """
        spec = load_spec(folder)
        checkpoint = read_checkpoint(AttemptLayout(folder).checkpoint, trial_id=spec.trained_as.trial_id)
        names = dataset_info(spec.dataset).class_names
        if len(names) != checkpoint.classes:
            names = tuple(map(str, range(checkpoint.classes)))
        return cls(
            spec=spec,
            statistics=checkpoint.statistics,
            class_names=tuple(names),
            weights={**checkpoint.network, **checkpoint.average},
        )

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def build(self, device: torch.device) -> Model:
        """Build the model with its trained weights, ready to score.

        Raises: CheckpointError where the weights do not fit; SpecError where a part from outside is not here, or is
            another by now.
        """
        model = build_model(self.spec, self.statistics, classes=self.classes, device=device)
        try:
            model.network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            said = str(error).splitlines()[-1].strip()
            problem = f"the weights of the trial {self.spec.trial_id} do not fit its network ({said})"
            raise CheckpointError(problem, remedy="another version of stnbench has made them") from error
        model.network.eval()
        return model


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prediction:
    """What a network says of images.

    Attributes:
        labels: int64 (batch,), the likeliest class of each.
        names: their names.
        probabilities: float32 (batch, classes).
    """

    labels: Tensor
    names: tuple[str, ...]
    probabilities: Tensor


class TrainedClassifier(nn.Module):
    """A trained network with its preprocessing: images as they are in a file to logits, exactly as trials are scored.

    It comes in evaluation mode. Where the trial averages over moved views of an image (test-time augmentation), so does
    ``forward``.

    Args:
        stored: what it is made of.
        device: on which it computes; ``to`` moves it.

    Attributes:
        spec: the trial that it was trained as.
        class_names: one readable name a class, in label order.
        image_shape: channels, height and width of the images that it takes.
    """

    def __init__(self, stored: StoredNetwork, device: torch.device) -> None:
        super().__init__()
        self._model = stored.build(device)
        self.network = self._model.network
        self.preprocess = self._model.preprocess
        self.spec = stored.spec
        self.statistics = stored.statistics
        self.class_names = tuple(stored.class_names)
        self.image_shape = (
            stored.spec.dataset.channels,
            stored.spec.dataset.image_size,
            stored.spec.dataset.image_size,
        )
        self.eval()

    @property
    def reads_boxes(self) -> bool:
        """Whether a transformer reads the boxes of the signs (the control ``roi``)."""
        return any(placed.transformer.family == READS_BOXES for placed in self.spec.transformers)

    def forward(self, images: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Compute the logits of images.

        Args:
            images: (batch, channels, height, width) of ``image_shape``, RGB where there are three channels; uint8, or
                floating point numbers in [0, 255] (not in [0, 1]).
            boxes: (batch, 4), x1, y1, x2, y2 of the signs, -1 and 1 at the outer edges of the image; needed where
                ``reads_boxes``, and else of no effect.

        Returns:
            (batch, classes), float32.

        Raises:
            ShapeError: where the images have another shape, or boxes are missing.
        """
        logits = self.look_once(images, boxes)
        if self._model.views is None:
            return logits
        if boxes is None:
            boxes = images.new_zeros((images.shape[0], 4), dtype=torch.float32)
        levels = images if images.dtype == torch.uint8 else images.to(torch.float32)
        return over_views(self._model, levels, boxes, logits)

    def look_once(self, images: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Compute the logits of the images as they are, in one pass, whatever the trial's views; as ``forward``."""
        if tuple(images.shape[1:]) != self.image_shape:
            channels, height, width = self.image_shape
            raise ShapeError("the images", images.shape, f"(batch, {channels}, {height}, {width})")
        prepared: Tensor = self.preprocess(images if images.dtype == torch.uint8 else images.to(torch.float32))
        return self._model.explain_prepared(prepared, boxes).logits

    @torch.inference_mode()
    def predict(self, images: Tensor, boxes: Tensor | None = None) -> Prediction:
        """Classify images; arguments as of ``forward``.

        Returns:
            Labels, names and probabilities of the images.
        """
        probabilities = self(images, boxes).softmax(dim=1)
        labels = probabilities.argmax(dim=1)
        names = tuple(self.class_names[label] for label in labels.tolist())
        return Prediction(labels=labels, names=names, probabilities=probabilities)


def without_views(stored: StoredNetwork) -> StoredNetwork:
    """Return the same network, which looks at every image once."""
    return replace(stored, spec=stored.spec.trained_as)


def require_same_classes(networks: Sequence[StoredNetwork]) -> None:
    """Check that networks tell the same classes apart, so that their probabilities can be averaged.

    Raises: SpecError naming the first that does not.
    """
    first, *others = networks
    for other in others:
        if tuple(other.class_names) != tuple(first.class_names):
            problem = f"the trials {first.spec.trial_id} and {other.spec.trial_id} have other classes"
            raise SpecError(problem, remedy="an ensemble is of networks for the same classes")
