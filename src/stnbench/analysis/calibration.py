"""Metrics: calibration, likelihood and the accuracy of the worst class, and errors on corrupted images.

The functions are pure and need numpy only.
"""

from collections.abc import Mapping, Sequence
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


Errors = Mapping[str, Sequence[float]]
"""Errors on corrupted images, shares in [0, 1], by kind of corruption; one for each severity."""


def mean_corruption_error(errors: Errors, reference: Errors | None = None) -> float:
    """Compute the mean corruption error (mCE; Hendrycks and Dietterich 2019).

    The sum of a network's errors over the severities of a corruption is divided by that of a reference network, and
    the quotients are averaged over corruptions. Without a reference, it is the mean error: the unnormalised mCE.

    Args:
        errors: errors of the network.
        reference: errors of the reference network on the same corruptions; AlexNet in the paper.

    Returns:
        A share in [0, 1] without a reference, else a quotient, below 1 for a network better than the reference. A
        corruption under which the reference makes no error makes it infinite, or is left out if the network makes none.

    Raises:
        KeyError: if the reference lacks a corruption.
    """
    if reference is None:
        return float(np.mean([np.mean(own) for own in errors.values()]))
    return _mean_quotient([(sum(own), sum(reference[kind])) for kind, own in errors.items()])


def relative_corruption_error(errors: Errors, clean: float, reference: Errors, reference_clean: float) -> float:
    """Compute the relative mean corruption error (Hendrycks and Dietterich 2019).

    As ``mean_corruption_error``, of what corruptions add to the errors on clean images. It tells a robust network from
    an accurate one.

    Args:
        errors: errors of the network.
        clean: its error on clean images.
        reference: errors of the reference network on the same corruptions.
        reference_clean: its error on clean images.
    """
    pairs = [
        (sum(own) - len(own) * clean, sum(reference[kind]) - len(reference[kind]) * reference_clean)
        for kind, own in errors.items()
    ]
    return _mean_quotient(pairs)


def _mean_quotient(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the mean of quotients; those of 0 and 0 are left out, NaN if all are."""
    quotients = [over / under if under else float("inf") for over, under in pairs if over or under]
    return float(np.mean(quotients)) if quotients else float("nan")
