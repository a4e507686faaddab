"""Which failure an exception is."""

import errno

import pytest
import torch

from stnbench.core.errors import (
    CheckpointError,
    DataCorruptError,
    DataError,
    DataMissingError,
    DeviceError,
    DivergedError,
    EngineError,
    InfeasibleError,
    NoDeviceError,
    SpecError,
    UnknownNameError,
)
from stnbench.spec.result import FailureKind
from stnbench.trials.failures import MESSAGE_LIMIT, TRACEBACK_LIMIT, classify, shorten

CPU_ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), FailureKind.OUT_OF_MEMORY),
        (MemoryError(), FailureKind.OUT_OF_MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError(CPU_ALLOCATOR), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), FailureKind.OUT_OF_MEMORY),
        (DivergedError("the loss is nan at step 3"), FailureKind.DIVERGED),
        (SpecError("batch_size is 0"), FailureKind.INVALID),
        (InfeasibleError("the images are too small"), FailureKind.INVALID),
        (UnknownNameError("key", "x", ["y"]), FailureKind.INVALID),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), FailureKind.BUG),
        (KeyError("out of memory"), FailureKind.BUG),
        (OSError(errno.ENOSPC, "No space left on device"), FailureKind.INFRASTRUCTURE),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), FailureKind.INFRASTRUCTURE),
        (FileNotFoundError(errno.ENOENT, "No such file"), FailureKind.BUG),
        (DataCorruptError("images.npy has changed"), FailureKind.DATA),
        (CheckpointError("the checkpoint cannot be read"), FailureKind.BUG),
        (EngineError("cuda:3 is not there"), FailureKind.BUG),
        (DeviceError("the device cuda:0 is not there"), FailureKind.DEVICE),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), FailureKind.OUT_OF_MEMORY),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
            FailureKind.OUT_OF_MEMORY,
        ),
        (RuntimeError("CUDA driver error: out of memory"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: device-side assert triggered"), FailureKind.BUG),
        (RuntimeError("CUDA error: invalid configuration argument"), FailureKind.BUG),
        (RuntimeError("CUDA error: operation not permitted when stream is capturing"), FailureKind.BUG),
        (RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm(...)`"), FailureKind.BUG),
        (KeyError("an illegal memory access was encountered"), FailureKind.BUG),
        (AssertionError(), FailureKind.BUG),
    ],
)
def test_the_kind_of_an_exception(error: Exception, kind: FailureKind) -> None:
    """Memory, divergence, configuration, data and a broken machine are told apart; everything else is a bug."""
    failure = classify(error)
    assert failure.kind is kind
    assert failure.message
    assert failure.last_output == ""


CUDA_HINT = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nDevice-side assertion tracking was not enabled"
)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: an illegal instruction was encountered",
        "CUDA error: misaligned address",
        "CUDA error: unspecified launch failure",
        "CUDA error: the launch timed out and was terminated",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: uncorrectable NVLink error detected during the execution",
        "CUDA error: all CUDA-capable devices are busy or unavailable",
        "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        "CUDA error: invalid device ordinal",
        "CUDA error: unknown error",
        "CUDA error: initialization error",
        "CUDA error: system not yet initialized",
        "CUDA error: MPS client failed to connect to the MPS control daemon or the MPS server",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m, n, k)`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
        (
            "CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env variable "
            "CUDA_VISIBLE_DEVICES after program start. Setting the available devices to be zero."
        ),
    ],
)
def test_what_cuda_says_of_a_lost_device_is_the_device(text: str) -> None:
    """Texts of CUDA, cuDNN and cuBLAS as torch raises them, by the class of newer versions and of older ones."""
    accelerator = getattr(torch, "AcceleratorError", RuntimeError)
    for kind in (RuntimeError, accelerator):
        error = kind.__new__(kind)
        error.args = (text + CUDA_HINT,)
        assert classify(error).kind is FailureKind.DEVICE


@pytest.mark.parametrize(
    "error",
    [
        NoDeviceError("torch sees no GPU"),
        RuntimeError("CUDA error: no CUDA-capable device is detected"),
        RuntimeError("CUDA error: no kernel image is available for execution on the device"),
        RuntimeError("No CUDA GPUs are available"),
        RuntimeError("The NVIDIA driver on your system is too old (found version 12020)."),
        RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"),
        RuntimeError("CUDA driver version is insufficient for CUDA runtime version"),
        AssertionError("Torch not compiled with CUDA enabled"),
    ],
)
def test_a_machine_without_a_usable_gpu_is_told_from_one_that_loses_it(error: Exception) -> None:
    """Waiting does not help: another kind of failure."""
    assert classify(error).kind is FailureKind.NO_DEVICE


@pytest.mark.parametrize("kind", [DataError, DataCorruptError, DataMissingError])
def test_a_fault_of_the_data_is_no_trial_s(kind: type[DataError]) -> None:
    """It is told from a bug: no trial fails for good because a file is damaged."""
    error = kind("images.npy has changed", remedy="make it again")
    assert classify(error).kind is FailureKind.DATA
    error.__cause__ = OSError(errno.ESTALE, "the file server has forgotten it")
    assert classify(error).kind is FailureKind.INFRASTRUCTURE


def test_a_real_failed_allocation_is_out_of_memory() -> None:
    """What torch raises here when a tensor is larger than the machine."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert classify(caught.value).kind is FailureKind.OUT_OF_MEMORY


def test_a_cause_is_looked_through() -> None:
    """An error raised from a lack of memory is a lack of memory."""
    outer = EngineError("the worker gave up")
    outer.__cause__ = MemoryError()
    assert classify(outer).kind is FailureKind.OUT_OF_MEMORY


def test_the_nearest_kind_decides() -> None:
    """A divergence that came of a configuration error is a divergence."""
    outer = DivergedError("the loss is nan")
    outer.__cause__ = SpecError("x")
    assert classify(outer).kind is FailureKind.DIVERGED


def test_a_bug_is_named_by_its_type() -> None:
    """The message of a KeyError alone says nothing; a message of ours stands for itself."""
    assert classify(KeyError("theta")).message == "KeyError: 'theta'"
    assert classify(SpecError("seed is -1", remedy="at least 0")).message == "seed is -1: at least 0"
    assert classify(MemoryError()).message == "MemoryError"


def test_the_traceback_shows_where_it_happened() -> None:
    """Function and line, as Python prints them."""

    def deep() -> None:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here") as caught:
        deep()
    text = classify(caught.value).traceback
    assert "in deep" in text
    assert text.rstrip().endswith("ValueError: here")


def test_long_texts_keep_both_ends() -> None:
    """A message of a million characters does not reach the store; beginning and end do."""
    failure = classify(ValueError("a" * 500_000 + "b" * 500_000))
    assert len(failure.message) < MESSAGE_LIMIT + 100
    assert len(failure.traceback) < TRACEBACK_LIMIT + 100
    assert failure.message.startswith("ValueError: a")
    assert failure.message.endswith("b")
    assert "characters left out" in failure.traceback
    assert shorten("short", 5) == "short"
