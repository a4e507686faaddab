"""One slot with all threads, or a slot a core: whichever gets more trials done, by a short measurement.

Small networks do not fill several cores, and large ones share the memory bus; which wins is a matter of the machine,
so it is measured once on each and remembered.
"""

import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stnbench.core.errors import EngineError, StnbenchError
from stnbench.core.files import write_atomic
from stnbench.engines.base import Ending, Engine, Finished, Launch, Slot
from stnbench.engines.slots import plan_slots
from stnbench.spec.codec import Strict, from_json, to_json
from stnbench.spec.trial import TrialSpec

CALIBRATION_BATCHES = 60
"""Batches of one epoch of the trial that is measured: seconds, most of them not start-up."""

ROUNDS = 3
"""How often each number of slots is measured; the quickest round counts, since what else runs only ever slows it."""

LIMIT_S = 600.0

OpenEngine = Callable[[Sequence[Slot]], Engine]


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotChoice(Strict):
    """What a machine does fastest: so many slots, each with an equal share of the cores as threads.

    ``trials_per_s`` are the short trials that each number of slots got done, by number of slots.
    """

    cores: int
    slots: int
    trials_per_s: tuple[tuple[int, float], ...]


def recall_choice(path: Path, *, cores: int) -> SlotChoice | None:
    """What was remembered of this machine; None where nothing was, or it had another number of cores."""
    try:
        choice = from_json(SlotChoice, path.read_bytes(), where=str(path))
    except (OSError, StnbenchError):
        return None
    return choice if choice.cores == cores else None


def remember_choice(path: Path, choice: SlotChoice) -> None:
    """Write it beside the store. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, to_json(choice).encode())


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
    """Run a shortened trial with one slot, and with a slot a core.

    Args:
        spec: a trial of the sweep that is to run; one short epoch of it is measured.
        cores: of this machine.
        open_engine: an engine with given slots.
        scratch: a folder that is made, and removed in the end.
        data_root: the data folder, its caches made already.
        source: the folder that ``dataset.root`` names, if any.
        clock_s: seconds from any origin.
    Raises: EngineError where a short trial does not finish.
    """
    short = replace(
        spec,
        training=replace(spec.training, epochs=1, train_images=CALIBRATION_BATCHES * spec.training.batch_size),
    )
    rates = []
    try:
        for count in sorted({1, cores}):
            engine = open_engine(plan_slots((), cores, slots=count))
            with contextlib.closing(engine):
                _run_round(engine, short, scratch, (data_root, source), clock_s)  # imports, caches of the allocator
                durations_s = [_run_round(engine, short, scratch, (data_root, source), clock_s) for _ in range(ROUNDS)]
            rates.append((count, count / min(durations_s)))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    fastest = max(rates, key=lambda rate: rate[1])
    return SlotChoice(cores=cores, slots=fastest[0], trials_per_s=tuple(rates))


def _run_round(
    engine: Engine, spec: TrialSpec, scratch: Path, folders: tuple[Path, Path | None], clock_s: Callable[[], float]
) -> float:
    """One trial in every slot at once; the seconds until all have ended."""
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
