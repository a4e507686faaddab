"""Devices are parsed strictly, and preparing one sets the process up as it says."""

import ctypes
import gc
import os
import sys
import warnings
import weakref
from collections.abc import Iterator
from typing import get_args

import pytest
import torch
from captured_calls import stand_in_for_cuda
from torch.utils import deterministic

from stnbench.core.errors import EngineError, SpecError
from stnbench.spec.result import FailureKind
from stnbench.spec.trial import Precision
from stnbench.training.device import (
    CapturedCall,
    DeviceSpec,
    MemoryMeter,
    device_name,
    numerics,
    prepare_device,
    process_settings_kept,
    release_memory,
)
from stnbench.trials.failures import classify


@pytest.mark.parametrize(
    ("text", "kind", "index", "shown"),
    [("cpu", "cpu", 0, "cpu"), ("cuda", "cuda", 0, "cuda:0"), ("cuda:3", "cuda", 3, "cuda:3")],
)
def test_a_device_is_read_from_its_name(text: str, kind: str, index: int, shown: str) -> None:
    """The three ways to write a device, and how it is shown again."""
    device = DeviceSpec.parse(text, threads=2)
    assert (device.kind, device.index, device.threads, str(device)) == (kind, index, 2, shown)
    assert device.torch == torch.device(shown)


@pytest.mark.parametrize("text", ["", "gpu", "cpu:0", "cuda:", "cuda:x", "cuda:1 ", "CPU", "mps"])
def test_any_other_name_is_refused(text: str) -> None:
    """The message repeats what was written."""
    with pytest.raises(SpecError, match="write cpu, cuda or cuda:N") as caught:
        DeviceSpec.parse(text, threads=1)
    assert repr(text) in str(caught.value)


def test_less_than_one_thread_is_refused() -> None:
    """A budget of no threads cannot be meant."""
    with pytest.raises(SpecError, match="threads is 0"):
        DeviceSpec.parse("cpu", threads=0)


def test_preparing_sets_threads_and_determinism() -> None:
    """The budget holds, algorithms are deterministic, and no time goes into filling buffers."""
    assert prepare_device(DeviceSpec.parse("cpu", threads=2)) == torch.device("cpu")
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled()
    assert not deterministic.fill_uninitialized_memory  # type: ignore[attr-defined] # missing in stubs


def test_preparing_flushes_denormals() -> None:
    """A number too small for a normal float32 becomes zero."""
    prepare_device(DeviceSpec.parse("cpu", threads=1))
    assert float(torch.tensor([1e-30]) * torch.tensor([1e-10])) == 0.0


def test_the_settings_of_a_process_that_is_not_the_trials_are_kept() -> None:
    """After a trial in a notebook, denormals, determinism, filling and threads are as its owner had them."""
    torch.set_num_threads(1)
    with process_settings_kept():
        prepare_device(DeviceSpec.parse("cpu", threads=2))
    assert float(torch.tensor([1e-30]) * torch.tensor([1e-10])) != 0.0
    assert not torch.are_deterministic_algorithms_enabled()
    assert deterministic.fill_uninitialized_memory  # type: ignore[attr-defined] # missing in stubs
    assert torch.get_num_threads() == 1


def test_settings_that_the_owner_chose_are_kept_too() -> None:
    """Denormals that were flushed before stay flushed, and determinism that only warns only warns."""
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    with process_settings_kept():
        torch.set_flush_denormal(False)
        torch.use_deterministic_algorithms(mode=True)
    assert float(torch.tensor([1e-30]) * torch.tensor([1e-10])) == 0.0
    assert torch.is_deterministic_algorithms_warn_only_enabled()


def test_a_gpu_that_is_not_there_is_an_engine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how many GPUs there are."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(EngineError, match="cuda:2 is not there: torch sees 2 GPUs"):
        prepare_device(DeviceSpec.parse("cuda:2", threads=1))


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[object]]]:
    """A CUDA of one GPU of compute capability 9.0, as far as settings go; what it is told is noted by function."""
    told: dict[str, list[object]] = {}
    for name in ("init", "set_device", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *given, name=name: told.setdefault(name, []).append(given))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _index: (9, 0))
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with process_settings_kept():
        yield told
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.usefixtures("fake_cuda")
def test_a_gpu_rounds_convolutions_where_a_trial_asks_for_it(precision: Precision) -> None:
    """Only in tf32, and never products of matrices, which geometry uses; the result says what was rounded."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "tf32"
    torch.backends.cudnn.benchmark = True
    where = DeviceSpec.parse("cuda:0", threads=1)
    assert prepare_device(where, precision) == torch.device("cuda:0")
    assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    expected = {"float32": "float32", "tf32": "tf32 convolutions", "bfloat16": "bfloat16"}[precision]
    assert numerics(where, precision) == f"{expected}, deterministic"


def test_a_gpu_before_ampere_computes_tf32_trials_in_float32(
    fake_cuda: dict[str, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a CPU does; the result's environment says so."""
    del fake_cuda
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _index: (7, 5))
    where = DeviceSpec.parse("cuda:0", threads=1)
    prepare_device(where, "tf32")
    assert numerics(where, "tf32") == "float32, deterministic"
    assert numerics(DeviceSpec.parse("cpu", threads=1), "tf32") == "float32, deterministic"


@pytest.mark.usefixtures("fake_cuda")
def test_how_a_gpu_computes_is_the_owners_again_after_a_trial() -> None:
    """A notebook that lets its own products round goes on rounding them."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True
    with process_settings_kept():
        prepare_device(DeviceSpec.parse("cuda:0", threads=1), "float32")
        within = torch.backends.cudnn.allow_tf32
    assert (within, torch.backends.cudnn.allow_tf32) == (False, True)
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.benchmark


@pytest.mark.parametrize("fails_at_the_end", [False, True])
def test_an_error_while_a_call_is_captured_is_the_error(
    monkeypatch: pytest.MonkeyPatch,
    fails_at_the_end: bool,
) -> None:
    """Too little memory is told as such, though the capture cannot be ended either."""
    cuda = stand_in_for_cuda(monkeypatch)
    cuda.fails_at_the_end = fails_at_the_end
    calls: list[str] = []

    def work() -> None:
        calls.append("call")
        if len(calls) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    call = CapturedCall(work, torch.cuda.Stream(0), warm_up=1)
    call()
    with pytest.raises(torch.OutOfMemoryError, match="out of memory") as caught:
        call()
    assert classify(caught.value).kind is FailureKind.OUT_OF_MEMORY


def test_a_number_that_is_read_while_a_call_is_captured_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in refuses it as CUDA does, which the tests of steps and passes rely on."""
    stand_in_for_cuda(monkeypatch)
    numbers = torch.ones(2)
    call = CapturedCall(lambda: float(numbers.sum()), torch.cuda.Stream(0), warm_up=1)
    assert call() == 2.0
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        call()


def test_a_capture_that_fails_by_itself_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function ended well, so the error is that of the capture."""
    stand_in_for_cuda(monkeypatch).fails_at_the_end = True
    with pytest.raises(RuntimeError, match="during capture"):
        CapturedCall(lambda: None, torch.cuda.Stream(0), warm_up=0)()


@pytest.mark.usefixtures("fake_cuda")
def test_only_operators_that_are_known_not_to_repeat_are_not_told() -> None:
    """Those behind a sampler of feature maps, and the counting of levels, which is exact; any other is told."""
    prepare_device(DeviceSpec.parse("cuda:0", threads=1))
    text = "{} does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True, ..."
    for operator in ("grid_sampler_2d_backward_cuda", "scatter_add_cuda_kernel"):
        warnings.warn(text.format(operator), stacklevel=1)
    with pytest.warns(UserWarning, match="cudnn_grid_sampler_backward"):
        warnings.warn(text.format("cudnn_grid_sampler_backward"), stacklevel=1)


class Linked:
    """Half of a cycle, as a compiled part and its forward are."""

    other: "Linked"


def test_the_memory_of_an_ended_trial_is_released(
    fake_cuda: dict[str, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cycles are collected, then torch gives its cache back to the GPU, where it has used one."""
    one, other = Linked(), Linked()
    one.other, other.other = other, one
    alive = weakref.ref(one)
    gc.disable()
    try:
        del one, other
        assert alive() is not None
        release_memory("cuda:0")
        assert alive() is None
    finally:
        gc.enable()
    assert fake_cuda["empty_cache"] == [()]
    release_memory("cpu")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    release_memory("cuda:0")
    assert fake_cuda["empty_cache"] == [()]


def test_what_was_compiled_is_forgotten_with_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch counts compilations by code, so the next trial's would be refused at the limit of a process."""
    resets: list[int] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(1))
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    release_memory("cpu")
    assert resets == []
    monkeypatch.setitem(sys.modules, "torch._dynamo", torch)
    release_memory("cpu")
    assert resets == [1]


def test_memory_is_released_after_an_error_of_cuda_too(
    fake_cuda: dict[str, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of the process fails then, and the error has been reported."""
    del fake_cuda

    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "empty_cache", fail)
    release_memory("cuda:0")


def test_the_memory_meter_counts_what_torch_reserves_of_a_gpu(
    fake_cuda: dict[str, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than its tensors need, and not there for other processes; the peak of the trial before does not count."""
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _device: 300 << 20)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: 200 << 20)
    gpu = torch.device("cuda:0")
    assert MemoryMeter(gpu).peak_mib == 300.0
    assert fake_cuda["reset_peak_memory_stats"] == [(gpu,)]


def test_the_cpu_has_a_name() -> None:
    """Some text of the maker's."""
    assert device_name(DeviceSpec.parse("cpu", threads=1)).strip()


def test_the_memory_meter_keeps_the_largest_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak stays when memory falls again."""
    samples = iter([100 << 20, 300 << 20, 200 << 20])
    monkeypatch.setattr(MemoryMeter, "_used_bytes", lambda self: next(samples))
    meter = MemoryMeter(torch.device("cpu"))
    meter.sample()
    meter.sample()
    assert meter.peak_mib == 300.0


def test_the_memory_meter_measures_this_process() -> None:
    """A process with torch in it holds tens of MiB at least."""
    assert MemoryMeter(torch.device("cpu")).peak_mib > 20


class FakeLibrary:
    """A C library that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[int, ...]]] = []

    def mallopt(self, setting: int, value: int) -> int:
        """As glibc's."""
        self.told.append(("mallopt", (setting, value)))
        return 1

    def malloc_trim(self, pad: int) -> int:
        """As glibc's."""
        self.told.append(("malloc_trim", (pad,)))
        return 1


def test_freed_memory_is_kept_after_an_earlier_trial_s_was_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library gives back what it holds, and is then told to map nothing apart and to trim nothing."""
    library = FakeLibrary()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    prepare_device(DeviceSpec.parse("cpu", threads=1))
    assert library.told == [("malloc_trim", (0,)), ("mallopt", (-4, 0)), ("mallopt", (-1, -1))]


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_another_c_library_is_let_be(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """One without glibc's settings is asked for nothing, and on other systems none is opened."""
    opened: list[object] = []

    def opened_library(name: object) -> object:
        opened.append(name)
        return object()

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", opened_library)
    prepare_device(DeviceSpec.parse("cpu", threads=1))
    assert len(opened) == (platform == "linux")
