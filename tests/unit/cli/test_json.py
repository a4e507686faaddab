"""``--json`` on commands that print text otherwise: one object, and nothing else on standard output."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stnbench.cli import completion, control, data, list_sweeps, new, store
from stnbench.core.files import RunsLayout
from stnbench.spec.sweep import SweepSpec
from stnbench.store.store import Store


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with an empty sweep in its store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STNBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("STNBENCH_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def kept(folder: Path) -> RunsLayout:
    """A store with a sweep without trials."""
    layout = RunsLayout.from_environment()
    layout.root.mkdir()
    with Store.open(layout.store, writable=True) as opened:
        opened.save_sweep(SweepSpec(name="mine", question="?"), (), datetime(2026, 11, 1, tzinfo=UTC))
    return layout


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    """What was printed, as one object."""
    return json.loads(capsys.readouterr().out)


def test_new_tells_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    """Their paths, and the command to go on with."""
    assert new.main(["network", "mine", "--json"]) == 0
    found = said(capsys)

    assert found["files"] == ["parts/mine.py", "parts/test_mine.py", "conf/network/mine.yaml"]
    assert all(Path(path).exists() for path in found["files"])
    assert found["next"] == "STNBENCH_PARTS=parts stnbench check-part mine"


def test_data_tells_its_halves(capsys: pytest.CaptureFixture[str]) -> None:
    """Counts and digest of each, of prepare as of check."""
    for command in ("prepare", "check"):
        assert data.main([command, "digits", "--image-size", "8", "--json"]) == 0
        found = said(capsys)

        assert found["dataset"] == "digits"
        assert (found["train"]["images"], found["test"]["images"]) == (1438, 359)
        assert len(found["train"]["digest"]) == 16


def test_store_tells_what_it_did(kept: RunsLayout, capsys: pytest.CaptureFixture[str]) -> None:
    """A backup, an archive and its import."""
    assert store.main(["backup", "--json"]) == 0
    assert Path(said(capsys)["backup"]).exists()
    assert store.main(["export", "mine", "mine.stnb", "--json"]) == 0
    assert said(capsys) == {"archive": str(Path("mine.stnb").resolve()), "trials": 0, "files": 0}
    assert store.main(["import", "mine.stnb", "--json"]) == 0
    assert said(capsys) == {
        "runs": str(kept.root), "new": 0, "replaced": 0, "known": 0, "reproduced": 0, "differ": []
    }  # fmt: skip
    assert store.main(["metrics", "--json"]) == 0
    assert said(capsys) == {"written": 0, "complete": 0, "without": 0}


def test_control_and_list_tell_sweeps(kept: RunsLayout, capsys: pytest.CaptureFixture[str]) -> None:
    """What was asked of a sweep, and the names there are."""
    assert control.main(["mine", "list", "--json"]) == 0
    assert said(capsys) == {"sweep": "mine", "controls": []}
    assert control.main(["mine", "pause", "--json"]) == 0
    assert said(capsys)["state"] == "waiting"
    assert list_sweeps.main(["--names", "--json"]) == 0
    assert {"mine", "locnet_sizes"} <= set(said(capsys)["names"])


@pytest.mark.slow
def test_completion_is_an_object_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    """The script is one of its values."""
    assert completion.main(["bash", "--json"]) == 0
    found = said(capsys)

    assert found["shell"] == "bash"
    assert "complete -o" in found["script"]
