"""Trials without training, for tests of everything above: what one does is its number of epochs and its seed's task."""

import sys
import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path

from stnbench.core.files import AttemptLayout
from stnbench.core.identity import derive_seed
from stnbench.spec.data import Split
from stnbench.spec.result import Cost, Environment, EpochRecord, SplitScore, TrialResult
from stnbench.spec.trial import TrainingSpec, TrialSpec
from stnbench.trials.files import write_result, write_spec

IMAGES = 1000


class Task(IntEnum):
    """What a fake trial does; its batch size says which."""

    FINISH = 101
    FAIL = 102
    WAIT = 103
    DIE = 104
    DIE_AFTER_RESULT = 105
    GARBLE_RESULT = 106
    TALK_NONSENSE = 107
    OUT_OF_MEMORY = 108
    SLEEP = 109
    SLOW_EPOCHS = 110
    DROP_PIPES = 111
    LAST_WORDS = 120
    HANG = 121
    SPOIL_DEVICE = 112


DURATIONS_S = {Task.WAIT: 60.0, Task.SLEEP: 0.2, Task.DROP_PIPES: 60.0}
"""How long tasks take that take any time."""


def fake_spec(task: Task, *, seed: int = 1, epochs: int = 2, config: int = 0) -> TrialSpec:
    """A trial that does this; ``config`` makes different configurations of the same task."""
    training = TrainingSpec(epochs=epochs, batch_size=int(task), train_images=10_000 + config)
    return TrialSpec(training=training, seed=seed)


def fake_accuracy(spec: TrialSpec) -> float:
    """The accuracy a fake trial reaches: decided by its specification, between 0.5 and 1."""
    return 0.5 + derive_seed(spec.seed, spec.config_id) % 500 / 1000


def fake_result(spec: TrialSpec, token: str) -> TrialResult:
    """The result of a fake trial, without predictions of note."""
    records = tuple(_epoch(spec, number) for number in range(1, spec.training.epochs + 1))
    return TrialResult(
        trial_id=spec.trial_id,
        token=token,
        epochs=records,
        validation=_score(spec, "validation"),
        test=_score(spec, "test"),
        cost=Cost(parameters=1000, flops=2_000_000, activation_bytes=4000),
        environment=Environment(
            commit="0" * 40,
            dirty=False,
            python="3.11.0",
            platform="test",
            host="test",
            device="cpu",
            threads=1,
            versions=(("torch", "0"),),
            dataset_digest="train fake1, test fake2",
        ),
        train_duration_s=0.5,
        peak_memory_mib=10.0,
    )


def run_fake_trial(
    spec: TrialSpec,
    *,
    token: str,
    folder: Path,
    data_root: Path,
    device: str,
    threads: int,
    report: Callable[[EpochRecord], None],
    should_stop: Callable[[], bool],
    resume_from: Sequence[Path] = (),
    micro_batches: int = 1,
    warn: Callable[[str], None] = lambda _: None,
    source: Path | None = None,
    energy: object = None,
) -> TrialResult | None:
    """As ``trials.run.run_trial``, but nothing is trained."""
    del data_root, device, threads, resume_from, micro_batches, warn, source, energy
    task = Task(spec.training.batch_size)
    write_spec(folder, spec)
    _misbehave(task, token)
    _hang(task, folder, should_stop)
    if not _wait(DURATIONS_S.get(task, 0.0), should_stop):
        return None
    for number in range(1, spec.training.epochs + 1):
        report(_epoch(spec, number))
        if task is Task.SLOW_EPOCHS and not _wait(0.2, should_stop):
            return None
    AttemptLayout(folder).checkpoint.write_bytes(b"weights")
    result = fake_result(spec, token)
    write_result(folder, result)
    if task is Task.GARBLE_RESULT:
        (folder / "result.json").write_text("{")
    if task is Task.DIE_AFTER_RESULT:
        kill_self()
    return result


def _misbehave(task: Task, token: str) -> None:
    if task is Task.LAST_WORDS:
        print(f"the last words of {token}", file=sys.stderr, flush=True)
        kill_self()
    if task is Task.FAIL:
        raise ZeroDivisionError("a fake trial fails")
    if task is Task.SPOIL_DEVICE:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    if task is Task.OUT_OF_MEMORY:
        raise MemoryError("a fake trial is too large")
    if task is Task.DIE:
        kill_self()


def _hang(task: Task, folder: Path, should_stop: Callable[[], bool]) -> None:
    """After some steps nothing happens any more, unless the folder beside the attempt's says that it is mended."""
    if task is Task.HANG and not (folder.parent / "mended").exists():
        for _ in range(40):
            should_stop()
        time.sleep(3600)


def _wait(duration_s: float, should_stop: Callable[[], bool]) -> bool:
    """Let time pass; whether it passed without being stopped."""
    deadline = time.monotonic() + duration_s
    while time.monotonic() < deadline:
        if should_stop():
            return False
        time.sleep(0.01)
    return True


def kill_self() -> None:
    """Die as the kernel's out-of-memory killer lets processes die: at once, without a word."""
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def _epoch(spec: TrialSpec, number: int) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        step=10 * number,
        train_loss=1.0 / number,
        validation_loss=1.5 / number,
        validation_accuracy=fake_accuracy(spec) * number / spec.training.epochs,
        learning_rate=0.01,
        train_duration_s=0.1,
        evaluate_duration_s=0.05,
    )


def _score(spec: TrialSpec, split: Split) -> SplitScore:
    correct = round(IMAGES * fake_accuracy(spec))
    return SplitScore(split=split, images=IMAGES, correct=correct, loss=0.5, predictions=(0,) * IMAGES)
