"""Overhead per trial and slot use of ways to run many trials, measured in one go on the same trials.

``make bench-orchestrator`` prints the table and writes ``benchmarks/orchestrator.md``.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SLOTS = 2
LONG_TRIALS, LONG_S = 8, 5.0
DRY_TRIALS = 3


@dataclass(frozen=True, slots=True)
class Way:
    """One way: its program in ``ways/``, how many slots it fills, and how many empty trials measure it well."""

    name: str
    program: str
    slots: int
    trials: int


WAYS = (
    Way("stnbench, local engine (store, MLflow mirror)", "stnbench_local", SLOTS, 200),
    Way("a process per trial (2015)", "process_per_trial", SLOTS, 16),
    Way("Hydra multirun, basic launcher", "hydra_multirun", 1, 100),
    Way("Optuna, pool of processes, SQLite", "optuna_pool", SLOTS, 200),
    Way("Ray Tune", "ray_tune", SLOTS, 16),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a way: seconds in the slots beyond the trials themselves, a trial, and the share of slot time used."""

    overhead_s: float
    use: float
    wall_s: float


def measure(way: Way, trials: int, duration_s: float) -> Measured:
    """Run a way once and read what its trials noted."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "trials.jsonl"
        environment = os.environ | {"BENCH_LOG": str(log), "OMP_NUM_THREADS": "1"}
        started_s = time.time()
        done = subprocess.run(
            [sys.executable, str(HERE / "ways" / f"{way.program}.py"), str(trials), str(duration_s), str(way.slots)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        wall_s = time.time() - started_s
        if done.returncode:
            raise SystemExit(f"{way.name} failed:\n{done.stderr[-3000:]}")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    if len(lines) != trials:
        raise SystemExit(f"{way.name} ran {len(lines)} of {trials} trials")
    first, last = min(line["started_s"] for line in lines), max(line["ended_s"] for line in lines)
    busy_s = sum(line["ended_s"] - line["started_s"] for line in lines)
    slot_s = (last - first) * way.slots
    return Measured(overhead_s=(slot_s - busy_s) / trials, use=busy_s / slot_s, wall_s=wall_s)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help="one program of ways/")
    parser.add_argument("--dry", action="store_true", help="each way once with three trials; nothing is written")
    options = parser.parse_args()
    repeats = 1 if options.dry else options.repeats
    rows, base = [], 0.0
    for way in (way for way in WAYS if options.only in {None, way.program}):
        trials = DRY_TRIALS if options.dry else way.trials
        empty = [measure(way, trials, 0.0) for _ in range(repeats)]
        long = measure(way, *((DRY_TRIALS, 0.1) if options.dry else (LONG_TRIALS, LONG_S)))
        overheads = [1000 * run.overhead_s for run in empty]
        middle = statistics.median(overheads)
        base = base or middle
        walls = statistics.median(run.wall_s for run in empty)
        spread = f"{middle:.0f} ({min(overheads):.0f}-{max(overheads):.0f})"
        rows.append(
            (way.name, way.slots, trials, spread, f"{middle / base:.1f}", f"{100 * long.use:.1f}", f"{walls:.1f}")
        )
        print(" | ".join(map(str, rows[-1])), flush=True)
    text = render(rows, repeats)
    print(text)
    if options.only is None and not options.dry:
        (HERE / "orchestrator.md").write_text(text)


def render(rows: list[tuple[object, ...]], repeats: int) -> str:
    """The table in Markdown, with how it was made."""
    head = (
        "way",
        "slots",
        "empty trials",
        "overhead a trial, ms: median (range)",
        "over stnbench",
        "slot use, %",
        "wall, s",
    )
    lines = [
        "# Overhead of running many trials",
        "",
        f"`make bench-orchestrator` on {os.cpu_count()} cores, {platform.platform()},",
        f"Python {platform.python_version()}:",
        f"{repeats} runs of empty trials a way, one run of {LONG_TRIALS} trials of {LONG_S:g} s for the slot use.",
        "",
        "The overhead is the slots' time from the start of the first trial to the end of the last, less the trials'",
        "own, divided by the trials. Start-up is not in it but in the wall time, which for stnbench ends when MLflow",
        "shows everything.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
