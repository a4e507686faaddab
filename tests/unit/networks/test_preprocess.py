"""Preprocessing: exact statistics, and each of the normalisations."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stnbench.core.errors import DataCorruptError, DataMissingError
from stnbench.networks.layers import ContrastiveNorm, gaussian_kernel
from stnbench.networks.preprocess import GlobalStatistics, Preprocess, measure_statistics
from stnbench.spec.data import PreprocessSpec

STATISTICS = GlobalStatistics(mean=0.4, std=0.2)


@given(images=arrays(np.uint8, (5, 3, 2, 4)), chunk=st.integers(1, 7))
def test_statistics_are_exact_whatever_the_chunks(images: np.ndarray, chunk: int) -> None:
    """Mean and deviation are those of exact fractions, to the last bits of a float."""
    values = [Fraction(int(value), 255) for value in images.flat]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    if variance == 0:
        with pytest.raises(DataCorruptError, match="every pixel of the 5 images is"):
            measure_statistics(images, chunk_images=chunk)
        return
    found = measure_statistics(images, chunk_images=chunk)
    assert found.mean == pytest.approx(float(mean), rel=1e-14, abs=0)
    assert found.std == pytest.approx(float(variance) ** 0.5, rel=1e-14, abs=0)


def test_no_images_is_an_error() -> None:
    """An empty training half has no statistics."""
    with pytest.raises(DataMissingError):
        measure_statistics(np.zeros((0, 3, 8, 8), dtype=np.uint8))


def images() -> torch.Tensor:
    """Random uint8 images."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (2, 3, 8, 8), generator=generator, dtype=torch.uint8)


def test_without_any_norm_images_are_shares() -> None:
    """uint8 becomes [0, 1]: 255 is 1 and 0 is 0."""
    spec = PreprocessSpec(global_norm=False, contrastive_norm=False)
    extremes = torch.tensor([0, 51, 255] * 64, dtype=torch.uint8).reshape(1, 3, 8, 8)
    out = Preprocess(spec, STATISTICS, image_size=8)(extremes)
    torch.testing.assert_close(out.flatten()[:3], torch.tensor([0.0, 0.2, 1.0]), rtol=1e-6, atol=0)


def test_global_norm_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    """With the statistics of the images themselves, the output has mean 0 and deviation 1."""
    batch = images()
    spec = PreprocessSpec(contrastive_norm=False)
    out = Preprocess(spec, measure_statistics(batch.numpy()), image_size=8)(batch)
    assert out.mean().item() == pytest.approx(0, abs=1e-6)
    assert out.std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_contrastive_norm_follows_the_global_one() -> None:
    """The whole chain of 2015, with a gaussian of the side that the specification says."""
    out = Preprocess(PreprocessSpec(kernel_size=5), STATISTICS, image_size=8)(images())
    shares = (images().float() / 255 - 0.4) / 0.2
    expected = ContrastiveNorm(gaussian_kernel(5), height=8, width=8)(shares)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_images_themselves_are_not_changed() -> None:
    """Preprocessing works on a copy, and two calls agree."""
    batch = images()
    module = Preprocess(PreprocessSpec(), STATISTICS, image_size=8)
    first = module(batch)
    assert torch.equal(batch, images())
    assert torch.equal(module(batch), first)
