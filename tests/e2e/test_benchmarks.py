"""Every benchmark of the Makefile runs to its end, as small as it can be, and then writes no figures."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.timeout(660)]

ROOT = Path(__file__).parents[2]
TABLES = sorted((ROOT / "benchmarks").glob("*.md"))

SMALL = {
    "orchestrator.py": (("--dry",), "| Ray Tune | 2 | 3 |"),
    "store.py": (("--dry",), "| report, all sweeps |"),
    "training.py": (("--only", "small", "--repeats", "1"), "| lecun 38,64,100, locnet 50,50,50 |"),
    "statistical_methods.py": (("--draws", "20", "--only", "heavy tails"), "heavy tails"),
    "gpu.py": (("--dry", "facts"), "facts"),
}
"""How each is asked for little, and a part of what it prints at its end."""


def scripts() -> set[str]:
    """Return the scripts that ``make bench-*`` runs."""
    return set(re.findall(r"^bench-[a-z]+:.*\n.* benchmarks/(\w+\.py)", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_benchmark_of_the_makefile_is_tried() -> None:
    """One that is added is run here as well."""
    assert scripts() == set(SMALL)


@pytest.mark.parametrize("script", SMALL)
def test_a_small_benchmark_runs_to_its_end(script: str, tmp_path: Path) -> None:
    """It ends well, prints its table, and leaves the tables of the repository as they are."""
    arguments, printed = SMALL[script]
    if script == "statistical_methods.py":
        arguments = (*arguments, "--out", str(tmp_path / "statistics.md"))
    before = [table.read_bytes() for table in TABLES]
    environment = os.environ | {
        "STNBENCH_RUNS": str(tmp_path / "runs"),
        "STNBENCH_DATA": str(tmp_path / "data"),
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert printed in done.stdout
    assert [table.read_bytes() for table in TABLES] == before
