"""Hydra's own multirun with its basic launcher: one process, one trial after the other, a folder each."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import hydra
import torch  # noqa: F401 - as every training program does
from omegaconf import DictConfig

from ways.trial import run


@hydra.main(version_base="1.3", config_path=None)
def app(config: DictConfig) -> float:
    """One trial."""
    return run(float(config.duration_s))


if __name__ == "__main__":
    trials, duration_s = int(sys.argv[1]), float(sys.argv[2])
    numbers = ",".join(map(str, range(trials)))
    folder = tempfile.mkdtemp(prefix="bench-hydra-")
    sys.argv = [sys.argv[0], "-m", f"+trial={numbers}", f"+duration_s={duration_s}", f"hydra.sweep.dir={folder}"]
    app()
