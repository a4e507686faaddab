"""How large the gradients of the localisation networks are, against those of the classifier."""

import math
from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from stnbench.models.classifiers import StnClassifier
from stnbench.models.learners import Key, localization_networks

EVERY_STEPS: Final = 10
"""Steps between looks at the gradients, from the first step of an epoch on: often enough for a mean."""


class GradientMeter:
    """Gathers the gradients of one epoch, looking at every ``EVERY_STEPS``-th step; the host never waits for it.

    Args:
        network: whose gradients.
    """

    def __init__(self, network: StnClassifier) -> None:
        self._classifier = _MeanSquare(network.classifier_parameters())
        networks = localization_networks(network)
        self._localization = {key: _MeanSquare(found.parameters()) for key, found in networks.items()}
        self._steps = 0

    def look(self) -> None:
        """Look at the gradients that the last step left; steps of torch's SGD do not change them."""
        if self._localization and self._steps % EVERY_STEPS == 0:
            for meter in (self._classifier, *self._localization.values()):
                meter.add()
        self._steps += 1

    def ratios(self) -> dict[Key, float | None]:
        """By transformer: its localisation network's gradient over the classifier's.

        Each is a root mean square over parameters and over the steps looked at. None where that is no finite number.
        """
        classifier = self._classifier.root()
        return {key: _ratio(own.root(), classifier) for key, own in self._localization.items()}


class _MeanSquare:
    """The mean square of the gradients of some parameters, over parameters and looks."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._numbers = sum(parameter.numel() for parameter in self._parameters)
        self._sums: list[Tensor] = []

    def add(self) -> None:
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        self._sums.append(get_total_norm(gradients).double().square())

    def root(self) -> float:
        if not self._sums:
            return 0.0
        return math.sqrt(float(torch.stack(self._sums).mean()) / self._numbers)


def _ratio(over: float, under: float) -> float | None:
    ratio = over / under if under else math.nan
    return ratio if math.isfinite(ratio) else None
