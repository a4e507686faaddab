"""Ray Tune on a cluster of its own with one CPU a slot."""

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import ray
from ray import tune

from ways.trial import run


def trainable(config: dict[str, float]) -> dict[str, float]:
    """One trial; torch is imported as every training program does."""
    import torch  # noqa: F401

    return {"accuracy": run(config["duration_s"])}


def main(trials: int, duration_s: float, slots: int) -> None:
    """Fit."""
    search = str(Path(__file__).parents[1])
    ray.init(
        num_cpus=slots,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"BENCH_LOG": os.environ["BENCH_LOG"], "PYTHONPATH": search}},
    )
    space = {"duration_s": duration_s, "rate": tune.loguniform(1e-3, 1e-1)}
    folder = tempfile.mkdtemp(prefix="bench-ray-")
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(num_samples=trials),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    )
    tuner.fit()
    ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
