"""What is measured and tested where a GPU is: it runs here as far as a CPU can, and the first minutes are in order."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def benchmark(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmark on the CPU."""
    environment = {**os.environ, "STNBENCH_RUNS": str(tmp_path / "runs"), "STNBENCH_DATA": str(tmp_path / "data")}
    environment["CUDA_VISIBLE_DEVICES"] = "-1"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *arguments]
    return subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=220, check=False
    )


@pytest.mark.thorough
def test_every_stage_of_the_benchmark_runs_dry(tmp_path: Path) -> None:
    """Each prints what it found, none fails, the tables are made of it, and no measurement of a CPU is written."""
    before = (ROOT / "benchmarks" / "gpu.md").exists()
    done = benchmark(tmp_path, "--dry")
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[str, object]] = {}
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    assert {"facts", "ceilings", "steps", "scoring", "others", "sharing", "rows", "recipes", "kernels"} <= found.keys()
    assert not [name for name, stage in found.items() if "failed" in stage]
    (row,) = found["steps"].values()
    assert [row[f"float32 {way}"]["ms"] for way in ("nchw loop", "nhwc loop", "nhwc loop padded")]  # type: ignore[index]
    assert found["scoring"].keys() == {"lecun 4,4,4, one view, loop", "lecun 4,4,4, two views, loop"}
    assert found["rows"]["1 a GPU"]["epochs"]  # type: ignore[index]
    assert "| lecun 4,4,4 | float32 nchw loop |" in done.stderr
    assert (ROOT / "benchmarks" / "gpu.md").exists() is before


@pytest.mark.thorough
def test_the_predicted_steps_are_those_of_the_code() -> None:
    """The table of single steps in docs/gpu.md is what the benchmark counts: FLOPs, bytes, kernels and parameters."""
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_predicted.py"), "--rows"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 8
    assert done.stdout.strip() in (ROOT / "docs" / "gpu.md").read_text()


def test_without_a_gpu_nothing_is_measured(tmp_path: Path) -> None:
    """The command says so, and how to see that it runs."""
    done = benchmark(tmp_path)
    assert done.returncode == 2
    assert "--dry" in done.stderr


@pytest.mark.thorough
def test_the_tests_that_need_a_gpu_are_collected_and_say_that_there_is_none() -> None:
    """As the first minutes start them, without this suite's tools; they are skipped, not passed, where no GPU is."""
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-o", "addopts=--import-mode=importlib"]
    command += ["-p", "no:cacheprovider", "-m", "cuda", "tests/cuda"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" in done.stdout
    assert "passed" not in done.stdout


def test_the_first_minutes_are_a_script_that_a_shell_can_read() -> None:
    """Its syntax is checked, and every file that it starts is there."""
    for name in ("gpu_first_minutes.sh", "gpu_wheels.sh"):
        script = ROOT / "benchmarks" / name
        subprocess.run(["bash", "-n", str(script)], check=True)
        assert os.access(script, os.X_OK)
    text = (ROOT / "benchmarks" / "gpu_first_minutes.sh").read_text()
    assert "benchmarks/gpu.py" in text
    assert "tests/cuda" in text


@pytest.mark.parametrize("build", ["cpu", "cu126", "cu130"])
def test_set_up_can_take_another_build_of_torch(build: str, tmp_path: Path) -> None:
    """The commands that it would run take torch and torchvision from that index, at the versions of the lock."""
    command = ["make", "-n", "setup", f"TORCH={build}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if "--index-url" in line)
    assert f"--index-url https://download.pytorch.org/whl/{build} torch torchvision" in line
    assert "--constraint requirements.lock" in line


def test_a_build_of_torch_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """Before anything is installed; without the variable nothing is said of an index."""
    command = ["make", "-n", "setup", f"VENV={tmp_path / 'venv'}"]
    wrong = subprocess.run([*command, "TORCH=cu12"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "use cpu, cu126 or cu130" in wrong.stderr
    usual = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "index-url" not in usual.stdout


def test_set_up_can_leave_out_the_tools_of_developers(tmp_path: Path) -> None:
    """They are half of a set-up without CUDA; a stamp of its own keeps the two apart."""
    command = ["make", "-n", "setup", f"VENV={tmp_path / 'venv'}"]
    usual, lean = (
        subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for more in ([], ["EXTRAS=", "TORCH=cpu"])
    )
    assert "--editable '.[dev]'" in usual
    assert "--editable '.'" in lean
    assert f"{tmp_path / 'venv'}/.stnbench-installed-cpu-lean" in lean
    assert f"touch {tmp_path / 'venv'}/.stnbench-installed\n" in usual + "\n"
