"""Metrics of class probabilities against other ways to compute them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.analysis.ensembles import (
    BINS,
    expected_calibration_error,
    mean_corruption_error,
    negative_log_likelihood,
    relative_corruption_error,
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
    from sklearn.metrics import log_loss, recall_score  # here, so that one process alone loads it

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


def test_the_mean_corruption_error_is_that_of_the_paper() -> None:
    """Worked by hand: 0.6 / 1.2 and 0.6 / 0.6 are 0.75 in the mean; beyond clean errors, 0.4 / 0.8 and 0.4 / 0.2."""
    own, reference = {"fog": (0.2, 0.4), "noise": (0.3, 0.3)}, {"fog": (0.4, 0.8), "noise": (0.4, 0.2)}

    assert mean_corruption_error(own) == pytest.approx(0.3)
    assert mean_corruption_error(own, reference) == pytest.approx(0.75)
    assert mean_corruption_error(reference, reference) == 1
    assert relative_corruption_error(own, 0.1, reference, 0.2) == pytest.approx((0.5 + 2.0) / 2)


def test_a_reference_without_errors_leaves_no_number() -> None:
    """Infinite where the network errs, left out where neither does, and not a number if nothing is left."""
    assert mean_corruption_error({"fog": (0.1,)}, {"fog": (0.0,)}) == float("inf")
    assert mean_corruption_error({"fog": (0.0,), "noise": (0.1,)}, {"fog": (0.0,), "noise": (0.2,)}) == 0.5
    assert np.isnan(mean_corruption_error({"fog": (0.0,)}, {"fog": (0.0,)}))
