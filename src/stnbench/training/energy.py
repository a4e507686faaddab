"""Energy of an attempt: its share of the energy of the machine's processors and its GPU while it runs.

GPUs are measured by NVML (``nvidia-ml-py``), processors by RAPL, where ``/sys/class/powercap/intel-rapl*`` may be read;
elsewhere energy is not measured, and no number is made up. The energy of a GPU or a machine is divided evenly among the
attempts that run on it at the same time. It includes that of other programs: a counter does not know whose energy it
counts.
"""

import contextlib
import importlib
import os
import re
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from stnbench.spec.metrics import ENERGY
from stnbench.spec.result import EpochRecord

POWERCAP: Final = Path("/sys/class/powercap")
UNIX_SOCKETS: Final = Path("/proc/net/unix")

JOULES_PER_KWH: Final = 3.6e6
SAMPLE_S: Final = 1.0
"""Seconds between two samples, so that energy is divided among those that run, and power can be integrated."""

POWER_GAP_MAX_S: Final = 10.0
"""Longest time between two readings of power over which it is integrated."""

PACKAGE_W_MAX: Final = 1000.0
"""Upper limit of the power of a processor: below it, a counter cannot wrap twice between two samples."""

_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_DOMAIN: Final = re.compile(r"intel-rapl:\d+(?::\d+)?")
_MARK: Final = "stnbench-energy"


# Arithmetic.


def difference_uj(before: int, after: int, range_uj: int) -> int | None:
    """Return what a counter counted between two values in microjoules, or None if it went back and has no known range.

    Args:
        before: the earlier value.
        after: the later value, below the earlier one if the counter began again at 0.
        range_uj: value at which the counter begins again; 0 if it is not known.
    """
    if after >= before:
        return after - before
    return after - before + range_uj if range_uj > before else None


def integrated_j(before_w: float, after_w: float, seconds: float) -> float | None:
    """Return the energy between two readings of power by the trapezoidal rule, or None if they are too far apart."""
    return (before_w + after_w) / 2 * seconds if 0 <= seconds <= POWER_GAP_MAX_S else None


def share_j(used_j: float, sharers: int) -> float:
    """Return an attempt's equal share of an energy that several attempts used at the same time."""
    return used_j / max(1, sharers)


# Counters of energy.


class EnergyCounter(ABC):
    """Counter of the energy that a part of a machine uses, read by one thread at a time."""

    @property
    @abstractmethod
    def part(self) -> str:
        """Return the name of the part, the same in all processes of its machine."""

    @abstractmethod
    def advance_j(self) -> float | None:
        """Return the joules used since the previous call, or None for the first one, and if they are not known.

        It never raises. After None the count begins anew, so that nothing is counted twice.
        """

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Release the counter."""


class RaplCounter(EnergyCounter):
    """Energy of all processors of a machine and of their memory, where it is counted apart (RAPL by powercap).

    The packages are added up, each with its ``dram`` domain; their other parts are contained in them, and ``psys``, the
    whole platform, contains the packages. If one of them cannot be read, the sum is not known.

    Args:
        folder: the folder of powercap.
        clock: returns seconds from any origin.
    """

    def __init__(self, folder: Path = POWERCAP, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._domains = _rapl_domains(folder)
        self._ranges = {domain: _read_number(domain / "max_energy_range_uj") or 0 for domain in self._domains}
        known = [reach for reach in self._ranges.values() if reach]
        self._gap_max_s = min(known, default=0) / 1e6 / PACKAGE_W_MAX or float("inf")
        self._before: dict[Path, int] | None = None
        self._before_s = 0.0

    @property
    def is_readable(self) -> bool:
        """Return whether there are counters, and this process may read them."""
        return self._read() is not None

    @property
    @override
    def part(self) -> str:
        return "cpu"

    @override
    def advance_j(self) -> float | None:
        now_s, values = self._clock(), self._read()
        before, self._before = self._before, values
        gap_s, self._before_s = now_s - self._before_s, now_s
        if before is None or values is None or gap_s > self._gap_max_s:
            return None
        used = [difference_uj(before[domain], values[domain], self._ranges[domain]) for domain in self._domains]
        return sum(one for one in used if one is not None) / 1e6 if None not in used else None

    def _read(self) -> dict[Path, int] | None:
        values = {domain: _read_number(domain / "energy_uj") for domain in self._domains}
        known = {domain: value for domain, value in values.items() if value is not None}
        return known if known and len(known) == len(values) else None


def _rapl_domains(folder: Path) -> tuple[Path, ...]:
    """Return the packages and the memory domains of packages, each once."""
    try:
        found = sorted(path for path in folder.iterdir() if _DOMAIN.fullmatch(path.name))
    except OSError:
        return ()
    names = {path.name: _read_text(path / "name") for path in found}
    packages = {name: said for name, said in names.items() if name.count(":") == 1 and said.startswith("package")}
    first = {said: name for name, said in reversed(packages.items())}  # a package may be listed twice
    memory = [name for name, said in names.items() if said == "dram" and name.rpartition(":")[0] in first.values()]
    return tuple(folder / name for name in (*sorted(first.values()), *memory))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _read_number(path: Path) -> int | None:
    text = _read_text(path)
    return int(text) if re.fullmatch(r"\d{1,20}", text, re.ASCII) else None


class NvmlCounter(EnergyCounter):
    """Energy of a GPU by NVML: its counter, or the integral of its power where it has none (before Volta).

    Args:
        library: the module ``pynvml``, after ``nvmlInit``.
        handle: the GPU; for a slice of MIG, the GPU that contains it, which counts for all slices.
        part: the UUID of the GPU.
        clock: returns seconds from any origin.
    """

    def __init__(self, library: Any, handle: Any, part: str, clock: Callable[[], float] = time.monotonic) -> None:  # noqa: ANN401 - a library without types
        self._library, self._handle, self._part, self._clock = library, handle, part, clock
        self._counts = self._ask("nvmlDeviceGetTotalEnergyConsumption") is not None
        self._before: float | None = None
        self._before_s = 0.0

    @property
    @override
    def part(self) -> str:
        return self._part

    @override
    def advance_j(self) -> float | None:
        now = self._ask("nvmlDeviceGetTotalEnergyConsumption" if self._counts else "nvmlDeviceGetPowerUsage")
        now_s = self._clock()
        before, self._before = self._before, now
        gap_s, self._before_s = now_s - self._before_s, now_s
        if before is None or now is None:
            return None
        if not self._counts:
            return integrated_j(before / 1e3, now / 1e3, gap_s)  # milliwatts
        return (now - before) / 1e3 if now >= before else None  # millijoules since the driver was loaded

    @override
    def close(self) -> None:
        with contextlib.suppress(self._library.NVMLError):
            self._library.nvmlShutdown()

    def _ask(self, function: str) -> float | None:
        """Return a number that NVML reads, or None if it has none, for example on a virtual GPU."""
        try:
            return float(getattr(self._library, function)(self._handle))
        except (self._library.NVMLError, AttributeError, TypeError, ValueError):
            return None


def open_nvml(device: str, environment: Mapping[str, str], library: Any | None = None) -> NvmlCounter | None:  # noqa: ANN401 - as above
    """Return the counter of a CUDA device, or None if NVML, its Python module or the device is missing.

    Args:
        device: ``cuda:N`` or ``cuda``, as this process numbers its devices.
        environment: environment variables of this process, one of which may select devices.
        library: the module ``pynvml``; None to import it.
    """
    try:
        nvml = library or importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # noqa: BLE001 - it is missing, or there is no driver; NVMLError is defined in the missing module
        return None
    try:
        handle = _nvml_handle(nvml, nvml_name(device, environment))
        return NvmlCounter(nvml, handle, _decoded(nvml.nvmlDeviceGetUUID(handle)))
    except (nvml.NVMLError, AttributeError, ValueError):
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()
        return None


def nvml_name(device: str, environment: Mapping[str, str]) -> str:
    """Return the index or UUID by which NVML, which ignores ``CUDA_VISIBLE_DEVICES``, knows a CUDA device.

    Raises:
        ValueError: if the variable lists fewer devices.
    """
    index = int(device.partition(":")[2] or 0)
    visible = environment.get(_VISIBLE)
    if visible is None:
        return str(index)
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if index >= len(names):
        raise ValueError(device)
    return names[index]


def _nvml_handle(nvml: Any, name: str) -> Any:  # noqa: ANN401 - as above
    if name.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    handle = nvml.nvmlDeviceGetHandleByUUID(name)
    return nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle) if name.startswith("MIG-") else handle


def _decoded(text: str | bytes) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text


# Attempts that share a part of the machine.


class Presence:
    """Sign that an attempt runs on a part of the machine, which all processes of the machine can count.

    It is a name in the kernel's list of sockets, which the kernel removes when the process ends in whatever way. It is
    counted in one network namespace: containers with a network of their own do not see each other.

    Args:
        part: name of the part of the machine.
        listing: the kernel's list.
    """

    def __init__(self, part: str, listing: Path = UNIX_SOCKETS) -> None:
        self._listing = listing
        self._prefix = f"@{_MARK}/{re.sub(r'[^A-Za-z0-9-]', '_', part)[:60]}/"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):  # it is then not on the list, and the number is not known
            self._socket.bind(f"\0{self._prefix[1:]}{os.getpid()}-{id(self):x}")

    def count(self) -> int | None:
        """Return the number of attempts on the part, this one included, or None if it is not known."""
        own, lines = f"{self._prefix}{os.getpid()}-{id(self):x}", _read_text(self._listing).splitlines()
        names = [name for line in lines if (name := line.rpartition(" ")[2]).startswith(self._prefix)]
        return len(names) if own in names else None

    def close(self) -> None:
        """Remove the sign."""
        self._socket.close()


# The meter of an attempt.


@dataclass(slots=True)
class _Share:
    """The part of a machine with a counter, the energy of this attempt on it, and whether all of it is known."""

    counter: EnergyCounter
    sharers: Callable[[], int | None]
    used_j: float = 0.0
    is_known: bool = True

    def sample(self) -> None:
        used_j, sharers = self.counter.advance_j(), self.sharers()
        if used_j is None or sharers is None:
            self.is_known = False
        else:
            self.used_j += share_j(used_j, sharers)


class EnergyMeter:
    """Meter of the energy of one attempt, sampled by a separate thread; without parts it measures nothing.

    Args:
        parts: counters of the parts of the machine on which the attempt runs, each with a function that returns the
            number of attempts there, or None if it is not known.
        period_s: seconds between samples; 0 for no thread.
    """

    def __init__(
        self, parts: Sequence[tuple[EnergyCounter, Callable[[], int | None]]] = (), period_s: float = SAMPLE_S
    ) -> None:
        self._shares = [_Share(counter=counter, sharers=sharers) for counter, sharers in parts]
        self._lock = threading.Lock()
        self._ended = threading.Event()
        for share in self._shares:
            share.counter.advance_j()  # the count begins here
        self._thread = threading.Thread(target=self._sample_often, args=(period_s,), daemon=True, name="energy")
        if self._shares and period_s > 0:
            self._thread.start()

    def take_kwh(self) -> float | None:
        """Return the energy since the previous call, or since the meter began, or None if it is not known.

        It is known if every part was measured all the time.
        """
        with self._lock:
            self._sample()
            is_known = bool(self._shares) and all(share.is_known for share in self._shares)
            used_j = sum(share.used_j for share in self._shares)
            for share in self._shares:
                share.used_j, share.is_known = 0.0, True
        return used_j / JOULES_PER_KWH if is_known else None

    def of_epoch(self) -> dict[str, float]:
        """Return the energy since the previous call as a metric of an epoch; empty if it is not known."""
        used_kwh = self.take_kwh()
        return {} if used_kwh is None else {ENERGY: used_kwh}

    def of_trial(self, records: Sequence[EpochRecord]) -> dict[str, float]:
        """Return the energy of a trial as a metric of its result: of its epochs, and of the time after the last one.

        Args:
            records: all epochs, also those that earlier attempts have trained.

        Returns:
            The metric; empty if a part of the energy is not known.
        """
        parts = [*(record.metrics for record in records), self.of_epoch()]
        return {ENERGY: sum(part[ENERGY] for part in parts)} if all(ENERGY in part for part in parts) else {}

    def close(self) -> None:
        """End the thread and release the counters."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        for share in self._shares:
            share.counter.close()
        self._shares = []

    def _sample_often(self, period_s: float) -> None:
        while not self._ended.wait(period_s):
            with self._lock:
                self._sample()

    def _sample(self) -> None:
        for share in self._shares:
            share.sample()


@contextlib.contextmanager
def energy_meter(
    device: str,
    environment: Mapping[str, str] = os.environ,
    *,
    folder: Path = POWERCAP,
    library: Any | None = None,  # noqa: ANN401 - as above
    period_s: float = SAMPLE_S,
) -> Iterator[EnergyMeter]:
    """Measure, for the block, the energy of an attempt on a device: of its GPU, and of the processors if readable.

    An attempt on a GPU that NVML does not measure is not measured, since the processors are the smaller part of it.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        environment: environment variables of this process.
        folder: the folder of powercap.
        library: the module ``pynvml``; None to import it where it is needed.
        period_s: seconds between samples.
    """
    counters: list[EnergyCounter] = []
    is_gpu = device != "cpu"
    gpu = open_nvml(device, environment, library) if is_gpu else None
    if gpu is not None:
        counters.append(gpu)
    if not is_gpu or gpu is not None:
        rapl = RaplCounter(folder)
        if rapl.is_readable:
            counters.append(rapl)
    with contextlib.ExitStack() as stack:
        parts = []
        for counter in counters:
            presence = Presence(counter.part)
            stack.callback(presence.close)
            parts.append((counter, presence.count))
        meter = EnergyMeter(parts, period_s)
        stack.callback(meter.close)
        yield meter
