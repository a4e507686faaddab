"""Preprocessed images are kept, and are the ones that every batch would compute anew."""

import types
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stnbench.data.preprocessing import GlobalStatistics, Preprocess
from stnbench.data.resident import PreparedImages, fits_beside_training
from stnbench.spec.data import Contrast, PreprocessSpec

pytestmark = pytest.mark.slow

COUNT, SIZE = 60, 24
IMAGE_BYTES = 3 * SIZE * SIZE * 4
IMAGES = torch.randint(0, 256, (COUNT, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def preprocess(contrast: Contrast = "none") -> Preprocess:
    """With all normalisations."""
    return Preprocess(PreprocessSpec(contrast=contrast), GlobalStatistics(mean=0.4, std=0.2), image_size=SIZE)


class Counting(nn.Module):
    """Preprocessing that counts its images."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = preprocess()
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        """As the inner one."""
        self.images += len(images)
        done: Tensor = self.inner(images)
        return done


@pytest.mark.parametrize("contrast", get_args(Contrast))
@settings(max_examples=10, deadline=None)
@given(batches=st.lists(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=12), min_size=1, max_size=6))
def test_kept_images_are_those_of_every_batch_computed_anew(contrast: Contrast, batches: list[list[int]]) -> None:
    """Bit for bit, whatever the batches they were first seen in, also with rows twice and where memory is full."""
    whole, module = preprocess(contrast), preprocess(contrast)
    for limit in (COUNT, 5, 0):
        prepared = PreparedImages(IMAGES, module, limit_bytes=limit * IMAGE_BYTES)
        for batch in batches:
            rows = torch.tensor(batch)
            assert torch.equal(prepared.rows(rows), whole(IMAGES[rows]))


@pytest.mark.parametrize("batch", [1, 7, 20, 50])
def test_the_batch_size_does_not_change_an_image(batch: int) -> None:
    """Images of 48x48 that were computed one, seven, twenty or fifty at a time are those of one batch of 250."""
    images = torch.randint(0, 256, (250, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    module = Preprocess(PreprocessSpec(), GlobalStatistics(mean=0.4, std=0.2), image_size=48)
    prepared = PreparedImages(images, module)
    for rows in torch.arange(100).split(batch):
        prepared.rows(rows)
    everything = module(images)
    assert torch.equal(prepared.rows(torch.arange(250)), everything)
    assert torch.equal(prepared.rows(torch.arange(250)), everything)


def test_an_image_is_computed_once() -> None:
    """The second epoch computes nothing, and scoring what was trained on neither."""
    module = Counting()
    prepared = PreparedImages(IMAGES, module)
    for _ in range(2):
        for rows in torch.randperm(COUNT).split(7):
            prepared.rows(rows)
    assert module.images == prepared.count == COUNT


def test_no_more_is_kept_than_the_limit_allows() -> None:
    """Ten images are kept, and the others are computed each time."""
    module = Counting()
    prepared = PreparedImages(IMAGES, module, limit_bytes=10 * IMAGE_BYTES + 1)
    for _ in range(2):
        prepared.rows(torch.arange(COUNT))
    assert prepared.count == 10
    assert module.images == COUNT + (COUNT - 10)


def test_images_first_seen_while_scoring_can_be_trained_on() -> None:
    """What was kept inside inference_mode is an ordinary tensor outside, through which gradients pass."""
    prepared = PreparedImages(IMAGES, preprocess())
    with torch.inference_mode():
        prepared.rows(torch.arange(10))
    weight = torch.ones(3, requires_grad=True)
    (prepared.rows(torch.arange(20)).mean(dim=(0, 2, 3)) @ weight).backward()
    (prepared.rows(torch.arange(20)).mean(dim=(0, 2, 3)) @ weight).backward()
    assert weight.grad is not None


def test_channels_are_last_in_memory() -> None:
    """As the network wants them on a CPU, whether they were kept or computed."""
    prepared = PreparedImages(IMAGES, preprocess())
    for _ in range(2):
        assert prepared.rows(torch.arange(5)).is_contiguous(memory_format=torch.channels_last)


def test_off_the_cpu_all_images_are_prepared_in_the_beginning() -> None:
    """No batch then asks which are missing, for which the host would wait; a device without numbers can."""
    prepared = PreparedImages(IMAGES.to("meta"), preprocess().to("meta"))
    assert prepared.count == COUNT
    assert prepared.rows(torch.arange(5, device="meta")).shape == (5, 3, SIZE, SIZE)
    here = PreparedImages(IMAGES, preprocess())
    here._kept, here._is_complete = here._compute_all(), True
    rows = torch.tensor([5, 3, 3, 59])
    assert torch.equal(here.rows(rows), preprocess()(IMAGES[rows]))


def test_a_gpu_keeps_them_where_they_are_a_small_part_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """1.08 GB of GTSRB's training half beside 80 GB, and not beside 8 GB."""

    class Images:
        device = torch.device("cuda:0")

        def numel(self) -> int:
            return 39_209 * 3 * 48 * 48

    for gib, fits in ((80, True), (24, True), (8, False)):
        properties = types.SimpleNamespace(total_memory=gib << 30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, found=properties: found)
        assert fits_beside_training(Images()) is fits  # type: ignore[arg-type]
    assert fits_beside_training(IMAGES)
