"""Metrics of class probabilities: calibration, likelihood and the accuracy of the worst class.

The functions are pure and need numpy only.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

BINS: Final = 15
"""The number of equally wide bins of confidence (Guo et al. 2017)."""

SMALLEST: Final = 2.0**-24
"""The smallest positive 16-bit number: an upper bound of a probability that was rounded to 0."""


def expected_calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Compute the expected calibration error (Naeini et al. 2015; Guo et al. 2017).

    Images are sorted into ``BINS`` equally wide bins (a, b] by the largest probability; the error is the mean over
    images of the distance between a bin's accuracy and its mean confidence.

    Args:
        probabilities: of shape (images, classes).
        labels: true classes, of shape (images,).
    """
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=is_right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def negative_log_likelihood(probabilities: Floats, labels: Labels) -> float:
    """Compute the mean negative logarithm of the true class's probability, clipped to at least ``SMALLEST``."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(true, SMALLEST)).mean())


def worst_class_accuracy(probabilities: Floats, labels: Labels) -> float:
    """Compute the lowest share of images classified correctly, over the classes that have any."""
    images = np.bincount(labels, minlength=probabilities.shape[1])
    right = np.bincount(labels[probabilities.argmax(axis=1) == labels], minlength=probabilities.shape[1])
    return float((right[images > 0] / images[images > 0]).min())
