"""Slots are planned from what is there, before anything runs."""

import os
from pathlib import Path

import pytest
from fake_driver import UUIDS, install_driver
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import EngineError, SpecError, StnbenchError, UnknownNameError
from stnbench.engines import Slot
from stnbench.engines import slots as module
from stnbench.engines.local import worker_environment
from stnbench.engines.slots import device_memory_mib, driver_version, plan_slots, require_computable, visible_gpus

MIG = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-8932f937-d72c-4106-c12f-20bd9faed9f6)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-5c6e2d1f-0000-5afc-978f-d2f1294409fd)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-8932aaaa-d72c-4106-c12f-20bd9faed9f6)"""


def driver(monkeypatch: pytest.MonkeyPatch, folder: Path, **options: object) -> None:
    """Put a made-up driver first on the PATH."""
    monkeypatch.setenv("PATH", f"{install_driver(folder, **options)}{os.pathsep}{os.environ['PATH']}")  # type: ignore[arg-type]


def torch_built_for(monkeypatch: pytest.MonkeyPatch, cuda: str | None) -> None:
    """Let the installed torch say that it was built for this CUDA."""
    text = f"__version__ = '2.14.1'\ncuda: Optional[str] = {cuda!r}\nhip: Optional[str] = None\n"
    monkeypatch.setattr(module, "_torch_version_file", lambda: text)


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
    [
        ("0,2", ("0", "2")),
        ("", ()),
        ("-1", ()),
        ("1,-1,2", ("1",)),
        ("GPU-a, GPU-b", ("GPU-a", "GPU-b")),
        ("NoDevFiles", ()),
        ("void", ()),
        ("0,x,1", ("0",)),
        (" 1 , 0 ", ("1", "0")),
        ("MIG-GPU-8a6a2a3e/1/0", ("MIG-GPU-8a6a2a3e/1/0",)),
    ],
)
def test_cuda_visible_devices_decides(
    visible: str, expected: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries are taken up to the first that names no device, as CUDA takes them; without a driver none is doubted."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": visible}) == expected


@pytest.mark.parametrize(
    ("visible", "message"),
    [
        ("0,0", "names the GPU 0 twice"),
        (f"0,{UUIDS[0]}", "twice"),
        ("GPU-1111,GPU-1111", "twice"),
        ("7", r"7 is no GPU of this machine: the driver lists 0 \(GPU-8932f937"),
        ("0,GPU-feed", "GPU-feed is no GPU of this machine"),
        ("GPU-8932", "GPU-8932 could be several GPUs"),
        ("MIG-a,MIG-a", "twice"),
    ],
)
def test_a_gpu_named_twice_or_not_there_is_an_error(
    visible: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything runs: CUDA would show such a worker no GPU at all."""
    driver(monkeypatch, tmp_path, memory=["81559", "24564", "[N/A]"])
    with pytest.raises(SpecError, match=message):
        visible_gpus({"CUDA_VISIBLE_DEVICES": visible})


def test_without_the_variable_all_gpus_of_the_driver_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By index in the order of the PCI bus, which workers are told to count in as well; a chosen order is left."""
    driver(monkeypatch, tmp_path, memory=["81559", "24564"])
    assert visible_gpus({}) == ("0", "1")
    slot = Slot(name="gpu1.0", device="1", threads=2)
    assert worker_environment(slot, {})["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert worker_environment(slot, {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
    assert worker_environment(slot, {})["TORCHINDUCTOR_COMPILE_THREADS"] == "2"


def test_memory_is_that_of_the_card_that_a_name_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By index, by UUID and by the beginning of one; not known where the driver says [N/A] or the order is CUDA's."""
    driver(monkeypatch, tmp_path, memory=["81559", "24564", "[N/A]"])
    names = ("1", UUIDS[0], "GPU-8932a", "2")
    assert {name: device_memory_mib(names, {}).get(name) for name in names} == {
        "1": 24564.0,
        UUIDS[0]: 81559.0,
        "GPU-8932a": 24564.0,
        "2": None,
    }
    by_speed = device_memory_mib(("0", UUIDS[1]), {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})
    assert (by_speed.get("0"), by_speed[UUIDS[1]]) == (None, 24564.0)
    assert device_memory_mib(())["cpu"] > 0


def test_a_card_that_mig_divides_is_used_slice_by_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each slice is a device with its own memory, of which the profile's name tells; the other card is used whole."""
    driver(monkeypatch, tmp_path, memory=["40960", "40960"], listing=MIG)
    slices = ("MIG-c7384736-a75d-5afc-978f-d2f1294409fd", "MIG-5c6e2d1f-0000-5afc-978f-d2f1294409fd")
    assert visible_gpus({}) == (*slices, "1")
    memory = device_memory_mib(visible_gpus({}), {})
    assert [memory[name] for name in (*slices, "1")] == [18000.0, 4500.0, 40960.0]


def test_slots_of_any_device_have_names_that_are_file_names() -> None:
    """The log of a slot is called after it; MIG's old names have slashes in them."""
    (slot,) = plan_slots(["MIG-GPU-8a6a2a3e/1/0"], 4)
    assert slot.name == "gpuMIG-GPU-8a6a2a3e_1_0.0"
    assert slot.device == "MIG-GPU-8a6a2a3e/1/0"


def test_a_driver_that_hangs_is_an_error_and_one_that_is_broken_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first would hang every trial; the second is what a machine without a GPU says."""
    driver(monkeypatch, tmp_path, memory=["81559"], code=9)
    assert visible_gpus({}) == ()
    assert device_memory_mib(("0",), {}).get("0") is None
    monkeypatch.setattr(module, "DRIVER_TIMEOUT_S", 0.2)
    driver(monkeypatch, tmp_path, hangs=True)
    with pytest.raises(EngineError, match="the NVIDIA driver does not answer"):
        visible_gpus({})


@pytest.mark.parametrize(
    ("cuda", "version", "message"),
    [
        ("13.0", "535.183.01", r"535.183.01 supports CUDA 12.2, .*CUDA 13.0: make setup TORCH=cu126"),
        ("13.0", "575.51.03", "supports CUDA 12.9, .*make setup TORCH=cu126"),
        ("13.0", "470.82", "supports CUDA 11.4, .*: a driver of 580 or newer"),
        ("12.6", "470.82", "supports CUDA 11.4"),
        (None, "580.65.06", "2 GPUs are visible, and this torch was built without CUDA: make setup TORCH=cu130"),
        ("13.0", "580.65.06", ""),
        ("12.6", "525.60.13", ""),
        ("14.0", "535.183.01", ""),
        ("13.0", "[N/A]", ""),
    ],
)
def test_a_driver_too_old_for_torch_is_told_before_anything_runs(
    cuda: str | None, version: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names both versions and the command that installs a fitting torch; what is unknown is let be."""
    driver(monkeypatch, tmp_path, memory=["81559", "81559"], version=version)
    torch_built_for(monkeypatch, cuda)
    if not message:
        require_computable(("0", "1"), {})
        return
    with pytest.raises(EngineError, match=message):
        require_computable(("0", "1"), {})


def test_the_driver_has_a_version_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty without a driver."""
    driver(monkeypatch, tmp_path, memory=["81559"])
    assert driver_version() == "580.65.06"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver_version() == ""


@pytest.mark.parametrize(
    ("named", "gpus", "kind"),
    [
        ("chanels_last", ("0",), UnknownNameError),
        ("cuda_graphs", (), EngineError),
        ("padded_channels,fused_kernels", (), EngineError),
        ("channels_last,tf", (), SpecError),
    ],
)
def test_how_a_machine_computes_is_checked_before_anything_runs(
    named: str, gpus: tuple[str, ...], kind: type[StnbenchError]
) -> None:
    """A misspelt option, or one that needs a GPU, is one error and not one a trial."""
    with pytest.raises(kind):
        require_computable(gpus, {"STNBENCH_COMPUTE": named})
    require_computable((), {"STNBENCH_COMPUTE": "channels_last"})
