"""``python -m stnbench.mirror`` where MLflow is on a server."""

from pathlib import Path

import pytest

from stnbench import mirror
from stnbench.core.errors import SpecError


def test_a_server_is_not_served_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a server shows the runs, it is named instead, without its password."""
    monkeypatch.setenv("STNBENCH_RUNS", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host:5000")
    with pytest.raises(SpecError, match=r"served at https://me:\*\*\*@host:5000 already"):
        mirror.main(["--serve"])
    assert list(tmp_path.iterdir()) == []
