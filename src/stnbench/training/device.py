"""Devices of trials: parsing, preparation, synchronisation and measurement."""

import contextlib
import ctypes
import gc
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import psutil
import torch

from stnbench.core.errors import DeviceError, NoDeviceError, SpecError
from stnbench.spec.trial import Precision

MIB = 1 << 20

T = TypeVar("T")

NO_DEVICE_REMEDY = (
    "check the driver (nvidia-smi) and that torch is built for CUDA (torch.version.cuda), "
    "or use the CPU: CUDA_VISIBLE_DEVICES= before the command"
)

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Settings of glibc's malloc.h."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSpec:
    """Device of a trial: ``cpu`` or one GPU, with a number of CPU threads.

    Attributes:
        kind: ``cpu`` or ``cuda``.
        index: the GPU's number, 0 for the CPU.
        threads: the CPU threads for one operator, also where the network is on a GPU.
    """

    kind: Literal["cpu", "cuda"]
    index: int
    threads: int

    @classmethod
    def parse(cls, text: str, *, threads: int) -> "DeviceSpec":
        """Parse ``cpu``, ``cuda`` (the first GPU) or ``cuda:N``.

        Raises:
            SpecError: for any other text, and for less than one thread.
        """
        if threads < 1:
            raise SpecError(f"threads is {threads}", remedy="at least 1")
        if text == "cpu":
            return cls(kind="cpu", index=0, threads=threads)
        if found := re.fullmatch(r"cuda(?::(\d+))?", text):
            return cls(kind="cuda", index=int(found[1] or 0), threads=threads)
        raise SpecError(f"the device is {text!r}", remedy="write cpu, cuda or cuda:N")

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"cuda:{self.index}"

    @property
    def torch(self) -> torch.device:
        """Return the device as torch's type."""
        return torch.device(str(self))


def prepare_device(device: DeviceSpec, precision: Precision = "float32") -> torch.device:
    """Set this process up for repeatable work on the device in a precision, and return it.

    Sets the thread budget, keeps freed memory for the next step (on a CPU), flushes denormal numbers to zero (a CPU
    computes slowly with them) and requires deterministic algorithms. The sampler has no deterministic backward on CUDA;
    its atomic additions are in the gradient of its *input* alone, so a transformer on the image itself is repeatable
    and one on feature maps is not (pytorch#68959). That operator is allowed, and so is the counting of levels, whose
    sums of whole numbers are exact; any other without a deterministic algorithm gives a warning. Call it before the
    first tensor is computed: a pool of threads keeps the settings it started with.

    Raises:
        NoDeviceError: where torch sees no GPU.
        DeviceError: where torch sees other GPUs but not this one.
    """
    torch.set_num_threads(device.threads)
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(mode=True, warn_only=device.kind == "cuda")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # missing in torch's stubs
    if device.kind == "cuda":
        _prepare_cuda(device, precision)
    else:
        _keep_freed_memory()
    return device.torch


class CapturedCall(Generic[T]):
    """A function without arguments as replays of one CUDA graph, captured after a few calls kernel by kernel.

    Kernels of torch, cuDNN and cuBLAS are recorded, without a compiler: it takes a fraction of a second. The function
    reads and writes tensors at fixed places in memory; a replay changes the tensors that the captured call returned.

    Args:
        function: the function.
        stream: a stream of the GPU for warming up and capturing.
        warm_up: the number of calls before the capture.
    """

    def __init__(self, function: Callable[[], T], stream: torch.cuda.Stream, *, warm_up: int) -> None:
        self._function = function
        self._stream = stream
        self._warm_up = warm_up
        self._captured: tuple[torch.cuda.CUDAGraph, T] | None = None

    def __call__(self) -> T:
        """Call the function or replay it, and return its result, which holds until the next call."""
        if self._captured is None and self._warm_up:
            self._warm_up -= 1
            current = torch.cuda.current_stream(self._stream.device)
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                result = self._function()
            current.wait_stream(self._stream)
            return result
        if self._captured is None:
            self._captured = self._capture()
        graph, result = self._captured
        graph.replay()
        return result

    def release(self) -> None:
        """Release the graph, whose memory no other kernel can use; a later call would record it again."""
        self._captured = None

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, T]:
        """Record one call, which computes nothing yet, and return its graph and its result.

        Raises:
            Exception: of the function. Torch ends the capture then, which often fails as well, and its error would hide
                the first one, so that too little memory would not be seen as such.
        """
        graph, first = torch.cuda.CUDAGraph(), None
        try:
            # The outer context restores the stream where the inner one cannot end.
            with torch.cuda.stream(self._stream), torch.cuda.graph(graph, stream=self._stream):
                try:
                    result = self._function()
                except Exception as error:
                    first = error
                    raise
        except Exception:
            if first is None:
                raise
            raise first from None
        return graph, result


@contextmanager
def process_settings_kept() -> Iterator[None]:
    """Restore torch's settings of this process at the end, as ``prepare_device`` changes them for a trial.

    Threads, the flushing of denormal numbers, deterministic algorithms, the filling of new memory, and how cuDNN and
    cuBLAS compute are kept. Use it where a trial runs in a process that is not the trial's own; threads that torch
    started meanwhile keep theirs.
    """
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only, filling = torch.is_deterministic_algorithms_warn_only_enabled(), _fills_new_memory()
    flushes = float(torch.tensor([1e-30]) * torch.tensor([1e-10])) == 0.0  # torch has no function that tells
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    benchmark, convolutions_round, products_round = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushes)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined] # as above
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = benchmark, convolutions_round, products_round


def _fills_new_memory() -> bool:
    return bool(torch.utils.deterministic.fill_uninitialized_memory)  # type: ignore[attr-defined] # as above


def _keep_freed_memory() -> None:
    """Make the C library keep freed memory, after it has returned the memory left by an earlier trial.

    Maps of features are tens of MB. glibc asks the system for blocks of more than 32 MB each time, and the kernel hands
    out cleared pages one by one, which is 3 % of a step of lecun 108,200,100. Other C libraries are left unchanged.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt") and hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)


def _prepare_cuda(device: DeviceSpec, precision: Precision) -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first handle of cuBLAS is made
    count = torch.cuda.device_count()
    if count == 0:
        raise NoDeviceError(f"torch sees no GPU ({_why_no_gpu()})", remedy=NO_DEVICE_REMEDY)
    if device.index >= count:
        raise DeviceError(f"the device {device} is not there", remedy=f"torch sees {count} GPUs here; use cpu or less")
    torch.cuda.init()
    torch.cuda.set_device(device.index)
    torch.backends.cudnn.benchmark = False  # its choice of algorithm depends on timing
    torch.backends.cuda.matmul.allow_tf32 = False  # geometry and local normalisation are among them
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    for operator in ("grid_sampler_2d_backward_cuda", "scatter_add_cuda_kernel"):
        warnings.filterwarnings("ignore", message=f"{operator} does not have a deterministic")


def _why_no_gpu() -> str:
    """Return torch's message on why it sees no GPU."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # the latter where it is built without CUDA
        return (str(error).splitlines() or [""])[0].rstrip(".")
    return "it does not say why"


def numerics(device: DeviceSpec, precision: Precision) -> str:
    """Return a description of this process's computation: the rounding of products, and whether runs repeat."""
    repeats = "deterministic" if torch.are_deterministic_algorithms_enabled() else "not deterministic"
    if precision == "bfloat16":
        return f"bfloat16, {repeats}"
    has_tf32 = device.kind == "cuda" and torch.cuda.get_device_capability(device.index) >= (8, 0)
    is_rounded = has_tf32 and torch.backends.cudnn.allow_tf32
    return f"{'tf32 convolutions' if is_rounded else 'float32'}, {repeats}"


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work; a CPU has always finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release_memory(device: str) -> None:
    """Release the memory of an ended trial: cycles of compiled parts and hooks, and torch's cache of GPU memory.

    It never fails: after an error of CUDA every call of the process does, and the error has been reported.
    """
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    gc.collect()
    if device != "cpu" and torch.cuda.is_initialized():
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


def device_name(device: DeviceSpec) -> str:
    """Return the maker's name of the device, for example ``NVIDIA H200`` or ``AMD EPYC``."""
    if device.kind == "cuda":
        name: str = torch.cuda.get_device_name(device.index)
        return name
    listing = Path("/proc/cpuinfo")
    if listing.is_file() and (found := re.search(r"^model name\s*:\s*(.+)$", listing.read_text(), re.MULTILINE)):
        return found[1].strip()
    return platform.processor() or platform.machine()


def gpu_driver() -> str:
    """Return the version of the NVIDIA driver that this process uses; empty where the system does not say."""
    module = Path("/proc/driver/nvidia/version")
    if module.is_file() and (found := re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", module.read_text())):
        return found[1]
    return ""


class MemoryMeter:
    """Peak memory of a trial: memory reserved by torch on a GPU, or the resident size of the whole process on the CPU.

    Reserved memory is larger than the tensors, by fragmentation, and is not available to other processes. It excludes
    the context of the process. The number for the CPU is the largest of the samples taken, so call ``sample`` where
    memory is high.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._peak_bytes = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.sample()

    def sample(self) -> None:
        """Update the peak with the memory in use now."""
        self._peak_bytes = max(self._peak_bytes, self._used_bytes())

    @property
    def peak_mib(self) -> float:
        """Return the peak so far, in MiB."""
        return self._peak_bytes / MIB

    def _used_bytes(self) -> int:
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_reserved(self._device))
        return int(psutil.Process().memory_info().rss)
