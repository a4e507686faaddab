"""The recipes of others, and backbones, train."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

SMALL = ("dataset=digits", "split=tracks", "scale=smoke", "augment=none")


@pytest.mark.parametrize(
    "chosen",
    [
        ("experiment=arcos_garcia", *SMALL),
        ("experiment=poojahira", *SMALL),
        ("network=timm", "network.name=resnet10t", "locnet@locnet1=conv", "locnet1.sizes=[40,40,40]", *SMALL),
    ],
    ids=["arcos_garcia", "poojahira", "timm"],
)
def test_its_first_epochs_are_trained(chosen: tuple[str, ...], tmp_path: Path) -> None:
    """Two epochs at the size of a smoke test, through the command that a user types."""
    done = subprocess.run(
        [sys.executable, "-m", "stnbench.train", *chosen, "--json"],
        cwd=tmp_path,
        env=os.environ | {"STNBENCH_RUNS": str(tmp_path / "runs"), "STNBENCH_DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found, done.stdout
