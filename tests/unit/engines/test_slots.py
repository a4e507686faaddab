"""Slots are planned from what is there, before anything runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import SpecError
from stnbench.engines.slots import plan_slots, visible_gpus


def test_without_gpus_every_core_is_a_slot() -> None:
    """Two cores, two slots of one thread each."""
    slots = plan_slots([], 2)

    assert [(slot.name, slot.device, slot.threads) for slot in slots] == [("cpu0", "cpu", 1), ("cpu1", "cpu", 1)]


def test_gpus_are_shared_evenly_and_filled_one_after_the_other() -> None:
    """The first slots are on different GPUs, so that two trials do not share one while another idles."""
    slots = plan_slots(["0", "GPU-b"], 8, per_gpu=2)

    assert [slot.device for slot in slots] == ["0", "GPU-b", "0", "GPU-b"]
    assert len({slot.name for slot in slots}) == 4
    assert all(slot.threads == 2 and slot.is_cuda for slot in slots)


@given(st.integers(1, 64), st.integers(1, 80))
def test_threads_never_exceed_the_cores_but_for_the_one_each_slot_needs(cores: int, count: int) -> None:
    """The thread budgets of all slots together fit the machine where there is a core a slot."""
    slots = plan_slots([], cores, slots=count)

    assert len(slots) == count
    assert sum(slot.threads for slot in slots) <= max(cores, count)


def test_a_number_below_one_is_refused() -> None:
    """No slot, no sweep."""
    with pytest.raises(SpecError, match="slots is 0"):
        plan_slots([], 2, slots=0)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("0,2", ("0", "2")), ("", ()), ("-1", ()), ("1,-1,2", ("1",)), ("GPU-a, GPU-b", ("GPU-a", "GPU-b"))],
)
def test_cuda_visible_devices_decides(visible: str, expected: tuple[str, ...]) -> None:
    """Indices and UUIDs are taken as CUDA takes them."""
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": visible}) == expected
