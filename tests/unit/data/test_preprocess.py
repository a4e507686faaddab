"""Preprocessing: exact statistics, and each of the normalisations."""

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stnbench.core.errors import DataCorruptError, DataMissingError
from stnbench.data.preprocessing import GlobalStatistics, Preprocess, adjust_contrast, measure_statistics
from stnbench.nn.layers import ContrastiveNorm, gaussian_kernel
from stnbench.spec.codec import from_plain, to_plain
from stnbench.spec.data import Contrast, PreprocessSpec

CHOICES = Path(__file__).parents[3] / "conf" / "preprocess"

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


def test_rows_choose_what_is_measured() -> None:
    """The statistics of some rows are those of a copy of them, bit by bit, whatever the chunks."""
    half = np.random.default_rng(1).integers(0, 256, (9, 3, 8, 8), dtype=np.uint8)
    rows = np.array([7, 1, 4, 2])
    assert measure_statistics(half, rows, chunk_images=3) == measure_statistics(half[rows])
    assert measure_statistics(half, rows) != measure_statistics(half)
    with pytest.raises(DataMissingError):
        measure_statistics(half, rows[:0])


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


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("contrast", get_args(Contrast))
def test_statistics_are_those_after_the_contrast(contrast: Contrast, channels: int) -> None:
    """Over the measured rows the output has mean 0 and deviation 1, to within the rounding to 8 bits."""
    half = np.random.default_rng(2).normal(90, 12, (6, channels, 16, 16)).astype(np.uint8)
    half[0] = 255
    rows = np.arange(1, 6)
    spec = PreprocessSpec(contrast=contrast, contrastive_norm=False)
    statistics = measure_statistics(half, rows, contrast=contrast, chunk_images=2)
    out = Preprocess(spec, statistics, image_size=16)(torch.from_numpy(half[rows]))
    assert out.mean().item() == pytest.approx(0, abs=2e-3)
    assert out.std(correction=0).item() == pytest.approx(1, abs=2e-3)


def test_contrast_is_adjusted_before_the_norms() -> None:
    """The chain is contrast, global normalisation, contrastive normalisation."""
    spec = PreprocessSpec(contrast="image_adjustment")
    adjusted = adjust_contrast(images().float(), "image_adjustment")
    expected = Preprocess(PreprocessSpec(), STATISTICS, image_size=8)(adjusted)
    assert torch.equal(Preprocess(spec, STATISTICS, image_size=8)(images()), expected)
    assert not torch.equal(adjusted, images().float())


@pytest.mark.parametrize("contrast", get_args(Contrast))
def test_float_images_are_taken_as_levels(contrast: Contrast) -> None:
    """float32 images in [0, 255] give what the same uint8 images give, and are not written to."""
    module = Preprocess(PreprocessSpec(contrast=contrast), STATISTICS, image_size=8)
    levels = images().float()
    assert torch.equal(module(levels), module(images()))
    assert torch.equal(levels, images().float())


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


@pytest.mark.parametrize("choice", sorted(CHOICES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_choices_say_every_key(choice: Path) -> None:
    """Each file of conf/preprocess decodes and names every key, so that each can be overridden."""
    plain = yaml.safe_load(choice.read_text())
    spec = from_plain(PreprocessSpec, plain, where=choice.name)
    assert to_plain(spec) == plain


def test_the_five_versions_of_the_committee_are_choices() -> None:
    """Without contrastive normalisation, and told apart by their contrast alone."""
    versions = ["original", "image_adjustment", "histogram_equalisation", "clahe", "contrast_normalisation"]
    specs = [
        from_plain(PreprocessSpec, yaml.safe_load((CHOICES / f"{name}.yaml").read_text()), where=name)
        for name in versions
    ]
    assert [spec.contrast for spec in specs] == ["none", *versions[1:]]
    assert {dataclasses.replace(spec, contrast="none") for spec in specs} == {PreprocessSpec(contrastive_norm=False)}
