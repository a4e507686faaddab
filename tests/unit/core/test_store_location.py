"""Where the store is: in the runs folder, or on a server."""

from pathlib import Path

import pytest

from stnbench.core.errors import StoreError
from stnbench.core.files import RunsLayout


def test_the_store_lies_in_the_runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word about it, and with an empty one, the store is a file there."""
    monkeypatch.setenv("STNBENCH_RUNS", str(tmp_path))
    monkeypatch.delenv("STNBENCH_STORE", raising=False)
    assert RunsLayout.from_environment() == RunsLayout(tmp_path)
    monkeypatch.setenv("STNBENCH_STORE", "")
    assert RunsLayout.from_environment().store == tmp_path / "stnbench.db"


def test_a_url_replaces_the_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of attempts and logs stay where they are, and the password is not in what is printed of the layout."""
    monkeypatch.setenv("STNBENCH_RUNS", str(tmp_path))
    monkeypatch.setenv("STNBENCH_STORE", "postgresql://me:secret@host/db")
    layout = RunsLayout.from_environment()
    assert layout.store == "postgresql://me:secret@host/db"
    assert layout.logs == RunsLayout(tmp_path).logs
    assert "secret" not in repr(layout)


@pytest.mark.parametrize("value", ["sqlite:////other/place.db", "mysql://me:secret@host/db", "me:secret@host/db"])
def test_nothing_else_is_taken_for_a_server(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A file moves with its runs folder, whose lock protects it; the message says so, without a password."""
    monkeypatch.setenv("STNBENCH_STORE", value)
    with pytest.raises(StoreError, match=r"STNBENCH_STORE .*postgresql://.*STNBENCH_RUNS") as caught:
        RunsLayout.from_environment()
    assert "secret" not in str(caught.value)
