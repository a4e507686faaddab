"""``make bench-statistics``: what it measures for many draws at once is what ``stnbench.compare`` says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "statistical_methods.py"


def test_draws_at_once_are_decided_as_one_by_one(tmp_path: Path) -> None:
    """In 20 sweeps of 23 configurations no verdict and no gain differs, and every method has a row."""
    out = tmp_path / "statistics.md"
    command = [sys.executable, str(SCRIPT), "--draws", "20", "--only", "heavy tails", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    rows = re.findall(r"^\| ([^|]+) \|(.*)\|$", out.read_text(), flags=re.MULTILINE)
    found = {name: cells.split("|") for name, cells in rows}
    assert {"ours", "oracle", "Tukey", "Bayesian signed-rank", "Dunnett"} <= found.keys()
    assert found["ours"][-1].strip() == "900, 0"
