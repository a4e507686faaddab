"""The real worker, but for the training: four epochs are reported, a checkpoint and a result are written."""

import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch  # noqa: F401 - as the real one does

from stnbench.core.files import AttemptLayout
from stnbench.engines import worker
from stnbench.spec.result import Cost, Environment, EpochRecord, SplitScore, TrialResult
from stnbench.spec.trial import TrialSpec
from stnbench.trials.files import write_result, write_spec
from ways.trial import run

ENVIRONMENT = Environment(
    commit="0" * 40,
    dirty=False,
    python="3",
    platform="bench",
    host="bench",
    device="cpu",
    threads=1,
    versions=(),
    dataset_digest="0" * 16,
)


def run_trial(spec: TrialSpec, *, token: str, folder: Path, **options: object) -> TrialResult:
    """As ``trials.run.run_trial``; the sleep stands for the training."""
    write_spec(folder, spec)
    accuracy = run((spec.training.train_images or 1) / 1000 - 0.001)
    records = tuple(
        EpochRecord(
            epoch=epoch,
            step=epoch,
            train_loss=1.0,
            validation_loss=1.0,
            validation_accuracy=accuracy,
            learning_rate=0.01,
            train_duration_s=0.1,
            evaluate_duration_s=0.1,
        )
        for epoch in range(1, spec.training.epochs + 1)
    )
    for record in records:
        options["report"](record)  # type: ignore[operator]
    AttemptLayout(folder).checkpoint.write_bytes(b"0" * 100_000)
    score = SplitScore(split="validation", images=3870, correct=1935, loss=1.0, predictions=(0,) * 3870)
    result = TrialResult(
        trial_id=spec.trial_id,
        token=token,
        epochs=records,
        validation=score,
        test=None,
        cost=Cost(parameters=1, flops=1, activation_bytes=1),
        environment=ENVIRONMENT,
        train_duration_s=1.0,
        peak_memory_mib=1.0,
    )
    write_result(folder, result)
    return result


if __name__ == "__main__":
    stand_in = types.ModuleType("stnbench.trials.run")
    stand_in.run_trial = run_trial  # type: ignore[attr-defined]
    sys.modules["stnbench.trials.run"] = stand_in
    worker.main(sys.argv[1:])
