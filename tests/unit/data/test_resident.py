"""The order of an epoch depends on seed and epoch alone; images on a device are the set's."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import SpecError
from stnbench.data import ImageSet
from stnbench.data.resident import DeviceImages, epoch_order, steps_per_epoch


@given(count=st.integers(1, 200), seed=st.integers(0, 2**31), epoch=st.integers(0, 100))
def test_an_epoch_visits_every_image_once(count: int, seed: int, epoch: int) -> None:
    """The order is a permutation of the rows given, and the same when asked for again."""
    rows = torch.arange(count) * 3 + 1
    order = epoch_order(rows, seed=seed, epoch=epoch)
    assert torch.equal(order.sort().values, rows)
    assert torch.equal(order, epoch_order(rows, seed=seed, epoch=epoch))


def test_epochs_and_seeds_differ() -> None:
    """Another epoch and another seed give another order."""
    rows = torch.arange(100)
    orders = [epoch_order(rows, seed=seed, epoch=epoch) for seed, epoch in [(1, 0), (1, 1), (2, 0)]]
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_the_order_is_pinned() -> None:
    """A change of the order changes every result, and must raise the results version."""
    assert epoch_order(torch.arange(8), seed=1, epoch=0).tolist() == [2, 1, 4, 0, 3, 6, 7, 5]


def test_the_order_leaves_the_global_generator_alone() -> None:
    """The global state of torch is neither read nor written."""
    before = torch.random.get_rng_state()
    epoch_order(torch.arange(8), seed=1, epoch=0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_last_incomplete_batch_is_dropped() -> None:
    """20,000 images are 400 batches of 50, and 20,049 are no more."""
    assert steps_per_epoch(20_000, 50) == steps_per_epoch(20_049, 50) == 400


def test_the_last_batch_may_be_dropped_even_when_it_is_full() -> None:
    """As in 2015: 399 steps of 20,000 images; an incomplete last batch is no other than without."""
    assert steps_per_epoch(20_000, 50, "always") == 399
    assert steps_per_epoch(20_001, 50, "always") == steps_per_epoch(20_050, 50, "always") == 400


def test_less_than_one_batch_is_refused() -> None:
    """The message names both numbers; a single batch is too few where it is dropped."""
    with pytest.raises(SpecError, match="batch_size is 50, and there are 49 training images"):
        steps_per_epoch(49, 50)
    with pytest.raises(SpecError, match="batch_size is 50, and there are 50 training images"):
        steps_per_epoch(50, 50, "always")


def test_images_on_the_cpu_are_the_memory_of_the_set(toy_set: ImageSet) -> None:
    """uint8 and int64, with no copy: all workers of a machine share one map of the cache."""
    images = DeviceImages.from_image_set(toy_set, torch.device("cpu"))
    assert images.images.dtype == torch.uint8
    assert images.labels.dtype == torch.int64
    assert np.array_equal(images.images.numpy(), toy_set.images)
    assert np.array_equal(images.labels.numpy(), toy_set.labels)
    assert (len(images), images.digest) == (len(toy_set), "toy")
    assert images.all_rows().tolist() == list(range(len(toy_set)))
    assert images.images.data_ptr() == toy_set.images.ctypes.data


def test_images_on_another_device_are_checked_once_and_map_no_file(toy_set: ImageSet) -> None:
    """The file is compared with its digest after the copy, and is not needed from then on."""
    checks: list[str] = []
    half = dataclasses.replace(toy_set, check=lambda: checks.append("checked"))
    images = DeviceImages.from_image_set(half, torch.device("meta"))
    assert checks == ["checked"]
    images.check()
    assert checks == ["checked"]
    assert {tensor.device.type for tensor in (images.images, images.labels, images.boxes)} == {"meta"}


def test_a_read_only_map_can_be_used(toy_set: ImageSet, tmp_path: Path) -> None:
    """Caches are mapped read-only, which torch alone would warn about."""
    np.save(tmp_path / "images.npy", toy_set.images)
    mapped = np.lib.format.open_memmap(tmp_path / "images.npy", mode="r")
    images = DeviceImages.from_image_set(dataclasses.replace(toy_set, images=mapped), torch.device("cpu"))
    rows = torch.tensor([3, 99, 3])
    assert np.array_equal(images.images[rows].numpy(), toy_set.images[[3, 99, 3]])
