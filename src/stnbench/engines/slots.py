"""Which slots this machine offers: decided before anything starts, never found by looking for a free GPU."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

import psutil

from stnbench.core.errors import SpecError
from stnbench.engines.base import Slot


def plan_slots(
    gpus: Sequence[str],
    cores: int,
    *,
    slots: int | None = None,
    per_gpu: int = 1,
    memory_mib: Mapping[str, float] | None = None,
) -> tuple[Slot, ...]:
    """Slots from the devices at hand: ``per_gpu`` on every GPU, else one CPU slot a core with one thread each.

    ``slots`` sets how many CPU slots there are, each with an equal share of the cores as threads; with GPUs it limits
    how many slots are used. CPU threads are divided among GPU slots as well. ``memory_mib`` is that of each device.
    Raises: SpecError for a number below 1.
    """
    for name, value in (("slots", slots), ("slots per GPU", per_gpu), ("cores", cores)):
        if value is not None and value < 1:
            raise SpecError(f"{name} is {value}", remedy="use a whole number of at least 1")
    if gpus:
        shares = [(gpu, share) for share in range(per_gpu) for gpu in gpus][:slots]
        threads = max(1, cores // len(shares))
        return tuple(
            Slot(name=f"gpu{gpu}.{share}", device=gpu, threads=threads, memory_mib=(memory_mib or {}).get(gpu))
            for gpu, share in shares
        )
    count = slots or cores
    threads = max(1, cores // count)
    memory = (memory_mib or {}).get("cpu")
    return tuple(Slot(name=f"cpu{index}", device="cpu", threads=threads, memory_mib=memory) for index in range(count))


def visible_gpus(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """GPUs by index or UUID: those that CUDA_VISIBLE_DEVICES names, else all that the driver lists, else none."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [name.strip() for name in visible.split(",")]
        # CUDA itself ignores everything from the first invalid entry on, and -1 is the usual one.
        return tuple(named[: named.index("-1")] if "-1" in named else [name for name in named if name])
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    return tuple(_ask_driver(tool, "index"))


def device_memory_mib(gpus: Sequence[str]) -> dict[str, float]:
    """All memory of the named GPUs, where the driver tells, and of this machine as that of ``cpu``."""
    memory = {"cpu": psutil.virtual_memory().total / (1 << 20)}
    tool = shutil.which("nvidia-smi")
    for line in _ask_driver(tool, "index,uuid,memory.total") if gpus and tool else ():
        index, uuid, total = (field.strip() for field in line.split(","))
        memory |= {name: float(total) for name in (index, uuid) if name in gpus}
    return memory


def _ask_driver(tool: str, fields: str) -> list[str]:
    """A line a GPU; none where the driver does not answer."""
    listed = subprocess.run(  # noqa: S603 - the driver's own tool, no input of ours
        [tool, f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return listed.stdout.splitlines() if listed.returncode == 0 else []
