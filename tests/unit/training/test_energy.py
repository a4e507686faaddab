"""Energy: counters that begin anew, shares of attempts that run at once, and machines that measure nothing."""

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.spec.result import EpochRecord
from stnbench.training.energy import (
    JOULES_PER_KWH,
    EnergyCounter,
    EnergyMeter,
    NvmlCounter,
    Presence,
    RaplCounter,
    difference_uj,
    energy_meter,
    integrated_j,
    nvml_name,
    open_nvml,
)

RANGE_UJ = 262_143_328_850


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


class Powercap:
    """A powercap folder with packages, each with its parts and its memory."""

    def __init__(self, folder: Path, packages: int = 2) -> None:
        self.folder = folder
        for index in range(packages):
            self.add(f"intel-rapl:{index}", f"package-{index}")
            self.add(f"intel-rapl:{index}:0", "core")
            self.add(f"intel-rapl:{index}:1", "dram")

    def add(self, name: str, said: str, energy_uj: int = 0) -> None:
        """Add a domain."""
        (self.folder / name).mkdir(parents=True)
        (self.folder / name / "name").write_text(f"{said}\n")
        (self.folder / name / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
        self.set(name, energy_uj)

    def set(self, name: str, energy_uj: int | str) -> None:
        """Set a counter."""
        (self.folder / name / "energy_uj").write_text(f"{energy_uj}\n")


class NVMLError(Exception):
    """The error of NVML."""


class Nvml:
    """The module ``pynvml`` with one GPU, whose numbers are set by hand."""

    NVMLError = NVMLError

    def __init__(self, *, has_counter: bool = True, has_power: bool = True, has_driver: bool = True) -> None:
        self.has_counter, self.has_power, self.has_driver = has_counter, has_power, has_driver
        self.energy_mj = self.power_mw = 0.0
        self.opened: list[object] = []
        self.users = 0

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name, as below
        """Begin."""
        if not self.has_driver:
            raise NVMLError("driver not loaded")
        self.users += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        """End."""
        self.users -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:  # noqa: N802
        """Find by index."""
        if index > 1:
            raise NVMLError("invalid argument")
        self.opened.append(index)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> object:  # noqa: N802
        """Find by UUID."""
        self.opened.append(uuid)
        return uuid

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: object) -> object:  # noqa: N802
        """Find the GPU of a slice."""
        self.opened.append(f"gpu of {handle}")
        return "GPU-1"

    def nvmlDeviceGetUUID(self, handle: object) -> bytes:  # noqa: N802
        """Name."""
        return f"GPU-{handle}".encode()

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object) -> int:  # noqa: N802
        """Count millijoules."""
        del handle
        if not self.has_counter:
            raise NVMLError("not supported")
        return int(self.energy_mj)

    def nvmlDeviceGetPowerUsage(self, handle: object) -> int:  # noqa: N802
        """Read milliwatts."""
        del handle
        if not self.has_power:
            raise NVMLError("not supported")
        return int(self.power_mw)


class Given(EnergyCounter):
    """A counter that returns given values, then 0."""

    part = "given"

    def __init__(self, *values: float | None) -> None:
        self.values = [*values]
        self.at_end: Callable[[], None] = lambda: None

    def advance_j(self) -> float | None:
        """Return the next value."""
        if self.values:
            return self.values.pop(0)
        self.at_end()
        return 0.0


# The contract of a counter: every kind counts 100 J between two calls, whatever it had counted before.


def rapl(folder: Path, clock: Clock) -> tuple[EnergyCounter, Callable[[float], None], Callable[[], None]]:
    """Return RAPL's counter, what lets it use joules in a second, and what makes it unreadable."""
    tree = Powercap(folder, packages=1)
    used = itertools.count(RANGE_UJ - 50_000_000, 0)

    def use(joules: float) -> None:
        nonlocal used
        now = next(used) + int(joules * 1e6)
        used = itertools.count(now, 0)
        clock.now_s += 1
        tree.set("intel-rapl:0", now % RANGE_UJ)

    tree.set("intel-rapl:0", next(used))
    return RaplCounter(folder, clock), use, lambda: tree.set("intel-rapl:0:1", "")


def nvml(clock: Clock, *, has_counter: bool) -> tuple[EnergyCounter, Callable[[float], None], Callable[[], None]]:
    """Return NVML's counter, or its integral of power, with the same as RAPL's."""
    library = Nvml(has_counter=has_counter)
    library.energy_mj, library.power_mw = 7e9, 100e3

    def use(joules: float) -> None:
        clock.now_s += joules / 100
        library.energy_mj += joules * 1e3

    def lose() -> None:
        library.has_counter = library.has_power = False

    return NvmlCounter(library, 0, "GPU-0", clock), use, lose


@pytest.fixture(params=["rapl", "nvml", "nvml power"])
def counter(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[EnergyCounter, Callable[[float], None], Callable[[], None]]]:
    """Every counter, with what uses energy and what makes it unreadable."""
    clock = Clock()
    made = rapl(tmp_path, clock) if request.param == "rapl" else nvml(clock, has_counter=request.param == "nvml")
    yield made
    made[0].close()


def test_a_counter_counts_between_two_calls(
    counter: tuple[EnergyCounter, Callable[[float], None], Callable[[], None]],
) -> None:
    """The first call begins; what is used later is counted once, across the end of the counter's range too."""
    read, use, lose = counter
    assert read.part
    assert read.advance_j() is None
    for joules in (100.0, 0.0, 40.0):
        use(joules)
        assert read.advance_j() == pytest.approx(joules, abs=1e-5)
    lose()
    use(10.0)
    assert read.advance_j() is None


@given(before=st.integers(0, RANGE_UJ - 1), used=st.integers(0, RANGE_UJ - 1))
def test_a_counter_that_begins_again_loses_nothing(before: int, used: int) -> None:
    """Whatever its value, the difference is what was used, as long as that is less than its range."""
    assert difference_uj(before, (before + used) % RANGE_UJ, RANGE_UJ) == used


def test_a_counter_that_goes_back_without_a_range_counts_nothing() -> None:
    """It was reset, and what it had counted until then is not known; the same where it was beyond its range."""
    assert difference_uj(10, 9, 0) is None
    assert difference_uj(10, 9, 5) is None
    assert integrated_j(100, 200, 2) == 300
    assert integrated_j(100, 100, 11) is None


def test_packages_and_their_memory_are_added_and_no_part_twice(tmp_path: Path) -> None:
    """Cores and the whole platform are within or around packages; a package that is listed twice counts once."""
    tree = Powercap(tmp_path)
    tree.add("intel-rapl:2", "psys")
    tree.add("intel-rapl:3", "package-0")
    tree.add("intel-rapl-mmio:0", "package-0")
    counter = RaplCounter(tmp_path)
    counter.advance_j()
    for path in tmp_path.iterdir():
        tree.set(path.name, 1_000_000)
    assert counter.advance_j() == 4.0


def test_a_pause_in_which_a_counter_may_have_begun_again_twice_is_not_measured(tmp_path: Path) -> None:
    """A process that was halted for an hour does not know how often the counter went round."""
    tree, clock = Powercap(tmp_path), Clock()
    counter = RaplCounter(tmp_path, clock)
    counter.advance_j()
    clock.now_s = 3600.0
    tree.set("intel-rapl:0", 5)
    assert counter.advance_j() is None
    clock.now_s += 1
    tree.set("intel-rapl:0", 1_000_005)
    assert counter.advance_j() == 1.0


@pytest.mark.parametrize("damage", ["missing", "no packages", "one unreadable", "no number"])
def test_where_rapl_cannot_be_read_nothing_is_measured(tmp_path: Path, damage: str) -> None:
    """One unreadable package is enough: the sum of the others would be too little."""
    tree = Powercap(tmp_path / "cap", packages=0 if damage == "no packages" else 2)
    if damage == "one unreadable":
        (tmp_path / "cap/intel-rapl:1/energy_uj").unlink()
        (tmp_path / "cap/intel-rapl:1/energy_uj").mkdir()  # as root, no permission is refused
    if damage == "no number":
        tree.set("intel-rapl:0", "-5")
    with energy_meter("cpu", {}, folder=tmp_path / ("none" if damage == "missing" else "cap"), period_s=0) as meter:
        assert meter.take_kwh() is None


def test_the_meter_of_a_machine_with_rapl(tmp_path: Path) -> None:
    """An attempt that runs alone gets all of it; two that run at once get half each."""
    tree = Powercap(tmp_path)
    with energy_meter("cpu", {}, folder=tmp_path, period_s=0) as meter:
        tree.set("intel-rapl:1", 36_000_000)
        assert meter.take_kwh() == pytest.approx(36 / JOULES_PER_KWH)
        with energy_meter("cpu", {}, folder=tmp_path, period_s=0) as other:
            tree.set("intel-rapl:1", 72_000_000)
            assert meter.take_kwh() == other.take_kwh() == pytest.approx(18 / JOULES_PER_KWH)
        tree.set("intel-rapl:1", 82_000_000)
        assert meter.take_kwh() == pytest.approx(10 / JOULES_PER_KWH)


def test_the_meter_of_a_gpu_adds_processors_where_they_can_be_read(tmp_path: Path) -> None:
    """The GPU is the one that the process sees; NVML is released at the end."""
    library, tree = Nvml(), Powercap(tmp_path, packages=1)
    with energy_meter("cuda:0", {"CUDA_VISIBLE_DEVICES": "1"}, folder=tmp_path, library=library, period_s=0) as meter:
        library.energy_mj = 5e3
        tree.set("intel-rapl:0", 3_000_000)
        assert meter.take_kwh() == pytest.approx(8 / JOULES_PER_KWH)
    assert library.opened == [1]
    assert library.users == 0


@pytest.mark.parametrize("library", [Nvml(has_driver=False), Nvml(has_counter=False, has_power=False), None])
def test_a_gpu_that_cannot_be_measured_is_not_measured(tmp_path: Path, library: Any) -> None:
    """Processors alone would be a small part of it: there is no number without the GPU's."""
    Powercap(tmp_path)
    known = library or SimpleNamespace()  # a module of this name without anything in it
    with energy_meter("cuda", {}, folder=tmp_path, library=known, period_s=0) as meter:
        assert meter.take_kwh() is None


@pytest.mark.parametrize(
    ("visible", "device", "opened"),
    [
        (None, "cuda:1", [1]),
        ("1", "cuda", [1]),
        ("GPU-ab, GPU-cd", "cuda:1", ["GPU-cd"]),
        ("MIG-3", "cuda:0", ["MIG-3", "gpu of MIG-3"]),
        ("", "cuda:0", []),
        ("7", "cuda:0", []),
    ],
)
def test_nvml_finds_the_gpu_of_a_process(visible: str | None, device: str, opened: list[object]) -> None:
    """NVML ignores the variable that selects devices; a slice of MIG is measured by its GPU."""
    library = Nvml()
    counter = open_nvml(device, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, library)
    assert library.opened == opened
    assert (counter is not None) == bool(opened)
    assert library.users == len(opened[:1])
    if visible is None:
        assert nvml_name("cuda", {}) == "0"


def test_who_runs_is_counted_and_leaves_no_trace(tmp_path: Path) -> None:
    """Each part is counted by itself; without the kernel's list the number is not known."""
    first, second = Presence("gpu/1"), Presence("gpu/1")
    other, blind = Presence("gpu/2"), Presence("gpu/1", tmp_path / "missing")
    assert (first.count(), other.count(), blind.count()) == (3, 1, None)
    second.close()
    assert first.count() == 2
    for one in (first, other, blind):
        one.close()


def test_what_is_not_known_for_a_moment_is_not_known_for_its_epoch() -> None:
    """The next epoch is measured again; what is divided is divided among those that run at each sample."""
    meter = EnergyMeter([(Given(None, 3.6e6, None, 7.2e6, 3.6e6), iter([1, 1, 1, 2]).__next__)], period_s=0)
    assert meter.take_kwh() == 1.0
    assert meter.take_kwh() is None
    assert meter.take_kwh() == 2.0
    assert meter.take_kwh() == 0.5
    meter.close()


def test_a_thread_samples_between_epochs() -> None:
    """Every sample is counted, and the thread ends with the meter."""
    sampled = threading.Event()
    counter = Given(None, *[3.6e6] * 5)
    counter.at_end = sampled.set
    meter = EnergyMeter([(counter, lambda: 1)], period_s=0.001)
    assert sampled.wait(60)
    assert meter.take_kwh() == 5.0
    meter.close()
    assert "energy" not in {thread.name for thread in threading.enumerate()}


def test_the_energy_of_a_trial_is_that_of_all_its_epochs() -> None:
    """Epochs of earlier attempts count; if one was not measured, or what followed them, the sum is not known."""
    epoch = EpochRecord(
        epoch=1,
        step=1,
        train_loss=1.0,
        validation_loss=1.0,
        validation_accuracy=0.5,
        learning_rate=0.1,
        train_duration_s=1.0,
        evaluate_duration_s=1.0,
    )
    records = [replace(epoch, metrics={"energy_kwh": known}) for known in (1.0, 2.0)]
    meter = EnergyMeter([(Given(None, 1.8e6, 1.8e6, None), lambda: 1)], period_s=0)
    assert meter.of_trial(records) == {"energy_kwh": 3.5}
    assert meter.of_trial([records[0], epoch]) == {}
    assert meter.of_trial(records) == {}
    assert EnergyMeter().of_trial([]) == {}
