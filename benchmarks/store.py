"""How long one waits for what only reads: a large plan, and status and report of a store of 10,000 trials.

``make bench-store`` makes a store, prints the table and writes ``benchmarks/store.md``. Every number is of a whole
command, its imports included.
"""

import argparse
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from stnbench.spec.result import (
    AttemptState,
    Cost,
    Environment,
    EpochRecord,
    Failure,
    FailureKind,
    ScoredImages,
    SplitScore,
    TransformerHealth,
    TrialResult,
    TrialState,
    Verdict,
)
from stnbench.spec.sweep import Axis, Choice, Override, Point, SweepSpec
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec
from stnbench.store.store import Store
from stnbench.store.tables import AttemptStart, PlannedTrial

HERE = Path(__file__).parent
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SWEEPS, SEEDS = 10, (1, 2, 3, 4)
FAMILIES = ("affine", "projective", "translation")
SIZES = range(10, 93)
"""Three families times 83 sizes and their baseline, with four seeds: 1,000 trials a sweep."""

IMAGES, CLASSES, EPOCHS = 1290, 43, 5
SCORED = ScoredImages(
    labels=tuple(image % CLASSES for image in range(IMAGES)),
    tracks=tuple(image // 30 for image in range(IMAGES)),
    rows=tuple(range(IMAGES)),
)
FAILED_EVERY = 250
"""One trial in so many has failed."""

ENVIRONMENT = Environment(
    commit="0" * 40,
    dirty=False,
    python=platform.python_version(),
    platform="benchmark",
    host="benchmark",
    device="cpu",
    threads=1,
    versions=(("torch", "0"),),
    dataset_digest="train 0, test 0",
)

PLANNED = """\
question: How long does a plan of a thousand cells take?
base:
  locnet@locnet1: conv
axes:
  transformer: [affine, projective, tps, rotation, scale_translation]
  locnet1.sizes:
"""
DYNAMO = "import torch, torch._dynamo"

PLANNED_SIZES = 200
"""Five families times so many sizes are a thousand configurations."""


def sweep_of(number: int) -> tuple[SweepSpec, list[PlannedTrial]]:
    """A sweep and its trials; each sweep has images of its own number."""
    axes = (
        Axis(name="transformer", choices=tuple(_choice("transformer", family) for family in FAMILIES)),
        Axis(name="size", choices=tuple(_choice("locnet1.sizes", size) for size in SIZES)),
    )
    spec = SweepSpec(name=f"sweep_{number}", question="Which is best?", axes=axes, seeds=SEEDS)
    training = TrainingSpec(train_images=10_000 + number, epochs=EPOCHS)
    return spec, [
        PlannedTrial(spec=replace(config.spec, training=training, seed=seed), point=config.point, label=config.label)
        if not config.is_baseline
        else replace(config, spec=replace(config.spec, training=training, seed=seed))
        for seed in SEEDS
        for config in _configs()
    ]


def fill(store: Store, *, sweeps: int = SWEEPS, limit: int | None = None) -> int:
    """Fill a store with sweeps of up to ``limit`` trials; return how many trials it has."""
    dice, trials = random.Random(1), 0
    for number in range(sweeps):
        sweep, planned = sweep_of(number)
        planned = planned[:limit]
        store.save_sweep(sweep, planned, NOW)
        for place, trial in enumerate(planned):
            token = f"{number}-{place}"
            _start(store, trial, token)
            if place % FAILED_EVERY:
                store.complete_attempt(token, _result(trial.spec, token, dice), NOW + timedelta(seconds=60))
            else:
                failure = Failure(kind=FailureKind.BUG, message="ValueError: no", traceback="Traceback\n" * 20)
                end = NOW + timedelta(seconds=5)
                store.end_attempt(token, AttemptState.FAILED, failure, end, trial_state=TrialState.FAILED)
        trials += len(planned)
    return trials


@dataclass(frozen=True, slots=True)
class Took:
    """How long a command took: by the clock, and on processors, which says more where others share the machine."""

    wall_s: float
    cpu_s: float


def run(command: list[str], folder: Path, codes: tuple[int, ...] = (0,)) -> Took:
    """Run a command of Python."""
    environment = os.environ | {"STNBENCH_RUNS": str(folder / "runs"), "OMP_NUM_THREADS": "1"}
    started_s, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    wall_s, after = time.perf_counter() - started_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in codes:
        raise SystemExit(f"{command} failed:\n{done.stderr[-3000:]}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(wall_s=wall_s, cpu_s=cpu_s)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="each command once, on a small store; nothing is written")
    options = parser.parse_args()
    repeats, planned_sizes = (1, 2) if options.dry else (options.repeats, PLANNED_SIZES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sweeps").mkdir()
        sizes = "".join(f"    - [{size}, {size}, {size}]\n" for size in range(20, 20 + planned_sizes))
        (folder / "sweeps" / "thousand.yaml").write_text(PLANNED + sizes)
        plan = ["-m", "stnbench.sweep", "thousand", "scale=paper", "--plan"]
        commands = {
            "import torch": (["-c", "import torch"], (0,)),
            "import torch, torch._dynamo: torch's own, for networks without memory": (["-c", DYNAMO], (0,)),
            "sweep thousand --plan, 1,000 cells, without a store": (plan, (0,)),
        }
        rows = [_row(name, *command, folder, repeats) for name, command in commands.items()]
        with Store.open(folder / "runs" / "stnbench.db", writable=True) as store:
            trials = fill(store, sweeps=1, limit=100) if options.dry else fill(store)
        size_mib = (folder / "runs" / "stnbench.db").stat().st_size / (1 << 20)
        some_failed = (0, 1)
        commands = {
            "sweep thousand --plan, beside this store": (plan, (0,)),
            "status": (["-m", "stnbench.status"], some_failed),
            "status --json": (["-m", "stnbench.status", "--json"], some_failed),
            "report sweep_0, a tenth of it": (["-m", "stnbench.report", "sweep_0"], some_failed),
            "report, all sweeps": (["-m", "stnbench.report"], some_failed),
        }
        rows += [_row(name, *command, folder, repeats) for name, command in commands.items()]
    text = render(rows, trials, size_mib, repeats)
    print(text)
    if not options.dry:
        (HERE / "store.md").write_text(text)


def render(rows: list[tuple[str, str, str]], trials: int, size_mib: float, repeats: int) -> str:
    """The table in Markdown, with how it was made."""
    lines = [
        "# What only reads",
        "",
        f"`make bench-store` on {os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()},",
        f"load average {os.getloadavg()[0]:.1f} at the end: {repeats} runs of each command, its imports included.",
        f"The store is a SQLite file of {size_mib:.0f} MiB: {trials:,} trials in {SWEEPS} sweeps, of {EPOCHS} epochs,",
        f"with the predictions of {IMAGES:,} images; one trial in {FAILED_EVERY} has failed.",
        "",
        "| command | by the clock, s: median (range) | on processors, s: median (range) |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    return "\n".join(lines)


def _row(name: str, command: list[str], codes: tuple[int, ...], folder: Path, repeats: int) -> tuple[str, str, str]:
    took = [run(command, folder, codes) for _ in range(repeats)]
    row = name, _told([one.wall_s for one in took]), _told([one.cpu_s for one in took])
    print(" | ".join(row), flush=True)
    return row


def _told(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _choice(key: str, value: str | int) -> Choice:
    return Choice(label=str(value), overrides=(Override(key=key, value=value),))


def _configs() -> Iterator[PlannedTrial]:
    """A baseline, and a configuration for every family and size, without their training."""
    yield PlannedTrial(spec=TrialSpec(), point=Point(labels=()), label="no ST", is_baseline=True)
    for family in FAMILIES:
        for size in SIZES:
            placed = PlacedTransformerSpec(
                place=1, transformer=TransformerSpec(family=family), locnet=ConvLocnetSpec(sizes=(size, size, size))
            )
            labels = (("transformer", family), ("size", str(size)))
            spec = TrialSpec(transformers=(placed,))
            yield PlannedTrial(spec=spec, point=Point(labels=labels), label=f"{family} · {size}")


def _start(store: Store, trial: PlannedTrial, token: str) -> None:
    store.start_attempt(
        AttemptStart(
            trial_id=trial.spec.trial_id,
            token=token,
            slot="cpu0",
            host="benchmark",
            pid=1,
            boot_id="benchmark",
            started_at=NOW,
        )
    )


def _result(spec: TrialSpec, token: str, dice: random.Random) -> TrialResult:
    share = dice.uniform(0.5, 0.95)
    predictions = tuple(label if dice.random() < share else (label + 1) % CLASSES for label in SCORED.labels)
    correct = sum(said == true for said, true in zip(predictions, SCORED.labels, strict=True))
    score = SplitScore(
        split="validation", images=IMAGES, correct=correct, loss=1 - share, predictions=predictions, scored=SCORED
    )
    epochs = tuple(
        _epoch(number, correct / IMAGES, is_moved=bool(spec.transformers)) for number in range(1, EPOCHS + 1)
    )
    return TrialResult(
        trial_id=spec.trial_id,
        token=token,
        epochs=epochs,
        validation=score,
        test=replace(score, split="test", scored=replace(SCORED, tracks=(), rows=())),
        cost=Cost(parameters=100_000, flops=10_000_000, activation_bytes=1_000_000),
        environment=ENVIRONMENT,
        train_duration_s=50.0,
        peak_memory_mib=300.0,
    )


def _epoch(number: int, accuracy: float, *, is_moved: bool) -> EpochRecord:
    health = TransformerHealth(
        place=1,
        theta_mean=(0.9, 0.0, 0.0, 0.0, 0.9, 0.0),
        theta_std=(0.1, 0.0, 0.05, 0.0, 0.1, 0.05),
        outside_share=0.01,
        identity_distance=0.2,
        determinant_mean=0.81,
        movement=0.1,
        movement_spread=0.05,
        verdict=Verdict.HEALTHY,
    )
    return EpochRecord(
        epoch=number,
        step=200 * number,
        train_loss=1.0 / number,
        validation_loss=1.2 / number,
        validation_accuracy=accuracy * number / EPOCHS,
        learning_rate=0.01,
        train_duration_s=10.0,
        evaluate_duration_s=1.0,
        health=(health,) if is_moved else (),
    )


if __name__ == "__main__":
    main()
