"""The slots that this machine offers, decided before anything starts and never by looking for a free GPU.

``CUDA_VISIBLE_DEVICES`` and the driver decide which devices CUDA sees; both are read here without torch, so that a
wrong setting ends a command before it writes anything. GPUs are numbered as by ``nvidia-smi``, by their position on the
PCI bus: workers are started with ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` unless the user chose another order.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from stnbench.core.errors import EngineError, SpecError
from stnbench.engines import Slot
from stnbench.spec.trial import COMPUTE_VARIABLE, ComputeOptions

VISIBLE_VARIABLE: Final = "CUDA_VISIBLE_DEVICES"
ORDER_VARIABLE: Final = "CUDA_DEVICE_ORDER"
BY_PCI_BUS: Final = "PCI_BUS_ID"

DRIVER_TIMEOUT_S: Final = 20.0
"""Seconds that ``nvidia-smi`` may take; with many GPUs and no persistence daemon it takes several."""

MIG_MIB_A_GB: Final = 900.0
"""Minimum memory in MiB of a MIG slice for each GB of its profile's name: 4,864 MiB for ``1g.5gb``."""

_CUDA_OF_DRIVERS: Final[Mapping[int, str]] = {
    580: "13.0", 575: "12.9", 570: "12.8", 565: "12.7", 560: "12.6", 555: "12.5", 550: "12.4", 545: "12.3",
    535: "12.2", 530: "12.1", 525: "12.0", 520: "11.8", 515: "11.7", 510: "11.6", 495: "11.5", 470: "11.4",
    465: "11.3", 460: "11.2", 455: "11.1", 450: "11.0",
}  # fmt: skip
"""The version of CUDA that each driver branch came with, newest first (CUDA Toolkit release notes)."""

_DRIVERS: Final[Mapping[int, int]] = {13: 580, 12: 525, 11: 450}
"""The oldest driver branch that runs each major version of CUDA (CUDA Compatibility, tables of minor versions)."""

_WHEELS: Final[Mapping[int, str]] = {13: "cu130", 12: "cu126"}
"""The choices of ``make setup TORCH=...`` by major version of CUDA."""

_CPU_REMEDY: Final = f"or set {VISIBLE_VARIABLE}=-1 to train on the CPU"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Gpu:
    """A GPU, or a slice of one, as the driver lists it; ``memory_mib`` is None where the driver does not report it."""

    index: str
    uuid: str
    memory_mib: float | None


def plan_slots(
    gpus: Sequence[str],
    cores: int,
    *,
    slots: int | None = None,
    per_gpu: int = 1,
    memory_mib: Mapping[str, float] | None = None,
) -> tuple[Slot, ...]:
    """Return slots on the given devices: ``per_gpu`` on every GPU, or else one CPU slot per core with one thread each.

    ``slots`` sets the number of CPU slots, each with an equal share of the cores as threads; with GPUs it limits the
    number of slots. CPU threads are divided among GPU slots as well. ``memory_mib`` is the memory of each device.

    Raises:
        SpecError: if a number is below 1.
    """
    for name, value in (("slots", slots), ("slots per GPU", per_gpu), ("cores", cores)):
        if value is not None and value < 1:
            raise SpecError(f"{name} is {value}", remedy="use a whole number of at least 1")
    if gpus:
        shares = [(gpu, share) for share in range(per_gpu) for gpu in gpus][:slots]
        threads = max(1, cores // len(shares))
        return tuple(
            Slot(
                name=f"gpu{_file_name(gpu)}.{share}",
                device=gpu,
                threads=threads,
                memory_mib=(memory_mib or {}).get(gpu),
            )
            for gpu, share in shares
        )
    count = slots or cores
    threads = max(1, cores // count)
    memory = (memory_mib or {}).get("cpu")
    return tuple(Slot(name=f"cpu{index}", device="cpu", threads=threads, memory_mib=memory) for index in range(count))


def visible_gpus(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the GPUs that CUDA sees, named as ``CUDA_VISIBLE_DEVICES`` names them.

    As in CUDA, these are the entries of the variable up to the first that names no device (``-1``, or Slurm's
    ``NoDevFiles``); without the variable, all GPUs that the driver lists, with each slice of a GPU divided by MIG.

    Raises:
        SpecError: if a GPU is named twice, or is not known to the driver.
        EngineError: if the driver does not answer.
    """
    visible = environment.get(VISIBLE_VARIABLE)
    if visible is None:
        return _all_devices()
    names = _device_names(visible)
    listed = _list_gpus() if names else ()
    found: dict[str, str] = {}
    for name in names:
        identity = _identity(name, listed, visible)
        if identity in found.values():
            raise SpecError(
                f"{VISIBLE_VARIABLE} is '{visible}', which names the GPU {name} twice",
                remedy="name each GPU once, and let several trials share it with --slots-per-gpu",
            )
        found[name] = identity
    return tuple(found)


def device_memory_mib(gpus: Sequence[str], environment: Mapping[str, str] = os.environ) -> dict[str, float]:
    """Return the total memory in MiB of the named GPUs, where the driver reports it, and of this machine as ``cpu``.

    Raises:
        EngineError: if the driver does not answer.
    """
    memory = {"cpu": psutil.virtual_memory().total / (1 << 20)}
    listed = (*_list_gpus(), *_list_slices()) if gpus else ()
    is_by_bus = environment.get(ORDER_VARIABLE, BY_PCI_BUS) == BY_PCI_BUS
    for name in gpus:
        known = [gpu for gpu in listed if _is_named(gpu, name)]
        if name.isdecimal() and not is_by_bus:  # the card to which CUDA gives this index is not known here
            known = list(listed) if len({gpu.memory_mib for gpu in listed}) == 1 else []
        if known and (total := known[0].memory_mib) is not None:
            memory[name] = total
    return memory


def require_computable(gpus: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
    """Check, without importing torch, the settings that would otherwise fail every trial of a sweep.

    Raises:
        UnknownNameError: if ``STNBENCH_COMPUTE`` has an option that does not exist.
        EngineError: if an option needs a GPU and there is none, if torch was built without CUDA, or if the driver is
            older than torch's CUDA needs.
    """
    compute = ComputeOptions.from_environment(environment)
    if not gpus:
        for name in compute.of_gpus:
            problem = f"{COMPUTE_VARIABLE} asks for {name}, and no GPU is visible"
            raise EngineError(problem, remedy=f"take {name} out of {COMPUTE_VARIABLE}, or run on a GPU")
        return
    torch_file = _torch_version_file()
    if torch_file is None:
        return
    built_for = re.search(r"^cuda\b[^=\n]*=\s*'(\d+)\.(\d+)'", torch_file, re.MULTILINE)
    if built_for is None:
        problem = f"{len(gpus)} GPUs are visible, and this torch was built without CUDA"
        raise EngineError(problem, remedy=f"make setup TORCH=cu130 (driver 580 or newer) or cu126, {_CPU_REMEDY}")
    _require_driver(int(built_for[1]), f"{built_for[1]}.{built_for[2]}")


def _require_driver(major: int, version: str) -> None:
    driver = driver_version()
    branch = int(driver.partition(".")[0]) if driver else 0
    needed = _DRIVERS.get(major)
    if needed is None or branch >= needed or branch < min(_DRIVERS.values()):
        return  # versions that are not in the table are left to CUDA itself
    runs = max((cuda for cuda, oldest in _DRIVERS.items() if branch >= oldest), default=None)
    wheel = _WHEELS.get(runs) if runs else None
    other = f"make setup TORCH={wheel}, " if wheel else ""
    supported = next((cuda for oldest, cuda in _CUDA_OF_DRIVERS.items() if branch >= oldest), runs)
    raise EngineError(
        f"the NVIDIA driver {driver} supports CUDA {supported}, and this torch was built for CUDA {version}",
        remedy=f"{other}a driver of {needed} or newer, {_CPU_REMEDY}",
    )


def _device_names(visible: str) -> list[str]:
    """Return the entries of ``CUDA_VISIBLE_DEVICES`` up to the first that names no device."""
    names: list[str] = []
    for entry in visible.split(","):
        name = entry.strip()
        if not (name.isdecimal() or name.startswith(("GPU-", "MIG-"))):
            break
        names.append(name)
    return names


def _all_devices() -> tuple[str, ...]:
    """Return every GPU by its index, and every slice of the GPUs that MIG divides by its name."""
    if shutil.which("nvidia-smi") is None:
        return ()
    indices = [line.strip() for line in _ask_driver("--query-gpu=index", "--format=csv,noheader,nounits")]
    slices = _list_slices() if indices else ()
    divided = {gpu.index for gpu in slices}
    return tuple(
        name
        for index in indices
        for name in ([gpu.uuid for gpu in slices if gpu.index == index] if index in divided else [index])
    )


def _identity(name: str, listed: Sequence[_Gpu], visible: str) -> str:
    """Return an identity that all names of a GPU share: its UUID where the driver knows it.

    Raises:
        SpecError: if the driver lists its GPUs, and the name matches none of them, or several.
    """
    if name.startswith("MIG-") or not listed:
        return name
    known = [gpu for gpu in listed if _is_named(gpu, name)]
    if len(known) == 1:
        return known[0].uuid or known[0].index
    what = "could be several GPUs" if known else "is no GPU of this machine"
    there = ", ".join(f"{gpu.index} ({gpu.uuid})" if gpu.uuid else gpu.index for gpu in listed)
    raise SpecError(f"{VISIBLE_VARIABLE} is '{visible}', and {name} {what}", remedy=f"the driver lists {there}")


def _is_named(gpu: _Gpu, name: str) -> bool:
    """Check whether a name is the GPU's index, its UUID, or the beginning of it."""
    return gpu.index == name if name.isdecimal() else bool(gpu.uuid) and gpu.uuid.startswith(name)


def _list_gpus() -> tuple[_Gpu, ...]:
    """List the GPUs with their memory in MiB; none if there is no driver."""
    found = []
    for line in _ask_driver("--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"):
        index, uuid, total = [*(field.strip() for field in line.split(",")), "", ""][:3]
        # The driver reports [N/A] for a GPU that shares the machine's memory, and for some virtual GPUs.
        is_number = re.fullmatch(r"\d+(\.\d+)?", total) is not None
        found.append(_Gpu(index=index, uuid=uuid, memory_mib=float(total) if is_number else None))
    return tuple(found)


def _list_slices() -> tuple[_Gpu, ...]:
    """List the slices of GPUs that MIG divides, each with its GPU's index."""
    found, index = [], ""
    for line in _ask_driver("-L"):
        if gpu := re.match(r"GPU (\d+):", line):
            index = gpu[1]
        elif part := re.match(r"\s+MIG\s+(\S+)\s.*\(UUID: (MIG-[^)]+)\)", line):
            size = re.search(r"(\d+)gb", part[1])
            memory_mib = int(size[1]) * MIG_MIB_A_GB if size else None
            found.append(_Gpu(index=index, uuid=part[2], memory_mib=memory_mib))
    return tuple(found)


def driver_version() -> str:
    """Return the version of the NVIDIA driver, for example ``580.65.06``; empty if there is none.

    Raises:
        EngineError: if the driver does not answer.
    """
    lines = _ask_driver("--query-gpu=driver_version", "--format=csv,noheader,nounits")
    version = lines[0].strip() if lines else ""
    return version if re.fullmatch(r"\d+(\.\d+)*", version) else ""


def _ask_driver(*arguments: str) -> list[str]:
    """Return the lines that the driver's tool prints; none if there is no driver, or it has no GPU.

    Raises:
        EngineError: if the tool does not answer in time: a trial on such a machine would hang as well.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listed = subprocess.run(  # noqa: S603 - the driver's own tool, no input of ours
            [tool, *arguments], capture_output=True, text=True, timeout=DRIVER_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        problem = f"the NVIDIA driver does not answer: nvidia-smi took longer than {DRIVER_TIMEOUT_S:g} s"
        raise EngineError(problem, remedy=f"see dmesg, and restart the machine, {_CPU_REMEDY}") from error
    except OSError as error:
        raise EngineError(f"{tool} cannot be run ({error})", remedy=f"mend the driver, {_CPU_REMEDY}") from error
    return listed.stdout.splitlines() if listed.returncode == 0 else []


def _torch_version_file() -> str | None:
    """Return the text of ``torch/version.py``, which names torch's CUDA version, or None if the file is not found."""
    found = importlib.util.find_spec("torch")
    file = Path(found.origin).with_name("version.py") if found and found.origin else None
    return file.read_text() if file is not None and file.is_file() else None


def _file_name(device: str) -> str:
    """Return a device's name as part of a file name: old names of MIG slices contain slashes."""
    return re.sub(r"[^\w.-]+", "_", device)


# NVIDIA's Multi-Process Service: kernels of several processes run on a GPU at the same time, not in turns.
#
# Without it, processes that share a GPU get time slices. Its daemon needs only the rights of the user, and is started
# for a sweep that requests it, with separate folders; no setting of the GPU is changed. A faulty kernel ends all
# processes of the service, so a fault costs the attempts of all slots, which are tried again.


PIPE_VARIABLE: Final = "CUDA_MPS_PIPE_DIRECTORY"
LOG_VARIABLE: Final = "CUDA_MPS_LOG_DIRECTORY"

_CONTROL: Final = "nvidia-cuda-mps-control"
_TIMEOUT_S: Final = 20.0


def require_mps() -> str:
    """Return the path of the daemon's program.

    Raises:
        EngineError: if it is not installed.
    """
    control = shutil.which(_CONTROL)
    if control is None:
        remedy = "it comes with the NVIDIA driver; without --mps trials share a GPU by turns"
        raise EngineError(f"--mps needs {_CONTROL}, which is not found", remedy=remedy)
    return control


@contextlib.contextmanager
def mps_daemon() -> Iterator[None]:
    """Run a daemon for the block, by which processes that are started inside it share GPUs.

    Raises:
        EngineError: if the daemon is not installed, or cannot start.
    """
    control = require_mps()
    folder = tempfile.mkdtemp(prefix="stn-mps-")
    own = {PIPE_VARIABLE: folder, LOG_VARIABLE: folder}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        _run([control, "-d"], "")
        try:
            yield
        finally:
            with contextlib.suppress(EngineError):  # the daemon may already be gone
                _run([control], "quit\n")
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str], said: str) -> None:
    environment = {**os.environ, ORDER_VARIABLE: os.environ.get(ORDER_VARIABLE, BY_PCI_BUS)}
    with tempfile.TemporaryFile("w+", errors="replace") as output:  # not a pipe, which the daemon may hold open
        try:
            done = subprocess.run(  # noqa: S603 - the driver's own tool, no input of ours
                command,
                input=said,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"{_CONTROL} does not work ({error})", remedy="leave --mps out") from error
        output.seek(0)
        told = output.read().strip().splitlines()
    if done.returncode:
        raise EngineError(f"{_CONTROL} failed ({told[-1] if told else done.returncode})", remedy="leave --mps out")
