"""Measurement of the number of slots with which a machine completes the most trials per second.

On CPUs, one slot with all threads is compared with one slot per core: small networks do not fill several cores, and
large ones share the memory bus. On a GPU, one, two, four and eight slots are compared as long as each doubling gains
and the memory suffices. The best number depends on the machine, so it is measured once on each and stored.
"""

import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stnbench.core.errors import EngineError, StnbenchError
from stnbench.core.files import write_atomic
from stnbench.engines import Ending, Engine, Finished, Launch, Slot
from stnbench.engines.slots import plan_slots
from stnbench.spec.codec import Strict, from_json, to_json
from stnbench.spec.trial import TrialSpec

CALIBRATION_BATCHES = 60
"""Number of batches of the one epoch that is measured: it takes seconds, most of them not start-up."""

GPU_BATCHES = 300
"""Number of batches on a GPU, where a step takes a millisecond."""

GPU_SLOTS = (1, 2, 4, 8)
GPU_GAIN = 1.1
"""Factor by which the trials per second must grow for more slots on a GPU to be worth their memory."""

CONTEXT_MIB = 600.0
"""Memory in MiB that a process takes on a GPU before its first tensor: a common value, not measured here."""

ROUNDS = 3
"""Number of measurements for each number of slots; the fastest counts, since other processes can only slow it down."""

LIMIT_S = 600.0

OpenEngine = Callable[[Sequence[Slot]], Engine]


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotChoice(Strict):
    """The fastest number of slots of a machine, each with an equal share of the cores as threads.

    Attributes:
        cores: number of cores of the machine.
        slots: fastest number of slots, on GPUs the number per GPU.
        trials_per_s: pairs of a number of slots and the short trials per second measured with it.
        gpus: names of the GPUs of the machine; empty on CPUs.
        compute: the compute options that were measured; empty on CPUs.
    """

    cores: int
    slots: int
    trials_per_s: tuple[tuple[int, float], ...]
    gpus: tuple[str, ...] = ()
    compute: str = ""


def recall_choice(path: Path, *, cores: int, gpus: Sequence[str] = (), compute: str = "") -> SlotChoice | None:
    """Read the stored choice; return None if there is none or it is for other cores, GPUs or compute options."""
    try:
        choice = from_json(SlotChoice, path.read_bytes(), where=str(path))
    except (OSError, StnbenchError):
        return None
    return choice if (choice.cores, choice.gpus, choice.compute) == (cores, tuple(gpus), compute) else None


def remember_choice(path: Path, choice: SlotChoice) -> None:
    """Write the choice beside the store.

    Raises:
        OSError: if the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, to_json(choice).encode())


def measure_gpu_choice(  # noqa: PLR0913 - a machine, a trial and where to work, by name
    spec: TrialSpec,
    *,
    gpus: Sequence[str],
    cores: int,
    needed_mib: float,
    memory_mib: Mapping[str, float],
    compute: str,
    open_engine: OpenEngine,
    scratch: Path,
    data_root: Path,
    source: Path | None = None,
    clock_s: Callable[[], float] = time.monotonic,
) -> SlotChoice:
    """Run a shortened trial on the first GPU in one slot, and in more slots as long as a doubling gains a tenth.

    Args:
        spec: a trial of the sweep that is to run.
        gpus: the GPUs of this machine, assumed to be identical.
        cores: number of cores of this machine.
        needed_mib: estimated memory in MiB that the trial takes on a GPU.
        memory_mib: memory of each GPU in MiB, where it is known.
        compute: the compute options of the machine, which are stored with the choice.
        open_engine: opens an engine with the given slots.
        scratch: a folder for the runs; it is created, and removed at the end.
        data_root: the data folder, with its caches already built.
        source: the folder that ``dataset.root`` names.
        clock_s: returns seconds from any origin.

    Raises:
        EngineError: if a short trial does not finish.
    """
    first, total_mib = gpus[:1], memory_mib.get(gpus[0])
    rates: list[tuple[int, float]] = []
    try:
        for count in GPU_SLOTS:
            if rates and total_mib is not None and count * (needed_mib + CONTEXT_MIB) > total_mib:
                break
            slots = plan_slots(first, max(1, cores // len(gpus)), per_gpu=count, memory_mib=memory_mib)
            rate = _measure(slots, _shortened(spec, GPU_BATCHES), open_engine, scratch, (data_root, source), clock_s)
            is_gain = not rates or rate >= GPU_GAIN * rates[-1][1]
            rates.append((count, rate))
            if not is_gain:
                break
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    best = rates[0]
    for other in rates[1:]:
        best = other if other[1] >= GPU_GAIN * best[1] else best
    return SlotChoice(cores=cores, slots=best[0], trials_per_s=tuple(rates), gpus=tuple(gpus), compute=compute)


def measure_choice(
    spec: TrialSpec,
    *,
    cores: int,
    open_engine: OpenEngine,
    scratch: Path,
    data_root: Path,
    source: Path | None = None,
    clock_s: Callable[[], float] = time.monotonic,
) -> SlotChoice:
    """Measure the throughput of a shortened trial with one slot and with one slot per core, and choose.

    Args:
        spec: a trial of the sweep that is to run; one short epoch of it is measured.
        cores: number of cores of this machine.
        open_engine: opens an engine with the given slots.
        scratch: a folder for the runs; it is created, and removed at the end.
        data_root: the data folder, with its caches already built.
        source: the folder that ``dataset.root`` names, if any.
        clock_s: seconds from any origin.

    Raises:
        EngineError: if a short trial does not finish.
    """
    short = _shortened(spec, CALIBRATION_BATCHES)
    rates = []
    try:
        for count in sorted({1, cores}):
            slots = plan_slots((), cores, slots=count)
            rates.append((count, _measure(slots, short, open_engine, scratch, (data_root, source), clock_s)))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    fastest = max(rates, key=lambda rate: rate[1])
    return SlotChoice(cores=cores, slots=fastest[0], trials_per_s=tuple(rates))


def _shortened(spec: TrialSpec, batches: int) -> TrialSpec:
    """Return the trial with one epoch of ``batches`` batches."""
    images = batches * spec.training.batch_size
    return replace(spec, training=replace(spec.training, epochs=1, train_images=images, drop_last="incomplete"))


def _measure(
    slots: Sequence[Slot],
    spec: TrialSpec,
    open_engine: OpenEngine,
    scratch: Path,
    folders: tuple[Path, Path | None],
    clock_s: Callable[[], float],
) -> float:
    """Measure the trials per second with these slots: the fastest of ``ROUNDS`` rounds after a warm-up."""
    with contextlib.closing(open_engine(slots)) as engine:
        _run_round(engine, spec, scratch, folders, clock_s)  # imports, caches of the allocator
        durations_s = [_run_round(engine, spec, scratch, folders, clock_s) for _ in range(ROUNDS)]
    return len(slots) / min(durations_s)


def _run_round(
    engine: Engine, spec: TrialSpec, scratch: Path, folders: tuple[Path, Path | None], clock_s: Callable[[], float]
) -> float:
    """Run one trial in every slot at once and return the seconds until all have ended."""
    started_s = clock_s()
    waiting = set()
    for slot in engine.slots:
        token = uuid.uuid4().hex
        folder = scratch / token
        folder.mkdir(parents=True)
        engine.submit(
            slot,
            Launch(spec=spec, token=token, folder=str(folder), data_root=str(folders[0]), source=str(folders[1] or "")),
        )
        waiting.add(token)
    while waiting:
        for event in engine.poll(0.1):
            if isinstance(event, Finished):
                waiting.discard(event.token)
            elif isinstance(event, Ending):
                what = json.dumps(str(event))[:300]
                raise EngineError(
                    f"a short trial to measure this machine did not finish ({what})", remedy="give --slots"
                )
        if clock_s() - started_s > LIMIT_S:
            raise EngineError(f"a short trial takes longer than {LIMIT_S:g} s", remedy="give --slots")
    return clock_s() - started_s
