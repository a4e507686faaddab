"""Metrics of class probabilities against other ways to compute them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, recall_score

from stnbench.analysis.calibration import (
    BINS,
    expected_calibration_error,
    negative_log_likelihood,
    worst_class_accuracy,
)


def drawn(seed: int, images: int = 300, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Random probabilities and labels, every class there."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (images, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, np.arange(images) % classes


@given(seed=st.integers(0, 2**32 - 1))
def test_likelihood_and_worst_class_are_those_of_scikit_learn(seed: int) -> None:
    """Log loss, and the smallest recall of any class."""
    probabilities, labels = drawn(seed)
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(log_loss(labels, probabilities))
    recalls = recall_score(labels, probabilities.argmax(axis=1), average=None, zero_division=0.0)
    assert worst_class_accuracy(probabilities, labels) == pytest.approx(recalls.min())


@given(seed=st.integers(0, 2**32 - 1))
def test_the_calibration_error_is_the_sum_over_bins(seed: int) -> None:
    """Bin by bin as the paper writes it: share of images times distance of accuracy and confidence."""
    probabilities, labels = drawn(seed)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for number in range(BINS):
        own = (confidence > number / BINS) & (confidence <= (number + 1) / BINS)
        if own.any():
            error += own.mean() * abs(right[own].mean() - confidence[own].mean())
    assert expected_calibration_error(probabilities, labels) == pytest.approx(error)


def test_certain_networks_are_calibrated_where_they_are_right() -> None:
    """0 for always right, 1 for always wrong; the likelihood of what was rounded to 0 is finite."""
    certain = np.eye(3)
    assert expected_calibration_error(certain, np.arange(3)) == 0
    assert expected_calibration_error(certain, np.array([1, 2, 0])) == 1
    assert negative_log_likelihood(certain, np.array([1, 2, 0])) == pytest.approx(24 * np.log(2))


def test_classes_without_images_are_no_worst_class() -> None:
    """A class that is not among the images has no accuracy."""
    assert worst_class_accuracy(np.eye(4)[[0, 1]], np.array([0, 1])) == 1
