"""A network with what is done to images before it: from images in [0, 255] to logits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stnbench.networks.build import build_network
from stnbench.networks.classifiers import Explained, StnClassifier
from stnbench.networks.preprocess import GlobalStatistics, Preprocess
from stnbench.spec.trial import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Model:
    """Preprocessing and network, on one device."""

    network: StnClassifier
    preprocess: Preprocess

    def explain(self, images: Tensor, boxes: Tensor) -> Explained:
        """The logits of images, with what every spatial transformer did, in one pass.

        Args:
            images: (batch, channels, height, width), uint8, or float32 in [0, 255].
            boxes: (batch, 4), the signs' boxes, which the control ``roi`` reads.
        """
        return self.network.explain(self._prepare(images), boxes)

    def _prepare(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            prepared: Tensor = self.preprocess(images).contiguous(memory_format=memory_format(images.device))
        return prepared


def build_model(spec: TrialSpec, statistics: GlobalStatistics, *, classes: int, device: torch.device) -> Model:
    """The model of a trial with its first weights, which derive from the trial's seed.

    Raises: InfeasibleError where no such network can be built.
    """
    network = build_network(spec, classes=classes, seed=spec.seed)
    preprocess = Preprocess(spec.preprocess, statistics, image_size=spec.dataset.image_size)
    return Model(
        network=network.to(device, memory_format=memory_format(device)),  # type: ignore[call-overload] # missing in torch's stubs
        preprocess=preprocess.to(device),
    )


def memory_format(device: torch.device) -> torch.memory_format:
    """How maps lie in memory: channels last on a CPU, where a step takes a quarter less time."""
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format
