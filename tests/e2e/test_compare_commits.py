"""``make compare``: numbers that change between two commits are declared, or it fails."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from commands import patient

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "compare_commits.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("compare_commits", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_commits"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("changes", "before", "after", "code", "said"),
    [
        ({"a": [], "b": []}, 2, 2, 0, "all 2 trials are equal bit for bit"),
        ({"a": ["loss"], "b": []}, 2, 2, 1, "1 of 2 trials changed their numbers, and RESULTS_VERSION is still 2"),
        ({"a": ["loss"], "b": []}, 2, 3, 0, "RESULTS_VERSION 2 -> 3 declares"),
        ({"a": ["loss"]}, 3, 2, 1, "changed"),
        ({}, 2, 2, 2, "no trial could be compared"),
    ],
)
def test_a_change_of_numbers_is_declared_or_fails(
    script: ModuleType, changes: dict[str, list[str]], before: int, after: int, code: int, said: str
) -> None:
    """A lower version declares nothing, and no trials are no answer."""
    found, verdict = script.decide(changes, before, after)
    assert found == code
    assert said in verdict


def trained(script: ModuleType, loss: float, probability: bytes = b"1", **more: Any) -> Any:
    """A trial as a version leaves it."""
    result = {"trial_id": str(more), "token": "t", "epochs": [{"train_loss": loss, "train_duration_s": 1.0}], **more}
    return script.Trained(result=result, probabilities={"test": probability})


def test_trials_of_one_name_are_compared(script: ModuleType) -> None:
    """Losses and probabilities are; identities, keys that only one version records, and further trials are not."""
    before = {"same": trained(script, 1.0), "loss": trained(script, 1.0), "gone": trained(script, 1.0)}
    after = {"same": trained(script, 1.0, new=3), "loss": trained(script, 1.0 + 1e-9), "new": trained(script, 2.0)}
    assert script.compare_trials(before, after) == {
        "loss": ["epochs[1].train_loss 1 was 1 (+1e-09)"],
        "same": [],
    }
    other = {"same": trained(script, 1.0, b"2")}
    assert script.compare_trials(before, other) == {"same": ["test probabilities differ"]}


def test_another_codes_trials_are_not_taken_for_the_commits(script: ModuleType) -> None:
    """Where the path to the code is set wrongly, both versions would be the same one."""
    version = script.Version(name="main", tree=ROOT, results_version=2, commit="abc")
    script.require_own_code(version, {"a": trained(script, 1.0, environment={"commit": "abc"})})
    with pytest.raises(script.CannotTrainError, match="main was to train, and def did"):
        script.require_own_code(version, {"a": trained(script, 1.0, environment={"commit": "def"})})


@pytest.mark.parametrize("base", ["no-such-commit", "--help", "HEAD~100000"])
def test_without_history_a_line_says_that_nothing_was_compared(
    script: ModuleType, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a shallow clone; a name that looks like an option is none."""
    arguments = ["--", base] if base.startswith("-") else [base]
    assert script.main(arguments) == 0
    assert f"nothing was compared: git knows no commit {base} here" in capsys.readouterr().out


def test_without_git_a_line_says_that_nothing_was_compared(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As from an archive of the sources."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert script.main(["main"]) == 0
    assert "nothing was compared" in capsys.readouterr().out


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.timeout(patient(600))
def test_a_change_of_a_millionth_in_the_sampler_is_caught(tmp_path: Path) -> None:
    """Planted in a copy of the code: every trial with a transformer changes, the baseline does not."""
    if not (ROOT / ".git").exists():
        pytest.skip("the sources are no checkout of git")
    for part in ("src", "conf", "benchmarks", "sweeps", "reports/published"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    (sampler,) = (
        path for path in (tmp_path / "src").rglob("*.py") if "torch.ops.aten.grid_sampler_2d(" in path.read_text()
    )
    text = sampler.read_text()
    called = "_PADDINGS[padding], align_corners)\n    return sampled"
    assert text.count(called) == 1
    sampler.write_text(text.replace(called, f"{called} + 1e-6"))
    command = [sys.executable, "-P", str(SCRIPT), "HEAD", "--tree", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patient(500))

    assert done.returncode == 1, done.stdout + done.stderr
    assert "5 of 6 trials changed their numbers" in done.stdout
    assert "equal    baseline" in done.stdout
