"""Scales on which the runs of a sweep vary alike: accuracy, its arcsine, its log-odds."""

from abc import ABC, abstractmethod
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special
from typing_extensions import override

Floats = NDArray[np.float64]

HALF_IMAGE: Final = 0.5
"""How exactly a count says what a network can: to half an image, as the continuity correction has it."""


class Scale(ABC):
    """A monotone function of accuracy, with its inverse."""

    name: str

    @abstractmethod
    def shares(self, correct: Floats, images: Floats) -> Floats:
        """Accuracies, corrected so far that ``of`` is finite."""

    @abstractmethod
    def of(self, share: Floats) -> Floats:
        """The value of an accuracy."""

    @abstractmethod
    def share_of(self, value: Floats) -> Floats:
        """The accuracy of a value; that of the nearest possible one beyond the ends."""

    @abstractmethod
    def slope(self, value: Floats) -> Floats:
        """The derivative of ``share_of``."""


class Accuracy(Scale):
    """Accuracy itself."""

    name = "accuracy"

    @override
    def shares(self, correct: Floats, images: Floats) -> Floats:
        return correct / images

    @override
    def of(self, share: Floats) -> Floats:
        return share

    @override
    def share_of(self, value: Floats) -> Floats:
        return np.asarray(np.clip(value, 0.0, 1.0))

    @override
    def slope(self, value: Floats) -> Floats:
        return np.ones_like(value)


class Arcsine(Scale):
    """Twice the arcsine of the root, on which counts of independent images vary alike (Anscombe 1948)."""

    name = "arcsine of the root of accuracy"

    @override
    def shares(self, correct: Floats, images: Floats) -> Floats:
        return (correct + 0.375) / (images + 0.75)

    @override
    def of(self, share: Floats) -> Floats:
        return np.asarray(2 * np.arcsin(np.sqrt(share)))

    @override
    def share_of(self, value: Floats) -> Floats:
        return np.asarray(np.sin(np.clip(value, 0.0, np.pi) / 2) ** 2)

    @override
    def slope(self, value: Floats) -> Floats:
        return np.asarray(np.maximum(np.sin(np.clip(value, 0.0, np.pi)) / 2, 1e-6))


class LogOdds(Scale):
    """Log-odds, with half an image added on either side (Anscombe 1956)."""

    name = "log-odds of accuracy"

    @override
    def shares(self, correct: Floats, images: Floats) -> Floats:
        return (correct + HALF_IMAGE) / (images + 2 * HALF_IMAGE)

    @override
    def of(self, share: Floats) -> Floats:
        return np.asarray(special.logit(share))

    @override
    def share_of(self, value: Floats) -> Floats:
        return np.asarray(special.expit(value))

    @override
    def slope(self, value: Floats) -> Floats:
        return np.asarray(special.expit(value) * special.expit(-value))


SCALES: Final[tuple[Scale, ...]] = (LogOdds(), Arcsine(), Accuracy())
