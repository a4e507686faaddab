"""``python -m stnbench.mirror`` where MLflow is on a server."""

from pathlib import Path

import pytest

from stnbench.cli import mirror
from stnbench.core.errors import SpecError, StnbenchError


def test_a_server_is_not_served_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a server shows the runs, it is named instead, without its password."""
    monkeypatch.setenv("STNBENCH_RUNS", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host:5000")
    with pytest.raises(SpecError, match=r"served at https://me:\*\*\*@host:5000 already"):
        mirror.main(["--serve"])
    assert list(tmp_path.iterdir()) == []


def test_where_there_is_no_store_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay in the wrong folder says so, and leaves it as it was."""
    monkeypatch.setenv("STNBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(StnbenchError):
        mirror.main([])
    assert list(tmp_path.iterdir()) == []


def test_the_pages_for_training_are_the_ones_that_are_named() -> None:
    """MLflow's own first page is for prompts and agents."""
    assert mirror.address(5001) == "http://127.0.0.1:5001/#/experiments?workflowType=machine_learning"
